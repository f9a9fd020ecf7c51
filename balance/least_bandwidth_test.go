package balance

import (
	"math"
	"slices"
	"sync"
	"testing"
)

// occupy opens sessions.
func occupy(l *Live, n int) {
	for range n {
		l.reserveBelow(countMask)
		l.Open()
	}
}

// measured has each backend carry so many bytes per second with n sessions, for long enough
// that nothing before counts.
func measured(set *Set, sessions []int, perSecond []uint64) {
	for i, b := range set.Backends() {
		occupy(b.Live, sessions[i])
		b.Live.Carried(perSecond[i]*1000, 1000)
	}
}

func TestCarried(t *testing.T) {
	var l Live
	l.Carried(5000, 0)
	if rate, n := l.Bandwidth(); rate != 0 || n != 0 {
		t.Fatalf("after no time: %v of %v", rate, n)
	}
	occupy(&l, 8)
	for range 10 {
		l.Carried(1000, 1)
	}
	// After one time constant both are at 1 - 1/e of what they go to, however often it was
	// looked.
	near := func(got, want float64) bool { return math.Abs(got-want) < want/1000 }
	if rate, n := l.Bandwidth(); !near(rate, 632.12) || !near(n, 8*0.63212) {
		t.Errorf("after 10 s: %v of %v", rate, n)
	}
	l.Carried(0, 10)
	if rate, _ := l.Bandwidth(); !near(rate, 632.12/math.E) {
		t.Errorf("after 10 quiet seconds: %v", rate)
	}
	l.Carried(math.MaxUint64, 1e-9)
	if rate, n := l.Bandwidth(); math.IsInf(rate, 0) || math.IsNaN(rate) || math.IsNaN(n) {
		t.Errorf("after more than there is: %v of %v", rate, n)
	}
}

func TestLeastBandwidth(t *testing.T) {
	for _, c := range []struct {
		name      string
		weights   []int
		sessions  []int
		perSecond []uint64
		more      []int // sessions that are too new to have been measured
		warmth    []float64
		want      []int // any of these
	}{
		{"nothing known: the load", []int{1, 1, 1}, []int{0, 0, 0}, []uint64{0, 0, 0}, []int{2, 1, 1}, nil, []int{1, 2}},
		{"nothing carried: the load by weight", []int{1, 1, 4}, []int{5, 9, 12}, []uint64{0, 0, 0}, []int{0, 0, 0}, nil, []int{2}},
		{"the quiet one", []int{1, 1, 1}, []int{5, 5, 5}, []uint64{900, 100, 800}, []int{0, 0, 0}, nil, []int{1}},
		{"quiet with many sessions", []int{1, 1, 1}, []int{5, 50, 5}, []uint64{900, 100, 800}, []int{0, 0, 0}, nil, []int{1}},
		{"by weight", []int{1, 1, 10}, []int{5, 5, 5}, []uint64{900, 100, 800}, []int{0, 0, 0}, nil, []int{2}},
		{"new sessions count", []int{1, 1, 1}, []int{5, 5, 5}, []uint64{840, 120, 840}, []int{0, 5, 0}, nil, []int{1}},
		{"a tie: the load", []int{1, 1, 1}, []int{5, 5, 5}, []uint64{840, 120, 840}, []int{0, 6, 0}, nil, []int{0, 2}},
		{"too many new sessions", []int{1, 1, 1}, []int{5, 5, 5}, []uint64{840, 120, 841}, []int{0, 7, 0}, nil, []int{0}},
		{"who has lost sessions", []int{1, 1, 1}, []int{9, 5, 5}, []uint64{900, 700, 800}, []int{-3, 0, 0}, nil, []int{0}},
		{"a backend that is new", []int{1, 1}, []int{9, 0}, []uint64{900, 0}, []int{0, 8}, nil, []int{1}},
		{"it is full up", []int{1, 1}, []int{9, 0}, []uint64{900, 0}, []int{0, 10}, nil, []int{0}},
		{"who warms up", []int{1, 1, 1}, []int{5, 5, 5}, []uint64{900, 100, 800}, []int{0, 0, 0}, []float64{1, 0.1, 1}, []int{2}},
		{"all warm up", []int{1, 1, 1}, []int{5, 5, 5}, []uint64{900, 100, 800}, []int{0, 0, 0}, []float64{0.1, 0.1, 0.1}, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := weighted(c.weights...)
			measured(set, c.sessions, c.perSecond)
			warm(set, c.warmth...)
			for i, b := range set.Backends() {
				occupy(b.Live, max(0, c.more[i]))
				for range -c.more[i] {
					b.Live.Close()
				}
			}
			checkWinners(t, set, mustPolicy(t, Options{Policy: "least_bandwidth"})(set), c.want)
		})
	}
}

// checkWinners fails if other backends are picked than those that are wanted.
func checkWinners(t *testing.T, set *Set, p Picker, want []int) {
	t.Helper()
	for i, n := range countPicks(t, set, p, 200) {
		if (n > 0) != slices.Contains(want, i) {
			t.Errorf("backend %d was picked %d times of 200, want only %v", i, n, want)
		}
	}
}

// A storm of sessions, nothing of which was measured yet, is spread so that the expected
// bandwidth is even, on all goroutines at once.
func TestLeastBandwidthInAStorm(t *testing.T) {
	set := weighted(1, 1, 2)
	measured(set, []int{10, 10, 20}, []uint64{1000, 3000, 4000}) // 200 a session
	p := mustPolicy(t, Options{Policy: "least_bandwidth"})(set)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				pick(t, p, Request{}).Live.Open()
			}
		})
	}
	all.Wait()
	// 8000 and 160 times 200 make 40000: 10000 for each weight.
	for i, want := range []int64{10 + 45, 10 + 35, 20 + 80} {
		if got := set.Backends()[i].Live.Load(); got < want-1 || got > want+1 {
			t.Errorf("backend %d has %d sessions, want %d", i, got, want)
		}
	}
}

// A pool in which something is carried now and then is not taken for one in which a single
// backend is worth having: sessions count while they are young.
func TestLeastBandwidthOfANearlyIdlePool(t *testing.T) {
	set := equalWeights(4)
	p := mustPolicy(t, Options{Policy: "least_bandwidth"})(set)
	for second := range 60 {
		for range 4 {
			pick(t, p, Request{}).Live.Open()
		}
		for i, b := range set.Backends() {
			bytes := uint64(0)
			if i == second%4 {
				bytes = 50
			}
			b.Live.Carried(bytes, 1)
		}
	}
	if got := loads(set); slices.Min(got) < 30 {
		t.Errorf("loads %v, the mean is 60", got)
	}
}
