package proxy

import (
	"maps"
	"sync"
)

// Answers are requests by how they were answered. Both maps have few keys: none is
// chosen by a client.
type Answers struct {
	// Handshakes are WebSocket requests by result: ok or a short cause.
	Handshakes map[string]uint64
	// Requests are all of them by HTTP status.
	Requests map[int]uint64
}

// answered counts Answers. Its zero value is ready.
type answered struct {
	counting   sync.Mutex
	handshakes map[string]uint64
	requests   map[int]uint64
}

// handshake counts a WebSocket request.
func (a *answered) handshake(result string, status int) {
	a.counting.Lock()
	defer a.counting.Unlock()
	if a.handshakes == nil {
		a.handshakes = map[string]uint64{}
	}
	a.handshakes[result]++
	a.status(status)
}

// request counts a request that asks for no WebSocket.
func (a *answered) request(status int) {
	a.counting.Lock()
	defer a.counting.Unlock()
	a.status(status)
}

// status counts an answer. The mutex is held.
func (a *answered) status(status int) {
	if a.requests == nil {
		a.requests = map[int]uint64{}
	}
	a.requests[status]++
}

// answers returns the counters; the maps are the caller's and not nil.
func (a *answered) answers() Answers {
	all := Answers{Handshakes: map[string]uint64{}, Requests: map[int]uint64{}}
	a.counting.Lock()
	defer a.counting.Unlock()
	maps.Copy(all.Handshakes, a.handshakes)
	maps.Copy(all.Requests, a.requests)
	return all
}

// resultTLS is the result of a handshake that has failed before it could be one of
// WebSocket.
const resultTLS = "tls"

// Unrouted returns what was answered without a route: requests that match none or are
// malformed, and failed TLS handshakes, which have a result but no status.
func (s *Server) Unrouted() Answers {
	a := s.stats.unrouted.answers()
	if n := s.stats.tlsFailed.Load(); n > 0 {
		a.Handshakes[resultTLS] = n
	}
	return a
}
