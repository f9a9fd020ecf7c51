package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/internal/admin"
	tgtls "github.com/tidegate/tidegate/tls"
)

// rawEdge is an edge between raw clients and raw backends.
type rawEdge struct {
	*edge
	ways []way
}

// way is one combination of plain and TLS on the two legs.
type way struct {
	name    string
	addr    string
	secure  bool // toward the client
	path    string
	backend *rawBackend
}

// startRaw starts an edge with a plain and a TLS listener, and a plain and a TLS
// backend.
func startRaw(t *testing.T) *rawEdge {
	t.Helper()
	certPEM, keyPEM, err := tgtls.NewDevelopmentCertificate("localhost", "127.0.0.1")
	must(t, err)
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	must(t, err)
	plain, secure := listenRaw(t, nil), listenRaw(t, &tls.Config{Certificates: []tls.Certificate{cert}})
	e := start(t, fmt.Sprintf(`
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0", tcp: {receive_buffer: 256KiB, send_buffer: 256KiB}}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}, tcp: {receive_buffer: 256KiB, send_buffer: 256KiB}}
routes:
  - {name: plain, match: {path: /plain}, pool: plain}
  - {name: secure, match: {path: /secure}, pool: secure}
  - {name: limits, match: {path: /limits}, pool: plain, websocket: {max_frame_size: 1KiB, max_message_size: 4KiB}}
  - {name: hasty, match: {path: /hasty}, pool: plain, websocket: {close_timeout: 100ms}}
pools:
  - {name: plain, backends: [{address: %q}]}
  - {name: secure, backends: [{address: %q}], upstream: {tls: {skip_verify: true}}}
`, plain.addr(), secure.addr()))
	return &rawEdge{e, []way{
		{"ws", e.addr("ws"), false, "/plain", plain},
		{"wss", e.addr("wss"), true, "/plain", plain},
		{"wss and TLS to the backend", e.addr("wss"), true, "/secure", secure},
	}}
}

func (w way) connect(t *testing.T) (c, b *rawEnd) {
	t.Helper()
	return connect(t, w.addr, w.secure, w.path, w.backend)
}

// stream is a sequence of frames as bytes, with the offsets at which frames begin.
type stream struct {
	bytes          []byte
	starts         []int
	messages, data int
}

func (s *stream) add(from *rawEnd, fin bool, op ws.OpCode, payload []byte) {
	s.starts = append(s.starts, len(s.bytes))
	s.bytes = append(s.bytes, frameBytes(fin, op, payload, from.client)...)
	if op.IsControl() {
		return
	}
	s.data += len(payload)
	if fin {
		s.messages++
	}
}

// framesOf makes a stream of messages of the given sizes, each whole and in fragments
// of odd lengths with control frames between them.
func framesOf(from *rawEnd, sizes ...int) *stream {
	s := &stream{}
	for _, size := range sizes {
		p := noise(size)
		s.add(from, true, ws.OpBinary, p)
		op := ws.OpBinary
		for _, n := range []int{0, 1, 125, 126, 4093, 65535, 65536, size / 2} {
			n = min(n, len(p))
			s.add(from, false, op, p[:n])
			s.add(from, true, ws.OpPing, noise(125))
			s.add(from, true, ws.OpPong, nil)
			op, p = ws.OpContinuation, p[n:]
		}
		s.add(from, true, op, p)
	}
	return s
}

// cuts are offsets at which to cut what is sent: inside each header, around it, and at
// odd distances elsewhere.
func (s *stream) cuts() []int {
	var cuts []int
	for _, start := range s.starts {
		for _, d := range []int{-1, 0, 1, 2, 3, 5, 9, 13, 14, 15} {
			cuts = append(cuts, start+d)
		}
	}
	for at := 0; at < len(s.bytes); at += 1 + rand.IntN(300_000) {
		cuts = append(cuts, at)
	}
	slices.Sort(cuts)
	return slices.Compact(append(cuts, len(s.bytes)))
}

// pour writes the stream in pieces.
func (s *stream) pour(to net.Conn) error {
	at := 0
	for _, cut := range s.cuts() {
		if cut <= at {
			continue
		}
		if _, err := to.Write(s.bytes[at:min(cut, len(s.bytes))]); err != nil {
			return err
		}
		at = cut
	}
	return nil
}

// atOnce runs all of fs and fails the test with what they return.
func atOnce(t *testing.T, fs ...func() error) {
	t.Helper()
	errs := make(chan error, len(fs))
	for _, f := range fs {
		go func() { errs <- f() }()
	}
	for range fs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// TestFrames sends frames both ways at once, cut at odd places, and wants the very same
// bytes at the other end, the mask included.
func TestFrames(t *testing.T) {
	e := startRaw(t)
	for _, w := range e.ways {
		t.Run(w.name, func(t *testing.T) {
			c, b := w.connect(t)
			sizes := []int{0, 125, 126, 65535, 65536, 16 << 20}
			up, down := framesOf(c, sizes...), framesOf(b, sizes...)
			atOnce(t, func() error { return up.pour(c) }, func() error { return down.pour(b) },
				func() error { return c.match(down.bytes) }, func() error { return b.match(up.bytes) })
			e.finish(t, c, b)
			end := e.endOf(b)
			for key, want := range map[string]int{"messages_upstream": up.messages, "messages_downstream": down.messages,
				"bytes_upstream": up.data, "bytes_downstream": down.data, "code": 1000} {
				if end[key] != float64(want) {
					t.Errorf("%s: logged %v, want %d", key, end[key], want)
				}
			}
		})
	}
}

// finish is an orderly end that the client begins.
func (e *rawEdge) finish(t *testing.T, c, b *rawEnd) {
	t.Helper()
	bye, answer := closeBytes(1000, "bye", true), closeBytes(1000, "bye", false)
	c.write(bye)
	b.want(bye)
	b.write(answer)
	c.want(answer)
	b.Close()
	c.wantEnd()
	c.Close()
}

// endOf is the log line at the end of the session of which b is the backend.
func (e *rawEdge) endOf(b *rawEnd) map[string]any {
	e.t.Helper()
	return e.waitLog("session ended", func(l map[string]any) bool { return l["request_id"] == b.req.Header.Get("X-Request-Id") })
}

// TestFramesBehindTheHandshake sends frames in one piece with the request and with the
// 101.
func TestFramesBehindTheHandshake(t *testing.T) {
	e := startRaw(t)
	for _, w := range e.ways {
		for _, sizes := range [][]int{{0}, {125}, {126, 65535}, {65536, 0, 125}} {
			t.Run(fmt.Sprint(w.name, sizes), func(t *testing.T) {
				c := dialRaw(t, w.addr, w.secure)
				up := framesOf(c, sizes...)
				sent := make(chan error, 1)
				go func() { _, err := c.Write(append([]byte(opening(w.path)), up.bytes...)); sent <- err }()
				b := w.backend.accept(t)
				down := framesOf(b, sizes...)
				atOnce(t, func() error { return <-sent },
					func() error { _, err := b.Write(append([]byte(b.switching()), down.bytes...)); return err },
					func() error { return b.match(up.bytes) },
					func() error { return errors.Join(c.switched(), c.match(down.bytes)) })
				e.finish(t, c, b)
			})
		}
	}
}

// TestDribbledHandshake sends request and 101 a byte at a time.
func TestDribbledHandshake(t *testing.T) {
	e := startRaw(t)
	for _, w := range e.ways {
		t.Run(w.name, func(t *testing.T) {
			c := dialRaw(t, w.addr, w.secure)
			for _, x := range []byte(opening(w.path)) {
				c.write([]byte{x})
			}
			b := w.backend.accept(t)
			answer := b.switching() + string(b.frame(true, ws.OpText, []byte("hello")))
			for _, x := range []byte(answer) {
				b.write([]byte{x})
			}
			c.wantSwitching()
			c.want(b.frame(true, ws.OpText, []byte("hello")))
			e.finish(t, c, b)
		})
	}
}

// TestSlowReader has both ends send more than any buffer holds before either reads:
// what is read afterwards is complete.
func TestSlowReader(t *testing.T) {
	e := startRaw(t)
	for _, w := range e.ways {
		t.Run(w.name, func(t *testing.T) {
			c, b := w.connect(t)
			up, down := framesOf(c, 8<<20), framesOf(b, 8<<20)
			poured := make(chan error, 2)
			go func() { poured <- up.pour(c) }()
			go func() { poured <- down.pour(b) }()
			// Both are stuck when the edge's counters stand still.
			last, since := uint64(0), time.Now()
			e.eventually("backpressure", func() bool {
				page, err := e.api.Sessions(t.Context(), admin.SessionQuery{})
				must(t, err)
				n := uint64(0)
				for _, s := range page.Sessions {
					n += s.Upstream.Bytes + s.Downstream.Bytes
				}
				if n != last {
					last, since = n, time.Now()
				}
				return last > 0 && time.Since(since) > 100*time.Millisecond
			})
			select {
			case err := <-poured:
				t.Fatalf("16 MiB went into the edge with nobody reading them (%v)", err)
			default:
			}
			atOnce(t, func() error { return <-poured }, func() error { return <-poured },
				func() error { return c.match(down.bytes) }, func() error { return b.match(up.bytes) })
			e.finish(t, c, b)
		})
	}
}
