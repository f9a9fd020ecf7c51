package consul

import (
	"sync/atomic"
	"time"
)

// Stats are the figures behind the metrics of a source.
type Stats struct {
	// Index is X-Consul-Index of the last answer of the datacenter in use; 0 before it.
	Index uint64
	// LastContact is when Consul last answered, in any datacenter; the zero time if it
	// never did. A blocking query answers after Config.Wait at the latest (plus a
	// sixteenth), so up to that age it says nothing about Consul.
	LastContact time.Time
	// Errors counts queries that failed, of all datacenters.
	Errors uint64
	// Stale says that the set is not known to be current; see the package comment.
	Stale bool
}

// counters is the live form of Stats, written by the goroutines of Watch.
type counters struct {
	index       atomic.Uint64
	lastContact atomic.Int64 // nanoseconds of Unix time, 0 for never
	errors      atomic.Uint64
	stale       atomic.Bool
}

// Stats returns the present figures. It may be called at any time from any goroutine
// and takes no lock.
func (s *Source) Stats() Stats {
	stats := Stats{
		Index:  s.counters.index.Load(),
		Errors: s.counters.errors.Load(),
		Stale:  s.counters.stale.Load(),
	}
	if nanos := s.counters.lastContact.Load(); nanos != 0 {
		stats.LastContact = time.Unix(0, nanos)
	}
	return stats
}
