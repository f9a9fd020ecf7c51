package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/deflate"
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// handshake is a request on its way to becoming a session.
type handshake struct {
	srv       *Server
	endpoint  *endpoint
	conn      *clientConn
	route     *route
	r         *http.Request
	origin    origin
	opening   opening
	affinity  affinity
	header    http.Header // of the upstream request
	preface   []byte      // that goes before it on each connection to a backend
	requestID string
	start     time.Time
	last      bool // of its connection
	number    int  // of the request on its connection, from 1; only HTTP/1 counts
}

// serve is the HTTP handler of every listener.
func (s *Server) serve(e *endpoint, w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(*clientConn)
	conn.served.Store(true)
	s.stats.handshaking.Add(1)
	defer func() {
		s.stats.handshaking.Add(-1)
		s.sessions.wake()
		if conn.hijacked {
			e.conns.Done()
		}
	}()
	h := &handshake{srv: s, endpoint: e, conn: conn, r: r, start: time.Now(), origin: originOf(r, conn.remote, conn.believes(e.TrustedProxies))}
	if r.ProtoMajor == 1 {
		conn.requests++
		h.number = conn.requests
	}
	if ref := h.checkHead(w); ref != nil {
		s.stats.unrouted.request(ref.status)
		h.refused(w, ref)
		return
	}
	asks := asksWebSocket(r)
	if !asks && s.Plain != nil {
		s.Plain.ServeHTTP(w, r)
		return
	}
	ref := checkPath(r)
	for ref == nil {
		gen := s.current.Load()
		if ref = h.under(gen, w, asks); ref == nil {
			return
		}
		if ref.result == resultNoBackend && gen != s.current.Load() {
			ref = nil // a reload took the pool away under the request: the next one has another
		}
	}
	answered := &s.stats.unrouted
	if h.route != nil {
		answered = &h.route.stats.answered
	}
	if asks {
		answered.handshake(ref.result, ref.status)
	} else {
		answered.request(ref.status)
	}
	h.refused(w, ref)
}

// under handles the request by the routes of a generation. What it returns is still to be
// answered; nil means that the request has been dealt with.
func (h *handshake) under(gen *Generation, w http.ResponseWriter, asks bool) *refusal {
	h.route = gen.table.find(h.r, asks)
	switch {
	case h.route == nil && !asks && gen.table.find(h.r, true) != nil:
		h.route = gen.table.find(h.r, true)
		return upgradeRequired("this is a WebSocket endpoint")
	case h.route == nil:
		return refuse(http.StatusNotFound, "no_route", "no route for this host and path")
	case !asks:
		return h.proxyPlain(w)
	}
	return h.run(w)
}

// refused answers with an HTTP error.
func (h *handshake) refused(w http.ResponseWriter, ref *refusal) {
	name := ""
	if h.route != nil {
		name = h.route.Name
	}
	h.srv.noise.Info("refused", zap.String("listener", h.endpoint.Name), zap.String("route", name), zap.Stringer("client", h.conn.remote),
		zap.Stringer("client_ip", h.origin.client), zap.String("host", h.r.Host), zap.String("path", bounded(h.r.URL.Path)), zap.Int("status", ref.status), zap.String("reason", ref.text))
	if ref.status == statusClientGone {
		panic(http.ErrAbortHandler) // net/http would answer 200, which half a client may read
	}
	h.boundBody(w)
	if d := h.endpoint.Limits.HandshakeTimeout; d > 0 {
		// Who pipelines requests and reads no answers must not stay for ever.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
	}
	for name, values := range ref.header {
		w.Header()[name] = values
	}
	withoutHop(h.r, w.Header())
	http.Error(w, ref.text, ref.status)
}

// boundBody keeps net/http from waiting for the body of a request that is refused, and from
// taking what a CONNECT has behind it for a request. Over HTTP/2 nobody waits.
func (h *handshake) boundBody(w http.ResponseWriter) {
	bare := h.r.ContentLength == 0 && len(h.r.TransferEncoding) == 0
	if bare && h.r.Method != http.MethodConnect || h.r.ProtoMajor == 2 {
		return
	}
	w.Header().Set("Connection", "close")
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
}

// run makes a session of a WebSocket request, or says why not, as under does.
func (h *handshake) run(w http.ResponseWriter) *refusal {
	var ref *refusal
	if h.opening, ref = checkOpening(h.r); ref != nil {
		return ref
	}
	if h.route.WebSocket.Compression.Mode != relay.NoCompression {
		offers, err := deflate.ParseOffers(h.r.Header["Sec-Websocket-Extensions"])
		if err != nil {
			return malformed("%s", err)
		}
		h.opening.offers = offers
	}
	if !h.route.allows(h.r) {
		return refuse(http.StatusForbidden, "origin", "this origin is not allowed")
	}
	if ref = h.srv.takes(); ref != nil {
		return ref
	}
	limits := h.endpoint.ln.limits
	if ref = limits.admit(h.endpoint.Limits, h.origin.client); ref != nil {
		h.srv.stats.shed(ref.result)
		return ref
	}
	keep := false
	defer func() {
		if !keep {
			limits.release(h.origin.client)
		}
	}()
	h.affinity = h.route.affinity(h.r, h.origin.client)
	h.prepare()
	h.preface = h.route.pool.header(h.origin.client, h.conn)
	u, ref := h.connect(h.r.Context())
	if ref != nil {
		return ref
	}
	s := streamOf(h.r)
	switch {
	case u.res.StatusCode == http.StatusSwitchingProtocols && s != nil:
		keep = h.accept(w, u, s)
	case u.res.StatusCode == http.StatusSwitchingProtocols:
		keep = h.upgrade(w, u)
	case cannotConnect(s, u):
		u.backend.Live.Release()
		u.stream.Close()
		return refuse(http.StatusBadGateway, "backend_answer", "the backend opened no WebSocket")
	default:
		h.relayAnswer(w, u)
	}
	return nil
}

// takes says why nothing new is taken on at present, or nil.
func (s *Server) takes() *refusal {
	if s.stopping.Load() {
		s.stats.shed("shutdown")
		return refuse(http.StatusServiceUnavailable, "shutdown", "shutting down").later().with("Connection", "close")
	}
	if s.memory.Over() {
		s.stats.shed(WhyMemory)
		return refuse(http.StatusServiceUnavailable, "memory", "too much is buffered").later()
	}
	return nil
}

// edit changes headers that go further than one connection to those of the upstream request.
func (h *handshake) edit(header http.Header) {
	for _, name := range strippedHeaders {
		delete(header, name)
	}
	for _, name := range h.route.tickets {
		stripCookie(header, name)
	}
	h.requestID = setForwarded(header, h.origin, h.r)
	for _, name := range h.route.RemoveHeaders {
		header.Del(name)
	}
	for name, value := range h.route.SetHeaders {
		header.Set(name, value)
	}
}

// prepare makes the headers of the upstream request.
func (h *handshake) prepare() {
	h.header = endToEnd(h.r.Header)
	h.edit(h.header)
	h.header.Set("Upgrade", "websocket")
	h.header.Set("Connection", "Upgrade")
	h.header.Set("Sec-WebSocket-Key", h.opening.key)
	h.header.Set("Sec-WebSocket-Version", "13")
	if offer := h.opening.offers.String(); offer != "" && h.route.WebSocket.Compression.Mode == relay.Passthrough {
		h.header.Set("Sec-WebSocket-Extensions", offer)
	}
	if len(h.opening.protocols) > 0 {
		h.header.Set("Sec-WebSocket-Protocol", strings.Join(h.opening.protocols, ", "))
	}
}

// strippedHeaders are not the client's to send upstream: extension offers, which the
// edge makes itself if it does, and the headers by which an edge says that a session has moved.
var strippedHeaders = []string{"Sec-Websocket-Extensions", "Content-Length",
	headerSession, headerAttempt, headerPrevious, headerSignature}

// relayAnswer gives the client the backend's own answer as it came.
func (h *handshake) relayAnswer(w http.ResponseWriter, u *upstream) {
	defer u.stream.Close()
	defer context.AfterFunc(h.r.Context(), func() { u.stream.Close() })()
	u.backend.Live.Release()
	if u.res.StatusCode >= 500 {
		h.route.pool.health.HandshakeFailed(u.backend, balance.FailureStatus, fmt.Errorf("status %d", u.res.StatusCode))
	}
	h.route.stats.handshake("backend_answer", u.res.StatusCode)
	h.srv.noise.Info("backend answered", zap.String("route", h.route.Name), zap.String("backend", u.backend.ID),
		zap.Stringer("client", h.conn.remote), zap.Stringer("client_ip", h.origin.client), zap.Int("status", u.res.StatusCode))
	w.Header()["Content-Type"] = nil // none is made up
	header := endToEnd(u.res.Header)
	header.Del(h.route.pool.LoadHeader)
	h.affinity.tell(header, u.backend, u.res.StatusCode)
	for name, values := range header {
		w.Header()[name] = values
	}
	if wants := u.res.Header["Upgrade"]; u.res.StatusCode == http.StatusUpgradeRequired && len(wants) > 0 {
		// Of one hop, but the answer says nothing without it (RFC 9110 §15.5.22).
		w.Header()["Upgrade"], w.Header()["Connection"] = wants, []string{"Upgrade"}
	}
	withoutHop(h.r, w.Header())
	w.WriteHeader(u.res.StatusCode)
	u.limit.N = 1 << 62
	u.stream.SetDeadline(time.Time{}) // those of the attempt
	out := http.NewResponseController(w)
	timeout := h.route.pool.Upstream.HandshakeTimeout
	for buf := make([]byte, 16<<10); ; {
		if timeout > 0 {
			u.stream.SetReadDeadline(time.Now().Add(timeout))
			out.SetWriteDeadline(time.Now().Add(timeout))
		}
		n, err := u.res.Body.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			// The answer is cut: the client must not take it for whole.
			panic(http.ErrAbortHandler)
		}
		out.Flush()
	}
}

// upgrade hijacks the client's connection, answers 101 and starts the session. It
// reports whether a session came of it.
func (h *handshake) upgrade(w http.ResponseWriter, u *upstream) bool {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.abandon(u, fmt.Errorf("hijacking: %w", err))
		return false
	}
	head, _ := rw.Reader.Peek(rw.Reader.Buffered())
	head = bytes.Clone(head)
	conn.SetDeadline(time.Time{})
	if d := h.endpoint.Limits.HandshakeTimeout; d > 0 {
		conn.SetWriteDeadline(time.Now().Add(d))
	}
	if _, err := conn.Write(h.answer(u)); err != nil {
		h.abandon(u, fmt.Errorf("answering: %w", err))
		conn.Close()
		return false
	}
	h.conn.head = head
	h.open(u, &h.conn.leg, http.StatusSwitchingProtocols)
	return true
}

// abandon gives up a handshake whose client is gone.
func (h *handshake) abandon(u *upstream, err error) {
	u.backend.Live.Release()
	u.stream.Close()
	h.route.stats.handshake("client_gone", statusClientGone)
	h.srv.noise.Info("client went away during its handshake", zap.String("route", h.route.Name), zap.Stringer("client", h.conn.remote),
		zap.Stringer("client_ip", h.origin.client), zap.Error(err))
}

// answer is the 101 for the client: the backend's, with the headers of one hop ours.
func (h *handshake) answer(u *upstream) []byte {
	var buf bytes.Buffer
	buf.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	out := h.answerHeader(u)
	out.Set("Upgrade", "websocket")
	out.Set("Connection", "Upgrade")
	out.Write(&buf)
	buf.WriteString("\r\n")
	return buf.Bytes()
}

// answerHeader are the backend's headers as the client gets them.
func (h *handshake) answerHeader(u *upstream) http.Header {
	out := endToEnd(u.res.Header)
	for _, name := range []string{"Sec-Websocket-Extensions", "Content-Length"} {
		delete(out, name)
	}
	out.Del(h.route.pool.LoadHeader)
	h.affinity.tell(out, u.backend, u.res.StatusCode)
	if u.extension != "" {
		out.Set("Sec-WebSocket-Extensions", u.extension)
	}
	return out
}

// open is the transition from handshaking to open; status is what the client was answered.
func (h *handshake) open(u *upstream, client *leg, status int) {
	s := newSession(h.route.place(h.endpoint), u.backend, &SessionInfo{Client: h.conn.remote, ClientIP: h.origin.client, Host: h.r.Host,
		Path: h.r.URL.Path, Subprotocol: u.subprotocol, RequestID: h.requestID})
	s.again = h.again(u)
	h.route.stats.enter(h.endpoint.Name)
	u.backend.Live.Open()
	s.place.health.Opened(u.backend, s.openedAt())
	h.srv.stats.sessions.Add(1)
	h.route.stats.handshake("ok", status)
	h.route.stats.HandshakeDuration.Observe(time.Since(h.start).Seconds())
	s.logOpen(h.r.Proto)
	s.begin(func() engine.Session {
		return h.srv.engines.start(h.route.engine(u.compression), (*observed)(s), client, u.opened())
	})
	h.srv.sessions.add(s)
	if h.srv.stopping.Load() {
		// It opened while the edge was shutting down, perhaps behind the list that the
		// shutdown goes by.
		s.Close(shutdownCode, shutdownReason, WhyShutdown)
	}
	if h.srv.ctx.Err() != nil {
		s.kill() // likewise, behind the end of all sessions
	}
}
