package balance

import (
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/discovery"
)

func TestParseLoad(t *testing.T) {
	for text, want := range map[string]float64{"0": 0, "0.35": 0.35, "1e3": 1000, "17": 17, "1e308": 1e308} {
		if got, ok := ParseLoad(text); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", " 1", "-1", "-0.0001", "nan", "NaN", "inf", "+Inf", "1e999", "0,5", "50%", "low",
		"0.00000000000000000000000000000000000000000000000000000000000000000001"} {
		if got, ok := ParseLoad(text); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestReport(t *testing.T) {
	var l Live
	is := func(what string, load float64, sessions int64, ok bool) {
		t.Helper()
		if v, s, known := l.Reported(); known != ok || known && (v != load || s != sessions) {
			t.Errorf("%s: %v at %d, %v", what, v, s, known)
		}
	}
	is("at first", 0, 0, false)
	l.Report(0)
	is("idle", 0, 0, true)
	occupy(&l, 3)
	l.reserveBelow(countMask)
	l.Report(0.25)
	is("with a dial in flight, which it does not know of", 0.25, 3, true)
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		l.Report(bad)
		is("nonsense", 0.25, 3, true)
	}
	for range ReportAge - 1 {
		l.AgeReport()
	}
	is("old", 0.25, 3, true)
	l.AgeReport()
	is("too old", 0, 0, false)
	l.AgeReport()
	is("older still", 0, 0, false)
	l.Report(math.MaxFloat64)
	is("huge", math.MaxFloat32, 3, true)
	var crowded Live
	crowded.word.Store(uint64(word(countMask) * oneSession))
	crowded.Report(1)
	if v, s, ok := crowded.Reported(); v != 1 || s != countMask || !ok {
		t.Errorf("as many sessions as can be: %v at %d, %v", v, s, ok)
	}
}

func TestLeastLoad(t *testing.T) {
	const none = -1
	for _, c := range []struct {
		name     string
		weights  []int
		sessions []int     // when they report
		loads    []float64 // none: no report
		more     []int     // sessions since then
		meta     []string
		warmth   []float64
		want     []int // any of these
	}{
		{name: "nobody reports: the load", sessions: []int{3, 2, 2}, loads: []float64{none, none, none}, want: []int{1, 2}},
		{name: "the lowest", sessions: []int{3, 9, 2}, loads: []float64{0.5, 0.2, 0.9}, want: []int{1}},
		{name: "by weight", weights: []int{1, 1, 10}, sessions: []int{3, 3, 3}, loads: []float64{0.5, 0.2, 0.9}, want: []int{2}},
		{name: "all idle: the load", sessions: []int{3, 2, 5}, loads: []float64{0, 0, 0}, want: []int{1}},
		// 1.5 of 15 sessions is 0.1 each.
		{name: "sessions since then", sessions: []int{5, 5, 5}, loads: []float64{0.6, 0.3, 0.6}, more: []int{0, 2, 0}, want: []int{1}},
		{name: "more sessions since then", sessions: []int{5, 5, 5}, loads: []float64{0.6, 0.3, 0.6}, more: []int{0, 4, 0}, want: []int{0, 2}},
		{name: "idle, but sessions since then", sessions: []int{5, 5, 5}, loads: []float64{0.6, 0, 0.9}, more: []int{0, 7, 0}, want: []int{0}},
		{name: "sessions that have ended", sessions: []int{5, 5, 5}, loads: []float64{0.6, 0.3, 0.6}, more: []int{0, 0, -4}, want: []int{2}},
		{name: "no report, above the mean", sessions: []int{4, 4, 9}, loads: []float64{0.6, 0.8, none}, want: []int{0}},
		{name: "no report, the mean", sessions: []int{4, 4, 0}, loads: []float64{0.8, 0.8, none}, more: []int{1, 1, 0}, want: []int{2}},
		{name: "no report is not idle", sessions: []int{4, 4, 0}, loads: []float64{0.2, 0.8, none}, want: []int{0}},
		{name: "before any sessions", sessions: []int{0, 0, 0}, loads: []float64{0.1, 0.2, 0.4}, more: []int{1, 0, 0}, want: []int{1}},
		{name: "metadata", sessions: []int{3, 3, 3}, loads: []float64{none, none, none}, meta: []string{"0.9", "0.5", "0.7"}, want: []int{1}},
		{name: "a report comes before metadata", sessions: []int{3, 3, 3}, loads: []float64{0.4, 0.8, none}, meta: []string{"0.9", "0.1", "0.5"}, want: []int{0}},
		{name: "metadata that are no load", sessions: []int{3, 3, 3}, loads: []float64{0.4, none, 0.8}, meta: []string{"", "-1", ""}, want: []int{0}},
		{name: "who warms up", sessions: []int{3, 3, 3}, loads: []float64{0.4, 0.2, 0.3}, warmth: []float64{1, 0.1, 1}, want: []int{2}},
		{name: "huge loads", sessions: []int{3, 3, 3}, loads: []float64{math.MaxFloat64, 1e37, math.MaxFloat64}, want: []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := make([]discovery.Instance, 3)
			for i := range list {
				list[i] = instance(string(rune('a'+i)), 1)
				if c.weights != nil {
					list[i].Weight = c.weights[i]
				}
				if c.meta != nil {
					list[i].Meta = map[string]string{LoadMeta: c.meta[i]}
				}
			}
			set := NewRegistry().Update(list)
			for i, b := range set.Backends() {
				if occupy(b.Live, c.sessions[i]); c.loads[i] != none {
					b.Live.Report(c.loads[i])
				}
			}
			p := mustPolicy(t, Options{Policy: "least_load"})(set)
			warm(set, c.warmth...)
			for i, n := range c.more {
				occupy(set.Backends()[i].Live, max(0, n))
				for range -n {
					set.Backends()[i].Live.Close()
				}
			}
			checkWinners(t, set, p, c.want)
		})
	}
}

// Handshakes of a storm, whose answers are still to come, are spread by what sessions make,
// on all goroutines at once, whoever was least loaded before.
func TestLeastLoadInAStorm(t *testing.T) {
	set := equalWeights(3)
	for i, load := range []float64{0.1, 0.5, 0.9} {
		occupy(set.Backends()[i].Live, 10) // 0.05 a session
		set.Backends()[i].Live.Report(load)
	}
	p := mustPolicy(t, Options{Policy: "least_load"})(set)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 12 {
				pick(t, p, Request{})
			}
		})
	}
	all.Wait()
	// 1.5 and 96 times 0.05 are 6.3: 2.1 for each.
	for i, want := range []int64{10 + 40, 10 + 32, 10 + 24} {
		if got := set.Backends()[i].Live.Load(); got < want-1 || got > want+1 {
			t.Errorf("backend %d has %d sessions, want %d", i, got, want)
		}
	}
}

// Backends that report what is true, if at each answer only, end up equally loaded, also if
// one of them has other work to do.
func TestLeastLoadFindsTheBalance(t *testing.T) {
	set := equalWeights(3)
	p := mustPolicy(t, Options{Policy: "least_load"})(set)
	truth := func(i int) float64 {
		return float64(set.Backends()[i].Live.Sessions())*0.01 + []float64{0, 0.3, 0}[i]
	}
	for range 300 {
		b := pick(t, p, Request{})
		b.Live.Open()
		b.Live.Report(truth(slices.Index(set.Backends(), b)))
	}
	for i := range 3 {
		if got := truth(i); got < 1.08 || got > 1.12 { // 3.3 by 3
			t.Errorf("backend %d has a load of %v, the mean is 1.1", i, got)
		}
	}
}
