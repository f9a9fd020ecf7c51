package balance

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func loads(set *Set) []int64 {
	loads := make([]int64, 0, set.Len())
	for _, b := range set.Backends() {
		loads = append(loads, b.Live.Load())
	}
	return loads
}

// Nothing ends: after each whole round of weights the loads are the weights.
func TestLeastConnectionsFollowsWeights(t *testing.T) {
	set := weighted(1, 3, 0, 2)
	p := newLeastConnections(entrantsOf(set, 0))
	for round := range int64(50) {
		for range 6 {
			pick(t, p, Request{}).Live.Open()
		}
		want := []int64{round + 1, 3 * (round + 1), 0, 2 * (round + 1)}
		if diff := cmp.Diff(want, loads(set)); diff != "" {
			t.Fatalf("round %d (-want +got):\n%s", round, diff)
		}
	}
}

// Dials in flight count as much as sessions, and loads are divided by weight.
func TestLeastConnectionsCompares(t *testing.T) {
	for _, c := range []struct {
		name             string
		weights          []int
		sessions, flying []int
		want             []int // any of these
	}{
		{"sessions", []int{1, 1}, []int{2, 1}, []int{0, 0}, []int{1}},
		{"dials", []int{1, 1}, []int{0, 0}, []int{1, 2}, []int{0}},
		{"both", []int{1, 1, 1}, []int{3, 0, 2}, []int{0, 3, 0}, []int{2}},
		{"weight", []int{1, 10}, []int{2, 19}, []int{0, 0}, []int{1}},
		{"weight the other way", []int{1, 10}, []int{2, 21}, []int{0, 0}, []int{0}},
		{"a new one", []int{100, 1, 100}, []int{50, 0, 50}, []int{0, 0, 0}, []int{1}},
		{"a tie", []int{2, 1, 1}, []int{4, 2, 3}, []int{0, 0, 0}, []int{0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := weighted(c.weights...)
			for i, b := range set.Backends() {
				for range c.sessions[i] {
					b.Live.reserveBelow(countMask)
					b.Live.Open()
				}
				for range c.flying[i] {
					b.Live.reserveBelow(countMask)
				}
			}
			var got []int
			for i, n := range countPicks(t, set, newLeastConnections(entrantsOf(set, 0)), 400) {
				if n > 0 {
					got = append(got, i)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Ties are broken in proportion to weight, wherever the tied ones stand.
func TestLeastConnectionsBreaksTiesFairly(t *testing.T) {
	set := weighted(1, 2, 1, 1, 4)
	busy := set.Backends()[2].Live
	busy.reserveBelow(countMask)
	checkShares(t, countPicks(t, set, newLeastConnections(entrantsOf(set, 0)), 40000), []float64{1, 2, 0, 1, 4})
}

// Picks on all goroutines at once, with equal weights and nothing ending: at the end,
// and at every moment in between, no load is more than one above another.
func TestLeastConnectionsStaysLevelConcurrently(t *testing.T) {
	set := equalWeights(7)
	p := newLeastConnections(entrantsOf(set, 0))
	const goroutines, each = 8, 1000
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range each {
				b := pick(t, p, Request{})
				// Loads only grow, so the least one, read later, is no less than it was.
				if mine, low := b.Live.Load(), slices.Min(loads(set)); mine > low+1 {
					t.Errorf("a load of %d, the least is %d", mine, low)
				}
				b.Live.Open()
			}
		})
	}
	all.Wait()
	got := loads(set)
	if slices.Max(got)-slices.Min(got) > 1 {
		t.Errorf("loads %v", got)
	}
	var sum int64
	for _, n := range got {
		sum += n
	}
	if sum != goroutines*each {
		t.Errorf("%d sessions, want %d", sum, goroutines*each)
	}
}

// A backend that lost the race is compared again: sessions that end in between do not
// make the pick fail, nor the counts wrong.
func TestLeastConnectionsUnderChurn(t *testing.T) {
	set := weighted(1, 1, 2)
	p := newLeastConnections(entrantsOf(set, 0))
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 2000 {
				l := pick(t, p, Request{}).Live
				l.Open()
				l.Close()
			}
		})
	}
	all.Wait()
	if diff := cmp.Diff([]int64{0, 0, 0}, loads(set)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
