package pump

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peerConn is one far end of a session under test: the client or the backend.
type peerConn struct {
	net.Conn
	t    *testing.T
	side relay.Side
}

// pipe returns both ends of a TCP connection over loopback.
func pipe(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); a.Close() })
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

// legs makes the near Conn of one side and its far end, plain or with TLS.
func legs(t *testing.T, side relay.Side, secure bool, timeout time.Duration) (Conn, *peerConn) {
	t.Helper()
	near, far := pipe(t)
	deadline := time.Now().Add(20 * time.Second)
	far.SetDeadline(deadline)
	stream := NewStream(near)
	if !secure {
		stream.SetProgressTimeout(timeout)
		return stream, &peerConn{far, t, side}
	}
	certPEM, keyPEM, err := tls.NewDevelopmentCertificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := cryptotls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	srv := cryptotls.Server(stream, &cryptotls.Config{Certificates: []cryptotls.Certificate{cert}})
	cl := cryptotls.Client(far, &cryptotls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- cl.Handshake() }()
	if err := srv.HandshakeContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	stream.SetProgressTimeout(timeout)
	return NewTLSStream(srv, stream), &peerConn{cl, t, side}
}

// bench is a session with its far ends.
type bench struct {
	*Session
	client, backend *peerConn
	done            chan Result
}

type setup struct {
	secure                  bool
	opt                     relay.Options
	writeTimeout            time.Duration
	clientHead, backendHead []byte
	bufferBytes             int
}

func open(t *testing.T, su setup) *bench {
	t.Helper()
	if su.opt.CloseTimeout == 0 {
		su.opt.CloseTimeout = 10 * time.Second
	}
	if su.writeTimeout == 0 {
		su.writeTimeout = 10 * time.Second
	}
	b := &bench{done: make(chan Result, 1)}
	var cl, be Conn
	cl, b.client = legs(t, relay.Client, su.secure, su.writeTimeout)
	be, b.backend = legs(t, relay.Backend, false, su.writeTimeout)
	b.Session = Start(Config{
		Relay: relay.New(&su.opt), Client: cl, Backend: be, ClientHead: su.clientHead, BackendHead: su.backendHead,
		BufferBytes: su.bufferBytes, CloseTimeout: su.opt.CloseTimeout, Done: func(r Result) { b.done <- r },
	})
	t.Cleanup(func() {
		b.Kill()
		b.client.Close()
		b.backend.Close()
	})
	return b
}

// result waits for the end of the session.
func (b *bench) result(t *testing.T) Result {
	t.Helper()
	select {
	case r := <-b.done:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("the session does not end")
		panic("unreachable")
	}
}

func (p *peerConn) frame(op ws.OpCode, fin bool, payload []byte) []byte {
	f := ws.NewFrame(op, fin, bytes.Clone(payload))
	if p.side == relay.Client {
		f = ws.MaskFrameInPlace(f)
	}
	return ws.MustCompileFrame(f)
}

func (p *peerConn) send(b ...[]byte) {
	p.t.Helper()
	if _, err := p.Write(bytes.Join(b, nil)); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// next reads one frame and unmasks it.
func (p *peerConn) next() (ws.Frame, error) {
	var f ws.Frame
	var err error
	if f.Header, err = ws.ReadHeader(p); err != nil {
		return f, err
	}
	f.Payload = make([]byte, f.Header.Length)
	if _, err := io.ReadFull(p, f.Payload); err != nil {
		return f, err
	}
	if f.Header.Masked {
		f = ws.UnmaskFrameInPlace(f)
	}
	return f, nil
}

// expect reads one frame and holds it against what it should be.
func (p *peerConn) expect(op ws.OpCode, payload []byte) {
	p.t.Helper()
	f, err := p.next()
	if err != nil {
		p.t.Fatalf("expecting %v: %v", op, err)
	}
	if f.Header.OpCode != op || !bytes.Equal(f.Payload, payload) {
		p.t.Fatalf("got opcode %v with %d bytes (%.40q), want %v with %d (%.40q)", f.Header.OpCode, len(f.Payload), f.Payload, op, len(payload), payload)
	}
}

func (p *peerConn) expectEnd() {
	p.t.Helper()
	if b, err := io.ReadAll(p); err != nil || len(b) > 0 {
		p.t.Fatalf("want the end of the stream, got %d bytes (% .40x), %v", len(b), b, err)
	}
}

func (p *peerConn) closeWrite() {
	p.t.Helper()
	if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		p.t.Fatal(err)
	}
	if c, ok := p.Conn.(*cryptotls.Conn); ok {
		c.NetConn().(*net.TCPConn).CloseWrite()
	}
}

// reset ends the connection with RST.
func (p *peerConn) reset() {
	c, ok := p.Conn.(*net.TCPConn)
	if !ok {
		c = p.Conn.(*cryptotls.Conn).NetConn().(*net.TCPConn)
	}
	c.SetLinger(0)
	c.Close()
}

func body(code ws.StatusCode, reason string) []byte { return ws.NewCloseFrameBody(code, reason) }

func overBoth(t *testing.T, f func(t *testing.T, secure bool)) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "ws", true: "wss"}[secure], func(t *testing.T) { f(t, secure) })
	}
}

func TestFrameSizes(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		b := open(t, setup{secure: secure})
		for _, size := range []int{0, 1, 125, 126, 1023, 65535, 65536, 1 << 20} {
			payload := bytes.Repeat([]byte{0xa5, 1, 2}, size/3+1)[:size]
			for _, from := range []*peerConn{b.client, b.backend} {
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
	})
}

// A message of 16 MiB in fragments of odd sizes, written in pieces of odd sizes, with
// pings between, arrives as it was sent, both ways at once.
func TestLargeMessagesAtOddSplits(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		b := open(t, setup{secure: secure})
		payload := make([]byte, 16<<20)
		for i := range payload {
			payload[i] = byte(i * 7 >> 3)
		}
		errs := make(chan error, 4)
		for _, p := range []*peerConn{b.client, b.backend} {
			go func() { errs <- sendFragmented(p, payload) }()
			go func() { errs <- receiveFragmented(p, payload) }()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

func sendFragmented(p *peerConn, payload []byte) error {
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

func receiveFragmented(p *peerConn, want []byte) error {
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

func TestHeadsAreNotLost(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		c, bk := &peerConn{side: relay.Client}, &peerConn{side: relay.Backend}
		first := c.frame(ws.OpText, true, []byte("right behind the request"))
		b := open(t, setup{secure: secure, clientHead: first[:9], backendHead: bk.frame(ws.OpText, true, []byte("right behind the 101"))})
		b.client.expect(ws.OpText, []byte("right behind the 101"))
		b.client.send(first[9:])
		b.backend.expect(ws.OpText, []byte("right behind the request"))
	})
}

func TestEndings(t *testing.T) {
	tests := []struct {
		name  string
		run   func(b *bench)
		cause relay.Cause
		code  ws.StatusCode
	}{
		{"client closes", func(b *bench) {
			b.client.send(b.client.frame(ws.OpText, true, []byte("last")), b.client.frame(ws.OpClose, true, body(4321, "bye")))
			b.backend.expect(ws.OpText, []byte("last"))
			b.backend.expect(ws.OpClose, body(4321, "bye"))
			b.backend.send(b.backend.frame(ws.OpClose, true, body(4321, "")))
			b.backend.Close()
			b.client.expect(ws.OpClose, body(4321, ""))
			b.client.expectEnd()
		}, relay.ClientClosed, 4321},
		{"client's last words before FIN", func(b *bench) {
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
		{"backend's last words before it is gone", func(b *bench) {
			b.backend.send(b.backend.frame(ws.OpText, true, []byte("last")), b.backend.frame(ws.OpClose, true, body(1001, "restart")))
			b.backend.Close()
			b.client.expect(ws.OpText, []byte("last"))
			b.client.expect(ws.OpClose, body(1001, "restart"))
			b.client.send(b.client.frame(ws.OpClose, true, body(1001, "")))
			b.client.expectEnd()
		}, relay.BackendClosed, 1001},
		{"client vanishes with FIN", func(b *bench) {
			b.client.send(b.client.frame(ws.OpText, true, []byte("last")))
			b.client.Close()
			b.backend.expect(ws.OpText, []byte("last"))
			b.backend.expectEnd()
			b.backend.Close()
		}, relay.ClientGone, 1006},
		{"client vanishes with RST", func(b *bench) {
			b.client.reset()
			b.backend.expectEnd()
			b.backend.Close()
		}, relay.ClientGone, 1006},
		{"backend vanishes with FIN", func(b *bench) {
			b.backend.send(b.backend.frame(ws.OpText, true, []byte("last")))
			b.backend.Close()
			b.client.expect(ws.OpText, []byte("last"))
			b.client.expect(ws.OpClose, body(1012, "backend went away"))
			b.client.send(b.client.frame(ws.OpClose, true, body(1012, "")))
			b.client.expectEnd()
		}, relay.BackendGone, 1012},
		{"backend vanishes with RST", func(b *bench) {
			b.backend.reset()
			b.client.expect(ws.OpClose, body(1012, "backend went away"))
			b.client.send(b.client.frame(ws.OpClose, true, body(1012, "")))
			b.client.expectEnd()
		}, relay.BackendGone, 1012},
		{"client breaks the protocol", func(b *bench) {
			b.client.send(b.backend.frame(ws.OpText, true, []byte("unmasked")))
			b.client.expect(ws.OpClose, body(1002, "unmasked frame from a client"))
			b.backend.expect(ws.OpClose, body(1001, ""))
			b.client.expectEnd()
			b.client.Close()
			b.backend.send(b.backend.frame(ws.OpClose, true, body(1001, "")))
			b.backend.Close()
		}, relay.ClientViolation, 1002},
		{"backend breaks the protocol", func(b *bench) {
			b.backend.send(b.client.frame(ws.OpText, true, []byte("masked")))
			b.client.expect(ws.OpClose, body(1011, ""))
			b.backend.expect(ws.OpClose, body(1002, "masked frame from a server"))
			b.backend.Close()
			b.client.Close()
		}, relay.BackendViolation, 1011},
		{"edge closes", func(b *bench) {
			b.Session.Close(relay.Ending{Client: 1001, Backend: 1001, Reason: "shutdown"})
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
			overBoth(t, func(t *testing.T, secure bool) {
				b := open(t, setup{secure: secure})
				tt.run(b)
				b.client.Close()
				if r := b.result(t); r.Cause != tt.cause || r.Code != tt.code {
					t.Errorf("ended by %v with %d, want %v with %d", r.Cause, r.Code, tt.cause, tt.code)
				}
			})
		})
	}
}

// A side that neither answers a Close nor ends its stream is given up.
func TestCloseTimeout(t *testing.T) {
	b := open(t, setup{opt: relay.Options{CloseTimeout: 50 * time.Millisecond}})
	b.Session.Close(relay.Ending{Client: 1008, Backend: 1001, Reason: "asked"})
	b.client.expect(ws.OpClose, body(1008, "asked"))
	b.backend.expect(ws.OpClose, body(1001, "asked"))
	if r := b.result(t); r.Cause != relay.EdgeClosed || r.Code != 1008 {
		t.Errorf("got %+v", r)
	}
}

// flood writes frames until no more is taken and returns how many bytes were.
func flood(p *peerConn) (taken int) {
	raw := p.frame(ws.OpBinary, true, make([]byte, 1<<20))
	for {
		p.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := p.Write(raw)
		taken += n
		if err != nil {
			return taken
		}
	}
}

// A reader that has stopped stops its writer, with bounded memory, and once it reads
// again everything arrives.
func TestBackpressure(t *testing.T) {
	b := open(t, setup{})
	b.backend.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	taken := flood(b.client)
	if taken > 64<<20 {
		t.Fatalf("%d bytes went nowhere", taken)
	}
	b.client.closeWrite()
	if got, err := io.Copy(io.Discard, b.backend); err != nil || got != int64(taken) {
		t.Errorf("%d bytes of %d arrived, %v", got, taken, err)
	}
}

func TestWriteTimeout(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		b := open(t, setup{writeTimeout: 100 * time.Millisecond})
		flood(b.backend)
		b.backend.closeWrite()
		r := b.result(t)
		if !errors.Is(r.ClientErr, os.ErrDeadlineExceeded) || r.Cause != relay.ClientGone {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("backend", func(t *testing.T) {
		b := open(t, setup{writeTimeout: 100 * time.Millisecond})
		flood(b.client)
		b.client.expect(ws.OpClose, body(1012, "backend went away"))
		b.client.Close()
		r := b.result(t)
		if !errors.Is(r.BackendErr, os.ErrDeadlineExceeded) || r.Cause != relay.BackendGone {
			t.Errorf("got %+v", r)
		}
	})
}

// An edge's Close does not wait for a client that takes nothing, and Kill ends all.
func TestKillWhileStuck(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		b := open(t, setup{secure: secure})
		flood(b.backend)
		b.Session.Close(relay.Ending{Client: 1001, Backend: 1001})
		b.Kill()
		r := b.result(t)
		if !errors.Is(errors.Join(r.ClientErr, r.BackendErr), net.ErrClosed) && !errors.Is(r.ClientErr, syscall.ECONNRESET) {
			t.Errorf("got %+v", r)
		}
	})
}

// Closes from many goroutines while both sides talk: one Close, whole frames.
func TestConcurrentCloses(t *testing.T) {
	b := open(t, setup{opt: relay.Options{CloseTimeout: 100 * time.Millisecond}})
	go func() {
		for raw := b.backend.frame(ws.OpText, true, []byte("talk")); ; {
			if _, err := b.backend.Write(raw); err != nil {
				return
			}
		}
	}()
	for range 8 {
		go b.Session.Close(relay.Ending{Client: 1001, Backend: 1001})
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

// expectEndOrReset allows for a connection that was given up with data under way.
func (p *peerConn) expectEndOrReset() {
	p.t.Helper()
	if b, err := io.ReadAll(p); len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("want the end, got %d bytes, %v", len(b), err)
	}
}
