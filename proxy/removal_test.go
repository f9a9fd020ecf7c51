package proxy

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/relay"
)

// set changes the settings of the pool.
func (r *drainRig) set(change func(*PoolSettings)) {
	r.t.Helper()
	apps := r.settings.Pools[0]
	change(&apps)
	r.settings.Pools = []PoolSettings{apps}
	r.reload()
}

// TestRemovalDrains once the grace has passed, and until the backend is back.
func TestRemovalDrains(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 60)
		r.say("b")
		r.until(2*time.Second - 1)
		r.ended("within the grace", 0, 0)
		r.state("within the grace", "a", balance.StateRemoved, 0, 0)
		r.until(12 * time.Second)
		r.ended("after the grace", 10, 10)
		r.paced(r.ends, 2*time.Second, time.Second)
		r.state("after the grace", "a", balance.StateRemoved, ByRemoval, 50)
		if e := r.ends[0].ending; e != (relay.Ending{Client: 1012, Backend: ws.StatusGoingAway, Reason: "service restart", Why: WhyRemoved}) {
			t.Errorf("it ended with %+v", e)
		}
		live := r.backend("a").Live
		r.say("a", "b")
		r.until(time.Minute)
		r.ended("it is back", 10, 10)
		r.state("it is back", "a", balance.StateUp, 0, 0)
		r.say("b")
		r.until(time.Hour)
		r.ended("at last", 60, 60)
		if b := r.backend("a"); b != nil || len(r.pool("apps").absences)+len(r.pool("apps").drains) != 0 {
			t.Errorf("%v is not forgotten", b)
		}
		r.say("a", "b")
		if r.backend("a").Live == live {
			t.Error("it was kept without sessions")
		}
	})
}

// TestRemovalForgivesFlapping: a backend that is back in time is up, however often that
// happens, and one that an operator drains goes on.
func TestRemovalForgivesFlapping(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 60)
		for range 50 {
			r.say("b")
			r.sleep(2*time.Second - 1)
			r.say("a", "b")
			r.sleep(time.Second)
		}
		r.ended("never gone for long", 0, 0)
		r.state("never gone for long", "a", balance.StateUp, 0, 0)

		r.drain("a", DrainPace{})
		r.began = time.Now()
		for range 10 {
			r.say("b")
			r.sleep(time.Second)
			r.say("a", "b")
			r.sleep(time.Second)
		}
		r.ended("drained meanwhile", 20, 20)
		r.paced(r.ends, 0, time.Second)
		r.state("drained meanwhile", "a", balance.StateDraining, ByOperator, 40)
		r.until(time.Hour)

		// Drained, empty, and away for a moment: it is drained still.
		r.say("b")
		r.sleep(time.Second)
		r.say("a", "b")
		r.state("drained and back", "a", balance.StateDraining, ByOperator, 0)
		// And away for good: it is forgotten.
		r.say("b")
		r.sleep(2 * time.Second)
		if r.backend("a") != nil {
			t.Error("it is not forgotten")
		}
		r.say("a", "b")
		r.state("back much later", "a", balance.StateUp, 0, 0)
	})
}

// TestRemovalOfADrained takes over at the same pace, and forgets what the operator wanted.
func TestRemovalOfADrained(t *testing.T) {
	drained(t, DrainSettings{Rate: 10}, func(r *drainRig) {
		r.open("a", 60)
		r.drain("a", DrainPace{Rate: ptr(1.0)})
		r.until(10 * time.Second)
		r.say("b")
		r.until(20 * time.Second)
		r.ended("removed", 20, 20)
		r.paced(r.ends, 0, time.Second)
		r.state("removed", "a", balance.StateRemoved, ByRemoval, 40)
		if v, _ := r.view("a"); v.Since != r.began || r.ends[19].ending.Why != WhyRemoved || r.ends[9].ending.Why != WhyDrain {
			t.Errorf("since %v, ended for %s", v.Since.Sub(r.began), r.ends[19].ending.Why)
		}
		r.say("a", "b")
		r.sleep(time.Minute)
		r.ended("back much later", 20, 20)
		r.state("back much later", "a", balance.StateUp, 0, 0)
	})
}

// TestRemovalOfAMaintained: maintenance and deregistration, as a deploy does it, are one
// drain.
func TestRemovalOfAMaintained(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 60)
		r.say("a!", "b")
		r.until(30 * time.Second)
		r.say("b")
		r.until(time.Minute)
		r.ended("at last", 60, 60)
		r.paced(r.ends, 0, time.Second)
	})
}

func TestRemovalKeeps(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.set(func(s *PoolSettings) { s.OnRemoved = KeepSessions })
		r.open("a", 60)
		r.say("b")
		r.until(time.Hour)
		r.ended("kept", 0, 0)
		r.state("kept", "a", balance.StateRemoved, 0, 0)
		// A removed backend can be drained, and undrained.
		r.began = time.Now()
		r.drain("a", DrainPace{})
		r.until(10 * time.Second)
		r.ended("drained", 10, 10)
		r.state("drained", "a", balance.StateRemoved, ByOperator, 50)
		if err := r.Undrain("apps", "a"); err != nil {
			t.Error(err)
		}
		r.until(time.Hour)
		r.ended("undrained", 10, 10)
		r.drain("a", DrainPace{})
		r.until(2 * time.Hour)
		r.ended("drained to the end", 60, 60)
		if r.backend("a") != nil {
			t.Error("it is not forgotten")
		}
	})
}

// TestRemovalCloses all at once, wherever they could go, and those that open late; without
// a grace at once indeed.
func TestRemovalCloses(t *testing.T) {
	for _, grace := range []time.Duration{0, 2 * time.Second} {
		t.Run(grace.String(), func(t *testing.T) {
			drained(t, byWindow, func(r *drainRig) {
				r.set(func(s *PoolSettings) { s.OnRemoved, s.RemovalGrace = CloseSessions, grace })
				r.open("a", 60)
				late := r.reserve("a")
				r.say()
				r.until(grace)
				r.ended("closed", 60, 60)
				if e := r.ends[59]; e.at != grace || e.ending.Why != WhyRemoved || e.ending.Client != 1012 {
					t.Errorf("it ended with %+v after %v", e.ending, e.at)
				}
				r.begin(late)
				r.sleep(lookEvery)
				r.ended("late", 61, 61)
			})
		})
	}
}

// TestUndrainARemoved: an operator who sees that a removal is a mistake can stop it.
func TestUndrainARemoved(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 60)
		r.say("b")
		r.until(12 * time.Second)
		if err := r.Undrain("apps", "a"); err != nil {
			t.Error(err)
		}
		r.reload()
		r.say("b", "c")
		r.until(time.Hour)
		r.ended("undrained", 10, 10)
		r.state("undrained", "a", balance.StateRemoved, 0, 0)
	})
}

// TestRemovalOfAPool drains its backends with the last settings that it had, and shows it
// meanwhile; nobody waits for backends that the pool will not have any more.
func TestRemovalOfAPool(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 60)
		r.open("b", 30)
		pools := r.settings.Pools
		r.settings.Pools = nil
		r.reload()
		r.until(time.Second)
		r.reload()
		r.ended("within the grace", 0, 0)
		r.until(32 * time.Second)
		r.ended("after the grace", 45, 45)
		r.state("after the grace", "a", balance.StateRemoved, ByRemoval, 30)
		if all := r.Pools(); len(all) != 1 || all[0].Name != "apps" || all[0].Policy != "random" || len(all[0].Drains) != 2 {
			t.Errorf("shown is %+v", all)
		}
		if err := r.Undrain("apps", "b"); err != nil {
			t.Error(err)
		}
		// It comes back before all have left.
		r.source = newSource()
		pools[0].Sources = []SourceSettings{{Slot: "test", Key: "other", Source: r.source}}
		r.settings.Pools = pools
		r.reload()
		r.say("a", "b")
		r.until(time.Hour)
		r.ended("it is back", 45, 45)
		r.state("it is back", "a", balance.StateUp, 0, 0)

		r.settings.Pools, r.began, r.ends = nil, time.Now(), nil
		r.reload()
		r.until(62 * time.Second)
		r.ended("gone for good", 45, 45)
		if all := r.Pools(); len(all) != 0 {
			t.Errorf("shown is %+v", all)
		}
	})
}

// TestShutdownEndsDrains: the edge closes all by its own pace then, and nothing of drains
// and absences runs any more.
func TestShutdownEndsDrains(t *testing.T) {
	drained(t, DrainSettings{Rate: 1}, func(r *drainRig) {
		r.open("a", 60)
		r.open("b", 60)
		r.drain("a", DrainPace{})
		r.until(10 * time.Second)
		r.say("a")
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Shutdown(context.Background(), 11*time.Second, time.Minute)
		}()
		synctest.Wait()
		if err := r.Drain("apps", "a", DrainPace{}); err != ErrStopping {
			t.Errorf("drained: %v", err)
		}
		if err := r.Undrain("apps", "a"); err != ErrStopping {
			t.Errorf("undrained: %v", err)
		}
		<-done
		r.ended("at last", 120, 120)
		for i, e := range r.ends[10:] {
			if e.ending.Client != shutdownCode || e.ending.Why != WhyShutdown || e.killed {
				t.Fatalf("end %d is %+v", i, e.ending)
			}
		}
		r.paced(r.ends[10:], 10*time.Second, 100*time.Millisecond)
	})
}
