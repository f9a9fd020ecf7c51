package health

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

func TestHandshakesInARow(t *testing.T) {
	bubble(t, passive(), func(r *rig) {
		r.has("a", "b")
		r.fails("a", 2)
		r.Connected(r.b("a"))
		r.fails("a", 2)
		r.want("two in a row", balance.StateUp, "a")
		r.HandshakeFailed(r.b("a"), balance.FailureConnect, fmt.Errorf("dial: %w", syscall.EADDRNOTAVAIL))
		r.want("the edge's own fault", balance.StateUp, "a")
		r.HandshakeFailed(r.b("a"), balance.FailureStatus, statusError(503))
		r.want("three in a row", balance.StateEjected, "a")
		r.want("the other one", balance.StateUp, "b")
		if got, want := r.View().Reasons["a"], "3 handshakes failed in a row, the last one: status 503; back in 30s"; got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
		if n, m := r.b("a").Live.Failures(balance.FailureConnect), r.b("a").Live.Failures(balance.FailureStatus); n != 5 || m != 1 {
			t.Errorf("%d and %d failures are counted", n, m)
		}
		r.after(29 * s)
		r.want("before its time", balance.StateEjected, "a")
		r.after(s)
		r.want("at its time", balance.StateUp, "a")
		r.fails("a", 2)
		r.want("the row is a new one", balance.StateUp, "a")
		r.wantLog("backend ejected", 1)
		r.wantLog("backend healthy", 1)
	})
}

// session is one that began some time ago.
func (r *rig) ended(id string, age time.Duration, end End) {
	r.Ended(r.b(id), time.Now().Add(-age), end, errRefused)
}

// TestEnds has three sessions end alike, and holds whether that ejects the backend and what
// is counted.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		end     End
		age     time.Duration
		ejected bool
		kind    balance.FailureKind
	}{
		{"the client's", EndOther, 0, false, 0},
		{"in order and young", EndWell, 0, false, 0},
		{"closed young", EndClosed, 5 * s, true, balance.FailureEarlyDeath},
		{"closed later", EndClosed, 6 * s, false, 0},
		{"1011", EndInternalError, time.Hour, true, balance.FailureInternal},
		{"without a Close", EndAborted, time.Hour, true, balance.FailureAborted},
		{"violation", EndViolation, time.Hour, true, balance.FailureViolation},
	} {
		bubble(t, passive(), func(r *rig) {
			r.has("a", "b")
			for range 3 {
				r.Opened(r.b("a"), time.Now().Add(-tt.age))
			}
			for range 3 {
				r.ended("a", tt.age, tt.end)
			}
			if got := r.b("a").Live.State() == balance.StateEjected; got != tt.ejected {
				t.Errorf("%s: ejected %v", tt.name, got)
			}
			for kind := range balance.NumFailureKinds {
				want := uint64(0)
				if tt.ejected && kind == tt.kind {
					want = 3
				}
				if got := r.b("a").Live.Failures(kind); got != want {
					t.Errorf("%s: %d failures of kind %v, want %d", tt.name, got, kind, want)
				}
			}
		})
	}
}

// TestNoEarlyDeath: with early_death 0 no session is too young.
func TestNoEarlyDeath(t *testing.T) {
	settings := passive()
	settings.Passive.EarlyDeath = 0
	bubble(t, settings, func(r *rig) {
		r.has("a", "b")
		for range 9 {
			r.ended("a", 0, EndClosed)
		}
		r.want("closed young", balance.StateUp, "a")
	})
}

// TestSessionsInARow: two sessions have failed; then something happens, and a third one fails.
func TestSessionsInARow(t *testing.T) {
	open := func(r *rig) time.Time { now := time.Now(); r.Opened(r.b("a"), now); return now }
	for _, tt := range []struct {
		name    string
		between func(r *rig)
		broken  bool
	}{
		{"nothing", func(r *rig) {}, false},
		{"time", func(r *rig) { r.after(time.Hour) }, false},
		{"a handshake", func(r *rig) { r.Connected(r.b("a")) }, false},
		{"a young session that the client ends", func(r *rig) { r.Ended(r.b("a"), open(r), EndOther, nil) }, false},
		{"a session that was there before, ended by its client soon", func(r *rig) {
			r.after(s)
			r.ended("a", time.Hour, EndOther)
		}, false},
		{"the same, later", func(r *rig) { r.after(6 * s); r.ended("a", time.Hour, EndOther) }, true},
		{"a session that the backend ends well", func(r *rig) { r.Ended(r.b("a"), open(r), EndWell, nil) }, true},
		{"a session that its client ends in its time", func(r *rig) {
			at := open(r)
			r.after(6 * s)
			r.Ended(r.b("a"), at, EndOther, nil)
		}, true},
		{"a session that goes on", func(r *rig) { open(r); r.after(6 * s) }, true},
		{"a session that has only begun", func(r *rig) { open(r); r.after(4 * s) }, false},
		{"sessions that overlap", func(r *rig) {
			first := open(r)
			r.after(3 * s)
			open(r)
			r.Ended(r.b("a"), first, EndOther, nil)
			r.after(3 * s)
		}, true},
		{"sessions with a gap", func(r *rig) {
			r.Ended(r.b("a"), open(r), EndOther, nil)
			r.after(3 * s)
			open(r)
			r.after(3 * s)
		}, false},
	} {
		bubble(t, passive(), func(r *rig) {
			r.has("a", "b")
			for range 10 {
				r.Opened(r.b("a"), time.Now().Add(-time.Hour))
			}
			r.ended("a", time.Hour, EndAborted)
			r.ended("a", time.Hour, EndAborted)
			r.after(ms)
			tt.between(r)
			r.ended("a", time.Hour, EndAborted)
			if broken := r.b("a").Live.State() == balance.StateUp; broken != tt.broken {
				t.Errorf("%s: the row is broken: %v, want %v", tt.name, broken, tt.broken)
			}
		})
	}
}

// TestSessionsThatFailOneByOne must not speak for themselves.
func TestSessionsThatFailOneByOne(t *testing.T) {
	bubble(t, passive(), func(r *rig) {
		r.has("a", "b")
		for range 3 {
			at := time.Now()
			r.Opened(r.b("a"), at)
			r.after(time.Minute)
			r.Ended(r.b("a"), at, EndAborted, errRefused)
		}
		r.want("each after a minute", balance.StateEjected, "a")
		if got := r.View().Reasons["a"]; !strings.HasPrefix(got, "3 sessions ended badly in a row, the last one: refused") {
			t.Errorf("reason %q", got)
		}
	})
}

// TestEjectionsGrow by one ejection time each, to ten, and are forgotten.
func TestEjectionsGrow(t *testing.T) {
	bubble(t, passive(), func(r *rig) {
		r.has("a", "b")
		lasts := func() time.Duration {
			r.fails("a", 3)
			r.want("failed", balance.StateEjected, "a")
			from := time.Now()
			for r.b("a").Live.State() == balance.StateEjected {
				r.after(s)
			}
			return time.Since(from)
		}
		for i := range 12 {
			want := time.Duration(min(i+1, 10)) * 30 * s
			if got := lasts(); got != want {
				t.Errorf("ejection %d lasts %v, want %v", i+1, got, want)
			}
			r.after(want - s)
		}
		r.after(2 * s)
		if got := lasts(); got != 30*s {
			t.Errorf("after as long a time without one it lasts %v", got)
		}
	})
}

func TestMaxEjected(t *testing.T) {
	for _, tt := range []struct {
		share    float64
		of, want int
	}{{0.5, 1, 0}, {0.5, 2, 1}, {0.5, 3, 1}, {0.5, 5, 2}, {1, 1, 1}, {0, 4, 0}, {0.29, 100, 29}, {0.1, 10, 1}} {
		settings := passive()
		settings.Passive.MaxEjected, settings.Passive.PanicThreshold = tt.share, 0
		bubble(t, settings, func(r *rig) {
			var ids []string
			for i := range tt.of {
				ids = append(ids, fmt.Sprint("b", i))
			}
			r.has(ids...)
			ejected := 0
			for _, id := range ids {
				r.fails(id, 5)
				if r.b(id).Live.State() == balance.StateEjected {
					ejected++
				}
			}
			if ejected != tt.want {
				t.Errorf("%v of %d: %d are ejected, want %d", tt.share, tt.of, ejected, tt.want)
			}
			r.wantLog("backend not ejected: max_ejected", tt.of-tt.want)
		})
	}
}

// TestMaxEjectedMakesRoom: who may not be ejected yet is with its next failure.
func TestMaxEjectedMakesRoom(t *testing.T) {
	bubble(t, passive(), func(r *rig) {
		r.hasInstances(instance("a", discovery.Up), instance("b", discovery.Up), instance("c", discovery.Up), instance("down", discovery.Down))
		r.fails("a", 3)
		r.fails("b", 3)
		r.want("a", balance.StateEjected, "a")
		r.want("two of three are too many", balance.StateUp, "b")
		r.after(30 * s)
		r.fails("b", 1)
		r.want("there is room", balance.StateEjected, "b")
		r.want("its time is over", balance.StateUp, "a")
	})
}

// TestPlannedRestart: what happens while a backend is kept out by discovery or operator is
// not held against it.
func TestPlannedRestart(t *testing.T) {
	bubble(t, passive(), func(r *rig) {
		r.has("a", "b", "c", "d", "e")
		r.fails("a", 2)
		r.hasInstances(instance("a", discovery.Maintenance), instance("b", discovery.Up), instance("c", discovery.Up), instance("d", discovery.Up), instance("e", discovery.Up))
		r.b("b").Live.Set(balance.Drained, true)
		for range 5 {
			r.ended("a", time.Hour, EndAborted)
			r.ended("b", time.Hour, EndAborted)
		}
		r.b("b").Live.Set(balance.Drained, false)
		r.has("a", "b", "c")
		r.fails("a", 2)
		r.want("back", balance.StateUp, "a", "b")
		r.fails("b", 2)
		r.want("back", balance.StateUp, "b")
		r.fails("a", 1)
		r.want("three in a row", balance.StateEjected, "a")
		r.hasInstances(instance("a", discovery.Down), instance("b", discovery.Up), instance("c", discovery.Up))
		r.want("discovery notices", balance.StateDown, "a")
		r.has("a", "b", "c")
		r.want("back before its time", balance.StateUp, "a")
		r.wantLog("backend healthy", 1)
	})
}

func TestReloadOfPassive(t *testing.T) {
	bubble(t, passive(), func(r *rig) {
		r.has("a", "b")
		r.fails("a", 3)
		r.fails("b", 2)
		r.Apply(passive())
		r.want("the same settings", balance.StateEjected, "a")
		off := passive()
		off.Passive.ConsecutiveFailures = 0
		r.Apply(off)
		r.want("switched off", balance.StateUp, "a", "b")
		r.fails("a", 20)
		r.want("switched off", balance.StateUp, "a")
		if n := r.b("a").Live.Failures(balance.FailureConnect); n != 23 {
			t.Errorf("%d failures are counted", n)
		}
		r.Apply(passive())
		r.fails("a", 3)
		r.want("on again", balance.StateEjected, "a")
	})
}

// TestBothReasons: a backend is back when nothing keeps it out any more.
func TestBothReasons(t *testing.T) {
	settings := passive()
	settings.Active = active().Active
	bubble(t, settings, func(r *rig) {
		r.has("a", "b", "c")
		r.fails("a", 3)
		r.will(errRefused, "a")
		r.after(20 * s)
		if got := r.View().Reasons["a"]; !strings.HasPrefix(got, "probe: refused (") || !strings.Contains(got, "; 3 handshakes failed") {
			t.Errorf("reason %q", got)
		}
		r.after(20 * s)
		r.want("its ejection is over", balance.StateEjected, "a")
		r.wantLog("backend healthy", 0)
		r.will(nil, "a")
		r.after(11 * s)
		r.want("and it answers", balance.StateUp, "a")
		r.wantLog("backend healthy", 1)
	})
}

// TestLateWord is of a backend that has left, and may be back.
func TestLateWord(t *testing.T) {
	bubble(t, passive(), func(r *rig) {
		r.has("a", "b")
		a := r.b("a")
		r.has("b")
		for range 5 {
			r.HandshakeFailed(a, balance.FailureConnect, errRefused)
			r.Ended(a, time.Now(), EndAborted, errRefused)
		}
		r.Opened(a, time.Now())
		r.Connected(a)
		if a.Live.Has(balance.Outlier) {
			t.Error("a backend that has left is ejected")
		}
		r.has("a", "b")
		r.want("back", balance.StateUp, "a")
	})
}
