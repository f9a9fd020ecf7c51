package proxy

import (
	"net/http"
	"net/netip"

	"github.com/tidegate/tidegate/balance"
)

// HashOn says what of a request consistent hashing goes by.
type HashOn struct {
	Source HashSource
	// Name is that of the header, cookie or query parameter.
	Name string
}

// HashSource is a part of a request.
type HashSource uint8

const (
	HashIP HashSource = iota
	HashHeader
	HashCookie
	HashQuery
	HashPath
	HashHost
)

// value returns what to hash; ok is false when the request has no such thing.
func (h HashOn) value(r *http.Request, client netip.Addr) (v string, ok bool) {
	switch h.Source {
	case HashHeader:
		v = r.Header.Get(h.Name)
	case HashCookie:
		if c, err := r.Cookie(h.Name); err == nil {
			v = c.Value
		}
	case HashQuery:
		v = r.URL.Query().Get(h.Name)
	case HashPath:
		v = r.URL.Path
	case HashHost:
		v = hostOf(r.Host)
	default:
		v = client.String()
	}
	return v, v != ""
}

func (h HashOn) request(r *http.Request, client netip.Addr) (req balance.Request) {
	if v, ok := h.value(r, client); ok {
		req.Hash, req.Hashed = balance.HashString(v), true
	}
	return req
}
