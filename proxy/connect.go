package proxy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
)

// protocolHeader is where x/net leaves the pseudo-header of an extended CONNECT (RFC 8441 §4).
const protocolHeader = ":protocol"

type streamKey struct{}

// connecting makes a stream of a request of HTTP/2 that has :protocol, which it takes out of
// the headers, and leaves it for streamOf; for others the stream is nil. All get the state
// of the TLS connection, which x/net keeps from those that say they are http.
func connecting(conn *clientConn, w http.ResponseWriter, r *http.Request) (*stream, *http.Request) {
	secure := r.TLS != nil
	if !secure {
		state := conn.tls.ConnectionState()
		r.TLS = &state
	}
	protocol := r.Header[protocolHeader]
	if len(protocol) == 0 {
		return nil, r
	}
	delete(r.Header, protocolHeader)
	s := newStream(conn, r)
	s.protocol, s.secure = protocol[0], secure
	return s, r.WithContext(context.WithValue(r.Context(), streamKey{}, s))
}

// streamOf returns the stream of a request that has :protocol, or nil.
func streamOf(r *http.Request) *stream {
	s, _ := r.Context().Value(streamKey{}).(*stream)
	return s
}

// checkConnect holds an extended CONNECT against RFC 8441 §4 and §5.
func checkConnect(r *http.Request, s *stream) (opening, *refusal) {
	h := r.Header
	versions := h["Sec-Websocket-Version"]
	switch {
	case r.Method != http.MethodConnect:
		return opening{}, malformed(":protocol is for CONNECT, not for %s", r.Method)
	case !strings.EqualFold(s.protocol, "websocket"):
		return opening{}, refuse(http.StatusNotImplemented, "protocol", "the only protocol here is websocket")
	case !s.secure:
		return opening{}, malformed("the scheme of a WebSocket over TLS is https")
	case r.Host == "":
		return opening{}, malformed("the request has no authority")
	case r.ContentLength >= 0 || len(h["Content-Length"]) > 0:
		return opening{}, malformed("a WebSocket handshake has no body, and does not end its stream")
	case len(versions) != 1 || strings.TrimSpace(versions[0]) != "13":
		return opening{}, upgradeRequired("the WebSocket version here is 13")
	}
	protocols, ref := offeredProtocols(h)
	if ref != nil {
		return opening{}, ref
	}
	var key [16]byte
	rand.Read(key[:]) // of the handshake with the backend: HTTP/2 has none
	return opening{key: base64.StdEncoding.EncodeToString(key[:]), protocols: protocols}, nil
}

// accept answers an extended CONNECT with 200 and starts the session, which the handler goes
// on to serve. It reports whether a session came of it.
func (h *handshake) accept(w http.ResponseWriter, u *upstream, s *stream) bool {
	header := h.answerHeader(u)
	header.Del("Sec-WebSocket-Accept")
	maps.Copy(w.Header(), header)
	control := http.NewResponseController(w)
	if d := h.endpoint.Limits.HandshakeTimeout; d > 0 {
		control.SetWriteDeadline(time.Now().Add(d))
	}
	w.WriteHeader(http.StatusOK)
	if err := control.Flush(); err != nil {
		h.abandon(u, fmt.Errorf("answering: %w", err))
		return false
	}
	control.SetWriteDeadline(time.Time{})
	s.begun = true
	h.open(u, &leg{http2: s}, http.StatusOK)
	return true
}

// cannotConnect is an answer of a backend that, relayed as it is, would open a WebSocket: to
// a CONNECT every 2xx does.
func cannotConnect(s *stream, u *upstream) bool {
	return s != nil && u.res.StatusCode/100 == 2
}

// withoutHop takes what HTTP/2 has no place for out of an answer (RFC 9113 §8.2.2): to x/net a
// Connection: close would be the end of the connection, with all of its streams.
func withoutHop(r *http.Request, header http.Header) {
	if r.ProtoMajor == 2 {
		for _, name := range hopByHop {
			delete(header, name)
		}
	}
}
