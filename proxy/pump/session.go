package pump

import (
	"sync"
	"time"

	"github.com/tidegate/tidegate/proxy/relay"
)

// Config is what a session is made of. The session owns the connections from Start on.
type Config struct {
	Relay           *relay.Relay
	Client, Backend Conn
	// ClientHead and BackendHead are bytes that came behind the handshake of each leg.
	ClientHead, BackendHead []byte
	// BufferBytes bounds a read buffer, and with it what is held for each direction; 0
	// is 32 KiB. Less than 1 KiB counts as 1 KiB.
	BufferBytes int
	// CloseTimeout bounds how long a side that can no longer be written to is still
	// read for its last words; 0 is no limit.
	CloseTimeout time.Duration
	// Count, if set, is called after each batch that came from a side, serialised, with
	// that side's counters. It must not block or call the session.
	Count func(from relay.Side, c *relay.Counters)
	// Closing, if set, is called once, serialised with Count, when the session has
	// begun to end. It must not block or call the session.
	Closing func()
	// Done is called once, when both connections are closed.
	Done func(Result)
}

// Result is how a session ended.
type Result struct {
	relay.Verdict
	// ClientErr and BackendErr are what ended each connection, if it was not an orderly
	// end of stream. os.ErrDeadlineExceeded is a write without progress.
	ClientErr, BackendErr error
}

// Session is one running session. Its methods may be called from anywhere.
type Session struct {
	cfg   Config
	start time.Time

	mu      sync.Mutex
	moved   sync.Cond // a writer has finished
	legs    [2]leg
	timer   *time.Timer
	armed   time.Duration // when timer fires, 0: not at all
	closing bool
	running int // goroutines that may still touch the connections
}

// leg is one side. All but conn is guarded by the session's mutex.
type leg struct {
	conn   Conn
	busy   bool   // somebody writes
	queue  []byte // goes out behind what is being written
	shut   bool   // our direction has ended
	failed bool   // writing has failed: output is discarded
	ended  bool   // nothing more comes from it
	err    error
}

// Start begins to move bytes, on two goroutines of its own.
func Start(cfg Config) *Session {
	s := &Session{cfg: cfg, start: time.Now(), running: 2}
	s.moved.L = &s.mu
	s.legs[relay.Client].conn, s.legs[relay.Backend].conn = cfg.Client, cfg.Backend
	go s.read(relay.Client, cfg.ClientHead)
	go s.read(relay.Backend, cfg.BackendHead)
	s.cfg.ClientHead, s.cfg.BackendHead = nil, nil
	return s
}

// now is the relay's time: above 0 and monotonic.
func (s *Session) now() time.Duration { return time.Since(s.start) + 1 }

func other(side relay.Side) relay.Side { return relay.Backend - side }

// Close ends the session on behalf of the edge. It does not wait.
func (s *Session) Close(e relay.Ending) {
	var toClient, toBackend relay.Buffers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == 0 {
		return
	}
	s.cfg.Relay.Close(e, s.now(), &toClient, &toBackend)
	s.inject(relay.Client, &toClient)
	s.inject(relay.Backend, &toBackend)
	s.changed()
}

// Kill closes both connections as they stand. It does not wait.
func (s *Session) Kill() {
	s.cfg.Client.Abort()
	s.cfg.Backend.Abort()
}

// tick is the timer's.
func (s *Session) tick() {
	var toClient, toBackend relay.Buffers
	s.mu.Lock()
	s.armed = 0
	if s.running == 0 {
		s.mu.Unlock()
		return
	}
	a := s.cfg.Relay.Tick(s.now(), &toClient, &toBackend)
	s.inject(relay.Client, &toClient)
	s.inject(relay.Backend, &toBackend)
	s.changed()
	s.mu.Unlock()
	for side, abort := range a.Abort[:2] {
		if abort {
			s.legs[side].conn.Abort()
		}
	}
}

// changed follows up on a call of the relay: the timer and the hook. The mutex is held.
func (s *Session) changed() {
	if !s.closing && s.cfg.Relay.Closing() {
		s.closing = true
		if s.cfg.Closing != nil {
			s.cfg.Closing()
		}
	}
	at := s.cfg.Relay.Deadline()
	if at == s.armed {
		return
	}
	s.armed = at
	switch {
	case at == 0:
		s.timer.Stop()
	case s.timer == nil:
		s.timer = time.AfterFunc(at-s.now(), s.tick)
	default:
		s.timer.Reset(at - s.now())
	}
}

// leave is the end of one goroutine; the last one closes up. The mutex is held and
// released.
func (s *Session) leave() {
	s.running--
	if s.running > 0 {
		s.mu.Unlock()
		return
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.armed = 0
	res := Result{s.cfg.Relay.Verdict(), s.legs[relay.Client].err, s.legs[relay.Backend].err}
	s.mu.Unlock()
	s.cfg.Client.Abort()
	s.cfg.Backend.Abort()
	if s.cfg.Done != nil {
		s.cfg.Done(res)
	}
}
