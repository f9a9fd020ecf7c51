package balance

import (
	"slices"
	"strings"
	"sync"

	"github.com/tidegate/tidegate/discovery"
)

// Set is the backends of a pool at one time. It is immutable. The zero value is an
// empty set.
type Set struct{ backends []*Backend }

// Backends returns the backends sorted by ID, each ID once. The slice belongs to the
// set and must not be changed.
func (s *Set) Backends() []*Backend { return s.backends }

// Len returns the number of backends, those that take no new sessions included.
func (s *Set) Len() int { return len(s.backends) }

// Stay places a reservation on the backend of the set that a session has already and comes
// back to, if it takes new sessions: the place that the session has there is its own, so that no
// limit counts. It returns nil if it does not, or has no weight, or is not of the set.
func (s *Set) Stay(l *Live) *Backend {
	for _, b := range s.backends {
		if b.Live == l && b.Weight > 0 && l.reserveBelow(countMask) {
			return b
		}
	}
	return nil
}

// Registry keeps the live state of the backends of one pool while sets come and go.
// Its methods may be called from any goroutine; sets that are built at the same time
// by several goroutines take effect in the order of their calls.
type Registry struct {
	mu      sync.Mutex
	current *Set
	present map[string]*Backend // the current set by ID
	left    map[string]*Backend // removed ones, as last known
}

// NewRegistry returns a registry that knows no backend.
func NewRegistry() *Registry {
	return &Registry{current: &Set{}, present: map[string]*Backend{}, left: map[string]*Backend{}}
}

// Update makes the next set of instances, which are a full view in any order; of
// several with one ID the first counts. It does not keep or change the slice, but
// shares what the instances point to.
//
// What discovery says of a backend stands beside its marks, so that a set that changes does
// not undo what health or an operator decided in between. Backends that are gone become
// StateRemoved.
func (r *Registry) Update(instances []discovery.Instance) *Set {
	sorted := discovery.NewSnapshot(0, slices.Clone(instances)).Instances
	next := &Set{backends: make([]*Backend, 0, len(sorted))}
	present := make(map[string]*Backend, len(sorted))

	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
	for _, instance := range sorted {
		b := &Backend{Instance: instance, Live: r.live(instance)}
		next.backends = append(next.backends, b)
		present[b.ID] = b
	}
	for id, b := range r.present {
		if present[id] == nil {
			b.Live.stand(removed)
			r.left[id] = b
		}
	}
	r.current, r.present = next, present
	return next
}

// Backends returns the current set and the removed backends that still have sessions
// or dials in flight, the latter as last known, all sorted by ID. The slice is the
// caller's.
func (r *Registry) Backends() []*Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
	all := slices.Clone(r.current.backends)
	if len(r.left) == 0 {
		return all
	}
	for _, b := range r.left {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b *Backend) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// live returns the live state for an instance of the next set.
func (r *Registry) live(instance discovery.Instance) *Live {
	live := &Live{}
	if b := r.present[instance.ID]; b != nil {
		live = b.Live
	} else if b := r.left[instance.ID]; b != nil {
		live = b.Live
		delete(r.left, instance.ID)
	}
	live.stand(standingOf(instance.Status))
	return live
}

// forget drops the removed backends that nothing uses any more. They cannot come back
// to life in between: a removed backend takes no reservation, so its load only falls,
// and forgetting at the next look is the same as forgetting at once. One that an operator
// had drained is kept, with its mark, in case it comes back.
func (r *Registry) forget() {
	for id, b := range r.left {
		if b.Live.Load() == 0 && !b.Live.Has(Drained) {
			delete(r.left, id)
		}
	}
}

// standingOf translates discovery's word. A status that is not known takes no sessions.
func standingOf(status discovery.Status) standing {
	switch status {
	case discovery.Up:
		return present
	case discovery.Maintenance:
		return maintained
	}
	return broken
}
