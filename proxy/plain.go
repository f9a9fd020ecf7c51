package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/tidegate/tidegate/balance"
)

// plain is a request that opens no WebSocket, on its way to a backend and back. It is the
// transport of a ReverseProxy of its own, which does all that HTTP asks of a proxy; plain says
// which backend it goes to, and what becomes of it when that fails.
type plain struct {
	*handshake
	pick    balance.Request
	backend *balance.Backend // has a reservation for it; nil: none has
	body    *requestBody     // nil: it has none
	stream  *eventStream     // nil: its answer is none
	cut     bool             // its answer is, before its end
}

// plainKey finds the request behind a dial of its transport.
type plainKey struct{}

// proxyPlain forwards a request that opens no WebSocket. What it returns is still to be
// answered; nil means that the request has been dealt with.
func (h *handshake) proxyPlain(w http.ResponseWriter) *refusal {
	if ref := checkPlain(h.r); ref != nil {
		return ref
	}
	if !h.route.allows(h.r) {
		return refuse(http.StatusForbidden, "origin", "this origin is not allowed")
	}
	if ref := h.srv.takes(); ref != nil {
		return ref
	}
	h.affinity = h.route.affinity(h.r, h.origin.client)
	p := &plain{handshake: h, pick: h.affinity.request}
	h.preface = h.route.pool.header(h.origin.client, h.conn)
	if ref := p.choose(h.r.Context()); ref != nil {
		return ref
	}
	h.srv.stats.requests.Add(1)
	defer p.over()
	out := newAnswer(w, p, h.last)
	defer out.end()
	defer p.cutOldAnswer()
	if h.r.ContentLength != 0 { // a length of 0, said or not, is no body
		p.body = &requestBody{in: h.r.Body, control: out.control, timeout: h.endpoint.Limits.RequestBodyTimeout,
			left: h.r.ContentLength, stream: h.r.ProtoMajor > 1}
	}
	if h.r.ProtoMajor == 1 {
		h.conn.stream.SetProgressTimeout(h.route.WebSocket.WriteTimeout)
	}
	proxy := httputil.ReverseProxy{Rewrite: p.rewrite, Transport: p, ModifyResponse: p.answered, ErrorHandler: p.failed,
		FlushInterval: flushAfter, BufferPool: &copyBuffers, ErrorLog: h.srv.httpLog}
	proxy.ServeHTTP(out, h.r)
	return nil
}

// cutOldAnswer resets the connection of an answer in HTTP/1.0 that is cut short: where it has no
// length its end would be taken for the answer's.
func (p *plain) cutOldAnswer() {
	cut := recover()
	if cut == nil {
		return
	}
	p.cut = true
	if tcp, ok := p.conn.stream.Conn.(*net.TCPConn); ok && !p.r.ProtoAtLeast(1, 1) {
		tcp.SetLinger(0)
	}
	panic(cut)
}

// flushAfter is how long a part of an answer of known length may wait for the next. What has no
// length, event streams first of all, waits for nothing.
const flushAfter = 5 * time.Millisecond

// over ends the request, whatever became of it.
func (p *plain) over() {
	if p.stream != nil {
		p.srv.streams.remove(p.stream)
	}
	p.release()
	if p.body != nil {
		p.body.end(p.conn, p.cut)
	}
	p.srv.stats.requests.Add(-1)
	p.srv.sessions.wake()
}

func (p *plain) release() {
	if p.backend != nil {
		p.backend.Live.Release()
		p.backend = nil
	}
}

// checkPlain refuses what cannot be forwarded.
func checkPlain(r *http.Request) *refusal {
	switch {
	case hasToken(r.Header["Upgrade"], "h2c"):
		return malformed("HTTP/2 without TLS is not spoken here")
	case r.ProtoMajor == 2 && !soundLength(r):
		return malformed("the Content-Length is not that of the body")
	case !httpguts.ValidHeaderFieldName(r.Method):
		return malformed("the method is no token")
	case !soundTrailers(r.Trailer):
		return malformed("Trailer names what is no header")
	case r.Method == http.MethodConnect:
		return malformed("CONNECT is for proxies of another kind")
	case r.Method == http.MethodTrace:
		return refuse(http.StatusMethodNotAllowed, "malformed", "TRACE is not forwarded")
	}
	return nil
}

// soundLength reports whether a request of HTTP/2 has the length that it says (RFC 9113 §8.1.1).
// x/net counts what comes, but takes what says no number, or says it twice, for 0.
func soundLength(r *http.Request) bool {
	said := r.Header["Content-Length"]
	return len(said) == 0 || len(said) == 1 && said[0] == strconv.FormatInt(r.ContentLength, 10)
}

// soundTrailers reports whether a request announces trailers that can be sent on.
func soundTrailers(announced http.Header) bool {
	for name := range announced {
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
	}
	return true
}

// choose reserves a backend for the request.
func (p *plain) choose(ctx context.Context) *refusal {
	b, err := p.route.pool.pick(p.pick)
	if err != nil {
		p.hear(ctx) // the first word may also have come just now
		b, err = p.route.pool.pick(p.pick)
	}
	switch {
	case errors.Is(err, balance.ErrFull):
		p.srv.stats.shed("backends_full")
		return refuse(http.StatusServiceUnavailable, "full", "%s", p.affinity.full()).later()
	case err != nil:
		return refuse(http.StatusServiceUnavailable, resultNoBackend, "%s", p.affinity.closed("requests")).later()
	}
	p.backend = b
	return nil
}

// rewrite makes the upstream request of the client's.
func (p *plain) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	p.retarget(out.URL)
	if p.origin.trusted {
		// ReverseProxy drops them all.
		named := tokens(pr.In.Header["Connection"])
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
			if values, ok := pr.In.Header[name]; ok && !slices.ContainsFunc(named, func(t string) bool { return http.CanonicalHeaderKey(t) == name }) {
				out.Header[name] = values
			}
		}
	}
	delete(out.Header, "Upgrade") // nothing but WebSocket is switched to
	delete(out.Header, "Connection")
	p.edit(out.Header)
	if p.body != nil {
		out.Body = p.body
		out.Trailer = pr.In.Trailer // filled when the body has been read
	}
	pr.Out = out.WithContext(context.WithValue(out.Context(), plainKey{}, p))
}

// retarget sets the target of the upstream request: as the client wrote it, but for the pool's
// own prefix.
func (p *plain) retarget(u *url.URL) {
	*u = url.URL{Scheme: "http", Path: p.r.URL.Path, RawPath: p.r.URL.RawPath, RawQuery: p.r.URL.RawQuery, ForceQuery: p.r.URL.ForceQuery}
	if p.route.pool.Upstream.Path == "" {
		return
	}
	if t, err := url.ParseRequestURI(p.target()); err == nil {
		u.Path, u.RawPath = t.Path, t.RawPath
	}
}

// RoundTrip asks backends until one answers: http.RoundTripper.
func (p *plain) RoundTrip(out *http.Request) (*http.Response, error) {
	view := p.route.pool
	for try := 0; ; try++ {
		out.URL.Host, out.Host = p.backend.Addr, p.host(p.backend)
		res, err := view.transport.RoundTrip(out)
		if err == nil {
			view.health.RequestDone(p.backend)
			return res, nil
		}
		last, ref := p.blame(err)
		if ref != nil {
			return nil, ref
		}
		if try >= view.Upstream.Retries || !p.again(last) || p.late() {
			return nil, p.unreachable(last)
		}
		p.pick.Tried = append(p.pick.Tried, p.backend)
		p.release()
		if p.choose(p.r.Context()) != nil {
			return nil, p.unreachable(last)
		}
	}
}

// blame finds out whose fault the end of an attempt is: the client's, for which it returns the
// answer, or the backend's.
func (p *plain) blame(err error) (*failure, *refusal) {
	var ref *refusal
	if p.body != nil {
		ref = p.body.refusal()
	}
	// A body that ends early ends the context too, and so does one that is late.
	if p.r.Context().Err() != nil && (ref == nil || ref.status != http.StatusRequestTimeout) {
		ref = refuse(statusClientGone, "client_gone", "the client went away")
	}
	if ref != nil {
		return nil, ref
	}
	last := fail(balance.FailureHandshake, err)
	p.route.pool.health.RequestFailed(p.backend, last.kind, err)
	p.srv.noise.Warn("backend failed", zap.String("route", p.route.Name), zap.String("pool", p.route.pool.Name),
		zap.String("backend", p.backend.ID), zap.String("address", p.backend.Addr), zap.Stringer("kind", last.kind), zap.Error(err))
	return last, nil
}

// again reports whether another backend may get the request: the first one has seen nothing of
// it, or there is no harm in asking twice (RFC 9110 §9.2.1).
func (p *plain) again(last *failure) bool {
	if last.dialling {
		return true
	}
	switch p.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return p.body == nil && last.kind != balance.FailureTimeout
	}
	return false
}

// late reports whether the time for all attempts together is up.
func (p *plain) late() bool {
	total := p.route.pool.Upstream.TotalTimeout
	return total > 0 && time.Since(p.start) >= total
}

func (p *plain) unreachable(last *failure) *refusal {
	if last.kind == balance.FailureTimeout {
		return refuse(http.StatusGatewayTimeout, "backend_timeout", "no backend answered in time")
	}
	return refuse(http.StatusBadGateway, "backend_"+last.kind.String(), "no backend gave an answer")
}

// answered looks at an answer before it goes to the client.
func (p *plain) answered(res *http.Response) error {
	if res.StatusCode == http.StatusSwitchingProtocols {
		res.Body.Close()
		last := fail(balance.FailureHandshake, errors.New("it switched protocols unasked"))
		p.route.pool.health.RequestFailed(p.backend, last.kind, last)
		return p.unreachable(last)
	}
	res.Header.Del(p.route.pool.LoadHeader)
	p.affinity.tell(res.Header, p.backend, res.StatusCode)
	if isEventStream(res.Header) {
		p.stream = newEventStream(res.Body, p.backend.Live)
		res.Body = p.stream
		p.srv.streams.add(p.stream)
		if p.srv.stopping.Load() {
			p.stream.end() // perhaps behind the list that the shutdown goes by
		}
	}
	p.route.stats.request(res.StatusCode)
	if line := p.srv.log.Check(zap.DebugLevel, "request"); line != nil {
		line.Write(zap.String("route", p.route.Name), zap.String("backend", p.backend.ID), zap.Stringer("client_ip", p.origin.client),
			zap.String("method", p.r.Method), zap.String("path", bounded(p.r.URL.Path)), zap.Int("status", res.StatusCode),
			zap.String("request_id", p.requestID), zap.Duration("after", time.Since(p.start)))
	}
	return nil
}

// failed answers a request to which no backend has.
func (p *plain) failed(w http.ResponseWriter, _ *http.Request, err error) {
	var ref *refusal
	if !errors.As(err, &ref) {
		ref = malformed("%s", err) // ReverseProxy's own words, of the request
	}
	p.route.stats.request(ref.status)
	p.refused(w, ref)
}

// copyBuffers are what answers are copied through.
var copyBuffers = bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}

type bufferPool struct{ sync.Pool }

func (b *bufferPool) Get() []byte  { return b.Pool.Get().(*[32 << 10]byte)[:] }
func (b *bufferPool) Put(p []byte) { b.Pool.Put((*[32 << 10]byte)(p)) }
