package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard returns why a request may not be answered whoever sends it, empty if it may.
// It keeps out web pages: what they cannot forge is Host, Origin and Sec-Fetch-Site.
func (s *Server) guard(r *http.Request) string {
	// Probes of load balancers speak HTTP/1.0 and may name no Host; browsers always do.
	hostless := r.Host == "" && isProbe(r)
	if s.listener.Addr().Network() != "unix" && !hostless && !s.hostAllowed(r.Host) {
		return "this Host is not the admin API's: use an IP address, localhost, or the host of admin.address"
	}
	// A page may send several of a header only through a proxy; none may then differ.
	for _, origin := range r.Header.Values("Origin") {
		if !strings.EqualFold(origin, "http://"+r.Host) {
			return "requests of other origins are refused"
		}
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		// same-site would be a page of another port or a neighbouring name.
		if site != "same-origin" && site != "none" {
			return "requests of other sites are refused"
		}
	}
	return ""
}

// isProbe reports whether r only asks whether the edge lives or is ready.
func isProbe(r *http.Request) bool { return r.URL.Path == LivezPath || r.URL.Path == ReadyzPath }

// hostAllowed reports whether no foreign DNS name leads to this Host: an address
// cannot be rebound, localhost is resolved by the machine itself, and the configured
// name is the operator's. The port may be any, for the sake of port forwarding.
func (s *Server) hostAllowed(hostport string) bool {
	host := hostOnly(hostport)
	if host == "localhost" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && host == hostOnly(s.opts.Address)
}

// hostOnly is the host of host, host:port or [host]:port in lower case, without the
// final dot of a full name.
func hostOnly(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
