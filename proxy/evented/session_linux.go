package evented

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/loop"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Session is one session on a loop. It is all that an idle session costs beside its
// sockets and codecs, which is why what only some need is in late.
type Session struct {
	shared  *shared
	opt     *engine.Options
	obs     engine.Observer
	relay   relay.Relay
	legs    [2]leg
	timer   *loop.Timer // nil until it has been set
	late    *late       // nil until a side has not taken something at once, or the end begins
	ended   [2]bool     // nothing more comes from the side
	over    [2]bool     // nothing more goes to it
	closing bool
	done    bool
}

// leg is one side.
type leg struct {
	codec Codec
	conn  loop.Conn
}

// late is what there is to know of a session once a side has not taken something at once,
// or the end has begun.
type late struct {
	told  int   // how much of the memory that is not the loop's Options.Memory knows
	next  *next // nil unless the session changes its backend
	sides [2]struct {
		err   error
		moved time.Duration // when the socket last took bytes while some were waiting; 0: none wait
		// At half of the write timeout: moved as it was then, and what the peer's system had taken.
		looked time.Duration
		taken  uint64
		until  time.Duration // it takes nothing more: how long it is still read; 0: it does
		rest   []byte        // came from it, and the relay has not taken it yet
	}
}

func other(side relay.Side) relay.Side { return relay.Backend - side }

func (s *Session) sideOf(c *loop.Conn) relay.Side {
	if c == &s.legs[relay.Client].conn {
		return relay.Client
	}
	return relay.Backend
}

func (s *Session) loop() *loop.Loop { return s.shared.loop }

func (s *Session) now() time.Duration { return s.shared.loop.Now() }

func (s *Session) becomeLate() *late {
	if s.late == nil {
		s.late = new(late)
	}
	return s.late
}

// waiting reports whether bytes wait for a side.
func (s *Session) waiting(side relay.Side) bool {
	return s.late != nil && s.late.sides[side].moved != 0
}

// gone reports whether a side takes nothing more.
func (s *Session) gone(side relay.Side) bool { return s.late != nil && s.late.sides[side].until != 0 }

// failed notes what ended a side, if nothing has before.
func (s *Session) failed(side relay.Side, err error) {
	if l := &s.becomeLate().sides[side]; l.err == nil && !s.ended[side] {
		l.err = err
	}
}

// begin brings the connections to the loop and feeds what was read before.
func (s *Session) begin(client, backend Leg) {
	s.relay.Begin(s.now())
	for side, leg := range [2]Leg{relay.Client: client, relay.Backend: backend} {
		conn := &s.legs[side].conn
		if err := s.loop().Adopt(conn, leg.FD, s); err != nil {
			s.refuse(relay.Side(side), client, backend, err)
			return
		}
		conn.LimitReads(s.opt.BufferBytes)
	}
	for side, leg := range [2]Leg{relay.Client: client, relay.Backend: backend} {
		s.takeUp(relay.Side(side), leg)
	}
	if !s.done {
		s.arm()
	}
}

// takeUp feeds what was read of a connection before it came to the loop.
func (s *Session) takeUp(side relay.Side, leg Leg) {
	if s.stuck(other(side)) {
		s.legs[side].conn.Pause()
	}
	if len(leg.Plain) > 0 && !s.done {
		s.feed(side, leg.Plain)
	}
	switch {
	case s.done:
	case len(leg.Wire) > 0:
		s.legs[side].conn.Inject(leg.Wire)
	case leg.Codec != nil:
		// It may know of an end that no event of the socket will tell.
		s.open(side, &s.legs[side].conn, nil)
	}
}

// refuse ends a session that could not begin, at the side that failed.
func (s *Session) refuse(failed relay.Side, client, backend Leg, err error) {
	for side, leg := range [2]Leg{relay.Client: client, relay.Backend: backend} {
		if conn := &s.legs[side].conn; conn.Loop() != nil {
			conn.Close()
		} else {
			unix.Close(leg.FD)
		}
		s.relay.End(relay.Side(side), s.now(), &s.shared.out, &s.shared.back)
		s.resetBuffers()
	}
	s.failed(failed, fmt.Errorf("%w: %w", errNoLoop, err))
	s.finish()
}

func (s *Session) resetBuffers() {
	s.shared.out.Reset()
	s.shared.back.Reset()
}

// Close ends the session on behalf of the edge: engine.Session.
func (s *Session) Close(e relay.Ending) {
	s.loop().Post(func() {
		if s.done {
			return
		}
		s.relay.Close(e, s.now(), &s.shared.out, &s.shared.back)
		s.send(relay.Client, s.shared.out.Segments())
		s.send(relay.Backend, s.shared.back.Segments())
		s.resetBuffers()
		s.followClosing()
	})
}

// Shed ends the session to get back the memory that it holds: engine.Session.
func (s *Session) Shed(e relay.Ending) {
	s.loop().Post(func() {
		if s.done {
			return
		}
		s.relay.Shed(e, s.now(), &s.shared.out)
		s.send(relay.Client, s.shared.out.Segments())
		s.resetBuffers()
		s.account()
		s.followClosing()
	})
}

// Held returns how many bytes the session holds: engine.Session.
func (s *Session) Held() (n int) {
	s.shared.group.on(s.loop().Index(), func() { n = s.held() })
	return n
}

// Kill closes both connections as they stand: engine.Session.
func (s *Session) Kill() {
	s.loop().Post(func() {
		s.relay.AbandonMove()
		for side := range s.legs {
			s.abort(relay.Side(side), net.ErrClosed)
		}
	})
}

// Counts returns what has come from each side so far: engine.Session.
func (s *Session) Counts() (c [2]relay.Count) {
	s.shared.group.on(s.loop().Index(), func() { c = s.counted() })
	return c
}

func (s *Session) counted() [2]relay.Count {
	return [2]relay.Count{s.relay.Count(relay.Client), s.relay.Count(relay.Backend)}
}
