package relay

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// forever is a time that does not come.
const forever = time.Duration(1<<63 - 1)

// feedMovable is Feed in a session that can change its backend.
func (r *Relay) feedMovable(from Side, p []byte, now time.Duration, out, back *Buffers) (n int, err error) {
	if m := r.moving(); m != nil {
		return r.feedMoving(m, from, p, now, out, back)
	}
	n, err = r.feed(from, p, now, out, back)
	if from == Backend {
		r.answerClose(back)
	}
	return n, err
}

// feed is Feed as in a session that has one backend.
func (r *Relay) feed(from Side, p []byte, now time.Duration, out, back *Buffers) (n int, err error) {
	proof := r.pol.proof
	proof.feeding = true
	n, err = r.Feed(from, p, now, out, back)
	proof.feeding = false
	return n, err
}

// feedMoving is Feed while the session changes its backend.
func (r *Relay) feedMoving(m *move, from Side, p []byte, now time.Duration, out, back *Buffers) (n int, err error) {
	toClient, toBackend := back, out
	if from == Backend {
		toClient, toBackend = out, back
	}
	m.old = toBackend
	if from == Client && m.full(r.opt.Migrate) {
		r.in[Client].stopped = true
		return 0, nil
	}
	said := r.in[Backend].count
	if m.holding() {
		toBackend = &m.to
	}
	if from == Client {
		n, err = r.feed(from, p, now, toBackend, toClient)
	} else {
		n, err = r.feed(from, p, now, toClient, toBackend)
	}
	if m.phase == settling {
		if heard := r.in[Backend].count; heard.Bytes != said.Bytes || heard.Messages != said.Messages {
			m.quiet = now + r.opt.Migrate.Settle
		}
		r.wakeBy(r.moveDue(m))
	}
	r.answerPing(m, toClient)
	r.answerClose(m.old)
	r.review(now)
	return n, err
}

// full reports whether nothing more of the client is kept.
func (m *move) full(opt *MoveOptions) bool { return m.holding() && len(m.held) >= opt.MaxBuffered }

// toBackend returns where bytes for the backend go that a call hands out to buf: to what is
// kept, while a session changes its backend.
func (r *Relay) toBackend(buf *Buffers) *Buffers {
	m := r.moving()
	if m == nil {
		return buf
	}
	if m.old = buf; m.holding() {
		return &m.to
	}
	return buf
}

// review follows up on a call while the session changes its backend.
func (r *Relay) review(now time.Duration) {
	m := r.moving()
	if m == nil {
		return
	}
	m.keep()
	if r.ending == nil || m.phase == over {
		return
	}
	switch {
	case m.phase < leaving:
		// Nobody was told anything: the session ends with the backend that it has.
		r.cancel(m, moveEnded(r.ending.verdict.Cause))
	case m.phase == leaving && r.backendBetween():
		r.overBackend(m, now) // nobody waits for its last words
	}
	if m.phase == orphaned && r.in[Client].count.Messages == m.passed && now < m.deadline {
		m.deadline, r.rearm = now, true // nothing is kept for another backend
	}
}

func moveEnded(c Cause) string {
	switch c.By() {
	case "client":
		return MoveClientClosed
	case "backend":
		return MoveBackendClosed
	}
	return MoveClosed
}

// tickMove acts on what has come due of a move.
func (r *Relay) tickMove(m *move, now time.Duration, bufs [numSides]*Buffers) (a Action) {
	m.old = bufs[Backend]
	late := now >= m.deadline
	switch {
	case m.phase == waits && late:
		r.cancel(m, MoveNoBoundary)
	case m.phase == asked && late:
		r.cancel(m, MoveNoPong)
	case m.phase == settling && r.backendBetween() && (late || now >= m.quiet):
		m.phase = settled
	case m.phase == settling && late:
		r.cancel(m, MoveUnfinished)
	case m.phase == leaving && late && r.backendBetween():
		r.overBackend(m, now)
	case m.phase == leaving && late:
		a.Abort[Backend] = true // its message was cut: the session ends with it
		r.cutShort(m)
	case m.phase == orphaned && late:
		result := MoveTimeout
		if r.ending != nil {
			result = moveEnded(r.ending.verdict.Cause)
		}
		r.giveUp(m, result, now, bufs[Client], bufs[Backend])
	}
	return a
}

// moveDue returns when tickMove has something to do.
func (r *Relay) moveDue(m *move) time.Duration {
	if r.ending != nil && m.phase < leaving {
		return 1 // Shed has left it to Tick to give it up
	}
	switch m.phase {
	case settling:
		if m.quiet < m.deadline && r.backendBetween() {
			return m.quiet
		}
	case settled, ready, over:
		return 0
	}
	return m.deadline
}

// controlMoving takes a Ping or Pong of the client while what it says is kept: the edge
// answers its Pings, and its Pongs are for the old backend.
func (r *Relay) controlMoving(m *move, h ws.Header, raw, payload []byte) {
	if h.OpCode == ws.OpPing {
		m.pong = append(make([]byte, 0, len(payload)), payload...)
		ws.Cipher(m.pong, h.Mask, 0)
		return
	}
	if m.phase < leaving {
		m.old.add(raw)
		m.old.add(payload)
	}
}

// answerPing answers the client's last Ping as soon as no frame is under way to it
// (RFC 6455 §5.5.3).
func (r *Relay) answerPing(m *move, toClient *Buffers) {
	if o := &r.out[Client]; m.pong != nil && r.in[Backend].betweenFrames() && !o.closeSent && !o.shut {
		toClient.addCopy(frame.Append(nil, ws.OpPong, m.pong, false))
		m.pong = nil
	}
}

// passedBy reports whether a data frame that begins goes nowhere: the rest of a message of
// which a lost backend has the beginning, or an answer to what was replayed.
func (r *Relay) passedBy(from Side, h ws.Header) bool {
	if from == Client {
		return r.pol.proof.skip && h.OpCode == ws.OpContinuation
	}
	return r.pol.opening != nil && r.pol.opening.discard > 0
}

// migratableEnd is frameEnd's part of a session that may change its backend.
func (r *Relay) migratableEnd(from Side, now time.Duration, out *Buffers) {
	in := &r.in[from]
	if whole := !in.dec.Fragmented(); whole && from == Client {
		r.pol.proof.skip = false
		if !r.inflating() {
			r.messageEnd(now, out)
		}
	} else if o := r.pol.opening; whole && o != nil && o.discard > 0 {
		o.discard--
	}
	if to := peer(from); r.out[to].owed {
		r.ping(to, r.beat(to), now, out)
	}
}

// inflatedEnd is the end of a message of the client that the edge has inflated in more than
// one turn.
func (r *Relay) inflatedEnd(now time.Duration, out *Buffers) {
	if r.opt.Migrate != nil {
		r.messageEnd(now, out)
	}
}

// messageEnd is the end of a message of the client on its way to the backend.
func (r *Relay) messageEnd(now time.Duration, out *Buffers) {
	if !r.in[Client].drop {
		r.recorded()
	}
	if r.moving() == nil {
		r.askAgain(now)
	} else {
		r.boundary(now, out)
	}
}
