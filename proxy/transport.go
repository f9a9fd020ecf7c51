package proxy

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"time"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/preface"
)

const (
	// keptIdle is how long a connection to a backend is kept for a next request: less than app
	// servers wait for one (Node's do for 5 s), or a request would meet the end of its
	// connection, and not every request can be sent twice.
	keptIdle = 4 * time.Second
	// keptPerBackend is how many are kept at most.
	keptPerBackend = 512
)

// newTransport makes connections to backends that requests use one after another. It goes by
// their addresses and knows nothing of a pool but its settings.
func newTransport(s *UpstreamSettings) *http.Transport {
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		return ctx.Value(plainKey{}).(*plain).connectTo(ctx, addr)
	}
	return &http.Transport{
		DialContext:            dial,
		DisableKeepAlives:      s.ProxyProtocol != preface.None, // a connection speaks for one client
		DisableCompression:     true,                            // what the client accepts is between it and the backend
		MaxIdleConnsPerHost:    keptPerBackend,
		IdleConnTimeout:        keptIdle,
		ResponseHeaderTimeout:  s.ResponseTimeout,
		ExpectContinueTimeout:  expectTimeout,
		MaxResponseHeaderBytes: maxAnswerHead,
		Protocols:              http1,
	}
}

// expectTimeout is how long a request that expects 100 (Continue) waits for it before its body
// is sent all the same (RFC 9110 §10.1.1).
const expectTimeout = 5 * time.Second

var http1 = func() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}()

// connectTo makes a connection for a request, or for the one that comes first. The error is a
// *failure.
func (p *plain) connectTo(ctx context.Context, addr string) (net.Conn, error) {
	l, err := p.dialLeg(ctx, addr)
	if err != nil {
		f := fail(balance.FailureConnect, err)
		f.dialling = true
		return nil, f
	}
	// Whoever takes no byte of a request is not about to answer it.
	l.stream.SetProgressTimeout(p.route.pool.Upstream.ResponseTimeout)
	return l.conn(), nil
}

// transportFor returns the pool's transport under new settings: that of before, with its
// connections, if it would be the same. The mutex is held.
func (p *pool) transportFor(s UpstreamSettings) *http.Transport {
	if p.transport != nil && s.TLS == nil && p.transportOf.TLS == nil && reflect.DeepEqual(s, p.transportOf) {
		return p.transport
	}
	if p.transport != nil {
		p.transport.CloseIdleConnections() // and those that become idle
	}
	p.transport, p.transportOf = newTransport(&s), s
	return p.transport
}
