package balance

import (
	"slices"
	"testing"
)

// Idle backends tie, and then the first draw decides: shares are the weights.
func TestPowerOfTwoFollowsWeights(t *testing.T) {
	set := weighted(1, 2, 0, 7, 5)
	set.Backends()[4].Live.setState(StateDown)
	checkShares(t, countPicks(t, set, newPowerOfTwo(entrantsOf(set, 0)), 40000), []float64{1, 2, 0, 7, 0})
}

// Two backends are the two choices: the lower load by weight always wins.
func TestPowerOfTwoTakesTheLighter(t *testing.T) {
	for _, c := range []struct {
		weights [2]int
		loads   [2]int
		want    int
	}{
		{[2]int{1, 1}, [2]int{1, 0}, 1},
		{[2]int{1, 1}, [2]int{3, 4}, 0},
		{[2]int{1, 10}, [2]int{1, 9}, 1},
		{[2]int{1, 10}, [2]int{1, 11}, 0},
		{[2]int{1, 1000000}, [2]int{0, 1}, 0}, // even if the second draw hardly ever hits it
	} {
		set := weighted(c.weights[:]...)
		for i, b := range set.Backends() {
			for range c.loads[i] {
				b.Live.reserveBelow(countMask)
			}
		}
		if counts := countPicks(t, set, newPowerOfTwo(entrantsOf(set, 0)), 100); counts[c.want] != 100 {
			t.Errorf("%+v: %v", c, counts)
		}
	}
}

// The choices differ: of three backends the fullest can never win.
func TestPowerOfTwoNeverTakesTheFullest(t *testing.T) {
	set := equalWeights(3)
	set.Backends()[1].Live.reserveBelow(countMask)
	if counts := countPicks(t, set, newPowerOfTwo(entrantsOf(set, 0)), 3000); counts[1] != 0 || counts[0] == 0 || counts[2] == 0 {
		t.Errorf("%v", counts)
	}
}

// What the paper is about: with one choice the fullest of n bins has about
// ln n / ln ln n more than the mean at m = n and √(m·ln n/n) for larger m; with two
// the gap is about ln ln n, whatever m. 50,000 in 100 bins: 60 against 3.
func TestPowerOfTwoIsNearlyEven(t *testing.T) {
	set := equalWeights(100)
	p := newPowerOfTwo(entrantsOf(set, 0))
	for range 50000 {
		pick(t, p, Request{})
	}
	if got := loads(set); slices.Max(got) > 500+10 || slices.Min(got) < 500-30 {
		t.Errorf("from %d to %d, the mean is 500", slices.Min(got), slices.Max(got))
	}
}
