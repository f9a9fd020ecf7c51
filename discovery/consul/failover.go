package consul

import (
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/discovery"
)

// combine makes one snapshot of all datacenters: the instances of the one in use as
// they are, those of the others with weight 0. It returns nil as long as nothing is
// known or the first choice is still waited for.
func (v *view) combine(now time.Time) *discovery.Snapshot {
	v.doubtful = false
	for _, d := range v.datacenters {
		v.doubtful = v.doubtful || d.stale() && (d.spoken || !now.Before(v.coldUntil))
	}
	used := v.choose(now)
	if used < 0 {
		return nil
	}
	if v.used >= 0 && v.used != used {
		v.log.Warn("consul datacenter changes for new sessions",
			zap.String("from", v.datacenters[v.used].name), zap.String("to", v.datacenters[used].name))
	}
	v.used = used

	// The one in use comes first: of equal IDs (two names of one datacenter) its own count.
	var all []discovery.Instance
	all = append(all, v.datacenters[used].instances()...)
	for i, d := range v.datacenters {
		if i == used {
			continue
		}
		for _, instance := range d.instances() {
			instance.Weight = 0
			all = append(all, instance)
		}
	}
	snapshot := discovery.NewSnapshot(v.datacenters[used].index, all)
	snapshot.Stale = v.doubtful
	return snapshot
}

// choose returns the position of the datacenter to use, or -1 for none yet: the first
// that has an eligible instance and is not passed over; where there is none, whatever
// changes least.
func (v *view) choose(now time.Time) int {
	for i, d := range v.datacenters {
		if !d.spoken && now.Before(v.coldUntil) {
			return v.used // it may still be the first choice
		}
		if d.eligible() && !v.passedOver(d, now) {
			return i
		}
	}
	if v.used >= 0 && v.datacenters[v.used].eligible() {
		return v.used
	}
	for i, d := range v.datacenters {
		if d.eligible() {
			return i
		}
	}
	if v.used >= 0 {
		return v.used
	}
	for i, d := range v.datacenters {
		if d.instances() != nil {
			return i
		}
	}
	return -1
}

// passedOver reports whether d has been unreachable for too long to be preferred.
func (v *view) passedOver(d *datacenter, now time.Time) bool {
	return !d.unreachable.IsZero() && now.Sub(d.unreachable) >= v.pace.passOver
}

// eligible reports whether d has an instance that takes new sessions.
func (d *datacenter) eligible() bool {
	for _, instance := range d.instances() {
		if instance.Status == discovery.Up && instance.Weight > 0 {
			return true
		}
	}
	return false
}
