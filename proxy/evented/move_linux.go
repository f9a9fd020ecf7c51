package evented

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// next is a connection to another backend, which the loop does not read yet.
type next struct {
	leg    Leg
	posted bool // it is to take the old one's place in this turn

}

// Move hands the session a connection to another backend.
func (s *Session) Move(leg Leg) {
	err := s.loop().Post(func() {
		if s.done {
			unix.Close(leg.FD)
			s.obs.Moved(engine.Moved{Result: relay.MoveNotPossible})
			return
		}
		refused := s.relay.Move(s.now(), &s.shared.back)
		if refused != "" {
			unix.Close(leg.FD)
			s.obs.Moved(engine.Moved{Result: refused})
			return
		}
		s.becomeLate().next = &next{leg: leg}
		s.handedOut()
	})
	if err != nil {
		unix.Close(leg.FD)
		go s.obs.Moved(engine.Moved{Result: relay.MoveNotPossible})
	}
}

// CancelMove gives up a move: engine.Session.
func (s *Session) CancelMove(result string) {
	s.loop().Post(func() {
		if !s.done {
			s.relay.CancelMove(result, s.now(), &s.shared.out, &s.shared.back)
			s.handedOut()
		}
	})
}

// handedOut writes what a call has handed out to both sides, and follows it up.
func (s *Session) handedOut() {
	s.send(relay.Client, s.shared.out.Segments())
	s.send(relay.Backend, s.shared.back.Segments())
	s.resetBuffers()
	s.account()
	s.followClosing()
}

// followMove carries out what the relay has decided about a move.
func (s *Session) followMove() {
	for !s.done {
		switch s.relay.MoveStep() {
		case relay.MoveAsks:
			s.becomeLate().sides[relay.Backend].moved = 0 // it takes nothing of what waits
			s.obs.Lost(engine.Loss{Doubt: s.relay.Doubt(), Why: s.relay.Loss()})
			s.resume(relay.Client)
		case relay.MoveLeaves:
			if engine.ReadDelivery(s.late.next.leg.FD).Open {
				s.relay.Leave(s.now(), &s.shared.back)
			} else {
				s.relay.CancelMove(relay.MoveNextGone, s.now(), &s.shared.out, &s.shared.back)
			}
			s.send(relay.Backend, s.shared.back.Segments())
			s.resetBuffers()
		case relay.MoveSwitches:
			if n := s.late.next; !n.posted {
				// Not inside a call of the old connection.
				n.posted = true
				s.loop().Post(s.takePlace)
			}
			return
		case relay.MoveOver:
			s.dropNext()
			s.obs.Moved(engine.Moved{Result: s.relay.MoveResult()})
			s.resume(relay.Client)
		default:
			s.arm()
			return
		}
	}
}

// dropNext closes a connection that is not needed.
func (s *Session) dropNext() {
	if s.late != nil && s.late.next != nil {
		unix.Close(s.late.next.leg.FD)
		s.late.next = nil
	}
}

// takePlace puts the connection to the next backend in the place of the old one.
func (s *Session) takePlace() {
	if s.done || s.late.next == nil || !s.relay.MoveReady() {
		return
	}
	n := s.late.next.leg
	s.late.next = nil
	l := &s.legs[relay.Backend]
	if l.codec != nil && !l.conn.Closed() && !s.gone(relay.Backend) {
		s.shared.wire = l.codec.CloseNotify(s.shared.wire[:0])
		l.conn.Write(s.shared.wire)
	}
	l.conn.Close()
	*l = leg{codec: n.Codec}
	side := &s.late.sides[relay.Backend]
	side.err, side.moved, side.until, side.rest = nil, 0, 0, nil
	s.ended[relay.Backend], s.over[relay.Backend] = false, false
	moved := engine.Moved{Result: relay.MoveDone, Doubt: s.relay.Doubt()}
	err := s.loop().Adopt(&l.conn, n.FD, s)
	if err != nil {
		unix.Close(n.FD)
		l.conn.Refuse(s.loop())
	}
	l.conn.LimitReads(s.opt.BufferBytes)
	s.relay.Switch(s.now(), &s.shared.back)
	s.obs.Moved(moved)
	s.handedOut()
	s.resume(relay.Client)
	switch {
	case s.done:
	case err != nil:
		s.end(relay.Backend, fmt.Errorf("%w: %w", errNoLoop, err))
	default:
		s.takeUp(relay.Backend, n)
	}
}
