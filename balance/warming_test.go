package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func warm(set *Set, shares ...float64) {
	for i, share := range shares {
		set.Backends()[i].Live.Warm(share)
	}
}

// Idle backends are picked in proportion to weight times warmth, relative to each other.
func TestWarmingProportions(t *testing.T) {
	for _, c := range []struct {
		name         string
		weights      []int
		warmth, want []float64
	}{
		{"one of three", []int{1, 1, 1}, []float64{0.25, 1, 1}, []float64{1, 4, 4}},
		{"a heavy one", []int{4, 1, 2}, []float64{0.25, 1, 1}, []float64{1, 1, 2}},
		{"several", []int{1, 2, 3, 1}, []float64{0.5, 0.25, 1, 1}, []float64{0.5, 0.5, 3, 1}},
		{"all the same", []int{1, 2, 3}, []float64{0.125, 0.125, 0.125}, []float64{1, 2, 3}},
		{"all, each its own way", []int{1, 1, 1}, []float64{0.125, 0.25, 0.5}, []float64{1, 2, 4}},
		{"nobody", []int{1, 2, 3}, []float64{1, 1, 1}, []float64{1, 2, 3}},
	} {
		for _, policy := range []string{"least_connections", "round_robin", "random"} {
			t.Run(policy+"/"+c.name, func(t *testing.T) {
				set := weighted(c.weights...)
				warm(set, c.warmth...)
				checkShares(t, countPicks(t, set, mustPolicy(t, Options{Policy: policy})(set), 20000), c.want)
			})
		}
	}
}

// Draws of all at once leave the same proportions as those that are repeated.
func TestDrawOpenOfWarming(t *testing.T) {
	set := weighted(5, 1, 3, 2)
	warm(set, 0.5, 1, 0.25, 1)
	set.Backends()[3].Live.setState(StateDown)
	l := newLottery(entrantsOf(set, 0), true)
	counts := make([]int, 4)
	for range 40000 {
		counts[slices.Index(set.Backends(), l.drawOpen(&Request{}, nil).backend)]++
	}
	checkShares(t, counts, []float64{2.5, 1, 0.75, 0})
}

// Who compares loads fills a backend up to its warmth.
func TestWarmingBackendsFillUpToTheirWarmth(t *testing.T) {
	for policy, slack := range map[string]int64{"least_connections": 0, "power_of_two_choices": 12} {
		set := weighted(1, 2, 1, 4)
		warm(set, 0.25, 0.5)
		p := mustPolicy(t, Options{Policy: policy})(set)
		for range 100 * 25 {
			pick(t, p, Request{}).Live.Open()
		}
		for i, want := range []int64{100, 400, 400, 1600} {
			if got := loads(set)[i]; got < want-slack || got > want+slack {
				t.Errorf("%s: loads %v", policy, loads(set))
			}
		}
	}
}

// Of two choices that are idle the cold one gets less than its full share, and none less
// if it is as warm as the other.
func TestPowerOfTwoOfIdleBackends(t *testing.T) {
	set := equalWeights(2)
	p := newPowerOfTwo(entrantsOf(set, 0))
	warm(set, 0.25, 1)
	checkShares(t, countPicks(t, set, p, 20000), []float64{1, 7})
	warm(set, 0.25, 0.25)
	checkShares(t, countPicks(t, set, p, 20000), []float64{1, 1})
}

// In turns, those that do not warm up keep their order, and all that warm up equally do.
func TestRoundRobinWhileWarming(t *testing.T) {
	order := func(warmth ...float64) (ids []string) {
		set := equalWeights(4)
		warm(set, warmth...)
		p := newRoundRobin(entrantsOf(set, 0)).(*roundRobin)
		p.cursor.Store(0)
		for range 400 {
			b := pick(t, p, Request{})
			b.Live.Release()
			if !b.Live.Has(Warming) || warmth[3] < 1 {
				ids = append(ids, b.ID)
			}
		}
		return ids
	}
	for name, got := range map[string][]string{"all": order(0.1, 0.1, 0.1, 0.1), "one": order(0.1, 1, 1, 1)} {
		ids := []string{"b0000", "b0001", "b0002", "b0003"}
		if name == "one" {
			ids = ids[1:]
		}
		for i, id := range got {
			if id != ids[i%len(ids)] {
				t.Fatalf("%s: %s at %d, want %s", name, id, i, ids[i%len(ids)])
			}
		}
	}
}

// A cold backend is taken when no other can be.
func TestTheColdestIsTakenWhenItIsAlone(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := equalWeights(20)
		p := policy(set)
		for i, b := range set.Backends() {
			if i != 7 {
				b.Live.setState(StateDown)
			}
		}
		for _, share := range []float64{0.5, 1.0 / (1 << 20), 0} {
			set.Backends()[7].Live.Warm(share)
			if n := countPicks(t, set, p, 50)[7]; n != 50 {
				t.Errorf("with a warmth of %v: picked %d times", share, n)
			}
		}
	})
}

func TestConsistentHashIgnoresWarming(t *testing.T) {
	set := equalWeights(5)
	p := newConsistentHash(entrantsOf(set, 0), 1.25)
	for hash := range uint64(100) {
		r := Request{Hash: hash * 0x9e3779b97f4a7c15, Hashed: true}
		warm(set, 1, 1, 1, 1, 1)
		before := pick(t, p, r)
		before.Live.Release()
		warm(set, 0.01, 0.2, 0.3, 0.01, 0.01)
		after := pick(t, p, r)
		after.Live.Release()
		if before != after {
			t.Fatalf("%s, then %s", before.ID, after.ID)
		}
	}
}

func TestCompareLoads(t *testing.T) {
	const most, pull = countMask, maxShare * fullWarmth
	for _, c := range []struct {
		load      int64
		pull      uint64
		other     int64
		otherPull uint64
		want      int
	}{
		{0, 1, 0, 5, 0}, {1, 2, 2, 4, 0}, {1, 2, 2, 3, -1}, {2, 3, 1, 2, 1},
		{most, pull, most, pull, 0}, {most - 1, pull, most, pull, -1}, {most, pull, most, pull - 1, -1}, {most, pull, 0, 1, 1},
	} {
		if got := compareLoads(c.load, c.pull, c.other, c.otherPull); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// Backends warm up and are picked on all goroutines at once; all are found.
func TestWarmingConcurrently(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := equalWeights(4)
		p := policy(set)
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				for range 500 {
					b, err := p.Pick(Request{})
					if err != nil {
						t.Error(err)
						return
					}
					b.Live.Warm(rand.Float64())
					b.Live.Release()
				}
				set.Backends()[g].Live.Warm(1)
			})
		}
		all.Wait()
		if diff := cmp.Diff([]int64{0, 0, 0, 0}, loads(set)); diff != "" {
			t.Error(diff)
		}
	})
}

// BenchmarkPickWarming is a pick while a tenth of the backends warm up.
func BenchmarkPickWarming(b *testing.B) {
	for _, policy := range Policies() {
		b.Run(fmt.Sprintf("%s/backends=100", policy), func(b *testing.B) {
			set := equalWeights(100)
			for i := range 10 {
				set.Backends()[i*10].Live.Warm(0.3)
			}
			p := mustPolicy(b, Options{Policy: policy})(set)
			b.ReportAllocs()
			for b.Loop() {
				pick(b, p, Request{}).Live.Release()
			}
		})
	}
}
