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
		case ofConnection(s.Header):
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

// validateCookies refuses two cookies of one name that a browser cannot tell apart and that mean
// different backends: each answer of one route would undo what the other's has said.
func (v *validator) validateCookies() {
	for i := range v.file.Routes {
		path := join(element("routes", i), "sticky.cookie")
		if !v.usable(path) {
			continue
		}
		for j := range i {
			if why := cookiesClash(&v.file.Routes[i], &v.file.Routes[j]); why != "" && v.usable(join(element("routes", j), "sticky.cookie")) {
				v.add(path, "the cookie %s is also that of route %s, %s", quote(v.file.Routes[i].Sticky.Cookie.Name), quote(v.file.Routes[j].Name), why)
				break
			}
		}
	}
}

// cookiesClash says what is wrong with two routes of one cookie; empty: nothing is.
func cookiesClash(r, other *Route) string {
	if r.Sticky == nil || other.Sticky == nil || r.Sticky.Cookie == nil || other.Sticky.Cookie == nil {
		return ""
	}
	a, b := r.Sticky.Cookie, other.Sticky.Cookie
	switch {
	case a.Name != b.Name || !hostsMeet(r.Match.Hosts, other.Match.Hosts):
	case r.Pool != other.Pool:
		return "which leads to another pool: give one of them another name"
	case a.SecretFile != b.SecretFile:
		return "with another secret_file: use one file, or another name"
	}
	return ""
}

// hostsMeet reports whether a host can match both lists; an empty one matches all.
func hostsMeet(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	for _, x := range a {
		for _, y := range b {
			if hostMatches(x, y) || hostMatches(y, x) {
				return true
			}
		}
	}
	return false
}

// hostMatches reports whether a pattern takes a host, or all that another pattern takes.
func hostMatches(pattern, host string) bool {
	suffix, wild := strings.CutPrefix(pattern, "*")
	return pattern == host || wild && strings.HasSuffix(strings.TrimPrefix(host, "*"), suffix)
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
