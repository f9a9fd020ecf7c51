package pump

import (
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Move hands the session a connection to another backend.
func (s *Session) Move(next Leg) {
	var toBackend relay.Buffers
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := relay.MoveNotPossible
	if s.running > 0 && !s.killed {
		refused = s.relay.Move(s.now(), &toBackend)
	}
	if refused != "" {
		next.Conn.Abort()
		s.obs.Moved(engine.Moved{Result: refused})
		return
	}
	next.Conn.SetProgressTimeout(s.opt.WriteTimeout)
	s.next = &next
	s.inject(relay.Backend, &toBackend)
	s.changed()
}

// CancelMove gives up a move: engine.Session.
func (s *Session) CancelMove(result string) {
	var toClient, toBackend relay.Buffers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == 0 {
		return
	}
	s.block()
	s.relay.CancelMove(result, s.now(), &toClient, &toBackend)
	s.inject(relay.Client, &toClient)
	s.inject(relay.Backend, &toBackend)
	s.changed()
}

// followMove carries out what the relay has decided about a move. The mutex is held.
func (s *Session) followMove() {
	if !s.moving {
		// The session is not over while one of its connections may be replaced.
		s.moving = true
		s.running++
	}
	var toClient, toBackend relay.Buffers
	for {
		switch s.relay.MoveStep() {
		case relay.MoveAsks:
			s.obs.Lost(engine.Loss{Doubt: s.relay.Doubt(), Why: s.relay.Loss()})
			if l := &s.legs[relay.Backend]; l.ended {
				l.conn.Abort() // a writer that waits goes on with the client
			}
		case relay.MoveLeaves:
			if s.next.Conn.Delivery().Open {
				s.relay.Leave(s.now(), &toBackend)
			} else {
				s.relay.CancelMove(relay.MoveNextGone, s.now(), &toClient, &toBackend)
			}
			s.inject(relay.Backend, &toBackend)
			toBackend.Reset()
		case relay.MoveSwitches:
			next := s.next
			if s.next = nil; next != nil {
				s.running++
				go s.takePlace(*next)
			}
			return
		case relay.MoveOver:
			s.abandonMove()
			s.obs.Moved(engine.Moved{Result: s.relay.MoveResult()})
			s.endMove()
			return
		default:
			return
		}
	}
}

// abandonMove closes a connection that is not needed. The mutex is held.
func (s *Session) abandonMove() {
	if s.next != nil {
		s.next.Conn.Abort()
		s.next = nil
	}
}

// endMove ends what a move has held up. The mutex is held.
func (s *Session) endMove() {
	s.moved.Broadcast()
	if s.moving {
		s.moving = false
		go func() {
			s.mu.Lock()
			s.leave() // it may be the end of the session
		}()
	}
}

// takePlace puts the connection to the next backend in the place of the old one, once
// nobody writes to that any more.
func (s *Session) takePlace(next Leg) {
	var toBackend relay.Buffers
	s.mu.Lock()
	l := &s.legs[relay.Backend]
	l.conn.Abort()
	for l.busy {
		s.moved.Wait()
	}
	if !s.relay.MoveReady() {
		next.Conn.Abort()
		s.leave()
		return
	}
	*l = leg{conn: next.Conn}
	moved := engine.Moved{Result: relay.MoveDone, Doubt: s.relay.Doubt()}
	s.relay.Switch(s.now(), &toBackend)
	s.obs.Moved(moved)
	if s.killed {
		next.Conn.Abort()
	}
	s.inject(relay.Backend, &toBackend)
	s.running++
	go s.read(relay.Backend, next)
	s.changed()
	s.endMove()
	s.account()
	s.leave()
}
