package relay

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// MoveOptions say how sessions change their backend.
type MoveOptions struct {
	// MaxBuffered is how many bytes of the client are kept for the next backend, and one
	// read more; then the client is not read.
	MaxBuffered int
	// Settle is how long a backend that has read everything must have said nothing before
	// it is left.
	Settle time.Duration
	// Timeout bounds the wait for the end of the client's message, for the Pong and for
	// Settle together; and that for another backend when one is lost.
	Timeout time.Duration
	// CloseCodes are the codes of a backend's Close that do not end the session: the
	// client is kept for another backend. OnFailure says so of an end without a Close.
	CloseCodes []ws.StatusCode
	OnFailure  bool
	// ReplayMessages is how many messages of the client, the first ones, go to each next
	// backend once more, and DiscardReplies how many messages of its answers to them go
	// nowhere.
	ReplayMessages, DiscardReplies int
}

// MoveStep is what a session that changes its backend needs of its engine next.
type MoveStep uint8

const (
	// MoveNothing: there is nothing to do.
	MoveNothing MoveStep = iota
	// MoveAsks: the backend is lost and another one is needed, or [Relay.CancelMove]. It
	// is said once.
	MoveAsks
	// MoveLeaves: the backend can be left. The engine makes sure that the connection to
	// the next one is still there and calls [Relay.Leave], or else CancelMove.
	MoveLeaves
	// MoveSwitches: the old connection is over. The engine closes it, puts the next one in
	// its place and calls [Relay.Switch].
	MoveSwitches
	// MoveOver: the move was given up, as [Relay.MoveResult] says. The next connection, if
	// there is one, is not needed. It is said once.
	MoveOver
)

// Results of moves.
const (
	MoveDone          = "ok"
	MoveNoBoundary    = "no_boundary"    // the client's message did not end in time
	MoveNoPong        = "no_pong"        // the backend did not say in time that it has read everything
	MoveUnfinished    = "unfinished"     // the backend's own message did not end in time
	MoveClientClosed  = "client_closed"  // the client has ended the session meanwhile
	MoveBackendClosed = "backend_closed" // the old backend has
	MoveClosed        = "closed"         // the edge has
	MoveTimeout       = "timeout"        // no other backend in time
	MoveRefused       = "refused"        // another backend does not take the session
	MoveNextGone      = "next_gone"      // the next backend ended meanwhile
	MoveOpeningTooBig = "opening_too_big"
	MoveNotPossible   = "not_possible" // the session is ending, moves already, or is not to move
)

// phase is how far a move has come. What the client says is kept from asked on.
type phase uint8

const (
	waits    phase = iota // for the end of the client's message
	asked                 // a Ping went to the backend: it has not said that it has read everything
	settling              // it has; what it still says is waited for
	settled               // it may be left
	leaving               // it was told so, or takes nothing more; its last words are waited for
	orphaned              // it is gone, and no next one is there
	ready                 // it is gone, and the next one is there
	over                  // the move was given up, and the engine does not know yet
)

// move is a session's change from one backend to another.
type move struct {
	phase    phase
	next     bool          // a connection to the next backend is there
	told     bool          // MoveAsks was said
	deadline time.Duration // of the phase
	quiet    time.Duration // settling is over then, unless the backend says something
	result   string
	verdict  Verdict       // of the session if no other backend is found
	lost     bool          // the backend left of its own accord
	answer   ws.StatusCode // of the Close that it is owed; 0: none is
	cut      bool          // none fits: it has a part of a frame
	doubt    uint64        // messages of which nobody knows whether it has read them

	passed uint64   // messages of the client that the old backend was sent
	held   []byte   // what is for the next backend
	to     Buffers  // as held, of the present call
	old    *Buffers // to the old backend, of the present call
	pong   []byte   // answers the client's last Ping when a frame has ended; nil: nothing is owed
}

// holding reports whether what the client says is kept.
func (m *move) holding() bool { return m.phase >= asked && m.phase < over }

// moving returns the move that is under way, or nil.
func (r *Relay) moving() *move {
	if r.pol == nil {
		return nil
	}
	return r.pol.move
}

// Moving reports whether the session changes its backend.
func (r *Relay) Moving() bool { return r.moving() != nil }

// leaves reports whether the present backend gets nothing more, and another one what is for
// it.
func (r *Relay) leaves() bool {
	m := r.moving()
	return m != nil && m.phase >= leaving && m.phase < over
}

// MoveStep returns what there is to do for a move. An engine asks after each call while
// Moving reports true.
func (r *Relay) MoveStep() MoveStep {
	m := r.moving()
	switch {
	case m == nil:
		return MoveNothing
	case m.phase == orphaned && !m.told:
		m.told = true
		return MoveAsks
	case m.phase == settled:
		return MoveLeaves
	case m.phase == ready:
		return MoveSwitches
	case m.phase == over:
		r.pol.move, r.pol.result = nil, m.result
		r.plan()
		return MoveOver
	}
	return MoveNothing
}

// MoveResult returns how the last move that is over ended.
func (r *Relay) MoveResult() string {
	if r.pol == nil {
		return ""
	}
	return r.pol.result
}

// Move says that a connection to the next backend is there. If the present one is not
// lost, the session begins to leave it. A result other than "" says why nothing is begun.
func (r *Relay) Move(now time.Duration, toBackend *Buffers) (refused string) {
	m := r.moving()
	switch {
	case r.opt.Migrate == nil || m == nil && r.Closing():
		return MoveNotPossible
	case m == nil && r.stays():
		return MoveOpeningTooBig
	case m != nil && (m.next || m.phase == over || m.phase < leaving):
		return MoveNotPossible
	case m != nil:
		if m.next = true; m.phase == orphaned {
			m.phase = ready
		}
		return ""
	}
	m = &move{next: true, deadline: now + r.opt.Migrate.Timeout}
	r.pol.move = m
	r.wakeBy(m.deadline)
	m.old = toBackend
	if r.clientBetween() {
		r.ask(m, now)
	}
	return ""
}

// clientBetween reports whether the client's stream stands between two messages.
func (r *Relay) clientBetween() bool {
	in := &r.in[Client]
	begins := in.held != nil && !in.held.head.OpCode.IsControl() // once its rate lets it
	return begins || in.left == 0 && !in.dec.Fragmented() && !r.inflating()
}

// backendBetween reports that of the backend's stream.
func (r *Relay) backendBetween() bool {
	in := &r.in[Backend]
	return in.left == 0 && !in.dec.Fragmented()
}

// ask begins to keep what the client says, and asks the backend whether it has read what
// went before.
func (r *Relay) ask(m *move, now time.Duration) {
	m.phase, m.passed = asked, r.in[Client].count.Messages
	r.pol.opening.cut()
	r.out[Backend].owed = false
	r.prove(now, m.old)
}

// boundary is the end of a message of the client: a move that waits for it goes on. What
// comes behind it in the same bytes is fed again, so that it is kept.
func (r *Relay) boundary(now time.Duration, out *Buffers) {
	if m := r.moving(); m != nil && m.phase == waits && r.clientBetween() {
		m.old = out
		if r.stays() {
			r.cancel(m, MoveOpeningTooBig)
			return
		}
		r.ask(m, now)
		r.in[Client].stopped = true
	}
}

// Leave tells the backend that the session leaves it, once the next one is known to be
// there.
func (r *Relay) Leave(now time.Duration, toBackend *Buffers) {
	m := r.moving()
	if m == nil || m.phase != settled {
		return
	}
	toBackend.addCopy(frame.AppendClose(nil, ws.StatusGoingAway, "session moved", true))
	r.fade(m, now)
}

// fade waits for the last words of a backend that gets nothing more.
func (r *Relay) fade(m *move, now time.Duration) {
	m.phase, m.deadline = leaving, now+r.opt.Migrate.Timeout
	if d := r.opt.CloseTimeout; d > 0 {
		m.deadline = now + d
	}
	r.wakeBy(m.deadline)
}

// CancelMove gives a move up, if the old backend was not told yet, or is lost: then the
// session ends. It reports whether it did.
func (r *Relay) CancelMove(result string, now time.Duration, toClient, toBackend *Buffers) bool {
	m := r.moving()
	switch {
	case m == nil || m.phase == over || m.phase == leaving && m.next || m.phase == ready:
		return false
	case m.phase == orphaned:
		r.giveUp(m, result, now, toClient, toBackend)
	case m.phase == leaving: // lost in part: its end is the session's
		v := m.verdict
		r.finish(m, result)
		r.endBy(v)
	default:
		m.old = toBackend
		r.cancel(m, result)
	}
	return true
}

// MoveReady reports whether a Switch is due.
func (r *Relay) MoveReady() bool { return r.moving() != nil && r.pol.move.phase == ready }

// AbandonMove gives a move up at any point, before the engine ends both sides as they
// stand.
func (r *Relay) AbandonMove() {
	if m := r.moving(); m != nil && m.phase != over {
		r.finish(m, MoveClosed)
	}
}

// cancel goes on with the old backend, which gets what was kept.
func (r *Relay) cancel(m *move, result string) {
	m.keep()
	m.old.add(m.held)
	r.returnPing(m, m.old)
	r.finish(m, result)
}

// returnPing passes the client's Ping on after all, if it could not be answered.
func (r *Relay) returnPing(m *move, buf *Buffers) {
	if m.pong != nil && !r.out[Backend].closeSent {
		buf.addCopy(frame.Append(nil, ws.OpPing, m.pong, true))
	}
}

// finish ends the move, for the engine to learn.
func (r *Relay) finish(m *move, result string) {
	if m.phase >= leaving {
		r.dropCollected() // what was kept goes nowhere, nor does the rest of it
		r.in[Client].drop = true
	}
	if m.phase == leaving && !m.lost {
		r.out[Backend].closeSent, r.out[Backend].ours = true, true
	}
	*m = move{phase: over, result: result}
	r.pol.opening.over()
	r.out[Backend].owed = false
	r.rearm = true
}

// giveUp ends a session whose backend is gone and that gets no other: as it would have
// ended without the attempt.
func (r *Relay) giveUp(m *move, result string, now time.Duration, toClient, toBackend *Buffers) {
	verdict := m.verdict
	if result == MoveRefused {
		verdict.Code, verdict.Reason = StatusServiceRestart, "session cannot be resumed"
	}
	r.finish(m, result)
	in := &r.in[Backend]
	here := !in.ended
	in.ended, in.closed = false, false
	if r.ending == nil {
		r.endBy(verdict).pending[Client] = pending{betweenFrames, verdict.Code, verdict.Reason}
	}
	r.End(Backend, now, toClient, toBackend)
	if here {
		// It has said its last, but its connection may stay open for ever.
		in.ended, in.closed = false, true
		r.ending.deadline[Backend] = now + r.opt.Migrate.Timeout
		if d := r.opt.CloseTimeout; d > 0 {
			r.ending.deadline[Backend] = now + d
		}
	}
}

// cutShort ends the session of a backend that ends inside a message, for the reason for
// which it was lost, if it was.
func (r *Relay) cutShort(m *move) *ending {
	v := goneVerdict(Backend, WhyGone)
	if m.lost {
		v = m.verdict
	}
	r.finish(m, MoveUnfinished)
	return r.endBy(v)
}

// Switch goes on with the next backend, which gets the opening messages if they are to be
// replayed and what was kept.
func (r *Relay) Switch(now time.Duration, toBackend *Buffers) {
	m := r.moving()
	if m == nil || m.phase != ready {
		return
	}
	m.keep()
	in, o := &r.in[Backend], &r.out[Backend]
	*in = input{count: in.count}
	o.pinged, o.owed, o.steady = false, false, false
	r.pol.proof.restart(m.passed)
	if b := r.pol.backend; b != nil {
		*b = r.newHeartbeat(now)
	}
	if p := r.pol.opening; p != nil {
		p.discard = p.answers(r.opt.Migrate)
		toBackend.add(p.bytes[:p.replay:p.replay])
		p.over()
	}
	toBackend.add(m.held)
	r.returnPing(m, toBackend)
	r.pol.move, r.pol.result = nil, MoveDone
	r.askAgain(now)
	if e := r.ending; e != nil {
		e.deadline[Backend] = 0
		r.release(Backend, now, toBackend)
		r.settle(now)
	}
	r.plan()
	r.rearm = true
}

// keep moves what is for the next backend out of the present call's memory.
func (m *move) keep() {
	for _, p := range m.to.Segments() {
		m.held = append(m.held, p...)
	}
	m.to.Reset()
}
