package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/proxy/pump"
	"github.com/tidegate/tidegate/tls"
)

// listener is one bound address. It lives as long as configurations name the address;
// its present settings are in its endpoint.
type listener struct {
	srv      *Server
	socket   *net.TCPListener
	endpoint atomic.Pointer[endpoint]
	limits   *limits // outlives it while there are sessions
	stop     context.CancelFunc
}

// key tells listeners apart over reloads: by the address, and where that leaves the port
// to the system, by the name.
func (s *ListenerSettings) key() string {
	if _, port, err := net.SplitHostPort(s.Address); err == nil && (port == "" || port == "0") {
		return s.Name + " at " + s.Address
	}
	return s.Address
}

// endpoint is a listener under one configuration: its HTTP server and its settings.
type endpoint struct {
	ListenerSettings
	ln      *listener
	queue   *queue
	http    *http.Server
	conns   sync.WaitGroup // that the HTTP server has, each until its last handler is done
	store   *tls.Store
	unwatch context.CancelFunc // stops following the certificate files
	retired bool               // it gets no connection of HTTP/2 any more; guarded by the server's http2
}

func (l *listener) newEndpoint(s ListenerSettings, store *tls.Store) *endpoint {
	e := &endpoint{ListenerSettings: s, ln: l, store: store, queue: newQueue(l.socket.Addr())}
	e.http = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.srv.serve(e, w, r) }),
		ReadHeaderTimeout: s.Limits.HandshakeTimeout,
		IdleTimeout:       s.Limits.KeepaliveTimeout,
		MaxHeaderBytes:    headerLimit(s.Limits.MaxHeaderBytes),
		BaseContext:       func(net.Listener) context.Context { return l.srv.ctx },
		ConnContext:       withConn,
		ConnState:         e.track,
		ErrorLog:          l.srv.httpLog,
		// No request goes past serve.
		DisableGeneralOptionsHandler: true,
	}
	return e
}

// headerLimit is what net/http takes for a bound of n bytes: it adds 4 KiB to what it is
// told, and takes 0 for its own default.
func headerLimit(n int) int {
	if n <= 0 {
		return 1 << 30
	}
	return max(1, n-4<<10)
}

// track counts the connections of the HTTP server. A hijacked one is counted out at the
// end of its handler.
func (e *endpoint) track(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		e.conns.Add(1)
	case http.StateHijacked:
		connOf(c).hijacked = true
	case http.StateClosed:
		e.conns.Done()
	}
}

// serve runs the HTTP server of the endpoint until it is retired or ctx is done, and
// returns when the last handler has: requests under way are finished, however long they take,
// also those whose head has not come yet. Sessions are no concern of the server any more.
func (e *endpoint) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, e.retire)
	e.http.Serve(e.queue)
	stop()
	if e.unwatch != nil {
		e.unwatch()
	}
	e.http.SetKeepAlivesEnabled(false)
	defer context.AfterFunc(ctx, func() { e.http.Close() })()
	e.conns.Wait()
}

// retire ends the endpoint: it takes no connection any more.
func (e *endpoint) retire() {
	e.queue.Close()
	e.ln.srv.http2.retire(e)
}

// watchCertificates follows the certificate files of the endpoint.
func (e *endpoint) watchCertificates(ctx context.Context) {
	log := e.ln.srv.log.With(zap.String("listener", e.Name))
	e.store.Watch(ctx, certificatePoll, func(changed bool, err error) {
		if changed {
			log.Info("certificates reloaded")
		}
		if err != nil {
			log.Error("certificate files are unusable; what was loaded before stays in force", zap.Error(err))
		}
	})
}

// run accepts until the listener is closed.
func (l *listener) run(ctx context.Context) {
	delay := time.Duration(0)
	for {
		c, err := l.socket.AcceptTCP()
		switch {
		case err == nil:
			delay = 0
			if e := l.endpoint.Load(); e.store == nil && !e.mayName(remoteOf(c)) {
				e.welcome(l.srv.ctx, c) // nothing in it waits for the client
			} else {
				l.srv.wg.Go(func() { e.welcome(l.srv.ctx, c) })
			}
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		// Out of descriptors or memory: park, so that what is open can end (EMFILE).
		if delay == 0 {
			l.srv.log.Error("accepting is paused", zap.String("listener", l.endpoint.Load().Name), zap.Error(err),
				zap.Bool("out_of_descriptors", errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)))
			l.srv.stats.shed("accept_error")
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
	}
}

// welcome takes a new connection through the header of a proxy and TLS to the HTTP server.
func (e *endpoint) welcome(ctx context.Context, tcp *net.TCPConn) {
	srv := e.ln.srv
	if err := tune(tcp, e.TCP); err != nil {
		srv.noise.Info("connection not tuned", zap.String("listener", e.Name), zap.Error(err))
	}
	c := &clientConn{leg: leg{stream: pump.NewStream(tcp)}, remote: remoteOf(tcp), onClose: e.closed, guard: newHeadGuard()}
	c.Conn = c.stream
	if d := e.Limits.HandshakeTimeout; d > 0 {
		c.deadline = time.Now().Add(d)
	}
	if e.mayName(c.remote) && !e.hearName(ctx, c, tcp) {
		return
	}
	var ready net.Conn = c
	if e.store != nil {
		if !c.deadline.IsZero() {
			bounded, cancel := context.WithDeadline(ctx, c.deadline)
			defer cancel()
			ctx = bounded
		}
		conn, err := e.store.Accept(ctx, c.stream, e.TLSEngine)
		if err != nil {
			srv.noise.Info("TLS handshake failed", zap.String("listener", e.Name), zap.Stringer("client", c.remote), zap.Error(err))
			srv.stats.tlsFailed.Add(1)
			tcp.Close()
			return
		}
		c.Conn, c.tls = conn, conn
		ready = secureConn{c}
	}
	take := func(e *endpoint) bool { return e.queue.put(ready) }
	if c.tls != nil && negotiatedHTTP2(c.tls) {
		take = func(e *endpoint) bool { return e.serveHTTP2(c) }
	}
	for !take(e) {
		// The settings changed meanwhile: the next endpoint takes it, if there is one.
		next := e.ln.endpoint.Load()
		if next == e {
			c.served.Store(true)
			ready.Close()
			return
		}
		e = next
	}
}

// closed notes a connection that ended before any request was complete.
func (e *endpoint) closed(c *clientConn) {
	if !c.served.Load() {
		level := zap.InfoLevel
		if c.received.Load() == 0 {
			level = zap.DebugLevel // a port check, or a connection that a browser opened ahead
		}
		e.ln.srv.noise.Log(level, "connection ended before a request was complete", zap.String("listener", e.Name),
			zap.Stringer("client", c.remote), zap.Int64("bytes", c.received.Load()))
	}
}

func remoteOf(c net.Conn) netip.AddrPort { return addrPort(c.RemoteAddr()) }

func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
