package balance

import (
	"sync"
	"testing"
	"unsafe"
)

func TestLiveCounts(t *testing.T) {
	var l Live
	steps := []struct {
		name               string
		do                 func()
		sessions, inFlight int64
	}{
		{"zero value", func() {}, 0, 0},
		{"reserve", func() { l.reserveBelow(countMask) }, 0, 1},
		{"reserve again", func() { l.reserveBelow(countMask) }, 0, 2},
		{"open", l.Open, 1, 1},
		{"release", l.Release, 1, 0},
		{"reserve at the present load", func() { l.reserveAt(1) }, 1, 1},
		{"reserve at another load", func() { l.reserveAt(1) }, 1, 1},
		{"open the second", l.Open, 2, 0},
		{"close", l.Close, 1, 0},
		{"remove", func() { l.setState(StateRemoved) }, 1, 0},
		{"reserve when removed", func() { l.reserveBelow(countMask) }, 1, 0},
		{"reserve at when removed", func() { l.reserveAt(1) }, 1, 0},
		{"close when removed", l.Close, 0, 0},
	}
	for _, step := range steps {
		step.do()
		if s, f := l.Sessions(), l.InFlight(); s != step.sessions || f != step.inFlight || l.Load() != s+f {
			t.Fatalf("%s: %d sessions, %d in flight, load %d; want %d, %d", step.name, s, f, l.Load(), step.sessions, step.inFlight)
		}
	}
	if l.Picks() != 3 {
		t.Errorf("%d picks, want 3", l.Picks())
	}
}

// Ending what was not begun must not leave a trace: handlers recover from panics.
func TestLiveRefusesUnpairedEnds(t *testing.T) {
	for name, end := range map[string]func(*Live){"Open": (*Live).Open, "Release": (*Live).Release, "Close": (*Live).Close} {
		var l Live
		l.setState(StateDraining)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of nothing did not panic", name)
				}
			}()
			end(&l)
		}()
		if l.Load() != 0 || l.State() != StateDraining {
			t.Errorf("%s of nothing left load %d, state %v", name, l.Load(), l.State())
		}
	}
}

func TestLiveCountsStayApartAtTheirLimit(t *testing.T) {
	var l Live
	l.word.Store(uint64(word(countMask-1) * oneSession))
	if !l.reserveBelow(countMask) || l.reserveBelow(countMask) || l.reserveAt(countMask) {
		t.Fatal("want room for exactly one more")
	}
	l.Open()
	if l.Sessions() != countMask || l.InFlight() != 0 || l.State() != StateUp {
		t.Errorf("%d sessions, %d in flight, %v", l.Sessions(), l.InFlight(), l.State())
	}
}

// Who takes new sessions is decided by all that speak of a backend; the state names the
// weightiest.
func TestMarks(t *testing.T) {
	for _, c := range []struct {
		name     string
		standing standing
		marks    Mark
		state    State
		eligible bool
	}{
		{"nothing", present, 0, StateUp, true},
		{"new", present, Warming, StateSlowStart, true},
		{"failing", present, Failing | Warming, StateEjected, false},
		{"outlier", present, Outlier, StateEjected, false},
		{"too few left", present, Failing | Outlier | Panicking, StateEjected, true},
		{"drained", present, Drained | Warming, StateDraining, false},
		{"drained when too few are left", present, Drained | Outlier | Panicking, StateDraining, false},
		{"maintenance", maintained, Failing, StateDraining, false},
		{"maintenance when too few are left", maintained, Failing | Panicking, StateDraining, false},
		{"down", broken, 0, StateDown, false},
		{"down when too few are left", broken, Panicking, StateDown, false},
		{"down and drained", broken, Drained, StateDraining, false},
		{"removed", removed, Drained | Failing | Panicking, StateRemoved, false},
	} {
		var l Live
		l.reserveBelow(countMask)
		l.stand(c.standing)
		for m := Drained; m <= Panicking; m <<= 1 {
			if l.Set(m, c.marks&m != 0) != (c.marks&m != 0) || l.Set(m, c.marks&m != 0) || l.Has(m) != (c.marks&m != 0) {
				t.Errorf("%s: mark %x is %v", c.name, m, l.Has(m))
			}
		}
		if l.State() != c.state || l.Eligible() != c.eligible {
			t.Errorf("%s: %v, eligible %v; want %v, %v", c.name, l.State(), l.Eligible(), c.state, c.eligible)
		}
		if l.stand(present); l.InFlight() != 1 || l.Sessions() != 0 {
			t.Errorf("%s: marks changed the counts: %d in flight, %d sessions", c.name, l.InFlight(), l.Sessions())
		}
		if l.reserveBelow(countMask) != l.Eligible() {
			t.Errorf("%s: it was reserved, or not, against its word", c.name)
		}
	}
}

func TestLiveFailures(t *testing.T) {
	var l Live
	for kind := range NumFailureKinds {
		for range kind + 1 {
			l.Fail(kind)
		}
	}
	for kind := range NumFailureKinds {
		if n := l.Failures(kind); n != uint64(kind)+1 {
			t.Errorf("%d failures of kind %v, want %d", n, kind, kind+1)
		}
	}
}

// The words stand in the API and in metrics.
func TestWords(t *testing.T) {
	states := map[State]string{
		StateUp: "up", StateSlowStart: "slow_start", StateDraining: "draining",
		StateEjected: "ejected", StateDown: "down", StateRemoved: "removed", 99: "unknown",
	}
	for s, want := range states {
		if s.String() != want {
			t.Errorf("state %d is %q, want %q", s, s, want)
		}
	}
	kinds := map[FailureKind]string{
		FailureConnect: "connect", FailureTimeout: "timeout", FailureTLS: "tls",
		FailureHandshake: "handshake", FailureStatus: "status", FailureAborted: "aborted",
		FailureEarlyDeath: "early_death", FailureViolation: "violation", FailureInternal: "internal_error", FailureProbe: "probe", 99: "unknown",
	}
	for k, want := range kinds {
		if k.String() != want {
			t.Errorf("failure %d is %q, want %q", k, k, want)
		}
	}
	if len(kinds) != int(NumFailureKinds)+1 {
		t.Errorf("%d kinds, %d words", NumFailureKinds, len(kinds)-1)
	}
}

// Two live states must not share a cache line, nor the pair of lines that is fetched.
func TestLiveIsPadded(t *testing.T) {
	if size := unsafe.Sizeof(Live{}); size%128 != 0 {
		t.Errorf("a Live has %d bytes, want a multiple of 128", size)
	}
}

func TestLiveConcurrently(t *testing.T) {
	var l Live
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 2000 {
				if !l.reserveBelow(countMask) {
					continue
				}
				if i%3 == 0 {
					l.Release()
				} else {
					l.Open()
					l.Close()
				}
				if g == 0 {
					l.setState(State(i % int(numStates)))
				}
				if l.Load() < 0 || l.Load() > 8 {
					t.Errorf("load %d of 8 goroutines", l.Load())
				}
			}
			if g == 0 {
				l.setState(StateUp)
			}
		})
	}
	all.Wait()
	if l.Sessions() != 0 || l.InFlight() != 0 {
		t.Errorf("%d sessions, %d in flight at the end", l.Sessions(), l.InFlight())
	}
}
