package consul

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/discovery"
)

// doubt is an answer that is not believed yet.
type doubt struct {
	// instances are those of the answer and, as they were, those that vanished in it.
	instances []discovery.Instance
	// answer is what is accepted if the doubt ends by time.
	answer *answer
	// until is when it is believed; zero: not before Consul answers again.
	until time.Time
}

// judge looks at the pending answer, if there is one, and at the doubt about an
// earlier one. It reports whether there is a new good set that differs from the last.
func (d *datacenter) judge(p EmptyProtection, now time.Time) bool {
	if a := d.pending; a != nil {
		d.pending = nil
		return d.consider(a, p, now)
	}
	if d.doubt == nil || d.doubt.until.IsZero() || now.Before(d.doubt.until) {
		return false
	}
	return d.confirm(d.doubt.answer)
}

// consider believes an answer or doubts it.
func (d *datacenter) consider(a *answer, p EmptyProtection, now time.Time) bool {
	vanished := missing(d.accepted, a.instances)
	forbidden := a.filtered && len(a.instances) == 0
	if !forbidden && !suspicious(len(d.accepted), len(vanished), a, d.acceptedFiltered, p) {
		if d.doubt != nil {
			d.log.Info("consul answers with a plausible set again", zap.Int("instances", len(a.instances)))
		}
		return d.accept(a)
	}
	next := &doubt{instances: append(vanished, a.instances...), answer: a}
	switch {
	case forbidden, !d.unreachable.IsZero():
		// Time alone does not confirm it.
	case d.doubt != nil && !d.doubt.until.IsZero():
		next.until = d.doubt.until // still the same doubt
		if !now.Before(next.until) {
			return d.confirm(a)
		}
	default:
		next.until = now.Add(p.Hold)
	}
	if d.doubt == nil && len(vanished) > 0 {
		d.log.Warn("consul answer lost many instances, keeping them for now",
			zap.Int("before", len(d.accepted)), zap.Int("now", len(a.instances)),
			zap.Int("vanished", len(vanished)), zap.Bool("filtered_by_acls", a.filtered),
			zap.Duration("hold", p.Hold))
	}
	d.doubt = next
	return false
}

// confirm ends a doubt by time.
func (d *datacenter) confirm(a *answer) bool {
	d.log.Warn("consul kept to an answer that lost many instances, it is accepted now",
		zap.Int("before", len(d.accepted)), zap.Int("now", len(a.instances)))
	return d.accept(a)
}

// accept makes a the last good set and reports whether it differs from the one before.
func (d *datacenter) accept(a *answer) bool {
	same := d.accepted != nil && slices.EqualFunc(d.accepted, a.instances, discovery.Instance.Equal)
	d.accepted, d.acceptedFiltered, d.fromFile, d.doubt = a.instances, a.filtered, false, nil
	return !same
}

// suspicious reports whether a lost too much of a good set of before instances, of
// which vanished ones are not in it. Instances that were replaced are not lost, unless
// the loss comes with the first answer that Consul marks as filtered.
func suspicious(before, vanished int, a *answer, filteredBefore bool, p EmptyProtection) bool {
	if before == 0 || p.Hold == 0 {
		return false
	}
	if a.filtered && !filteredBefore && vanished > 0 {
		return true
	}
	lost := before - len(a.instances)
	return lost > 0 && float64(lost) >= p.MaxLoss*float64(before)
}

// missing returns the instances of before whose ID is not in now.
func missing(before, now []discovery.Instance) []discovery.Instance {
	ids := make(map[string]struct{}, len(now))
	for i := range now {
		ids[now[i].ID] = struct{}{}
	}
	var gone []discovery.Instance
	for _, instance := range before {
		if _, ok := ids[instance.ID]; !ok {
			gone = append(gone, instance)
		}
	}
	return gone
}
