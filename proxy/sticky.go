package proxy

import (
	"crypto/rand"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// StickySettings say by what the requests of a client, or of a group of them, find the same
// backend: a key that they have in common.
type StickySettings struct {
	// Cookie is one of the edge's own, which has the key and the backend; nil: the key is what
	// On finds in a request.
	Cookie *StickyCookie
	On     HashOn
	// Strict requests are refused while their backend takes none; others go to another one.
	Strict bool
}

func (s *StickySettings) stickiness() balance.Stickiness {
	if s.Strict {
		return balance.StrictlySticky
	}
	return balance.Sticky
}

// affinity is which backend one request wants, and what its answer has to say of the one that
// it got. Its zero value wants none and says nothing.
type affinity struct {
	sticky  *StickySettings // nil: the route has none
	pool    *pool
	request balance.Request // to pick with
	ticket  ticket          // of the cookie
	stale   bool            // the client has no such cookie, or one that is to be renewed
	foreign bool            // the client may have one that its browser has kept back
}

// affinity looks at a request of the route.
func (rt *route) affinity(r *http.Request, client netip.Addr) affinity {
	a := affinity{sticky: rt.Sticky, pool: rt.pool.pool, request: rt.pool.HashOn.request(r, client)}
	switch {
	case a.sticky == nil:
	case a.sticky.Cookie != nil:
		a.recall(r.Header)
	default:
		if v, ok := a.sticky.On.value(r, client); ok {
			a.request = balance.Request{Hash: balance.HashString(v), Sticky: a.sticky.stickiness()}
		}
	}
	return a
}

// recall takes the key and the backend from the client's cookie, or makes a new key, whose
// first backend the policy picks.
func (a *affinity) recall(header http.Header) {
	t, renew, ok := a.sticky.Cookie.find(header["Cookie"], time.Now())
	if !ok {
		rand.Read(a.ticket.key[:])
		a.stale = true
		a.foreign = a.sticky.Cookie.SameSite != http.SameSiteNoneMode && header.Get("Sec-Fetch-Site") == "cross-site"
		return
	}
	a.ticket, a.stale = t, renew
	a.request = balance.Request{Hash: t.hash(), Preferred: t.backend, Sticky: a.sticky.stickiness()}
}

// elsewhere is to pick with for a session that has left its backend, whichever that was: the
// key alone decides, so that the client's next request, which its backend does not take any
// more either, comes to the same one. It leaves a strict route's too: staying is over.
func (a *affinity) elsewhere() balance.Request {
	switch {
	case a.sticky != nil && a.sticky.Cookie != nil:
		return balance.Request{Hash: a.ticket.hash(), Sticky: balance.Sticky}
	case a.request.Sticky != balance.Unsticky:
		return balance.Request{Hash: a.request.Hash, Sticky: balance.Sticky}
	}
	return a.request
}

// ticketNames returns what cookies the edge sets on any of the routes.
func ticketNames(routes []*route) (names []string) {
	for _, r := range routes {
		if s := r.Sticky; s != nil && s.Cookie != nil && !slices.Contains(names, s.Cookie.Name) {
			names = append(names, s.Cookie.Name)
		}
	}
	return names
}

// tell writes into the header of an answer which backend gave it, if the client has to know: it
// has no cookie that says so. An answer of a failing backend ties nobody to that, and one that
// is for everybody waits for the next.
func (a *affinity) tell(header http.Header, b *balance.Backend, status int) {
	if status >= http.StatusInternalServerError {
		return
	}
	if cookie := a.issue(b); cookie != "" && (status == http.StatusSwitchingProtocols || !isForAll(header)) {
		header.Add("Set-Cookie", cookie)
	}
}

// isForAll reports whether an answer asks shared caches to give it to others as well (RFC 9111
// §5.2.2), with all that is in it.
func isForAll(header http.Header) bool {
	return slices.ContainsFunc(tokens(header["Cache-Control"]), func(directive string) bool {
		name, _, _ := strings.Cut(directive, "=")
		name = strings.TrimSpace(name)
		return strings.EqualFold(name, "public") || strings.EqualFold(name, "s-maxage")
	})
}

// issue returns the Set-Cookie of an answer of a backend; empty: none is needed. While the
// backend of the client's cookie is away for a moment, the cookie stays: its sessions stay too.
// So does one that the browser may have kept back from what another site asks: open tabs use it.
func (a *affinity) issue(b *balance.Backend) (setCookie string) {
	if a.sticky == nil || a.sticky.Cookie == nil || a.foreign {
		return ""
	}
	name := balance.HashString(b.ID)
	switch {
	case a.ticket.backend == name && !a.stale:
		return ""
	case a.ticket.backend != name && a.ticket.backend != 0 && a.pool.awaits(a.ticket.backend):
		return ""
	}
	return a.sticky.Cookie.issue(ticket{key: a.ticket.key, backend: name, issued: time.Now().Unix()})
}

// full is what a client is told when those that could take it have too many sessions.
func (a *affinity) full() string {
	if a.request.Sticky == balance.StrictlySticky {
		return "the backend of this client has as many sessions as it may have"
	}
	return "every backend has as many sessions as it may have"
}

// closed is what a client is told when those that could take it take nothing new of a kind.
func (a *affinity) closed(kind string) string {
	if a.request.Sticky == balance.StrictlySticky {
		return "the backend of this client takes no " + kind
	}
	return "no backend takes " + kind
}
