package pump

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Leg is one connection of a session on its way to the engine.
type Leg struct {
	Conn Conn
	// Head are bytes that came behind the handshake.
	Head []byte
}

// Session is one running session. Its methods may be called from anywhere.
type Session struct {
	opt   *engine.Options
	obs   engine.Observer
	start time.Time

	mu      sync.Mutex
	relay   relay.Relay
	counts  relay.Traffic
	moved   sync.Cond // a writer has finished, or time has passed
	legs    [2]leg
	timer   *time.Timer
	armed   time.Duration // when timer fires, 0: not at all
	closing bool
	killed  bool
	told    int          // how much Options.Memory knows of
	reading atomic.Int64 // bytes of large buffers to read into
	running int          // goroutines that may still touch the connections, and a move
	next    *Leg         // a connection to another backend; nil: none is there
	moving  bool         // the session changes its backend: counted in running
}

// leg is one side. All but conn is guarded by the session's mutex.
type leg struct {
	conn    Conn
	busy    bool   // somebody writes
	writing int    // bytes of the queue, or of the relay's, that are being written
	queue   []byte // goes out behind what is being written
	shut    bool   // our direction has ended
	failed  bool   // writing has failed: output is discarded
	ended   bool   // nothing more comes from it
	err     error
}

// Start begins a session, on two goroutines of its own. It owns the connections from
// then on. opt must outlive the session.
func Start(opt *engine.Options, obs engine.Observer, client, backend Leg) *Session {
	s := &Session{opt: opt, obs: obs, start: time.Now(), running: 2}
	s.relay = relay.New(&opt.Relay, &s.counts)
	s.moved.L = &s.mu
	for side, leg := range [2]Leg{relay.Client: client, relay.Backend: backend} {
		leg.Conn.SetProgressTimeout(opt.WriteTimeout)
		s.legs[side].conn = leg.Conn
	}
	s.mu.Lock()
	s.relay.Begin(s.now())
	s.changed()
	s.mu.Unlock()
	go s.read(relay.Client, client)
	go s.read(relay.Backend, backend)
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
	s.block()
	s.relay.Close(e, s.now(), &toClient, &toBackend)
	s.inject(relay.Client, &toClient)
	s.inject(relay.Backend, &toBackend)
	s.changed()
}

// Shed ends the session to get back the memory that it holds. It does not wait.
func (s *Session) Shed(e relay.Ending) {
	var toClient relay.Buffers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == 0 {
		return
	}
	s.block()
	s.relay.Shed(e, s.now(), &toClient)
	s.inject(relay.Client, &toClient)
	s.changed()
	s.moved.Broadcast()
}

// Held returns how many bytes are read, or wait to be written.
func (s *Session) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told + int(s.reading.Load())
}

// lent counts large buffers to read into.
func (s *Session) lent(bytes int) {
	s.reading.Add(int64(bytes))
	s.opt.Memory.Add(bytes)
}

// account tells Options.Memory what waits to be written. The mutex is held.
func (s *Session) account() {
	now := s.relay.Buffered()
	for side := range s.legs {
		now += cap(s.legs[side].queue) + s.legs[side].writing
	}
	s.opt.Memory.Add(now - s.told)
	s.told = now
}

// Kill closes both connections as they stand. It does not wait.
func (s *Session) Kill() {
	s.mu.Lock()
	s.killed = true
	s.moved.Broadcast()
	if s.relay.AbandonMove(); s.running > 0 {
		s.changed()
	}
	client, backend := s.legs[relay.Client].conn, s.legs[relay.Backend].conn
	s.mu.Unlock()
	client.Abort()
	backend.Abort()
}

// Counts returns what has come from each side so far.
func (s *Session) Counts() [2]relay.Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counted()
}

func (s *Session) counted() [2]relay.Count {
	return [2]relay.Count{s.relay.Count(relay.Client), s.relay.Count(relay.Backend)}
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
	s.block()
	a := s.relay.Tick(s.now(), [2]bool{s.legs[relay.Client].busy, s.legs[relay.Backend].busy}, &toClient, &toBackend)
	s.inject(relay.Client, &toClient)
	s.inject(relay.Backend, &toBackend)
	for side := range s.legs {
		if side := relay.Side(side); a.Suspect[side] {
			a.Abort[side] = s.judge(side)
		}
	}
	conns := [2]Conn{s.legs[relay.Client].conn, s.legs[relay.Backend].conn}
	s.changed()
	s.moved.Broadcast()
	s.mu.Unlock()
	for side, abort := range a.Abort {
		if abort {
			conns[side].Abort()
		}
	}
}

// errNoPong is what ended a side that did not answer the edge's Ping.
var errNoPong = errors.New("no answer to a ping")

// judge decides whether a side that has not answered a Ping in time is given up. The mutex
// is held.
func (s *Session) judge(side relay.Side) bool {
	l := &s.legs[side]
	alive, stopped := l.conn.Delivery().Silent(s.opt.Relay.PongTimeout, s.opt.WriteTimeout)
	if alive {
		s.relay.Progress(side, s.now())
		return false
	}
	why, err := relay.WhyPongTimeout, errNoPong
	if stopped {
		why, err = relay.WhyWriteTimeout, os.ErrDeadlineExceeded
	}
	s.relay.Lost(side, why, s.now())
	if l.err == nil {
		l.err = err
	}
	return true
}

// changed follows up on a call of the relay: the timer and the hook. The mutex is held.
func (s *Session) changed() {
	if !s.closing && s.relay.Closing() {
		s.closing = true
		s.obs.Closing()
		s.moved.Broadcast() // nothing is held up any more
	}
	if s.relay.Moving() {
		s.followMove()
	}
	if rtt := s.relay.BackendRTT(); rtt > 0 {
		s.obs.Ponged(rtt)
	}
	at := s.relay.Deadline()
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
	s.legs[relay.Client].queue, s.legs[relay.Backend].queue = nil, nil
	s.relay.Discard(relay.Client)
	s.account()
	res := engine.Result{Verdict: s.relay.Verdict(), Counts: s.counted(), ClientErr: s.legs[relay.Client].err, BackendErr: s.legs[relay.Backend].err}
	s.mu.Unlock()
	s.legs[relay.Client].conn.Abort()
	s.legs[relay.Backend].conn.Abort()
	s.obs.Done(res)
}
