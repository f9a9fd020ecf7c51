package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

func (su suite) frameSizes(t *testing.T) {
	b := su.open(t, setup{})
	for _, size := range []int{0, 1, 125, 126, 1023, 65535, 65536, 1 << 20} {
		payload := bytes.Repeat([]byte{0xa5, 1, 2}, size/3+1)[:size]
		for _, from := range []*peer{b.client, b.backend} {
			to := b.backend
			if from == b.backend {
				to = b.client
			}
			sent := make(chan error, 1)
			raw := from.frame(ws.OpBinary, true, payload)
			go func() { _, err := from.Write(raw); sent <- err }()
			to.expect(ws.OpBinary, payload)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A message of 16 MiB in fragments of odd sizes, written in pieces of odd sizes, with
// pings between, arrives as it was sent, both ways at once.
func (su suite) largeMessages(t *testing.T) {
	b := su.open(t, setup{})
	payload := make([]byte, 16<<20)
	for i := range payload {
		payload[i] = byte(i * 7 >> 3)
	}
	errs := make(chan error, 4)
	for _, p := range []*peer{b.client, b.backend} {
		go func() { errs <- sendFragmented(p, payload) }()
		go func() { errs <- receiveFragmented(p, payload) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func sendFragmented(p *peer, payload []byte) error {
	var raw []byte
	op := ws.OpBinary
	for rest, n := payload, 1; len(rest) > 0; n = n*3 + 1 {
		n = min(n, len(rest))
		raw = append(raw, p.frame(op, n == len(rest), rest[:n])...)
		if n < len(rest) {
			raw = append(raw, p.frame(ws.OpPing, true, []byte("between"))...)
		}
		rest, op = rest[n:], ws.OpContinuation
	}
	for n := 1; len(raw) > 0; n = n*5%99991 + 1 {
		n = min(n, len(raw))
		if _, err := p.Write(raw[:n]); err != nil {
			return err
		}
		raw = raw[n:]
	}
	return nil
}

func receiveFragmented(p *peer, want []byte) error {
	var got []byte
	for {
		f, err := p.next()
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", len(got), err)
		}
		if f.Header.OpCode == ws.OpPing {
			continue
		}
		got = append(got, f.Payload...)
		if f.Header.Fin {
			break
		}
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("message of %d bytes came as %d, or changed", len(want), len(got))
	}
	return nil
}

func (su suite) heads(t *testing.T) {
	c, bk := &peer{side: relay.Client}, &peer{side: relay.Backend} // frame makers
	first := c.frame(ws.OpText, true, []byte("right behind the request"))
	b := su.open(t, setup{clientHead: first[:9], backendHead: bk.frame(ws.OpText, true, []byte("right behind the 101"))})
	b.client.expect(ws.OpText, []byte("right behind the 101"))
	b.client.send(first[9:])
	b.backend.expect(ws.OpText, []byte("right behind the request"))
}

func (su suite) endings(t *testing.T) {
	tests := []struct {
		name  string
		run   func(b *session)
		cause relay.Cause
		code  ws.StatusCode
	}{
		{"client closes", func(b *session) {
			b.client.send(b.client.frame(ws.OpText, true, []byte("last")), b.client.frame(ws.OpClose, true, body(4321, "bye")))
			b.backend.expect(ws.OpText, []byte("last"))
			b.backend.expect(ws.OpClose, body(4321, "bye"))
			b.backend.send(b.backend.frame(ws.OpClose, true, body(4321, "")))
			b.backend.Close()
			b.client.expect(ws.OpClose, body(4321, ""))
			b.client.expectEnd()
		}, relay.ClientClosed, 4321},
		{"client's last words before FIN", func(b *session) {
			b.client.send(b.client.frame(ws.OpText, true, []byte("last")), b.client.frame(ws.OpClose, true, body(1000, "")))
			b.client.closeWrite()
			b.backend.expect(ws.OpText, []byte("last"))
			b.backend.expect(ws.OpClose, body(1000, ""))
			b.backend.send(b.backend.frame(ws.OpText, true, []byte("answer")), b.backend.frame(ws.OpClose, true, body(1000, "")))
			b.backend.Close()
			b.client.expect(ws.OpText, []byte("answer"))
			b.client.expect(ws.OpClose, body(1000, ""))
			b.client.expectEnd()
		}, relay.ClientClosed, 1000},
		{"backend's last words before it is gone", func(b *session) {
			b.backend.send(b.backend.frame(ws.OpText, true, []byte("last")), b.backend.frame(ws.OpClose, true, body(1001, "restart")))
			b.backend.Close()
			b.client.expect(ws.OpText, []byte("last"))
			b.client.expect(ws.OpClose, body(1001, "restart"))
			b.client.send(b.client.frame(ws.OpClose, true, body(1001, "")))
			b.client.expectEnd()
		}, relay.BackendClosed, 1001},
		{"client vanishes with FIN", func(b *session) {
			b.client.send(b.client.frame(ws.OpText, true, []byte("last")))
			b.client.Close()
			b.backend.expect(ws.OpText, []byte("last"))
			b.backend.expectEnd()
			b.backend.Close()
		}, relay.ClientGone, 1006},
		{"client vanishes with RST", func(b *session) {
			b.client.reset()
			b.backend.expectEnd()
			b.backend.Close()
		}, relay.ClientGone, 1006},
		{"backend vanishes with FIN", func(b *session) {
			b.backend.send(b.backend.frame(ws.OpText, true, []byte("last")))
			b.backend.Close()
			b.client.expect(ws.OpText, []byte("last"))
			b.client.expect(ws.OpClose, body(1012, "backend went away"))
			b.client.send(b.client.frame(ws.OpClose, true, body(1012, "")))
			b.client.expectEnd()
		}, relay.BackendGone, 1012},
		{"backend vanishes with RST", func(b *session) {
			b.backend.reset()
			b.client.expect(ws.OpClose, body(1012, "backend went away"))
			b.client.send(b.client.frame(ws.OpClose, true, body(1012, "")))
			b.client.expectEnd()
		}, relay.BackendGone, 1012},
		{"client breaks the protocol", func(b *session) {
			b.client.send(b.backend.frame(ws.OpText, true, []byte("unmasked")))
			b.client.expect(ws.OpClose, body(1002, "unmasked frame from a client"))
			b.backend.expect(ws.OpClose, body(1001, ""))
			b.client.expectEnd()
			b.client.Close()
			b.backend.send(b.backend.frame(ws.OpClose, true, body(1001, "")))
			b.backend.Close()
		}, relay.ClientViolation, 1002},
		{"backend breaks the protocol", func(b *session) {
			b.backend.send(b.client.frame(ws.OpText, true, []byte("masked")))
			b.client.expect(ws.OpClose, body(1011, ""))
			b.backend.expect(ws.OpClose, body(1002, "masked frame from a server"))
			b.backend.Close()
			b.client.Close()
		}, relay.BackendViolation, 1011},
		{"edge closes", func(b *session) {
			b.Close(relay.Ending{Client: 1001, Backend: 1001, Reason: "shutdown"})
			b.client.expect(ws.OpClose, body(1001, "shutdown"))
			b.client.send(b.client.frame(ws.OpText, true, []byte("in flight")), b.client.frame(ws.OpClose, true, body(1001, "")))
			b.backend.expect(ws.OpText, []byte("in flight"))
			b.backend.expect(ws.OpClose, body(1001, "shutdown"))
			b.backend.send(b.backend.frame(ws.OpClose, true, body(1001, "")))
			b.backend.Close()
			b.client.expectEnd()
		}, relay.EdgeClosed, 1001},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := su.open(t, setup{})
			tt.run(b)
			b.client.Close()
			if r := b.result(t); r.Cause != tt.cause || r.Code != tt.code {
				t.Errorf("ended by %v with %d, want %v with %d", r.Cause, r.Code, tt.cause, tt.code)
			}
		})
	}
}

// A side that neither answers a Close nor ends its stream is given up.
func (su suite) closeTimeout(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{CloseTimeout: 50 * time.Millisecond}}})
	b.Close(relay.Ending{Client: 1008, Backend: 1001, Reason: "asked"})
	b.client.expect(ws.OpClose, body(1008, "asked"))
	b.backend.expect(ws.OpClose, body(1001, "asked"))
	if r := b.result(t); r.Cause != relay.EdgeClosed || r.Code != 1008 {
		t.Errorf("got %+v", r)
	}
}

// flood writes frames until nobody takes them any more: it returns when no byte was taken
// for a while, with a function that waits for the rest of the total to be taken.
func flood(p *peer, frames int) (taken func() int64, rest func() error) {
	raw := p.frame(ws.OpBinary, true, make([]byte, 64<<10))
	var n atomic.Int64
	done := make(chan error, 1)
	go func() {
		for range frames {
			k, err := p.Write(raw)
			n.Add(int64(k))
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for before := int64(-1); ; <-tick.C {
		now := n.Load()
		if now == before {
			return n.Load, func() error { return <-done }
		}
		before = now
	}
}

// A reader that has stopped stops its writer, with bounded memory, and once it reads
// again everything arrives.
func (su suite) backpressure(t *testing.T) {
	b := su.open(t, setup{})
	b.backend.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	const frames = 1024 // 64 MiB
	taken, rest := flood(b.client, frames)
	if n := taken(); n > frames<<15 {
		t.Fatalf("%d bytes went nowhere", n)
	}
	for range frames {
		b.backend.expect(ws.OpBinary, make([]byte, 64<<10))
	}
	if err := rest(); err != nil {
		t.Error(err)
	}
}

func (su suite) writeTimeout(t *testing.T) {
	st := setup{opt: engine.Options{WriteTimeout: 100 * time.Millisecond, Relay: relay.Options{CloseTimeout: 500 * time.Millisecond}}}
	t.Run("client", func(t *testing.T) {
		b := su.open(t, st)
		flood(b.backend, 1<<20)
		b.backend.Close()
		if r := b.result(t); !errors.Is(r.ClientErr, os.ErrDeadlineExceeded) || r.Cause != relay.ClientGone {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("backend", func(t *testing.T) {
		b := su.open(t, st)
		go flood(b.client, 1<<20)
		b.client.expect(ws.OpClose, body(1012, "backend went away"))
		b.client.Close()
		if r := b.result(t); !errors.Is(r.BackendErr, os.ErrDeadlineExceeded) || r.Cause != relay.BackendGone {
			t.Errorf("got %+v", r)
		}
	})
}

// A client that takes bytes all the time is alive, though its socket does not say so for longer
// than the write timeout: it does only when a good part of its buffer is free.
func (su suite) slowButAlive(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{WriteTimeout: time.Second, Relay: relay.Options{CloseTimeout: 100 * time.Millisecond}}})
	frames := b.backend.frame(ws.OpBinary, true, make([]byte, 60000))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for {
			if _, err := b.backend.Write(frames); err != nil {
				return
			}
		}
	}()
	chunk := make([]byte, 20000)
	for total := 0; total < 1_200_000; total += len(chunk) { // 3 s
		_, err := io.ReadFull(b.client, chunk)
		select {
		case r := <-b.done: // what it had sent is still read
			b.done <- r
			t.Fatalf("ended after %d bytes: %+v", total, r)
		case <-time.After(50 * time.Millisecond):
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
	}
	b.Kill()
	b.backend.Close()
	<-sent
}

// A client that ends its stream while bytes wait for it, and resets when they come, is gone;
// so is the session, of which the backend has ended too.
func (su suite) resetBehindEnds(t *testing.T) {
	b := su.open(t, setup{})
	few := b.backend.frame(ws.OpBinary, true, make([]byte, 8<<10))
	for waits := 0; waits < 200; { // ms: what waits is with the edge, and nothing is before it
		if waits++; b.Held() == 0 {
			waits = 0
			b.backend.send(few)
		}
		time.Sleep(time.Millisecond)
	}
	b.client.closeWrite()
	io.Copy(io.Discard, b.backend) // until the edge ends
	b.backend.Close()
	time.Sleep(200 * time.Millisecond) // for the edge to see that, which nothing tells
	b.client.reset()
	if r := b.result(t); r.Cause != relay.ClientGone {
		t.Errorf("got %+v", r)
	}
}

// A message that goes on and on does not put off a Close: it is cut between two frames.
func (su suite) endlessMessage(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{CloseTimeout: 300 * time.Millisecond}}})
	stop, sent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for op := ws.OpBinary; ; op = ws.OpContinuation {
			b.backend.Write(b.backend.frame(op, false, make([]byte, 100)))
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	defer func() { close(stop); <-sent }()
	if f, err := b.client.next(); err != nil || f.Header.OpCode != ws.OpBinary {
		t.Fatalf("%+v, %v", f.Header, err)
	}
	b.Close(relay.Ending{Client: 1001, Backend: 1001, Reason: "drain"})
	for n := 0; ; n++ {
		f, err := b.client.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header.OpCode == ws.OpClose {
			if n < 5 || !bytes.Equal(f.Payload, body(1001, "drain")) {
				t.Errorf("%q behind %d frames", f.Payload, n)
			}
			return
		}
		if n == 200 {
			t.Fatal("no Close, though its timeout has passed many times")
		}
	}
}

// An edge's Close does not wait for a client that takes nothing, and Kill ends all.
func (su suite) killWhileStuck(t *testing.T) {
	b := su.open(t, setup{})
	flood(b.backend, 1<<20)
	b.Close(relay.Ending{Client: 1001, Backend: 1001})
	b.Kill()
	r := b.result(t)
	if !errors.Is(errors.Join(r.ClientErr, r.BackendErr), net.ErrClosed) && !errors.Is(r.ClientErr, syscall.ECONNRESET) {
		t.Errorf("got %+v", r)
	}
}

// Closes from many goroutines while both sides talk: one Close, whole frames.
func (su suite) concurrentCloses(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{CloseTimeout: 100 * time.Millisecond}}})
	go func() {
		for raw := b.backend.frame(ws.OpText, true, []byte("talk")); ; {
			if _, err := b.backend.Write(raw); err != nil {
				return
			}
		}
	}()
	for range 8 {
		go b.Close(relay.Ending{Client: 1001, Backend: 1001})
	}
	for {
		f, err := b.client.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header.OpCode == ws.OpClose {
			break
		}
		if string(f.Payload) != "talk" {
			t.Fatalf("got %q", f.Payload)
		}
	}
	b.client.expectEndOrReset()
	b.result(t)
}

// What each side sent is counted, whatever pieces it came in.
func (su suite) counts(t *testing.T) {
	tally := new(engine.Tally)
	b := su.open(t, setup{opt: engine.Options{Tally: tally}})
	for range 10 {
		b.client.send(b.client.frame(ws.OpText, true, []byte("hello")))
		b.backend.expect(ws.OpText, []byte("hello"))
		b.backend.send(b.backend.frame(ws.OpBinary, true, make([]byte, 1000)))
		b.client.expect(ws.OpBinary, make([]byte, 1000))
	}
	// What has arrived is counted.
	want := [2]relay.Count{
		relay.Client:  {Messages: 10, Frames: 10, Bytes: 50},
		relay.Backend: {Messages: 10, Frames: 10, Bytes: 10000},
	}
	if got := b.Counts(); got != want {
		t.Errorf("the session counted %+v, want %+v", got, want)
	}
	sum := relay.Traffic{
		relay.Client:  {Frames: [relay.NumOpCodes]uint64{10}, Messages: [2]uint64{10, 0}, Bytes: 50},
		relay.Backend: {Frames: [relay.NumOpCodes]uint64{0, 10}, Messages: [2]uint64{0, 10}, Bytes: 10000},
	}
	if got := su.sum(tally); got != sum {
		t.Errorf("the tally is %+v, want %+v", got, sum)
	}
	b.client.Close()
	b.backend.Close()
	if got := b.result(t).Counts; got[relay.Backend] != want[relay.Backend] || got[relay.Client].Messages != 10 {
		t.Errorf("at the end %+v, want %+v", got, want)
	}
	if got := b.Counts(); got[relay.Backend] != want[relay.Backend] {
		t.Errorf("after the end %+v, want %+v", got, want)
	}
}

// However little may be held, everything arrives, both ways.
func (su suite) smallBuffers(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{BufferBytes: 1 << 10}})
	payload := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	for _, from := range []*peer{b.client, b.backend} {
		to := b.backend
		if from == b.backend {
			to = b.client
		}
		sent := make(chan error, 1)
		raw := from.frame(ws.OpBinary, true, payload)
		go func() { _, err := from.Write(raw); sent <- err }()
		to.expect(ws.OpBinary, payload)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}
