package balance

import (
	"slices"
	"testing"
)

func TestRandomFollowsWeights(t *testing.T) {
	many := slices.Repeat([]int{1}, 100)
	many[40], many[99] = 20, 7
	lastOfMany := make([]float64, 100)
	lastOfMany[98], lastOfMany[99] = 1, 7
	var allButTwo []int
	for i := range 98 {
		allButTwo = append(allButTwo, i)
	}
	for _, c := range []struct {
		name    string
		weights []int
		down    []int
		shares  []float64
	}{
		{"equal", []int{1, 1, 1, 1}, nil, []float64{1, 1, 1, 1}},
		{"weights", []int{1, 2, 0, 7}, nil, []float64{1, 2, 0, 7}},
		{"first down", []int{1, 2, 3}, []int{0}, []float64{0, 2, 3}},
		{"middle down", []int{1, 5, 3}, []int{1}, []float64{1, 0, 3}},
		{"heaviest down", []int{1, 1000, 3}, []int{1}, []float64{1, 0, 3}},
		{"nearly all down", many, allButTwo, lastOfMany},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := weighted(c.weights...)
			for _, i := range c.down {
				set.Backends()[i].Live.setState(StateDown)
			}
			checkShares(t, countPicks(t, set, newRandom(entrantsOf(set, 0)), 40000), c.shares)
		})
	}
}

// Those that were tried leave the others with their proportions.
func TestRandomFollowsWeightsWithoutTheTried(t *testing.T) {
	set := weighted(1, 50, 2, 3)
	counts := countPicks(t, set, newRandom(entrantsOf(set, 0)), 40000, set.Backends()[1], set.Backends()[2])
	checkShares(t, counts, []float64{1, 0, 0, 3})
}

func TestDrawOpenFollowsShares(t *testing.T) {
	set := weighted(5, 1, 3, 2)
	l := newLottery(entrantsOf(set, 0), false)
	set.Backends()[2].Live.setState(StateEjected)
	counts := make([]int, 4)
	for range 40000 {
		e := l.drawOpen(&Request{}, &l.entrants[3])
		counts[slices.Index(set.Backends(), e.backend)]++
	}
	checkShares(t, counts, []float64{5, 1, 0, 0})
}

func TestDice(t *testing.T) {
	d := newDice()
	counts := make([]int, 10)
	for range 50000 {
		counts[d.below(10)]++
	}
	checkShares(t, counts, []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
}
