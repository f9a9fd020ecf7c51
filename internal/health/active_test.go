package health

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

// TestVerdict goes through results of probes, p and f, and what they make of a backend: +
// takes sessions, - does not.
func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name             string
		probed, newcomer bool
		results, want    string
	}{
		{"first set, fails at once", true, false, "fp", "+-+"},
		{"first set, stays out", true, false, "ffp", "+--+"},
		{"first set, fall and rise", true, false, "pffpfffpfppf", "+++++++----++"},
		{"newcomer, one pass", true, true, "pff", "-+++"},
		{"newcomer, passes late", true, true, "fffpfff", "----+++-"},
		{"has served before there were probes", false, true, "fff", "+++-"},
		{"has served, and comes back", false, false, "fffpp", "+++--+"},
	} {
		var v verdict
		v.begin(tt.probed, tt.newcomer)
		sign := func() string {
			if v.failing {
				return "-"
			}
			return "+"
		}
		got := sign()
		for _, c := range tt.results {
			before := v.failing
			if changed := v.hear(map[rune]error{'f': errRefused}[c], &probing); changed != (v.failing != before) {
				t.Errorf("%s: changed %v, was %v, is %v", tt.name, changed, before, v.failing)
			}
			got += sign()
			if v.pending {
				t.Errorf("%s: still waits after a result", tt.name)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %s gives %s, want %s", tt.name, tt.results, got, tt.want)
		}
	}
}

func TestProbesDecide(t *testing.T) {
	bubble(t, active(), func(r *rig) {
		r.will(errRefused, "b")
		r.has("a", "b")
		r.want("first probes", balance.StateUp, "a")
		r.want("first probes", balance.StateEjected, "b")
		r.wantLog("backend ejected", 1)
		if got := r.b("b").Live.Failures(balance.FailureProbe); got != 1 {
			t.Errorf("%d failed probes are counted", got)
		}
		r.will(nil, "b")
		r.will(errRefused, "a")
		r.after(6 * s)
		r.want("the first one that passes is enough", balance.StateUp, "a", "b")
		r.wantLog("backend healthy", 1)
		r.after(12 * s)
		r.want("fall", balance.StateEjected, "a")
		if got := r.View().Reasons["a"]; got != "probe: refused (3 in a row)" {
			t.Errorf("reason %q", got)
		}
		r.will(nil, "a")
		r.after(5500 * ms)
		r.want("one of rise", balance.StateEjected, "a")
		r.after(5500 * ms)
		r.want("rise", balance.StateUp, "a")
		r.wantLog("backend ejected", 2)
		r.wantLog("backend healthy", 2)
	})
}

// TestNewcomer gets no session before it has answered, and holds up nobody.
func TestNewcomer(t *testing.T) {
	settings := active()
	settings.Passive.PanicThreshold = 0.5
	bubble(t, settings, func(r *rig) {
		r.has("a")
		r.will(errSilent, "b", "c")
		r.has("a", "b", "c", "d")
		r.want("d has passed", balance.StateUp, "a", "d")
		r.want("not answered", balance.StateEjected, "b", "c")
		if got := r.View().Reasons["b"]; got != "waits for its first probe" {
			t.Errorf("reason %q", got)
		}
		r.wantLog("backend ejected", 0)
		for range 3 { // two of four are as many as half
			r.after(1900 * ms)
			r.wantEligible("silent", "b", false)
			r.after(3600 * ms)
			r.wantEligible("silent", "b", false)
		}
		r.wantLog("backend ejected", 2)
		r.will(nil, "b")
		r.after(6 * s)
		r.want("b has passed once", balance.StateUp, "b")
	})
}

// TestSilentBackend does not keep others from being probed.
func TestSilentBackend(t *testing.T) {
	settings := active()
	settings.Active.Interval, settings.Active.Timeout = 10*s, 9*s
	bubble(t, settings, func(r *rig) {
		r.will(errSilent, "a")
		r.has("a", "b")
		r.after(100 * s)
		if a, b := len(r.probedAt("a")), len(r.probedAt("b")); a < 9 || a > 12 || b < 9 || b > 12 {
			t.Errorf("%d and %d probes in 100s", a, b)
		}
		r.want("silent", balance.StateEjected, "a")
		r.want("answers", balance.StateUp, "b")
	})
}

func TestIntervalIsJittered(t *testing.T) {
	bubble(t, active(), func(r *rig) {
		r.has("a")
		r.after(200 * s)
		at, gaps := r.probedAt("a"), map[time.Duration]bool{}
		for i := range len(at) - 1 {
			gap := at[i+1].Sub(at[i])
			if gap < 4500*ms || gap > 5500*ms {
				t.Errorf("%v between two probes", gap)
			}
			gaps[gap] = true
		}
		if len(at) < 36 || len(gaps) < len(at)/2 {
			t.Errorf("%d probes, %d different gaps", len(at), len(gaps))
		}
	})
}

// TestOwnFault is a probe that the edge itself could not make.
func TestOwnFault(t *testing.T) {
	bubble(t, active(), func(r *rig) {
		r.has("a")
		r.will(fmt.Errorf("dial: %w", syscall.EMFILE), "a", "b")
		r.has("a", "b")
		r.after(60 * s)
		r.want("no descriptors", balance.StateUp, "a")
		r.want("still not probed", balance.StateEjected, "b")
		if n := r.b("a").Live.Failures(balance.FailureProbe); n != 0 {
			t.Errorf("%d failures", n)
		}
	})
}

// TestDiscoveryAndProbesMustAgree: either keeps a backend out, and probes go on meanwhile.
func TestDiscoveryAndProbesMustAgree(t *testing.T) {
	bubble(t, active(), func(r *rig) {
		r.hasInstances(instance("a", discovery.Down), instance("b", discovery.Up), instance("c", discovery.Maintenance))
		r.will(errRefused, "b")
		r.after(20 * s)
		r.want("by discovery", balance.StateDown, "a")
		r.want("by probes", balance.StateEjected, "b")
		r.want("by discovery", balance.StateDraining, "c")
		for _, id := range []string{"a", "c"} {
			if n := len(r.probedAt(id)); n < 4 {
				t.Errorf("%s was probed %d times", id, n)
			}
		}
		r.has("a", "b", "c")
		r.want("both agree", balance.StateUp, "a", "c")
		r.want("discovery does not know better", balance.StateEjected, "b")
		r.will(nil, "b")
		r.after(11 * s)
		r.want("without a word of discovery", balance.StateUp, "b")
	})
}

func TestRemovedBackendIsNotProbed(t *testing.T) {
	bubble(t, active(), func(r *rig) {
		r.will(errRefused, "b")
		r.has("a", "b")
		b := r.b("b")
		r.has("a")
		n := len(r.probedAt("b"))
		r.after(60 * s)
		if got := len(r.probedAt("b")); got != n {
			t.Errorf("%d probes since it left", got-n)
		}
		if b.Live.Has(balance.Failing) {
			t.Error("it is still marked")
		}
		r.Retire()
		r.after(60 * s)
		n = len(r.probedAt("a"))
		r.will(errSilent, "a")
		r.has("a", "b")
		r.want("a first set again", balance.StateUp, "a")
		if got := len(r.probedAt("a")); got != n+1 {
			t.Errorf("%d probes of a pool that is back, want 1", got-n)
		}
	})
}

// TestNewAddress is another server under an old name.
func TestNewAddress(t *testing.T) {
	settings := active()
	settings.Passive = passive().Passive
	bubble(t, settings, func(r *rig) {
		r.has("a", "b")
		before := r.b("a")
		r.will(errSilent, "elsewhere")
		r.hasInstances(discovery.Instance{ID: "a", Addr: "addr-elsewhere", Weight: 1}, instance("b", discovery.Up))
		r.want("it has not answered", balance.StateEjected, "a")
		r.will(nil, "elsewhere")
		r.after(8 * s)
		r.want("it has", balance.StateUp, "a")
		n := len(r.probedAt("a"))
		for range 5 {
			r.HandshakeFailed(before, balance.FailureConnect, errRefused)
		}
		r.after(10 * s)
		r.want("the former one has failed", balance.StateUp, "a")
		if len(r.probedAt("a")) != n {
			t.Error("the former address is still probed")
		}
	})
}

func TestReloadOfProbes(t *testing.T) {
	bubble(t, active(), func(r *rig) {
		r.will(errRefused, "b")
		r.has("a", "b")
		same := active()
		n := len(r.probedAt("a"))
		r.Apply(same)
		r.want("the same settings", balance.StateEjected, "b")
		if len(r.probedAt("a")) != n {
			t.Error("the same settings probe again")
		}

		other := active()
		other.Active.Interval, other.Active.Rise = time.Hour, 1
		r.Apply(other)
		synctest.Wait()
		if got := len(r.probedAt("a")); got != n+1 {
			t.Errorf("%d probes, want one at once", got-n)
		}
		r.want("the verdict stays", balance.StateEjected, "b")
		r.want("the verdict stays", balance.StateUp, "a")

		r.will(errRefused, "a")
		r.Apply(active())
		r.after(6 * s)
		r.want("two are not enough for what has passed before", balance.StateUp, "a")
		other.Active.Interval = time.Minute
		r.Apply(other)
		r.want("probes of another kind are counted anew", balance.StateUp, "a")

		r.Apply(Settings{})
		r.want("no probes", balance.StateUp, "a", "b")
		n = len(r.probedAt("a"))
		r.after(time.Hour)
		if got := len(r.probedAt("a")); got != n {
			t.Errorf("%d probes without any", got-n)
		}

		r.Apply(active())
		r.want("what has served needs to fall", balance.StateUp, "a", "b")
		r.after(12 * s)
		r.want("fall", balance.StateEjected, "a", "b")
	})
}

func TestAnswered(t *testing.T) {
	heard := make(chan string, 100)
	settings := active()
	settings.Answered = func(b *balance.Backend, h http.Header) { heard <- b.ID + " " + h.Get("Tidegate-Load") }
	bubble(t, settings, func(r *rig) {
		r.will(errRefused, "b")
		r.has("a", "b")
		if got := <-heard; got != "a 0.5" || len(heard) > 0 {
			t.Errorf("heard %q and %d more", got, len(heard))
		}
	})
}
