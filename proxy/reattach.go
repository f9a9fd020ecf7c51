package proxy

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// Headers by which a backend knows that a session has moved to it.
const (
	headerSession   = "Tidegate-Session"
	headerAttempt   = "Tidegate-Attempt"
	headerPrevious  = "Tidegate-Previous-Backend"
	headerSignature = "Tidegate-Signature"
)

// kept renders the headers of an upstream request, but those that each attempt has of its
// own.
func kept(h http.Header) string {
	var b strings.Builder
	h.WriteSubset(&b, map[string]bool{"Sec-Websocket-Key": true, "Sec-Websocket-Protocol": true, "Sec-Websocket-Extensions": true})
	return b.String()
}

// reattach makes the session's handshake with another backend.
func (s *Session) reattach(ctx context.Context, b *balance.Backend) (*upstream, error) {
	a, m := s.again, s.place.moves
	header, err := textproto.NewReader(bufio.NewReader(strings.NewReader(a.header[a.prefaced:] + "\r\n"))).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("reading the kept headers: %w", err)
	}
	target, err := url.ParseRequestURI(a.target)
	if err != nil {
		return nil, fmt.Errorf("reading the kept target: %w", err)
	}
	var key [16]byte
	rand.Read(key[:])
	h := &handshake{srv: s.place.srv, header: http.Header(header), preface: []byte(a.header[:a.prefaced]), r: &http.Request{Host: a.host, URL: target},
		endpoint: &endpoint{ListenerSettings: ListenerSettings{TCP: s.place.tcp}},
		route:    &route{pool: &poolView{pool: m.pool, PoolSettings: PoolSettings{Name: s.Pool(), Upstream: m.upstream}}},
		opening:  opening{key: base64.StdEncoding.EncodeToString(key[:])}}
	h.header.Set("Sec-WebSocket-Key", h.opening.key)
	if a.subprotocol != "" {
		h.opening.protocols = []string{a.subprotocol}
		h.header.Set("Sec-WebSocket-Protocol", a.subprotocol)
	}
	sign(h.header, m.settings.Secret, s.ID(), a.attempts.Add(1), s.Backend().ID, time.Now())
	return h.attempt(ctx, b)
}

// sign sets the reattach headers. The signature is the time in Unix seconds and the
// HMAC-SHA256 (RFC 2104) of session, attempt, previous backend and time as they stand in
// the headers, each followed by a line feed: "t=1700000000,v1=hex".
func sign(h http.Header, secret []byte, session string, attempt uint32, previous string, now time.Time) {
	previous = url.PathEscape(previous) // discovery's word: it may hold anything
	number, at := strconv.FormatUint(uint64(attempt), 10), strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s\n%s\n%s\n%s\n", session, number, previous, at)
	h.Set(headerSession, session)
	h.Set(headerAttempt, number)
	h.Set(headerPrevious, previous)
	h.Set(headerSignature, "t="+at+",v1="+hex.EncodeToString(mac.Sum(nil)))
}
