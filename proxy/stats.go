package proxy

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/tidegate/tidegate/internal/histogram"
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// CloseKey is one way in which sessions end.
type CloseKey struct {
	// Code of the Close, 0 when there was none.
	Code uint16
	// Initiator is client, backend or edge.
	Initiator string
}

// EndKey is why sessions end.
type EndKey struct {
	// By is whose doing it was: client, backend or edge.
	By string
	// Cause is one word; see relay.Verdict.Why.
	Cause string
}

// RouteStats are the counters of a route. They outlive configurations, under the
// route's name.
type RouteStats struct {
	Name              string
	HandshakeDuration *histogram.Histogram
	SessionDuration   *histogram.Histogram
	PingRTT           *histogram.Histogram // of the edge's own Pings

	answered

	tally engine.Tally

	mu     sync.Mutex
	closes map[CloseKey]uint64
	ends   map[EndKey]uint64
	active map[string]int64 // by listener
}

func newRouteStats(name string) *RouteStats {
	return &RouteStats{
		Name:              name,
		HandshakeDuration: histogram.New(histogram.LatencyBounds()...),
		SessionDuration:   histogram.New(histogram.LifetimeBounds()...),
		PingRTT:           histogram.New(histogram.LatencyBounds()...),
		closes:            map[CloseKey]uint64{},
		ends:              map[EndKey]uint64{},
		active:            map[string]int64{},
	}
}

func (s *RouteStats) ended(c CloseKey, e EndKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes[c]++
	s.ends[e]++
}

// enter counts a session on a listener, until leave.
func (s *RouteStats) enter(listener string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[listener]++
}

func (s *RouteStats) leave(listener string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[listener]--
}

// RouteView is a route's counters at one moment.
type RouteView struct {
	Name, Pool string
	Answers
	Closes            map[CloseKey]uint64
	Ends              map[EndKey]uint64
	Active            map[string]int64 // by listener
	HandshakeDuration histogram.Snapshot
	SessionDuration   histogram.Snapshot
	PingRTT           histogram.Snapshot
	Traffic           relay.Traffic // by side: upstream is the client's
}

// view is all but the traffic.
func (s *RouteStats) view() RouteView {
	v := RouteView{Name: s.Name, Answers: s.answers(), HandshakeDuration: s.HandshakeDuration.Snapshot(),
		SessionDuration: s.SessionDuration.Snapshot(), PingRTT: s.PingRTT.Snapshot()}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.Closes, v.Ends, v.Active = maps.Clone(s.closes), maps.Clone(s.ends), maps.Clone(s.active)
	return v
}

// live reports whether the route has sessions.
func (s *RouteStats) live() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.active {
		if n > 0 {
			return true
		}
	}
	return false
}

// stats are the counters of the server as a whole.
type stats struct {
	handshaking atomic.Int64  // requests, until they are sessions or over
	requests    atomic.Int64  // those of them that are forwarded as such
	sessions    atomic.Uint64 // ever opened
	tlsFailed   atomic.Uint64
	unrouted    answered // what was refused before a route was found

	mu     sync.Mutex
	routes map[string]*RouteStats
	sheds  map[string]uint64
}

func (s *stats) shed(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sheds[reason]++
}

// route returns the counters of a route, new ones for a new name.
func (s *stats) route(name string) *RouteStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	rs := s.routes[name]
	if rs == nil {
		rs = newRouteStats(name)
		s.routes[name] = rs
	}
	return rs
}

// forget drops the counters of routes that are not there any more and have no sessions,
// and so those of listeners.
func (s *stats) forget(routes, listeners map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.routes, func(name string, rs *RouteStats) bool { return !routes[name] && !rs.live() })
	for _, rs := range s.routes {
		rs.mu.Lock()
		maps.DeleteFunc(rs.active, func(name string, n int64) bool { return !listeners[name] && n == 0 })
		rs.mu.Unlock()
	}
}

// restore brings back the counters of routes that were forgotten while their
// configuration was prepared: whoever looked then did not know them yet.
func (s *stats) restore(routes []*route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range routes {
		s.routes[r.Name] = r.stats
	}
}
