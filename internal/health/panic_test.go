package health

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

func TestPanic(t *testing.T) {
	settings := active()
	settings.Passive.PanicThreshold = 0.5
	bubble(t, settings, func(r *rig) {
		weightless := instance("weightless", discovery.Up)
		weightless.Weight = 0
		r.hasInstances(instance("a", discovery.Up), instance("b", discovery.Up), instance("c", discovery.Up), instance("d", discovery.Up),
			instance("down", discovery.Down), instance("leaving", discovery.Maintenance), weightless)
		r.will(errRefused, "a", "b", "down")
		r.after(20 * s)
		if r.View().Panic {
			t.Error("panic with half of them")
		}
		r.wantEligible("half are left", "a", false)
		r.will(errRefused, "c")
		r.after(20 * s)
		if !r.View().Panic {
			t.Error("no panic with a quarter of them")
		}
		r.want("panic", balance.StateEjected, "a", "b", "c")
		for id, want := range map[string]bool{"a": true, "b": true, "c": true, "d": true, "down": false, "leaving": false} {
			r.wantEligible("panic", id, want)
		}
		r.will(nil, "c")
		r.after(20 * s)
		r.wantEligible("over", "a", false)
		r.wantEligible("over", "c", true)
		r.wantLog("too few backends are healthy, all of the pool are used", 1)
		r.wantLog("enough backends are healthy again", 1)

		// An operator who drains those that are left does not tell the monitor.
		r.b("c").Live.Set(balance.Drained, true)
		r.b("d").Live.Set(balance.Drained, true)
		r.after(s)
		r.wantEligible("the healthy ones are drained", "a", true)
		r.wantEligible("drained", "c", false)
		r.b("c").Live.Set(balance.Drained, false)
		r.b("d").Live.Set(balance.Drained, false)
		r.after(s)
		r.wantEligible("no more", "a", false)

		settings.Passive.PanicThreshold = 0.6
		r.Apply(settings)
		r.wantEligible("another threshold", "a", true)
		settings.Passive.PanicThreshold = 0
		r.Apply(settings)
		r.wantEligible("no threshold", "a", false)
	})
}

// TestPanicAndNewcomers: who waits for its first probe does not count and is not used; who
// has failed it does.
func TestPanicAndNewcomers(t *testing.T) {
	settings := active()
	settings.Passive.PanicThreshold = 0.6
	bubble(t, settings, func(r *rig) {
		r.has("a", "b")
		r.will(errSilent, "c", "d")
		r.has("a", "b", "c", "d")
		if r.View().Panic {
			t.Error("panic because of newcomers")
		}
		r.wantEligible("waits", "c", false)
		r.after(2 * s)
		if !r.View().Panic {
			t.Error("no panic with half of them")
		}
		r.wantEligible("has failed", "c", true)
		r.will(errSilent, "e")
		r.has("a", "b", "c", "d", "e")
		r.wantEligible("joins in a panic", "e", false)
		r.after(2 * s)
		r.wantEligible("has failed too", "e", true)
	})
}

// TestPanicOfOne: the only backend there is is used, whatever its probes say.
func TestPanicOfOne(t *testing.T) {
	settings := active()
	settings.Passive = passive().Passive
	bubble(t, settings, func(r *rig) {
		r.will(errRefused, "a")
		r.has("a")
		r.want("failing", balance.StateEjected, "a")
		r.wantEligible("failing", "a", true)
		r.fails("a", 10)
		if r.b("a").Live.Has(balance.Outlier) {
			t.Error("a pool of one is ejected")
		}
	})
}

// TestQuiet: when all is well there is nothing to wait for.
func TestQuiet(t *testing.T) {
	settings := passive()
	settings.SlowStart = 10 * s
	bubble(t, settings, func(r *rig) {
		r.has("a", "b")
		if next := r.advance(time.Now()); !next.IsZero() {
			t.Errorf("there is something to do in %v", time.Until(next))
		}
		r.fails("a", 3)
		if next := r.advance(time.Now()); time.Until(next) != s {
			t.Errorf("an ejected backend is looked at in %v", time.Until(next))
		}
		r.after(40 * s)
		if next := r.advance(time.Now()); !next.IsZero() {
			t.Errorf("there is something to do in %v", time.Until(next))
		}
	})
}
