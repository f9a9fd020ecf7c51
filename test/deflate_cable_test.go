package test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/gobwas/ws"
)

// cable stands in front of an address: it passes on what connects to it, and knows what
// crossed it in each direction.
type cable struct {
	ln       net.Listener
	up, down meter // toward the address, and back
}

// crossed is what went one way.
type crossed struct {
	bytes      int64 // all of it, handshakes and TLS included
	payload    int64 // of data frames; this and what follows is zero under TLS
	messages   int   // text and binary
	compressed int   // of these, with RSV1
	heads      string
}

// newCable lays a cable to an address until the test ends. Without TLS it reads the frames.
func newCable(t *testing.T, to string, secure bool) *cable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &cable{ln: ln}
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			c.Close()
		}
	})
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			open = append(open, near, far)
			mu.Unlock()
			go carry(far, near, w.up.probe(secure))
			go carry(near, far, w.down.probe(secure))
		}
	}()
	return w
}

func (w *cable) addr() string { return w.ln.Addr().String() }

// take returns what has crossed since the last take. What has arrived has crossed.
func (w *cable) take() (up, down crossed) { return w.up.take(), w.down.take() }

// carry passes on one direction, its end and its tearing included. What is passed on has
// been counted before.
func carry(to, from net.Conn, p *probe) {
	if _, err := io.Copy(to, io.TeeReader(from, p)); err != nil {
		from.Close()
		to.Close()
		return
	}
	to.(*net.TCPConn).CloseWrite()
}

// meter sums up one direction of all connections.
type meter struct {
	mu  sync.Mutex
	sum crossed
}

func (m *meter) probe(secure bool) *probe { return &probe{m: m, secure: secure} }

func (m *meter) take() crossed {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := m.sum
	m.sum = crossed{}
	return sum
}

// probe reads along one direction of one connection.
type probe struct {
	m        *meter
	secure   bool
	upgraded bool
	head     []byte // of HTTP or of a frame, as far as it has come
	left     int64  // of the frame's payload
}

func (p *probe) Write(b []byte) (int, error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.sum.bytes += int64(len(b))
	for rest := b; !p.secure && len(rest) > 0; {
		switch {
		case !p.upgraded:
			p.head = append(p.head, rest...)
			rest = nil
			if at := bytes.Index(p.head, []byte("\r\n\r\n")); at >= 0 {
				p.upgraded, rest = true, p.head[at+4:]
				p.m.sum.heads += string(p.head[:at+4])
				p.head = nil
			}
		case p.left > 0:
			n := min(p.left, int64(len(rest)))
			p.left -= n
			rest = rest[n:]
		default:
			p.head = append(p.head, rest[0])
			rest = rest[1:]
			if h, err := ws.ReadHeader(bytes.NewReader(p.head)); err == nil {
				p.head, p.left = p.head[:0], h.Length
				p.m.sum.add(h)
			}
		}
	}
	return len(b), nil
}

// add counts a frame.
func (c *crossed) add(h ws.Header) {
	if h.OpCode.IsControl() {
		return
	}
	c.payload += h.Length
	if h.OpCode != ws.OpContinuation {
		c.messages++
	}
	if h.Rsv != 0 { // on any frame, so that one where it must not be counts too
		c.compressed++
	}
}
