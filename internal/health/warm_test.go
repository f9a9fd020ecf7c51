package health

import (
	"math"
	"testing"
	"time"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

// wantWarmth holds the share that a backend gets.
func (r *rig) wantWarmth(when, id string, want float64) {
	r.t.Helper()
	live := r.b(id).Live
	if got := live.Warmth(); math.Abs(got-want) > 0.001 {
		r.t.Errorf("%s: %s has %.3f of its share, want %.3f", when, id, got, want)
	}
	if warming := want < 1; live.Has(balance.Warming) != warming {
		r.t.Errorf("%s: %s is warming: %v", when, id, !warming)
	}
}

func TestWarming(t *testing.T) {
	settings := passive()
	settings.SlowStart = 100 * s
	bubble(t, settings, func(r *rig) {
		r.has("a", "b")
		r.wantWarmth("the first set", "a", 1)
		r.has("a", "b", "new")
		r.want("joined", balance.StateSlowStart, "new")
		r.wantWarmth("joined", "new", 0.1)
		if got := r.View().Reasons["new"]; got != "slow start: 10% of its share" {
			t.Errorf("reason %q", got)
		}
		last, steps := 0.0, 0
		for i := range 1000 {
			r.after(100 * ms)
			got, line := r.b("new").Live.Warmth(), 0.1+0.9*float64(i+1)/1000
			if got > line+0.001 || got < line-0.9/50-0.001 || got < last {
				t.Fatalf("after %v it has %.3f, was %.3f, the line is at %.3f", time.Duration(i+1)*100*ms, got, last, line)
			}
			if got != last {
				steps++
			}
			last = got
		}
		if steps != 51 {
			t.Errorf("%d steps", steps)
		}
		r.wantWarmth("warm", "new", 1)
		r.want("warm", balance.StateUp, "new")
		r.wantWarmth("all the while", "a", 1)
	})
}

// TestWhoIsWarmed goes through the ways back.
func TestWhoIsWarmed(t *testing.T) {
	settings := passive()
	settings.Active = active().Active
	settings.SlowStart = 100 * s
	bubble(t, settings, func(r *rig) {
		r.hasInstances(instance("a", discovery.Up), instance("b", discovery.Down), instance("c", discovery.Up))
		r.hasInstances(instance("a", discovery.Up), instance("b", discovery.Up), instance("c", discovery.Up))
		r.wantWarmth("back from down", "b", 0.1)
		r.after(50 * s)
		r.wantWarmth("half way", "b", 0.55)

		r.fails("b", 3)
		r.wantWarmth("ejected", "b", 1)
		r.after(30 * s)
		r.wantWarmth("back from an ejection", "b", 0.1)

		r.will(errRefused, "a")
		r.after(20 * s)
		r.wantWarmth("failing", "a", 1)
		r.will(nil, "a")
		for r.b("a").Live.State() == balance.StateEjected {
			r.after(100 * ms)
		}
		r.wantWarmth("answers again", "a", 0.1)

		r.will(errSilent, "d")
		r.has("a", "b", "c", "d")
		r.wantWarmth("waits for its probe", "d", 1)
		r.will(nil, "d")
		for r.b("d").Live.State() == balance.StateEjected {
			r.after(100 * ms)
		}
		r.wantWarmth("has passed it", "d", 0.1)

		r.has("a", "c", "d")
		r.has("a", "b", "c", "d")
		r.after(ms)
		r.wantWarmth("left and came back", "b", 0.1)
		r.wantWarmth("was there all the while", "c", 1)
	})
}

func TestReloadOfSlowStart(t *testing.T) {
	bubble(t, Settings{SlowStart: 100 * s}, func(r *rig) {
		r.has("a")
		r.has("a", "b")
		r.after(20 * s)
		r.wantWarmth("a fifth", "b", 0.1+0.9/5)
		r.Apply(Settings{SlowStart: 40 * s})
		r.wantWarmth("half of less", "b", 0.55)
		r.after(s)
		r.wantWarmth("and on", "b", 0.55+0.9/50)
		r.Apply(Settings{})
		r.wantWarmth("none", "b", 1)
		r.has("a", "b", "c")
		r.wantWarmth("none", "c", 1)
		r.Apply(Settings{SlowStart: 10 * ms})
		r.has("a", "b", "c", "d")
		r.after(5 * ms)
		r.wantWarmth("half of very little", "d", 0.55)
		r.after(5 * ms)
		r.wantWarmth("all of it", "d", 1)
	})
}
