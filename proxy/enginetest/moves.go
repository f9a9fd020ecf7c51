package enginetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// movable are the options of a session that may change its backend.
func movable() engine.Options {
	return engine.Options{Relay: relay.Options{Migrate: &relay.MoveOptions{MaxBuffered: 64 << 10, Settle: 20 * time.Millisecond, Timeout: 10 * time.Second,
		CloseCodes: []ws.StatusCode{1012}, OnFailure: true}}}
}

// another makes a connection to another backend for a session and returns its far end.
func (su suite) another(t *testing.T, s *session, head ...byte) *peer {
	t.Helper()
	near, far := Pipe(t)
	su.move(t, s.Session, Leg{Conn: near, Head: head})
	return &peer{far, t, relay.Backend}
}

func (s *session) expectMoved(t *testing.T, want string) engine.Moved {
	t.Helper()
	select {
	case m := <-s.moved:
		if m.Result != want {
			t.Fatalf("moved: %q, want %q", m.Result, want)
		}
		return m
	case <-time.After(patience):
		t.Fatalf("nothing was moved, want %q", want)
		panic("unreachable")
	}
}

func (s *session) expectLost(t *testing.T, doubt uint64) {
	t.Helper()
	select {
	case l := <-s.lost:
		if l.Doubt != doubt {
			t.Fatalf("%d messages are in doubt, want %d", l.Doubt, doubt)
		}
	case <-time.After(patience):
		t.Fatal("no backend was lost")
	}
}

// asked reads the edge's Ping: from then on what the client says is kept. It returns the
// answer.
func (p *peer) asked() (pong []byte) {
	p.t.Helper()
	f, err := p.next()
	if err != nil || f.Header.OpCode != ws.OpPing {
		p.t.Fatalf("expecting a Ping: %+v, %v", f.Header, err)
	}
	return p.frame(ws.OpPong, true, f.Payload)
}

// leave is the end of a backend that is left: it answers the Close and ends.
func (p *peer) leave() {
	p.t.Helper()
	p.expect(ws.OpClose, body(1001, "session moved"))
	p.send(p.frame(ws.OpClose, true, body(1001, "")))
	p.Close()
}

func (su suite) moves(t *testing.T) {
	t.Run("planned", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		old := s.backend
		s.client.send(s.client.frame(ws.OpText, true, []byte("1")))
		old.expect(ws.OpText, []byte("1"))
		next := su.another(t, s, s.backend.frame(ws.OpText, true, []byte("hello"))...)
		pong := old.asked()
		s.client.send(s.client.frame(ws.OpText, true, []byte("2")))
		old.send(pong)
		old.send(old.frame(ws.OpText, true, []byte("last")))
		s.client.expect(ws.OpText, []byte("last"))
		old.leave()
		s.expectMoved(t, relay.MoveDone)
		next.expect(ws.OpText, []byte("2"))
		s.client.expect(ws.OpText, []byte("hello"))
		s.client.send(s.client.frame(ws.OpText, true, []byte("3")))
		next.expect(ws.OpText, []byte("3"))
		next.send(next.frame(ws.OpClose, true, body(1000, "")))
		s.client.expect(ws.OpClose, body(1000, ""))
		s.client.send(s.client.frame(ws.OpClose, true, body(1000, "")))
		next.expect(ws.OpClose, body(1000, ""))
		next.Close()
		s.client.expectEnd()
		s.client.Close()
		if r := s.result(t); r.Cause != relay.BackendClosed || r.Counts[relay.Client].Messages != 3 || r.Counts[relay.Backend].Messages != 2 {
			t.Errorf("result %+v", r)
		}
	})
	t.Run("crash", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		s.client.send(s.client.frame(ws.OpText, true, []byte("1")))
		s.backend.expect(ws.OpText, []byte("1"))
		s.backend.reset()
		s.expectLost(t, 1)
		s.client.send(s.client.frame(ws.OpText, true, []byte("2")), s.client.frame(ws.OpPing, true, []byte("p")))
		s.client.expect(ws.OpPong, []byte("p"))
		next := su.another(t, s)
		s.expectMoved(t, relay.MoveDone)
		next.expect(ws.OpText, []byte("2"))
		next.send(next.frame(ws.OpText, true, []byte("3")))
		s.client.expect(ws.OpText, []byte("3"))
	})
	t.Run("led", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		s.backend.send(s.backend.frame(ws.OpText, true, []byte("1")), s.backend.frame(ws.OpClose, true, body(1012, "restart")))
		s.client.expect(ws.OpText, []byte("1"))
		s.expectLost(t, 0)
		s.backend.expect(ws.OpClose, body(1012, ""))
		next := su.another(t, s)
		s.expectMoved(t, relay.MoveDone)
		next.send(next.frame(ws.OpText, true, []byte("2")))
		s.client.expect(ws.OpText, []byte("2"))
	})
	t.Run("no other backend", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		s.backend.reset()
		s.expectLost(t, 0)
		s.CancelMove("refused")
		s.expectMoved(t, "refused")
		s.client.expect(ws.OpClose, body(1012, "session cannot be resumed"))
		s.client.send(s.client.frame(ws.OpClose, true, body(1012, "")))
		s.client.expectEnd()
		s.client.Close()
		s.result(t)
	})
	t.Run("no other backend for one that has led and stays", func(t *testing.T) {
		opt := movable()
		opt.Relay.CloseTimeout = 50 * time.Millisecond
		s := su.open(t, setup{opt: opt})
		s.backend.send(s.backend.frame(ws.OpClose, true, body(1012, "restart")))
		s.expectLost(t, 0)
		s.backend.expect(ws.OpClose, body(1012, ""))
		s.CancelMove("refused")
		s.expectMoved(t, "refused")
		s.client.expect(ws.OpClose, body(1012, "session cannot be resumed"))
		s.client.send(s.client.frame(ws.OpClose, true, body(1012, "")))
		s.client.Close()
		if r := s.result(t); r.Cause != relay.BackendClosed {
			t.Errorf("result %+v", r)
		}
	})
	t.Run("the next backend dies", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		next := su.another(t, s)
		next.reset()
		pong := s.backend.asked()
		s.client.send(s.client.frame(ws.OpText, true, []byte("1")))
		s.backend.send(pong)
		s.expectMoved(t, relay.MoveNextGone)
		s.backend.expect(ws.OpText, []byte("1"))
	})
	t.Run("called off", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		next := su.another(t, s)
		s.backend.asked()
		s.client.send(s.client.frame(ws.OpText, true, []byte("1")))
		s.CancelMove("cancelled")
		s.expectMoved(t, "cancelled")
		next.expectEnd()
		s.backend.expect(ws.OpText, []byte("1"))
	})
	t.Run("killed while it waits", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		s.backend.reset()
		s.expectLost(t, 0)
		s.Kill()
		s.result(t)
	})
	t.Run("killed while it moves", func(t *testing.T) {
		s := su.open(t, setup{opt: movable()})
		next := su.another(t, s)
		s.backend.send(s.backend.asked())
		s.backend.expect(ws.OpClose, body(1001, "session moved"))
		s.Kill()
		s.result(t)
		next.expectEndOrReset()
	})
	t.Run("under load", su.movesUnderLoad)
}

// movesUnderLoad moves a session again and again while both ends talk as fast as they can,
// in fragments and with Pings of their own. Every message arrives once and in order.
func (su suite) movesUnderLoad(t *testing.T) {
	const rounds, atLeast = 6, 400
	opt := movable()
	opt.Relay.Migrate.Settle = time.Millisecond
	s := su.open(t, setup{opt: opt})
	got := make(chan uint64, 1<<16)
	errs := make(chan error, 2+2*rounds)
	report := func(err error) {
		if err != nil {
			errs <- err
		}
	}
	stop := make(chan struct{})
	var sent uint64
	var backends sync.WaitGroup
	serve := func(p *peer) { backends.Go(func() { report(p.echoNumbers()) }) }
	serve(s.backend)
	var client sync.WaitGroup
	said := make(chan struct{})
	client.Go(func() { report(s.client.sayNumbers(stop, &sent)); close(said) })
	client.Go(func() { s.client.readNumbers(got) })
	heard := uint64(0)
	listen := func(n uint64) {
		for until := heard + n; heard < until; heard++ {
			select {
			case number := <-got:
				if number != heard {
					t.Fatalf("answer %d came as the %d-th", number, heard)
				}
			case err := <-errs:
				t.Fatalf("after %d answers: %v", heard, err)
			case <-time.After(patience):
				t.Fatalf("no answer behind the %d-th", heard)
			}
		}
	}
	for range rounds {
		listen(atLeast)
		next := su.another(t, s)
		serve(next)
		moved := false
		for !moved {
			select {
			case m := <-s.moved:
				if moved = true; m.Result != relay.MoveDone || m.Doubt != 0 {
					t.Fatalf("%+v", m)
				}
			default:
				listen(1)
			}
		}
	}
	close(stop)
	<-said
	listen(sent - heard)
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	s.Kill()
	client.Wait()
	backends.Wait()
}

// number is a message: in fragments now and then.
func (p *peer) number(n uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, n)
	if n%3 == 0 {
		return slices.Concat(p.frame(ws.OpBinary, false, b[:3]), p.frame(ws.OpPing, true, nil), p.frame(ws.OpContinuation, true, b[3:]))
	}
	return p.frame(ws.OpBinary, true, b)
}

// sayNumbers says 0, 1, 2 and so on until stop.
func (p *peer) sayNumbers(stop <-chan struct{}, n *uint64) error {
	for ; ; *n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := p.Write(p.number(*n)); err != nil {
			return err
		}
		if *n%64 == 63 {
			time.Sleep(time.Millisecond) // a pace, so that the backend is quiet now and then
		}
	}
}

// message reads a message and answers what is between its fragments.
func (p *peer) message() ([]byte, error) {
	var all []byte
	for {
		f, err := p.next()
		if err != nil {
			return nil, err
		}
		switch f.Header.OpCode {
		case ws.OpPing:
			if p.side == relay.Backend {
				if _, err := p.Write(p.frame(ws.OpPong, true, f.Payload)); err != nil {
					return nil, err
				}
			}
		case ws.OpPong:
		case ws.OpClose:
			return f.Payload, io.EOF
		default:
			if all = append(all, f.Payload...); f.Header.Fin {
				return all, nil
			}
		}
	}
}

// readNumbers reads messages until the test ends the session.
func (p *peer) readNumbers(got chan<- uint64) {
	for {
		m, err := p.message()
		if err != nil {
			return
		}
		got <- binary.BigEndian.Uint64(m)
	}
}

// echoNumbers answers each message with the same, until it is told that the session has
// moved.
func (p *peer) echoNumbers() error {
	for {
		m, err := p.message()
		switch {
		case errors.Is(err, io.EOF) && bytes.Equal(m, body(1001, "session moved")):
			if _, err := p.Write(p.frame(ws.OpClose, true, body(1001, ""))); err != nil {
				return err
			}
			return p.Close()
		case err != nil:
			return fmt.Errorf("a backend: %w", err)
		}
		if _, err := p.Write(p.number(binary.BigEndian.Uint64(m))); err != nil {
			return err
		}
	}
}
