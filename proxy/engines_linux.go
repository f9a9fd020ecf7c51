package proxy

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/evented"
	"github.com/tidegate/tidegate/proxy/pump"
	"github.com/tidegate/tidegate/proxy/relay"
)

// engines are what sessions run on: event loops, or goroutines where there is no loop.
type engines struct {
	loops *evented.Group // nil: goroutines only
}

// newEngines makes n event loops; 0 is none.
func newEngines(n int, memory *engine.Memory) (*engines, error) {
	if n <= 0 {
		return &engines{}, nil
	}
	g, err := evented.New(n, memory)
	return &engines{loops: g}, err
}

// run runs the loops until ctx is done.
func (e *engines) run(ctx context.Context) {
	if e.loops != nil {
		e.loops.Run(ctx)
	}
}

// start begins a session and owns the connections from then on. It runs on goroutines if its
// client is on a stream of HTTP/2, or without descriptors left for the loops, which take copies.
func (e *engines) start(opt *engine.Options, obs engine.Observer, client, backend *leg) engine.Session {
	if e.loops == nil || client.http2 != nil {
		return pump.Start(opt, obs, client.pump(), backend.pump())
	}
	fd, err := duplicate(client.stream)
	if err != nil {
		return pump.Start(opt, obs, client.pump(), backend.pump())
	}
	backendFD, err := duplicate(backend.stream)
	if err != nil {
		unix.Close(fd)
		return pump.Start(opt, obs, client.pump(), backend.pump())
	}
	s, err := e.loops.Start(opt, obs, client.detach(fd), backend.detach(backendFD))
	if err != nil {
		go obs.Done(refused(err))
		return gone{}
	}
	return s
}

// move hands a session a connection to another backend, and owns that from then on. It
// reports false if nothing can come of it.
func (e *engines) move(s engine.Session, next *leg) bool {
	switch s := s.(type) {
	case *evented.Session:
		fd, err := duplicate(next.stream)
		if err != nil {
			next.stream.Close()
			return false
		}
		s.Move(next.detach(fd))
	case *pump.Session:
		s.Move(next.pump())
	default:
		next.stream.Close()
		return false
	}
	return true
}

// sum returns what each tally has counted.
func (e *engines) sum(tallies []*engine.Tally) []relay.Traffic {
	if e.loops == nil {
		return sumRest(tallies)
	}
	return e.loops.Sum(tallies)
}

// counts returns what has come from each side of each session.
func (e *engines) counts(sessions []engine.Session) [][2]relay.Count {
	if e.loops == nil {
		return countEach(sessions)
	}
	return e.loops.Counts(sessions)
}

// held returns how many bytes each session holds buffered.
func (e *engines) held(sessions []engine.Session) []int {
	if e.loops == nil {
		return heldEach(sessions)
	}
	return e.loops.Held(sessions)
}

// detach takes the connection out of the runtime's hands: fd is the same socket.
func (l *leg) detach(fd int) evented.Leg {
	out := evented.Leg{FD: fd, Plain: l.head}
	if l.tls != nil {
		codec, wire, plain := l.tls.Detach()
		codec.Forget()
		out.Codec, out.Wire, out.Plain = codec, wire, append(out.Plain, plain...)
	}
	l.stream.Close()
	return out
}

// duplicate makes another descriptor of the socket below a stream. It is non-blocking, as
// the runtime's is.
func duplicate(s *pump.Stream) (fd int, err error) {
	tcp, ok := s.Conn.(*net.TCPConn)
	if !ok {
		return -1, fmt.Errorf("a %T has no descriptor", s.Conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dupErr error
	if err := raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, dupErr
}
