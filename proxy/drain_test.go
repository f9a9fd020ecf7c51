package proxy

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/proxy/relay"
)

// byWindow are the settings of most of these tests.
var byWindow = DrainSettings{Window: time.Minute, Deadline: 5 * time.Minute}

func ptr[T any](v T) *T { return &v }

// TestDrainWindow: 120 sessions leave over a minute, oldest first, each told what the
// settings say; those of other backends stay, and the backend stays drained.
func TestDrainWindow(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		all := r.open("a", 120)
		r.open("b", 7)
		r.drain("a", DrainPace{})
		r.state("at first", "a", balance.StateDraining, ByOperator, 120)
		r.until(30 * time.Second)
		r.ended("after half of the time", 59, 61)
		r.state("after half of the time", "a", balance.StateDraining, ByOperator, int64(120-len(r.ends)))
		r.until(time.Hour)
		r.ended("at last", 120, 120)
		r.paced(r.ends, 0, time.Minute/120)
		want := relay.Ending{Client: 1012, Backend: ws.StatusGoingAway, Reason: "service restart", Why: WhyDrain}
		for i, e := range r.ends {
			if e.sham != all[i] || e.killed || e.ending != want {
				t.Fatalf("end %d is %+v", i, e)
			}
		}
		r.state("at last", "a", balance.StateDraining, ByOperator, 0)
		r.state("at last", "b", balance.StateUp, 0, 0)
		if got := r.stats.route("all").view().Ends[EndKey{"edge", "drain"}]; got != 120 {
			t.Errorf("counted %d ends", got)
		}
		if err := r.Undrain("apps", "a"); err != nil {
			t.Fatal(err)
		}
		r.state("undrained", "a", balance.StateUp, 0, 0)
		r.open("a", 1)
	})
}

// TestDrainRate: a rate wins over the window, in the settings and in what is asked for; a
// window that is asked for wins over a rate of the settings.
func TestDrainRate(t *testing.T) {
	for name, c := range map[string]struct {
		settings DrainSettings
		asked    DrainPace
		slot     time.Duration
	}{
		"of the settings":          {DrainSettings{Rate: 10, Window: time.Hour}, DrainPace{}, 100 * time.Millisecond},
		"asked for":                {byWindow, DrainPace{Rate: ptr(2.0)}, 500 * time.Millisecond},
		"asked for both":           {byWindow, DrainPace{Rate: ptr(2.0), Window: ptr(time.Second)}, 500 * time.Millisecond},
		"a window in its place":    {DrainSettings{Rate: 10}, DrainPace{Window: ptr(100 * time.Second)}, 5 * time.Second},
		"none in its place":        {DrainSettings{Rate: 10, Window: time.Minute}, DrainPace{Rate: ptr(0.0)}, 3 * time.Second},
		"slower than one a second": {DrainSettings{Rate: 0.1}, DrainPace{}, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			drained(t, c.settings, func(r *drainRig) {
				r.open("a", 20)
				r.drain("a", c.asked)
				r.until(20*c.slot + time.Second)
				r.ended("at last", 20, 20)
				r.paced(r.ends, 0, c.slot)
			})
		})
	}
}

func TestDrainWithoutAPace(t *testing.T) {
	drained(t, DrainSettings{}, func(r *drainRig) {
		r.open("a", 50)
		r.drain("a", DrainPace{})
		r.sleep(0)
		r.ended("at once", 50, 50)
	})
}

func TestDrainOrder(t *testing.T) {
	t.Run("random", func(t *testing.T) {
		drained(t, DrainSettings{Window: time.Minute, Order: RandomOrder}, func(r *drainRig) {
			all := r.open("a", 50)
			r.drain("a", DrainPace{})
			r.until(time.Minute)
			r.ended("at last", 50, 50)
			if got := r.order(all); slices.IsSorted(got) {
				t.Errorf("the order is that of age: %v", got)
			}
		})
	})
	// Quiet for long: 3 never said anything, 2 is the one with the fewest messages for its
	// age, and 0 and 1 say something while it drains, 0 last.
	t.Run("idle", func(t *testing.T) {
		drained(t, DrainSettings{Rate: 0.02, Order: IdleFirst}, func(r *drainRig) {
			all := r.open("a", 4)
			r.sleep(time.Hour)
			r.began = time.Now()
			for i, n := range []uint64{10, 20, 5} {
				all[i].messages.Store(n)
			}
			r.drain("a", DrainPace{})
			r.until(40 * time.Second)
			all[1].messages.Add(1)
			r.until(45 * time.Second)
			for range 35 {
				all[0].messages.Add(1)
				r.sleep(5 * time.Second)
			}
			r.until(205 * time.Second)
			if diff := cmp.Diff([]int{3, 2, 1, 0}, r.order(all)); diff != "" {
				t.Errorf("the order (-want +got):\n%s", diff)
			}
		})
	})
}

// TestDrainDeadline: what is left then is closed at once; a session that nothing else ends
// is killed 5 s later, one with a close_timeout is its relay's to end.
func TestDrainDeadline(t *testing.T) {
	for _, endless := range []bool{false, true} {
		t.Run("", func(t *testing.T) {
			drained(t, DrainSettings{Rate: 0.1, Deadline: 30 * time.Second}, func(r *drainRig) {
				r.place.endless = endless
				all := r.open("a", 100)
				for _, s := range all {
					s.stubborn = true
				}
				r.open("b", 1)[0].stubborn = true
				r.drain("a", DrainPace{})
				if v, _ := r.view("a"); v.Deadline != r.began.Add(30*time.Second) || v.PerSecond != 0.1 || v.Since != r.began {
					t.Errorf("shown is %+v", v)
				}
				r.until(30*time.Second - 1)
				r.ended("before the deadline", 3, 3)
				r.sleep(1)
				r.ended("at the deadline", 100, 100)
				r.state("at the deadline", "a", balance.StateDraining, ByOperator, 100)
				r.until(35*time.Second - 1)
				r.ended("before they are killed", 100, 100)
				r.sleep(time.Minute)
				if endless {
					r.ended("killed", 200, 200)
					for _, e := range r.ends[100:] {
						if !e.killed || e.at != 35*time.Second {
							t.Fatalf("ended by %+v", e)
						}
					}
				} else {
					r.ended("not killed", 100, 100)
				}
			})
		})
	}
}

// TestDrainLate: sessions that were in flight when the drain began follow at its pace, and
// after the deadline at once.
func TestDrainLate(t *testing.T) {
	drained(t, DrainSettings{Window: time.Minute, Deadline: 2 * time.Minute}, func(r *drainRig) {
		r.open("a", 57)
		var late []*balance.Backend
		for range 4 {
			late = append(late, r.reserve("a"))
		}
		late[3].Live.Release() // its dial fails
		r.drain("a", DrainPace{})
		r.until(30 * time.Second)
		r.begin(late[0])
		r.until(70 * time.Second)
		r.ended("all that were there", 58, 58)
		r.paced(r.ends, 0, time.Minute/60)
		r.begin(late[1])
		r.sleep(3 * time.Second)
		r.ended("one late", 59, 59)
		r.until(3 * time.Minute)
		r.begin(late[2])
		r.sleep(time.Second)
		r.ended("one after the deadline", 60, 60)
		r.state("at last", "a", balance.StateDraining, ByOperator, 0)
	})
}

// TestDrainLeavesOthersAlone: a session that moves away while it waits for its turn is
// nobody's to close any more.
func TestDrainLeavesOthersAlone(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		all := r.open("a", 10)
		r.drain("a", DrainPace{})
		r.until(15 * time.Second)
		for _, s := range all[5:] {
			if s.State() != StateOpen {
				t.Fatal("it is too late to move")
			}
			to := r.reserve("b")
			to.Live.Open()
			s.Backend().Live.Close()
			s.Session.backend.Store(to)
		}
		r.until(time.Hour)
		r.ended("those that did not move", 5, 5)
		r.state("at last", "a", balance.StateDraining, ByOperator, 0)
	})
}

func TestUndrain(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 60)
		for _, c := range []struct {
			pool, id string
			want     error
		}{{"no", "a", ErrNoPool}, {"apps", "no", ErrNoBackend}, {"apps", "a", ErrNotDrained}} {
			if err := r.Undrain(c.pool, c.id); err != c.want {
				t.Errorf("%s/%s: got %v, want %v", c.pool, c.id, err, c.want)
			}
			if err := r.Drain(c.pool, c.id, DrainPace{}); c.want != ErrNotDrained && err != c.want {
				t.Errorf("%s/%s: got %v, want %v", c.pool, c.id, err, c.want)
			}
		}
		if err := r.Undrain("apps", "a"); err != nil {
			t.Fatal(err)
		}
		r.began = time.Now()
		r.drain("a", DrainPace{})
		r.until(20 * time.Second)
		if err := r.Undrain("apps", "a"); err != nil {
			t.Fatal(err)
		}
		r.until(time.Hour)
		r.ended("in the middle", 19, 21)
		r.state("in the middle", "a", balance.StateUp, 0, 0)

		left := 60 - len(r.ends)
		r.ends, r.began = nil, time.Now()
		r.drain("a", DrainPace{})
		r.until(time.Minute)
		r.ended("again", left, left)
		r.paced(r.ends, 0, time.Minute/time.Duration(left))
	})
}

// TestDrainChangesItsPace: a call while one runs changes the pace, but not when the drain
// began.
func TestDrainChangesItsPace(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 600)
		err := r.Drain("apps", "a", DrainPace{Window: ptr(10 * time.Minute)})
		if !errors.Is(err, ErrBadPace) || err.Error() != "bad pace: window 10m0s is longer than deadline 5m0s" {
			t.Errorf("a window that is longer than the deadline: %v", err)
		}
		r.state("refused", "a", balance.StateUp, 0, 0)
		r.drain("a", DrainPace{Rate: ptr(1.0)})
		r.until(time.Minute)
		r.ended("at one a second", 60, 60)
		r.drain("a", DrainPace{Rate: ptr(10.0)})
		r.until(90 * time.Second)
		r.ended("at ten a second", 360, 360)
		r.paced(r.ends[60:], time.Minute, 100*time.Millisecond)
		r.drain("a", DrainPace{Window: ptr(time.Minute)})
		r.until(100 * time.Second)
		r.ended("over the next minute", 400, 400)
		r.paced(r.ends[360:], 90*time.Second, 250*time.Millisecond)
		r.drain("a", DrainPace{Deadline: ptr(99 * time.Second), Rate: ptr(1.0)})
		r.sleep(0)
		r.ended("with a deadline that has passed", 600, 600)
	})
}

// TestDrainFollowsTheSettings: a reload changes the pace of a drain as far as nobody asked
// for one, and leaves it alone where it changes nothing of it.
func TestDrainFollowsTheSettings(t *testing.T) {
	drained(t, DrainSettings{Rate: 1}, func(r *drainRig) {
		r.open("a", 300)
		r.drain("a", DrainPace{Deadline: ptr(3 * time.Minute)})
		for range 100 {
			r.sleep(300 * time.Millisecond)
			r.reload()
		}
		r.until(30 * time.Second)
		r.ended("with reloads that change nothing", 30, 30)
		r.paced(r.ends, 0, time.Second)
		apps := r.settings.Pools[0]
		apps.Drain.Rate, apps.Drain.Code, apps.Drain.Deadline = 4, 4000, time.Hour
		r.settings.Pools = []PoolSettings{apps}
		r.reload()
		r.until(time.Minute)
		r.ended("with another rate", 150, 150)
		r.paced(r.ends[30:], 30*time.Second, 250*time.Millisecond)
		if e := r.ends[149]; e.ending.Client != 4000 {
			t.Errorf("it is told %d", e.ending.Client)
		}
		if v, _ := r.view("a"); v.Deadline != r.began.Add(3*time.Minute) || v.PerSecond != 4 {
			t.Errorf("shown is %+v", v)
		}
	})
}

// TestDrainWaitsForARefuge: nothing is closed while no other backend takes sessions, and
// what was missed is not made up for.
func TestDrainWaitsForARefuge(t *testing.T) {
	drained(t, DrainSettings{Rate: 10, Deadline: 5 * time.Minute}, func(r *drainRig) {
		r.open("a", 600)
		r.open("b", 600)
		r.drain("a", DrainPace{})
		r.until(10 * time.Second)
		r.ended("while b takes sessions", 100, 100)
		b := r.backend("b").Live
		b.Set(balance.Failing, true)
		r.until(40 * time.Second)
		r.ended("while none does", 100, 100)
		if v, _ := r.view("a"); !v.Waiting {
			t.Error("it does not say that it waits")
		}
		b.Set(balance.Failing, false) // nobody is told of that
		r.until(50 * time.Second)
		r.ended("b takes sessions again", 100+90, 100+100)
		if v, _ := r.view("a"); v.Waiting {
			t.Error("it says that it waits")
		}
		first := r.ends[100].at
		for i, e := range r.ends[100:] {
			if least := time.Duration(i-1) * 100 * time.Millisecond; e.at-first < least {
				t.Fatalf("end %d after the pause comes %v after the first", i, e.at-first)
			}
		}
		n := len(r.ends)
		r.drain("b", DrainPace{})
		r.until(60 * time.Second)
		r.ended("both drain", n, n)
		r.say("a", "b", "c")
		r.until(70 * time.Second)
		r.ended("a new one takes sessions", n+2*99, n+2*100)
		r.say("a", "b")
		n = len(r.ends)
		r.until(5*time.Minute - 1)
		r.ended("it has gone", n, n)
		r.sleep(1)
		left := 1200 - n - int(r.backend("b").Live.Sessions())
		r.ended("at the deadline of a", n+left, n+left)
		r.until(10 * time.Minute)
		r.ended("at that of b", 1200, 1200)
		if n := r.logs.FilterMessage("drain waits: no other backend takes sessions").Len(); n != 5 {
			t.Errorf("%d lines of waiting", n)
		}
	})
}

// TestDrainNeedsWeight: a backend of weight 0 is no refuge.
func TestDrainNeedsWeight(t *testing.T) {
	drained(t, DrainSettings{Rate: 10}, func(r *drainRig) {
		r.open("a", 10)
		r.source.say(t, discovery.Instance{ID: "a", Addr: "a:1", Weight: 1}, discovery.Instance{ID: "b", Addr: "b:1"})
		r.drain("a", DrainPace{})
		r.until(time.Minute)
		r.ended("with b of weight 0", 0, 0)
		r.say("a", "b")
		r.sleep(2 * time.Second)
		r.ended("with b of weight 1", 10, 10)
	})
}

// TestDrainByMaintenance begins and ends with it, and an operator's drain outlasts it.
func TestDrainByMaintenance(t *testing.T) {
	drained(t, byWindow, func(r *drainRig) {
		r.open("a", 60)
		r.say("a!", "b")
		r.until(10 * time.Second)
		r.ended("in maintenance", 10, 10)
		r.state("in maintenance", "a", balance.StateDraining, ByConsul, 50)
		if err := r.Undrain("apps", "a"); err != ErrMaintained {
			t.Errorf("undrained: %v", err)
		}
		r.say("a", "b")
		r.until(time.Minute)
		r.ended("out of maintenance", 10, 10)
		r.state("out of maintenance", "a", balance.StateUp, 0, 0)

		r.say("a!", "b")
		r.drain("a", DrainPace{Rate: ptr(1.0)})
		r.state("both want it", "a", balance.StateDraining, ByOperator, 50)
		r.say("a", "b")
		r.until(70 * time.Second)
		r.ended("out of maintenance, and drained", 20, 20)
		r.say("a!", "b")
		if err := r.Undrain("apps", "a"); err != nil {
			t.Error(err)
		}
		r.state("undrained in maintenance", "a", balance.StateDraining, ByConsul, 40)
		r.until(time.Hour)
		r.ended("at last", 60, 60)
	})
}
