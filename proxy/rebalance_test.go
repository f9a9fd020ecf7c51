package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/proxy/relay"
)

// byDefault are the settings that the configuration has by default.
var byDefault = RebalanceSettings{On: true, Interval: 10 * time.Second, Tolerance: 1.25, Rate: 10, MinAge: time.Minute}

// soonest and latest are when the first look is at sessions that have opened at the
// beginning and are a minute old.
const soonest, latest = time.Minute, 72 * time.Second

// rebalanced runs a test of a pool with the backends a and b, none of whose sessions can be
// moved.
func rebalanced(t *testing.T, s RebalanceSettings, test func(*drainRig)) {
	t.Helper()
	drained(t, byWindow, func(r *drainRig) {
		r.rebalanceBy(s)
		test(r)
	})
}

func (r *drainRig) rebalanceBy(s RebalanceSettings) {
	r.t.Helper()
	r.settings.Pools[0].Rebalance = s
	r.reload()
}

// balances checks how a rebalancing stands; remaining 0 is none.
func (r *drainRig) balances(when string, remaining int64, waiting bool) {
	r.t.Helper()
	v := r.pool("apps").show().Rebalancing
	if v == nil {
		v = &RebalanceView{}
	}
	if v.Remaining != remaining || v.Waiting != waiting {
		r.t.Fatalf("%s: %+v, want %d, waiting %v", when, *v, remaining, waiting)
	}
}

// begun waits for the first look that finds something to do, and returns when it was.
func (r *drainRig) begun() time.Duration {
	r.t.Helper()
	for range 1000 {
		if lines := r.logs.FilterMessage("rebalancing begins").All(); len(lines) > 0 {
			return lines[0].Time.Sub(r.began)
		}
		r.sleep(100 * time.Millisecond)
	}
	r.t.Fatal("it has not begun")
	return 0
}

func (r *drainRig) logged(message string, want int) {
	r.t.Helper()
	if n := r.logs.FilterMessage(message).Len(); n != want {
		r.t.Errorf("%d lines say %q, want %d", n, message, want)
	}
}

// TestRebalance: those that are too many leave at the rate, the youngest first, as far as they
// are old enough. Nobody comes again, and still no more leave.
func TestRebalance(t *testing.T) {
	rebalanced(t, byDefault, func(r *drainRig) {
		all := r.open("a", 100)
		r.until(soonest - 1)
		r.ended("before they are old enough", 0, 0)
		young := r.open("a", 20) // of the 120 are 60 too many
		from := r.begun()
		if from > latest {
			t.Errorf("it began after %v", from)
		}
		r.until(from + 3*time.Second)
		r.ended("after half of the time", 29, 31)
		r.balances("after half of the time", int64(60-len(r.ends)), false)
		r.until(from + 7*time.Second)
		r.ended("at last", 60, 60)
		r.balances("at last", 0, false)
		r.paced(r.ends, from, 100*time.Millisecond)
		want := relay.Ending{Client: 1012, Backend: ws.StatusGoingAway, Reason: "rebalance", Why: WhyRebalance}
		for i, e := range r.ends {
			if e.sham != all[99-i] || e.ending != want {
				t.Fatalf("end %d is %+v", i, e)
			}
		}
		r.sleep(time.Hour)
		r.ended("nobody has come again", 60, 60)
		r.open("b", 60)
		r.sleep(time.Hour)
		r.ended("all have come again", 60, 60)
		if n := r.pool("apps").show().Rebalanced; n != 60 {
			t.Errorf("counted %d", n)
		}
		if got := r.stats.route("all").view().Ends[EndKey{"edge", "rebalance"}]; got != 60 {
			t.Errorf("counted %d ends", got)
		}
		r.logged("rebalancing begins", 1)
		r.logged("rebalancing is over", 1)
		if young[0].State() != StateOpen {
			t.Error("one that was too young has left")
		}
	})
}

// TestRebalanceTolerance: within it nothing happens, whatever comes and goes.
func TestRebalanceTolerance(t *testing.T) {
	rebalanced(t, byDefault, func(r *drainRig) {
		r.open("a", 125)
		r.open("b", 75)
		r.until(time.Hour)
		r.ended("at the tolerance", 0, 0)
		r.open("a", 1)
		r.sleep(2 * time.Minute)
		r.ended("over it", 25, 25) // of 201 a backend has 101 at most
		r.open("a", 24)
		r.sleep(time.Hour)
		r.ended("over the share and within the tolerance", 25, 25)
	})
}

func TestRebalanceOnlyWhereItIsOn(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 100)
		r.until(time.Hour)
		r.ended("not on", 0, 0)
		if r.pool("apps").rebalancer != nil {
			t.Error("something looks at the pool")
		}
	})
}

// TestRebalancePauses: nothing leaves while a backend is new or unhealthy. Those that drain,
// or have no weight, do not matter.
func TestRebalancePauses(t *testing.T) {
	broken := func(on bool) func(*drainRig) {
		return func(r *drainRig) {
			c := discovery.Instance{ID: "c", Addr: "c:1", Weight: 1, Status: discovery.Down}
			list := []discovery.Instance{{ID: "a", Addr: "a:1", Weight: 1}, {ID: "b", Addr: "b:1", Weight: 1}}
			if on {
				list = append(list, c)
			}
			r.source.say(r.t, list...)
			r.sleep(0)
		}
	}
	mark := func(m balance.Mark, on bool) func(*drainRig) {
		return func(r *drainRig) { r.backend("b").Live.Set(m, on) }
	}
	for name, c := range map[string]struct{ begin, end func(*drainRig) }{
		"warming up": {func(r *drainRig) { r.backend("b").Live.Warm(0.5) }, func(r *drainRig) { r.backend("b").Live.Warm(1) }},
		"failing":    {mark(balance.Failing, true), mark(balance.Failing, false)},
		"outlier":    {mark(balance.Outlier, true), mark(balance.Outlier, false)},
		"down":       {broken(true), broken(false)},
		"takes too many itself": {func(r *drainRig) { r.backend("a").Live.Set(balance.Failing, true) },
			func(r *drainRig) { r.backend("a").Live.Set(balance.Failing, false) }},
	} {
		t.Run(name, func(t *testing.T) {
			rebalanced(t, byDefault, func(r *drainRig) {
				r.open("a", 100)
				c.begin(r)
				r.until(time.Hour)
				r.ended("from the first", 0, 0)
				r.logged("rebalancing begins", 0)
				if _, err := r.Rebalance("apps"); !errors.Is(err, ErrUnsettled) {
					t.Errorf("asked for: %v", err)
				}
				c.end(r)
				r.begun()
				r.sleep(2 * time.Second)
				n := len(r.ends)
				r.ended("begun", 15, 45)
				c.begin(r)
				r.sleep(time.Second)
				paused := len(r.ends)
				r.ended("paused", n, n)
				r.balances("paused", int64(50-paused), true)
				r.sleep(time.Hour)
				r.ended("paused", paused, paused)
				c.end(r)
				r.sleep(500 * time.Millisecond)
				r.ended("what it has missed is not made up for", paused, paused+6)
				r.sleep(10 * time.Second)
				r.ended("at last", 50, 50)
				r.logged("rebalancing waits", 1)
				r.logged("rebalancing goes on", 1)
			})
		})
	}
	t.Run("not for those that drain", func(t *testing.T) {
		rebalanced(t, byDefault, func(r *drainRig) {
			r.say("a", "b", "c", "d!")
			r.open("a", 90)
			r.open("c", 30)
			r.drain("c", DrainPace{Rate: ptr(0.0001)})
			r.until(2 * time.Minute)
			r.ended("at last", 45, 46)
			for _, e := range r.ends {
				if id := e.Backend().ID; e.ending.Why == WhyRebalance && id != "a" {
					t.Errorf("%s gave one away", id)
				}
			}
		})
	})
}

// TestRebalanceAndDrain: a backend that begins to drain is the drain's alone.
func TestRebalanceAndDrain(t *testing.T) {
	rebalanced(t, RebalanceSettings{On: true, Interval: time.Second, Tolerance: 1.25, Rate: 1}, func(r *drainRig) {
		r.open("a", 300)
		r.until(10 * time.Second)
		r.ended("begun", 7, 11)
		n := len(r.ends)
		r.drain("a", DrainPace{Rate: ptr(2.0)})
		r.until(time.Minute)
		for _, e := range r.ends[n:] {
			if e.ending.Why != WhyDrain {
				t.Fatalf("%+v while it drains", e)
			}
		}
		r.balances("while it drains", 0, false)
		r.ended("while it drains", n+98, n+101)
	})
}

// TestRebalanceReload: settings hold from now on; without them nothing leaves any more.
func TestRebalanceReload(t *testing.T) {
	slow := RebalanceSettings{On: true, Interval: time.Second, Tolerance: 1.25, Rate: 0.1}
	rebalanced(t, slow, func(r *drainRig) {
		r.open("a", 1000)
		r.until(32 * time.Second)
		r.ended("slowly", 3, 4)
		fast := slow
		fast.Rate = 10
		r.rebalanceBy(fast)
		n := len(r.ends)
		r.sleep(10 * time.Second)
		r.ended("fast", n+98, n+101)
		r.rebalanceBy(RebalanceSettings{})
		n = len(r.ends)
		r.sleep(time.Hour)
		r.ended("off", n, n)
		r.balances("off", 0, false)
		r.rebalanceBy(RebalanceSettings{On: true, Interval: 24 * time.Hour, Tolerance: 1.25, Rate: 10})
		r.sleep(time.Minute)
		r.ended("on, and not looked at", n, n)
		r.rebalanceBy(fast)
		r.sleep(5 * time.Second)
		r.ended("looked at sooner", n+30, n+50)
		n = len(r.ends)
		r.settings.Pools = nil
		r.reload()
		r.sleep(time.Second)
		for _, e := range r.ends[n:] {
			if e.ending.Why == WhyRebalance {
				t.Errorf("%+v of a pool that is gone", e)
			}
		}
	})
}

// TestRebalanceOnce: asked for, it begins at once, also where it is not on, and ends.
func TestRebalanceOnce(t *testing.T) {
	off := byDefault
	off.On = false
	rebalanced(t, off, func(r *drainRig) {
		r.open("a", 100)
		want := func(when string, want RebalanceView) {
			t.Helper()
			if got, err := r.Rebalance("apps"); err != nil || got != want {
				t.Fatalf("%s: %+v, %v, want %+v", when, got, err, want)
			}
		}
		want("all are young", RebalanceView{PerSecond: 10})
		r.until(2 * time.Minute)
		r.ended("all are young", 0, 0)
		want("all are old", RebalanceView{Remaining: 50, PerSecond: 10})
		r.sleep(2 * time.Second)
		r.rebalanceBy(off)
		want("again", RebalanceView{Remaining: int64(50 - len(r.ends)), PerSecond: 10})
		r.sleep(time.Minute)
		r.ended("at last", 50, 50)
		r.open("b", 50)
		want("nothing to do", RebalanceView{PerSecond: 10})
		r.sleep(0)
		if r.pool("apps").rebalancer != nil {
			t.Error("something looks at the pool")
		}
		r.open("a", 100)
		r.sleep(time.Hour)
		r.ended("nobody has asked", 50, 50)
		off.Rate = 0.001
		r.rebalanceBy(off)
		want("slowly", RebalanceView{Remaining: 50, PerSecond: 0.001})
		r.sleep(10 * 1000 * time.Second)
		r.ended("for hours", 59, 61)
	})
}

func TestRebalanceRefused(t *testing.T) {
	rebalanced(t, byDefault, func(r *drainRig) {
		r.open("a", 100)
		refused := func(pool string, want error) {
			t.Helper()
			if _, err := r.Rebalance(pool); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", pool, err, want)
			}
		}
		refused("nobody", ErrNoPool)
		r.settings.Pools[0].Balance.Policy = hashedPolicy
		if _, err := r.Prepare(r.settings); err == nil || !strings.Contains(err.Error(), "pool apps: "+ErrHashed.Error()) {
			t.Errorf("a hashed pool: %v", err)
		}
		r.settings.Pools[0].Rebalance.On = false
		r.reload()
		r.until(time.Hour)
		r.ended("hashed", 0, 0)
		refused("apps", ErrHashed)
		r.settings.Pools, r.settings.Pools[0].OnRemoved = nil, KeepSessions
		r.reload()
		refused("apps", ErrNoPool)
		r.Shutdown(context.Background(), 0, 0)
		refused("apps", ErrStopping)
	})
}

// TestRebalanceShutdown: the shutdown's pace is the only one.
func TestRebalanceShutdown(t *testing.T) {
	rebalanced(t, byDefault, func(r *drainRig) {
		r.open("a", 1000)
		r.until(2 * time.Minute)
		n := len(r.ends)
		r.ended("begun", 400, 510)
		r.Shutdown(context.Background(), time.Minute, 2*time.Minute)
		if slices.ContainsFunc(r.ends[n:], func(e shamEnd) bool { return e.ending.Why == WhyRebalance }) {
			t.Error("one was sent elsewhere")
		}
		r.ended("at last", 1000, 1000)
		if _, err := r.Rebalance("apps"); !errors.Is(err, ErrStopping) {
			t.Errorf("asked for: %v", err)
		}
	})
}
