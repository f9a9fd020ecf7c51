//lint:file-ignore SA1019 net/http, which is to be used instead, cannot send GOAWAY to one connection

package proxy

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http2"

	_ "github.com/tidegate/tidegate/internal/extendedconnect" // WebSocket over HTTP/2 is off without
	"github.com/tidegate/tidegate/tls"
)

// What a connection of HTTP/2 may take. A stream's window bounds what is held of a client
// whose backend does not read; that of the connection has room for all of them, so that one
// stream that has stopped does not stop the others (RFC 9113 §5.2.2).
const (
	http2Streams          = 250
	http2StreamWindow     = 64 << 10
	http2ConnectionWindow = http2Streams * http2StreamWindow
	http2FrameBytes       = 16 << 10 // the least there is; a connection keeps a buffer of it
)

// http2Conn is a client's connection that has negotiated HTTP/2. It outlives the endpoint that
// accepted it while it has streams: its requests are served under the present settings of the
// listener.
type http2Conn struct {
	endpoint *endpoint
	conn     *clientConn
	base     *http.Server // of this connection alone: its Shutdown is a GOAWAY

	mu      sync.Mutex
	begun   bool          // the client has said hello: a GOAWAY arrives
	retired bool          // a GOAWAY follows the last stream
	ended   bool          // no handler starts any more
	running int           // handlers
	sockets int           // of them those that have a WebSocket
	idle    chan struct{} // closed when ended and no handler runs
}

// http2Conns are all connections of HTTP/2.
type http2Conns struct {
	mu    sync.Mutex // guards all, and endpoint.retired
	all   map[*http2Conn]struct{}
	woken chan struct{} // capacity 1: a connection has gone
}

func newHTTP2Conns() *http2Conns {
	return &http2Conns{all: map[*http2Conn]struct{}{}, woken: make(chan struct{}, 1)}
}

// add makes a connection known, unless its endpoint is retired.
func (s *http2Conns) add(c *http2Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.endpoint.retired {
		return false
	}
	s.all[c] = struct{}{}
	return true
}

func (s *http2Conns) remove(c *http2Conn) {
	s.mu.Lock()
	delete(s.all, c)
	s.mu.Unlock()
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// retire ends the connections of an endpoint as their streams end, and has it get no more.
func (s *http2Conns) retire(e *endpoint) {
	var mine []*http2Conn
	s.mu.Lock()
	e.retired = true
	for c := range s.all {
		if c.endpoint == e {
			mine = append(mine, c)
		}
	}
	s.mu.Unlock()
	for _, c := range mine {
		c.retire()
	}
}

// wait returns when no connection is left or ctx is done. It has one caller at a time.
func (s *http2Conns) wait(ctx context.Context) {
	for s.len() > 0 {
		select {
		case <-s.woken:
		case <-ctx.Done():
			return
		}
	}
}

func (s *http2Conns) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// negotiatedHTTP2 reports whether a client has chosen HTTP/2 (RFC 9113 §3.2).
func negotiatedHTTP2(c *tls.Connection) bool {
	return c.ConnectionState().NegotiatedProtocol == http2.NextProtoTLS
}

// serveHTTP2 serves a connection until it ends, and reports whether it was the endpoint's to
// serve: it is not, once that is retired.
func (e *endpoint) serveHTTP2(c *clientConn) bool {
	srv := e.ln.srv
	h := &http2Conn{endpoint: e, conn: c, idle: make(chan struct{})}
	if !srv.http2.add(h) {
		return false
	}
	defer srv.http2.remove(h)
	defer context.AfterFunc(srv.ctx, func() { c.stream.Abort() })()
	c.guard = nil // it is for HTTP/1
	// Streams of several routes share the connection: it is dead when it is for all of them.
	c.stream.SetProgressTimeout(srv.current.Load().longestWriteTimeout())
	c.SetReadDeadline(c.deadline)
	h.serve()
	h.end()
	return true
}

// serve runs x/net's server, which closes the connection when it is through.
func (c *http2Conn) serve() {
	limits, srv := c.endpoint.Limits, c.endpoint.ln.srv
	c.base = &http.Server{
		MaxHeaderBytes: limits.MaxHeaderBytes,
		ErrorLog:       zap.NewStdLog(srv.noise.Named("http2")),
		ConnState:      c.follow,
	}
	if limits.MaxHeaderBytes <= 0 {
		c.base.MaxHeaderBytes = headerLimit(0)
	}
	server := &http2.Server{MaxConcurrentStreams: http2Streams, MaxReadFrameSize: http2FrameBytes,
		MaxUploadBufferPerStream: http2StreamWindow, MaxUploadBufferPerConnection: http2ConnectionWindow,
		IdleTimeout: limits.KeepaliveTimeout}
	if err := http2.ConfigureServer(c.base, server); err != nil {
		panic(err) // it is about cipher suites, and there are none in base
	}
	server.ServeConn(secureConn{c.conn}, &http2.ServeConnOpts{Context: context.WithValue(srv.ctx, connKey{}, c.conn),
		BaseConfig: c.base, Handler: c})
}

// follow is told when the client's first bytes have been read.
func (c *http2Conn) follow(net.Conn, http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = true
}

// ServeHTTP is the handler of every stream.
func (c *http2Conn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !c.enter() {
		return
	}
	defer c.leave()
	if !c.conn.served.Swap(true) {
		c.conn.SetReadDeadline(time.Time{}) // that of the first head
	}
	e := c.endpoint.ln.endpoint.Load()
	s, r := connecting(c.conn, w, r)
	c.endpoint.ln.srv.serve(e, w, r)
	if s != nil && s.begun {
		c.hold(1)
		defer c.hold(-1)
		s.run(w)
	}
}

// retire ends the connection when its streams have ended: at once if it has none.
func (c *http2Conn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	switch {
	case !c.begun:
		c.conn.stream.Abort()
	case c.over():
		c.goAway()
	}
}

// over reports whether a GOAWAY disturbs nobody. When the edge ends, requests under way do not
// count: they are finished after it, while new ones would only be refused.
func (c *http2Conn) over() bool {
	return c.running == 0 || c.sockets == 0 && c.endpoint.ln.srv.stopping.Load()
}

// hold counts a WebSocket.
func (c *http2Conn) hold(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sockets += n
}

// enter is the beginning of a handler, unless the connection has ended.
func (c *http2Conn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.running++
	}
	return !c.ended
}

// leave is the end of a handler.
func (c *http2Conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	switch {
	case c.running == 0 && c.ended:
		close(c.idle)
	case !c.ended && c.retired && c.over():
		c.goAway()
	}
}

// end waits for the handlers of a connection that is closed.
func (c *http2Conn) end() {
	c.mu.Lock()
	if c.ended = true; c.running == 0 {
		close(c.idle)
	}
	c.mu.Unlock()
	<-c.idle
}

// goAway tells the client that the connection ends with the streams that it has (RFC 9113
// §6.8). It does not wait.
func (c *http2Conn) goAway() { c.base.Shutdown(context.Background()) }

// longestWriteTimeout is that of the most patient route; 0 is for ever.
func (g *Generation) longestWriteTimeout() (longest time.Duration) {
	for _, r := range g.routes {
		if r.WebSocket.WriteTimeout == 0 {
			return 0
		}
		longest = max(longest, r.WebSocket.WriteTimeout)
	}
	return longest
}
