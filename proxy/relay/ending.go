package relay

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// Close ends the session on behalf of the edge. The client gets its Close between two
// messages; what it sends until it answers still reaches the backend, which then gets
// its own Close. A session that is ending already is left to end as it does.
func (r *Relay) Close(e Ending, now time.Duration, toClient, toBackend *Buffers) {
	if r.Closing() {
		return
	}
	r.end = Verdict{Cause: EdgeClosed, Code: e.Client, Reason: e.Reason}
	r.out[Backend].pending = pending{afterPeer, e.Backend, e.Reason}
	r.out[Client].pending = pending{betweenMessage, e.Client, e.Reason}
	r.release(Client, now, toClient)
	r.release(Backend, now, toBackend)
	r.settle(now)
}

// violation ends the session because a side broke a rule: that side is told its code,
// the other one that the session is over.
func (r *Relay) violation(from Side, err error, now time.Duration, out, back *Buffers) error {
	v := asViolation(err)
	r.in[from].broken = true
	r.in[from].left = 0
	codes := [numSides]ws.StatusCode{Client: v.Code, Backend: ws.StatusGoingAway}
	cause, reason := ClientViolation, [numSides]string{Client: v.Text}
	if from == Backend {
		codes = [numSides]ws.StatusCode{Client: ws.StatusInternalServerError, Backend: v.Code}
		cause, reason = BackendViolation, [numSides]string{Backend: v.Text}
	}
	if !r.Closing() {
		r.end = Verdict{Cause: cause, Code: codes[Client], Reason: reason[Client], Err: v}
	}
	for _, side := range []Side{from, peer(from)} {
		buf := out
		if side == from {
			buf = back
		}
		if !r.out[side].closeSent {
			r.out[side].pending = pending{betweenFrames, codes[side], reason[side]}
			r.release(side, now, buf)
		}
	}
	r.settle(now)
	return v
}

// End says that a side's stream has ended, cleanly or not: nothing more will come from
// it. Called again it does nothing.
func (r *Relay) End(from Side, now time.Duration, out, back *Buffers) {
	in, to := &r.in[from], peer(from)
	if in.ended {
		return
	}
	in.ended = true
	if !r.Closing() {
		r.end = Verdict{Cause: ClientGone, Code: ws.StatusAbnormalClosure}
		if from == Backend {
			r.end = Verdict{Cause: BackendGone, Code: StatusServiceRestart, Reason: "backend went away"}
		}
	}
	if !in.closed && !in.broken && from == Backend && !r.out[to].closeSent && r.out[to].pending.when == never {
		r.out[to].pending = r.farewell()
	}
	r.release(to, now, out)
	if in.left > 0 && !in.drop && !r.out[to].closeSent && r.out[to].pending.when != never {
		// The peer holds part of a frame that will never be whole: no Close fits.
		r.out[to].pending = pending{}
		if from == Backend && r.end.Cause == BackendGone {
			r.end.Code, r.end.Reason = ws.StatusAbnormalClosure, ""
		}
	}
	r.settle(now)
}

// farewell is the Close for a client whose backend ended without one: the answer to the
// client's own Close if there was one, else 1012.
func (r *Relay) farewell() pending {
	if in := &r.in[Client]; in.closed {
		return pending{when: betweenFrames, code: in.code}
	}
	return pending{betweenFrames, StatusServiceRestart, "backend went away"}
}

// release sends the pending Close of a side if its moment has come.
func (r *Relay) release(to Side, now time.Duration, buf *Buffers) {
	o, in := &r.out[to], &r.in[peer(to)]
	if o.pending.when == never || o.closeSent || o.shut {
		return
	}
	between := in.left == 0
	switch o.pending.when {
	case betweenFrames:
	case betweenMessage:
		between = between && (!in.dec.Fragmented() || in.broken || in.ended || in.closed)
	case afterPeer:
		between = between && (in.closed || in.broken || in.ended)
	}
	if !between {
		return
	}
	buf.addCopy(frame.AppendClose(nil, o.pending.code, o.pending.reason, to != Client))
	o.closeSent, o.ours, o.pending = true, true, pending{}
	o.deadline = 0
	r.settle(now)
}

// settle decides which sides get nothing more and gives each side that has something to
// do for the end the time to do it.
func (r *Relay) settle(now time.Duration) {
	for _, s := range []Side{Client, Backend} {
		o, in, other := &r.out[s], &r.in[s], &r.in[peer(s)]
		answered := o.closeSent && in.closed
		if !o.shut {
			switch {
			case answered:
				// The server of a connection ends it first (RFC 6455 §7.1.1).
				o.shut = s == Client || in.ended
			case o.closeSent && in.broken, in.ended && !in.closed:
				o.shut = true
			case other.ended && !o.closeSent && o.pending.when == never:
				o.shut = true
			}
			if o.shut {
				o.deadline = 0
			}
		}
		if r.opt.CloseTimeout > 0 && o.deadline == 0 && (o.shut || o.closeSent || o.pending.when != never && o.pending.when != afterPeer) {
			o.deadline = now + r.opt.CloseTimeout
		}
	}
}

// Deadline returns when Tick is due, or 0 if it is not.
func (r *Relay) Deadline() time.Duration {
	var d time.Duration
	for _, s := range []Side{Client, Backend} {
		if t := r.out[s].deadline; t > 0 && !r.in[s].ended && (d == 0 || t < d) {
			d = t
		}
	}
	return d
}

// Progress says that bytes have just been written to a side. While they move, a side
// that is closing is not given up.
func (r *Relay) Progress(to Side, now time.Duration) {
	if o := &r.out[to]; o.deadline > 0 {
		o.deadline = now + r.opt.CloseTimeout
	}
}

// Action tells the engine which connections to give up at once.
type Action struct {
	// Abort is true for each side whose connection is to be closed as it stands.
	Abort [numSides]bool
}

// Tick acts on deadlines that have passed: a Close that waited for the end of a message
// goes out between two frames, and a side that did not finish is given up, as if its
// stream had ended.
func (r *Relay) Tick(now time.Duration, toClient, toBackend *Buffers) (a Action) {
	bufs := [numSides]*Buffers{Client: toClient, Backend: toBackend}
	for _, s := range []Side{Client, Backend} {
		o := &r.out[s]
		if r.in[s].ended || o.deadline == 0 || now < o.deadline {
			continue
		}
		if o.pending.when == betweenMessage {
			o.pending.when = betweenFrames
			if r.release(s, now, bufs[s]); o.closeSent {
				continue
			}
		}
		o.pending = pending{}
		a.Abort[s] = true
		r.End(s, now, bufs[peer(s)], bufs[s])
	}
	return a
}
