package config

import (
	"bytes"
	"net/http"
	"strings"
)

// minCookieSecretBytes is the least that the key of a cookie may have: as much as HMAC-SHA256
// makes of it.
const minCookieSecretBytes = 32

func (v *validator) validateSticky(path string, r *Route) {
	s := r.Sticky
	var has []string
	for _, key := range []string{"cookie", "header", "hash"} {
		if v.given(join(path, key)) {
			has = append(has, key)
		}
	}
	switch {
	case !v.usable(path):
	case len(has) == 0:
		v.add(path, "sticky needs one of cookie, header and hash")
	case len(has) > 1:
		v.add(join(path, has[1]), "%s contradicts %s: a key is in one place", has[1], has[0])
	}
	if s.Cookie != nil {
		v.validateStickyCookie(join(path, "cookie"), s.Cookie)
	}
	if at := join(path, "header"); s.Header != "" && v.usable(at) {
		s.Header = http.CanonicalHeaderKey(s.Header)
		switch {
		case !isToken(s.Header):
			v.fail(at, "%s is not a valid header name", quote(s.Header))
		case s.Header == "Host":
			v.fail(at, "the Host header is hash: host")
		case connectionHeaders[s.Header] || strings.HasPrefix(s.Header, "Sec-Websocket-"):
			v.fail(at, "%s belongs to the connection and is not the same for all requests of a client", s.Header)
		}
	} else if v.given(at) && v.usable(at) {
		v.fail(at, "must not be empty")
	}
	v.checkSettled(path, r)
}

func (v *validator) validateStickyCookie(path string, c *StickyCookie) {
	name, secure, file := join(path, "name"), join(path, "secure"), join(path, "secret_file")
	if c.Name != "" && v.usable(name) && !isToken(c.Name) {
		v.fail(name, "%s is not a valid cookie name", quote(c.Name))
	}
	if !c.Secure && v.usable(secure) {
		if at := join(path, "same_site"); c.SameSite == "none" && v.usable(at) {
			v.add(at, "same_site: none needs secure: true, or browsers drop the cookie")
		}
		if strings.HasPrefix(c.Name, "__Host-") || strings.HasPrefix(c.Name, "__Secure-") {
			v.add(name, "a cookie named %s needs secure: true, or browsers drop it", quote(c.Name))
		}
	}
	if c.SecretFile == "" || !v.usable(file) {
		return
	}
	if data, ok := v.content(file, c.SecretFile); ok && len(bytes.TrimSpace(data)) < minCookieSecretBytes {
		v.fail(file, "%s has less than %d bytes (to make one: openssl rand -hex -out sticky.key 32)", quoteFile(c.SecretFile), minCookieSecretBytes)
	}
}

// checkSettled refuses a route whose sessions never leave their backends if its pool is there
// to spread them.
func (v *validator) checkSettled(path string, r *Route) {
	at := join(path, "strict")
	if !r.Sticky.Strict || !v.usable(at) {
		return
	}
	for i := range v.file.Pools {
		if p := &v.file.Pools[i]; p.Name == r.Pool && p.Rebalance != nil {
			v.add(at, "strict: true contradicts %s: sessions that are strictly sticky are never sent elsewhere (leave strict out, or rebalance, or give the route a pool of its own)", join(element("pools", i), "rebalance"))
		}
	}
}
