package consul

import (
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/discovery"
)

// view is what is known of all datacenters, and what of it has been published. It
// belongs to the goroutine of Watch, reads no clock and does no I/O itself: answers go
// in by take, snapshots come out of step, which is due when next says so.
type view struct {
	config      *Config
	pace        pace
	log         *zap.Logger
	file        *snapshotFile
	datacenters []*datacenter

	used      int                 // position of the datacenter in use, -1 before there is one
	published *discovery.Snapshot // nil before the first
	doubtful  bool                // the last step found something stale
	coldUntil time.Time           // until then, datacenters that have not spoken are waited for
	due       time.Time           // of the next step; zero: after the next answer
}

// datacenter is what is known of one datacenter.
type datacenter struct {
	name string
	log  *zap.Logger

	spoken      bool      // it answered or failed
	unreachable time.Time // since when; zero while it answers
	index       uint64
	old         bool    // the last answer was old
	pending     *answer // the last answer, until it is judged

	accepted         []discovery.Instance // the last good set; not nil if there is one
	acceptedFiltered bool
	fromFile         bool // accepted comes from the snapshot file

	doubt *doubt // of the answer that came after accepted; nil for none
}

func newView(c *Config, p pace, log *zap.Logger, now time.Time) *view {
	v := &view{config: c, pace: p, log: log, used: -1, coldUntil: now.Add(p.coldStart)}
	names := c.Datacenters
	if len(names) == 0 {
		names = []string{""}
	}
	v.file = newSnapshotFile(c, p.save, log)
	saved := v.file.load(now)
	for _, name := range names {
		d := &datacenter{name: name, log: log}
		if name != "" {
			d.log = log.With(zap.String("datacenter", name))
		}
		if set, ok := saved[name]; ok {
			d.accepted, d.fromFile = set, true
		}
		v.datacenters = append(v.datacenters, d)
	}
	v.due = v.coldUntil
	return v
}

// take notes an answer. Unless it may be the first set, it is looked at when the
// debounce time is over that began with the first change after the last step.
func (v *view) take(a answer, now time.Time) {
	d := v.datacenters[a.datacenter]
	d.spoken = true
	if a.err != nil {
		if d.unreachable.IsZero() {
			d.unreachable = now
		}
		if d.doubt != nil {
			d.doubt.until = time.Time{} // nobody confirms it now
		}
	} else {
		d.unreachable = time.Time{}
		d.index, d.old, d.pending = a.index, a.old, &a
	}
	at := now
	if v.published != nil {
		at = now.Add(v.config.Debounce)
	}
	v.due = earliest(v.due, at)
}

// step does what is due at now and returns the snapshot to publish, or nil.
func (v *view) step(now time.Time) *discovery.Snapshot {
	if v.due.IsZero() || now.Before(v.due) {
		return nil
	}
	accepted := false
	for _, d := range v.datacenters {
		if d.judge(v.config.EmptyProtection, now) {
			accepted = true
		}
	}
	if accepted {
		v.file.change(v.datacenters, now)
	}
	snapshot := v.combine(now)
	v.due = v.schedule(now)
	if snapshot == nil || v.published != nil && v.published.Stale == snapshot.Stale &&
		discovery.SameInstances(v.published, snapshot) {
		return nil
	}
	v.published = snapshot
	return snapshot
}

// schedule returns when something happens without an answer.
func (v *view) schedule(now time.Time) time.Time {
	var at time.Time
	consider := func(t time.Time) {
		if t.After(now) {
			at = earliest(at, t)
		}
	}
	consider(v.coldUntil)
	for _, d := range v.datacenters {
		if d.doubt != nil {
			consider(d.doubt.until)
		}
		if !d.unreachable.IsZero() {
			consider(d.unreachable.Add(v.pace.passOver))
		}
	}
	return at
}

// next returns when step or the snapshot file wants to be called again.
func (v *view) next() (time.Time, bool) {
	at := earliest(v.due, v.file.due)
	return at, !at.IsZero()
}

// index returns Consul's index of the datacenter in use.
func (v *view) index() uint64 { return v.datacenters[max(v.used, 0)].index }

// stale reports whether any part of the set is not known to be current.
func (v *view) stale() bool { return v.doubtful }

// stale reports whether the set of d is not known to be current.
func (d *datacenter) stale() bool {
	return !d.unreachable.IsZero() || d.fromFile || d.old || d.doubt != nil
}

// instances returns the set of d: the last good one, or while the answer after it is
// doubted, that answer together with what vanished in it.
func (d *datacenter) instances() []discovery.Instance {
	if d.doubt != nil {
		return d.doubt.instances
	}
	return d.accepted
}

// earliest returns the earlier time; the zero time is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
