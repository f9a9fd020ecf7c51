package relay

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// endBy begins the end of the session, if it has not begun: the first verdict counts.
func (r *Relay) endBy(v Verdict) *ending {
	if r.ending == nil {
		r.ending = &ending{verdict: v}
	}
	return r.ending
}

// Close ends the session on behalf of the edge. The client gets its Close between two
// messages; what it sends until it answers still reaches the backend, which then gets
// its own Close. A session that is ending already is left to end as it does.
func (r *Relay) Close(e Ending, now time.Duration, toClient, toBackend *Buffers) {
	if r.Closing() {
		return
	}
	r.close(e, now, toClient, toBackend)
	r.review(now)
}

// close is Close but for a move that it gives up, which review does.
func (r *Relay) close(e Ending, now time.Duration, toClient, toBackend *Buffers) {
	toBackend = r.toBackend(toBackend)
	r.endBy(Verdict{Cause: EdgeClosed, Code: e.Client, Reason: e.Reason, Why: e.Why}).pending = [numSides]pending{
		Client:  {betweenMessage, e.Client, e.Reason},
		Backend: {afterPeer, e.Backend, e.Reason},
	}
	r.release(Client, now, toClient)
	r.release(Backend, now, toBackend)
	r.settle(now)
}

// violation ends the session because a side broke a rule: that side is told its code,
// the other one that the session is over.
func (r *Relay) violation(from Side, err error, now time.Duration, out, back *Buffers) error {
	v := asViolation(err)
	in := &r.in[from]
	cut := !in.betweenFrames() // the peer holds part of a frame that will never be whole
	in.broken, in.left, in.held, in.stopped = true, 0, nil, false
	if from == Client {
		r.endInflating()
	}
	codes := [numSides]ws.StatusCode{Client: v.Code, Backend: ws.StatusGoingAway}
	cause, reason := ClientViolation, [numSides]string{Client: v.Text}
	if from == Backend {
		codes = [numSides]ws.StatusCode{Client: ws.StatusInternalServerError, Backend: v.Code}
		cause, reason = BackendViolation, [numSides]string{Backend: v.Text}
	}
	if cut && from == Backend {
		codes[Client], reason[Client] = ws.StatusAbnormalClosure, ""
	}
	e := r.endBy(Verdict{Cause: cause, Code: codes[Client], Reason: reason[Client], Why: v.Kind, Err: v})
	for _, side := range []Side{from, peer(from)} {
		buf := out
		if side == from {
			buf = back
		}
		if cut && side != from {
			r.out[side].shut = true // no Close fits
			e.pending[side] = pending{}
			continue
		}
		if !r.out[side].closeSent {
			e.pending[side] = pending{betweenFrames, codes[side], reason[side]}
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
	if from == Client {
		out = r.toBackend(out)
	} else if r.toBackend(back); r.ends(now) {
		return
	}
	defer r.review(now)
	if from == Client {
		r.dropCollected()
	}
	e := r.endBy(goneVerdict(from, WhyGone))
	if !in.closed && !in.broken && from == Backend && !r.out[to].closeSent && e.pending[to].when == never {
		e.pending[to] = r.farewell()
	}
	r.release(to, now, out)
	if !in.betweenFrames() && !r.out[to].closeSent && e.pending[to].when != never {
		// The peer holds part of a frame that will never be whole: no Close fits.
		e.pending[to] = pending{}
		if from == Backend && e.verdict.Cause == BackendGone {
			e.verdict.Code, e.verdict.Reason = ws.StatusAbnormalClosure, ""
		}
	}
	r.settle(now)
}

func goneVerdict(side Side, why string) Verdict {
	if side == Backend {
		return Verdict{Cause: BackendGone, Code: StatusServiceRestart, Reason: "backend went away", Why: why}
	}
	return Verdict{Cause: ClientGone, Code: ws.StatusAbnormalClosure, Why: why}
}

// Lost says why the engine is about to give a side up. Its End follows.
func (r *Relay) Lost(side Side, why string, now time.Duration) {
	if v := goneVerdict(side, why); side == Client || !r.fail(v, now) {
		r.endBy(v)
	}
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
	if r.ending == nil {
		return
	}
	o, in, next := &r.out[to], &r.in[peer(to)], &r.ending.pending[to]
	if next.when == never || o.closeSent || o.shut {
		return
	}
	between := in.betweenFrames()
	whole := (in.left == 0 || in.drop) && (to != Backend || !r.inflating())
	switch next.when {
	case betweenFrames:
	case betweenMessage:
		between = between && whole && (!in.dec.Fragmented() || in.broken || in.ended || in.closed)
	case afterPeer:
		between = between && whole && (in.closed || in.broken || in.ended)
	}
	if !between {
		return
	}
	buf.addCopy(frame.AppendClose(nil, next.code, next.reason, to != Client))
	o.closeSent, o.ours, *next = true, true, pending{}
	r.ending.deadline[to] = 0
	r.settle(now)
}

// settle decides which sides get nothing more and gives each side that has something to
// do for the end the time to do it. The session is ending.
func (r *Relay) settle(now time.Duration) {
	e := r.ending
	for _, s := range []Side{Client, Backend} {
		when := e.pending[s].when
		o, in, other := &r.out[s], &r.in[s], &r.in[peer(s)]
		answered := o.closeSent && in.closed
		over := other.ended && (s == Backend || r.moving() == nil) // or another backend comes
		if !o.shut {
			switch {
			case over && !o.closeSent && when == never:
				o.shut = true
			case s == Backend && r.leaves(): // how it ends says nothing about the next one
			case answered:
				// The server of a connection ends it first (RFC 6455 §7.1.1).
				o.shut = s == Client || in.ended
			case o.closeSent && in.broken, in.ended && !in.closed:
				o.shut = true
			}
			if o.shut {
				e.deadline[s] = 0
			}
		}
		if r.opt.CloseTimeout > 0 && e.deadline[s] == 0 && (o.shut || o.closeSent || when != never && when != afterPeer) {
			e.deadline[s] = now + r.opt.CloseTimeout
		}
	}
}

// Deadline returns when Tick is due, or 0 if it is not.
func (r *Relay) Deadline() time.Duration {
	if r.ending == nil {
		if r.pol == nil {
			return 0
		}
		return r.pol.wake
	}
	var d time.Duration
	if m := r.moving(); m != nil {
		d = r.moveDue(m)
	}
	for _, s := range []Side{Client, Backend} {
		if t := r.endDue(s); t > 0 && (d == 0 || t < d) {
			d = t
		}
	}
	return d
}

// endDue returns when a side is given up that does not finish in a session that is ending;
// 0: it is not. A backend that is left is the move's to give up.
func (r *Relay) endDue(s Side) time.Duration {
	if r.in[s].ended || s == Backend && r.leaves() {
		return 0
	}
	return r.ending.deadline[s]
}

// Progress says that bytes which had waited have just been written to a side, or arrived
// at its system. While they move, the side is not given up; but a message that goes on and on
// does not put off the Close that waits for its end.
func (r *Relay) Progress(to Side, now time.Duration) {
	if b := r.beat(to); b != nil {
		b.seen = now
	}
	if r.pol != nil && r.pol.clocks != nil && r.pol.clocks.began[peer(to)] > 0 {
		r.pol.clocks.began[peer(to)] = now // whose message it is was not read meanwhile
	}
	if e := r.ending; e != nil && e.deadline[to] > 0 && e.pending[to].when != betweenMessage {
		e.deadline[to] = now + r.opt.CloseTimeout
	}
}

// Action tells the engine what to do with connections.
type Action struct {
	// Abort is true for each side whose connection is to be closed as it stands.
	Abort [numSides]bool
	// Suspect is true for each side that has not answered a Ping in time. The engine
	// gives it up, see Lost, unless its system has taken bytes since it last looked.
	Suspect [numSides]bool
}

// Tick acts on what has come due. In a session that is open these are the policies that go
// by time. In one that is ending, a Close that waited for the end of a message goes out
// between two frames, and a side that did not finish is given up, as if its stream had
// ended. waiting says for which sides bytes wait that their sockets have not taken: then
// their peers are not read either.
func (r *Relay) Tick(now time.Duration, waiting [2]bool, toClient, toBackend *Buffers) (a Action) {
	bufs := [numSides]*Buffers{Client: toClient, Backend: toBackend}
	m := r.moving()
	if m != nil {
		a = r.tickMove(m, now, bufs)
		bufs[Backend] = r.toBackend(toBackend)
		defer r.review(now)
	}
	e := r.ending
	if e == nil {
		open := r.tickOpen(now, waiting, bufs)
		open.Abort[Backend] = open.Abort[Backend] || a.Abort[Backend]
		return open
	}
	for _, s := range []Side{Client, Backend} {
		if at := r.endDue(s); at == 0 || now < at {
			continue
		}
		if e.pending[s].when == betweenMessage {
			e.pending[s].when = betweenFrames
			if r.release(s, now, bufs[s]); r.out[s].closeSent {
				continue
			}
		}
		e.pending[s] = pending{}
		a.Abort[s] = true
		r.End(s, now, bufs[peer(s)], bufs[s])
	}
	return a
}
