package proxy

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/proxy/preface"
)

// clientConn is an accepted connection as net/http sees it until the hijack. The
// handshake timeout holds for everything up to the first complete request head,
// whatever deadlines net/http sets meanwhile.
type clientConn struct {
	net.Conn // that of the leg
	leg
	remote   netip.AddrPort
	named    *preface.Ends // by a header of the PROXY protocol; nil: the ends are the connection's own
	deadline time.Time     // of the first request head; zero: none
	served   atomic.Bool
	hijacked bool // written and read in the handler
	closed   sync.Once
	onClose  func(*clientConn)
	received atomic.Int64
	guard    *headGuard // nil for what is no HTTP/1
	requests int        // so far; written in the handler
	nobody   bool       // its proxy speaks for somebody without an address, who is not to be believed
}

func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	if c.guard != nil {
		c.guard.watch(p[:n])
	}
	return n, err
}

// SetReadDeadline keeps the handshake's deadline until a request has come.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	if !c.served.Load() && !t.IsZero() && !c.deadline.IsZero() && t.After(c.deadline) {
		t = c.deadline
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *clientConn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() { c.onClose(c) })
	return err
}

// believes returns whose X-Forwarded-* is believed on the connection. Where a proxy makes it
// for somebody of whom it knows no address, what comes is that one's and not the proxy's word.
func (c *clientConn) believes(trusted []netip.Prefix) []netip.Prefix {
	if c.nobody {
		return nil
	}
	return trusted
}

// RemoteAddr is the client's, also where a proxy makes the connection for it.
func (c *clientConn) RemoteAddr() net.Addr {
	if c.named == nil {
		return c.Conn.RemoteAddr()
	}
	return net.TCPAddrFromAddrPort(c.remote)
}

// destination is what the client has connected to, the zero value if that is not known.
func (c *clientConn) destination() netip.AddrPort {
	if c.named != nil {
		return c.named.Destination
	}
	return addrPort(c.stream.LocalAddr())
}

// CloseWrite ends our direction, so that net/http can let an answer arrive before it
// closes a connection on which unread bytes wait.
func (c *clientConn) CloseWrite() error {
	if c.tls != nil {
		return c.tls.CloseWrite()
	}
	return c.stream.CloseWrite()
}

// secureConn lets net/http see the TLS state, for Request.TLS.
type secureConn struct{ *clientConn }

// ConnectionState is that of the TLS connection.
func (c secureConn) ConnectionState() cryptotls.ConnectionState {
	return c.tls.ConnectionState()
}

// connOf finds the clientConn behind what net/http hands out.
func connOf(c net.Conn) *clientConn {
	switch c := c.(type) {
	case *clientConn:
		return c
	case secureConn:
		return c.clientConn
	}
	return nil
}

type connKey struct{}

// withConn keeps the connection in the context of its requests.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, connOf(c))
}

// tune sets the options of a connection of either leg.
func tune(c net.Conn, s TCPSettings) error {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	errs := []error{tcp.SetKeepAliveConfig(s.probes(rand.Float64(), rand.Float64()))}
	if s.ReceiveBuffer > 0 {
		errs = append(errs, tcp.SetReadBuffer(s.ReceiveBuffer))
	}
	if s.SendBuffer > 0 {
		errs = append(errs, tcp.SetWriteBuffer(s.SendBuffer))
	}
	if s.UserTimeout > 0 {
		raw, err := tcp.SyscallConn()
		if err == nil {
			err = setUserTimeout(raw, s.UserTimeout)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// queue is the net.Listener of an http.Server: connections come out of it when they are
// ready for HTTP.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put hands a connection over; it reports false when the queue is closed.
func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }
