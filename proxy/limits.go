package proxy

import (
	"net/http"
	"net/netip"
	"sync"
)

// limits counts the sessions of a listener, those in their handshake included.
type limits struct {
	mu    sync.Mutex
	total int
	perIP map[netip.Addr]int
}

// admit reserves a place for a session of client, or says why there is none. Every
// place is given back by release with the same arguments.
func (l *limits) admit(b ListenerLimits, client netip.Addr) *refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.MaxSessions > 0 && l.total >= b.MaxSessions {
		return refuse(http.StatusServiceUnavailable, "max_sessions", "too many sessions").later()
	}
	if b.MaxSessionsPerIP > 0 && l.perIP[client] >= b.MaxSessionsPerIP {
		return refuse(http.StatusTooManyRequests, "max_sessions_per_ip", "too many sessions from this address").later()
	}
	l.total++
	if l.perIP == nil {
		l.perIP = map[netip.Addr]int{}
	}
	l.perIP[client]++
	return nil
}

// count returns the sessions that have a place.
func (l *limits) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func (l *limits) release(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.perIP[client]--; l.perIP[client] == 0 {
		delete(l.perIP, client)
	}
}
