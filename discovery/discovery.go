package discovery

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// Status is what discovery says about new sessions for an instance.
type Status uint8

const (
	// Up instances take new sessions. It is the zero value: an instance of a place
	// without health, such as a static list, is up.
	Up Status = iota
	// Down instances take no new sessions; sessions that they have are left alone.
	Down
	// Maintenance instances are leaving on purpose: no new sessions, and those that
	// they have are to be drained.
	Maintenance
)

// String returns the status in lower case, as it stands in logs.
func (s Status) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	case Maintenance:
		return "maintenance"
	}
	return "unknown"
}

// Instance is one backend as a source reports it.
type Instance struct {
	// ID is the identity that lasts while weight, tags, status and even the address
	// change: everything that is counted for a backend is counted under it.
	ID string
	// Addr is host:port. A host name is resolved when it is dialled.
	Addr string
	// Weight is the share of new sessions relative to the other instances, for the
	// present status. 0 takes no new sessions.
	Weight int
	// Status says whether the instance takes new sessions.
	Status Status
	// Node and Datacenter say where the instance runs, where the source knows.
	Node, Datacenter string
	// Tags and Meta are untrusted text of whoever registered the instance.
	Tags []string
	Meta map[string]string
}

// Equal reports whether a and b say the same.
func (a Instance) Equal(b Instance) bool {
	return a.ID == b.ID && a.Addr == b.Addr && a.Weight == b.Weight && a.Status == b.Status &&
		a.Node == b.Node && a.Datacenter == b.Datacenter &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Meta, b.Meta)
}

// Snapshot is one immutable view of everything that a source knows.
type Snapshot struct {
	// Index is the source's own version of the view, such as Consul's
	// X-Consul-Index; 0 where the source has none. It may go backwards.
	Index uint64
	// Instances are sorted by ID, each ID once.
	Instances []Instance
	// Stale says that the set is not known to be current: the source gets no answer from
	// its place at present, or doubts the last one.
	Stale bool
}

// NewSnapshot makes a snapshot of instances in any order. It takes ownership of the
// slice. Of instances with the same ID the first stays.
func NewSnapshot(index uint64, instances []Instance) *Snapshot {
	slices.SortStableFunc(instances, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	instances = slices.CompactFunc(instances, func(a, b Instance) bool { return a.ID == b.ID })
	return &Snapshot{Index: index, Instances: instances}
}

// SameInstances reports whether a and b hold equal instances, whatever their index
// and staleness. A nil snapshot is the same as nil only.
func SameInstances(a, b *Snapshot) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.Instances, b.Instances, Instance.Equal)
}

// Source is a place where instances are announced.
type Source interface {
	// Watch publishes a full snapshot as soon as it has one and after each change,
	// from one goroutine, until ctx is done; then it returns ctx.Err(). Trouble with
	// the place is the source's own to report and to outlive: it does not end Watch.
	// A source is watched by one caller at a time and may be watched again afterwards.
	Watch(ctx context.Context, publish func(*Snapshot)) error
}

// Known is a Source that knows its set before it is watched, such as a static list:
// whoever starts it can use the set at once.
type Known interface {
	Source
	// Snapshot returns what Watch would publish first. It does not block.
	Snapshot() *Snapshot
}
