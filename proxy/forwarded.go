package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// origin is where a request comes from, as far as the edge believes it.
type origin struct {
	peer    netip.AddrPort // the other end of the connection
	client  netip.Addr     // the peer, or whom a trusted proxy names
	trusted bool           // the peer's word is believed
}

// originOf reads X-Forwarded-For from the right: each address that is a trusted proxy
// vouches for the one before it, and the first that is not is the client.
func originOf(r *http.Request, peer netip.AddrPort, trusted []netip.Prefix) origin {
	o := origin{peer: peer, client: peer.Addr()}
	if !contains(trusted, o.client) {
		return o
	}
	o.trusted = true
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		addr, ok := parseHop(hops[i])
		if !ok {
			break
		}
		o.client = addr
		if !contains(trusted, addr) {
			break
		}
	}
	return o
}

// parseHop reads an address of X-Forwarded-For, which some proxies write with a port.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return addr.Unmap(), err == nil
}

// setForwarded writes X-Forwarded-* and X-Request-Id of the upstream request into h, a
// copy of the client's headers, and returns the request's id. What a client says of
// itself is replaced; what a trusted proxy says is kept and added to. Forwarded is neither:
// the edge does not add to it, and without its own part it would contradict the others.
func setForwarded(h http.Header, o origin, r *http.Request) (requestID string) {
	for name := range h {
		if twin := hyphened(name); twin != name && (claims(twin) || slices.Contains(strippedHeaders, twin)) || !o.trusted && claims(name) {
			delete(h, name)
		}
	}
	delete(h, "Forwarded")
	chain := ""
	if o.trusted {
		chain = strings.Join(h["X-Forwarded-For"], ", ")
		requestID = h.Get("X-Request-Id")
	}
	if chain != "" {
		chain += ", "
	}
	h.Set("X-Forwarded-For", chain+o.peer.Addr().String())
	if h.Get("X-Forwarded-Proto") == "" {
		h.Set("X-Forwarded-Proto", scheme(r))
	}
	if h.Get("X-Forwarded-Host") == "" {
		h.Set("X-Forwarded-Host", r.Host)
	}
	if requestID == "" || len(requestID) > 200 {
		requestID = newRequestID()
	}
	h.Set("X-Request-Id", requestID)
	return requestID
}

// claimed are headers, beside X-Forwarded-*, that some proxy or other sets and some backend
// or other believes: who the client is, and what it asked for.
var claimed = []string{"Forwarded", "X-Forwarded", "X-Original-Forwarded-For", "X-Request-Id",
	"X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Cf-Connecting-Ipv6",
	"Fastly-Client-Ip", "Fly-Client-Ip", "X-Appengine-User-Ip", "X-Azure-Clientip", "X-Azure-Socketip", "X-Envoy-External-Address",
	"X-Remote-Addr", "X-Remote-Ip", "X-Proxyuser-Ip",
	"X-Scheme", "X-Url-Scheme", "Front-End-Https", "X-Original-Host", "X-Original-Url", "X-Rewrite-Url"}

// claims reports whether a header is one that only a trusted proxy may set.
func claims(name string) bool {
	return strings.HasPrefix(name, "X-Forwarded-") || slices.Contains(claimed, name)
}

// hyphened is the name that a backend may take a header's for: CGI and what came of it read
// X_Forwarded_For as X-Forwarded-For (RFC 3875 §4.1.18).
func hyphened(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

func newRequestID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// hopByHop are the headers that concern one connection (RFC 9110 §7.6.1), and those that
// older proxies treat so.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization"}

// endToEnd copies the headers that go further than one connection.
func endToEnd(from http.Header) http.Header {
	h := from.Clone()
	for _, name := range tokens(from["Connection"]) {
		h.Del(name)
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	return h
}

// tokens returns the members of comma-separated lists.
func tokens(lines []string) (list []string) {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if t = strings.TrimSpace(t); t != "" {
				list = append(list, t)
			}
		}
	}
	return list
}
