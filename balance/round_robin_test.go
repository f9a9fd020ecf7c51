package balance

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// nginxSequence is one period of ngx_http_upstream_get_peer, written down plainly.
func nginxSequence(weights []uint64) []uint32 {
	current := make([]int64, len(weights))
	var total int64
	for _, w := range weights {
		total += int64(w)
	}
	var sequence []uint32
	for range total {
		best := -1
		for i := range weights {
			current[i] += int64(weights[i])
			if best < 0 || current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		sequence = append(sequence, uint32(best))
	}
	return sequence
}

func TestSmoothSequence(t *testing.T) {
	for _, c := range []struct {
		weights []uint64
		want    []uint32
	}{
		{nil, []uint32{}},
		{[]uint64{1}, []uint32{0}},
		{[]uint64{1, 1, 1}, []uint32{0, 1, 2}},
		{[]uint64{5, 1, 1}, []uint32{0, 0, 1, 0, 2, 0, 0}}, // nginx's own example
		{[]uint64{1, 2, 3}, []uint32{2, 1, 0, 2, 1, 2}},
	} {
		if diff := cmp.Diff(c.want, smoothSequence(c.weights)); diff != "" {
			t.Errorf("weights %v (-want +got):\n%s", c.weights, diff)
		}
	}
}

func TestSmoothSequenceIsThatOfNginx(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		weights := make([]uint64, 1+rnd.IntN(12))
		for i := range weights {
			weights[i] = 1 + rnd.Uint64N(1+rnd.Uint64N(30))
		}
		if diff := cmp.Diff(nginxSequence(weights), smoothSequence(weights)); diff != "" {
			t.Fatalf("weights %v (-want +got):\n%s", weights, diff)
		}
	}
}

func TestSlotWeights(t *testing.T) {
	for _, c := range []struct {
		name  string
		given []int
		want  []uint64
	}{
		{"none", nil, []uint64{}},
		{"equal", []int{100, 100}, []uint64{1, 1}},
		{"common divisor", []int{100, 50, 250}, []uint64{2, 1, 5}},
		{"no common divisor", []int{3, 5, 7}, []uint64{3, 5, 7}},
		{"as long as may be", []int{minSlots - 1, 1}, []uint64{minSlots - 1, 1}},
		{"too long, at least one slot", []int{1 << 24, 1}, []uint64{minSlots, 1}},
		{"too long, in proportion", []int{3_000_001, 1_000_000}, []uint64{12288, 4096}},
		{"too long, and then a divisor", []int{1_000_001, 1_000_000}, []uint64{1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := slotWeights(entrantsOf(weighted(c.given...), 0))
			if c.name == "too long, in proportion" {
				reduce(c.want)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The error that rounding makes stays within what is documented, whatever the weights.
func TestSlotsAreBoundedAndFair(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{2, 50, 700, 5000} {
		weights := make([]int, n)
		var sum float64
		for i := range weights {
			weights[i] = 1 + rnd.IntN(1<<rnd.IntN(17))
			sum += float64(weights[i])
		}
		slots := newRoundRobin(entrantsOf(weighted(weights...), 0)).(*roundRobin).slots
		limit := max(minSlots, slotsPerEntrant*n)
		if len(slots) > limit+n {
			t.Errorf("%d backends: %d slots, limit %d", n, len(slots), limit)
		}
		counts := make([]int, n)
		for _, s := range slots {
			counts[s]++
		}
		for i, count := range counts {
			if exact := float64(weights[i]) / sum * float64(limit); len(slots) > limit/2 && (count < 1 || float64(count) > exact+1 || float64(count) < exact/2-1) {
				t.Fatalf("%d backends: weight %d got %d slots of %d, exactly %.2f", n, weights[i], count, len(slots), exact)
			}
		}
	}
}

func TestRoundRobinGivesEachPeriodExactly(t *testing.T) {
	set := weighted(5, 1, 0, 3)
	p := newRoundRobin(entrantsOf(set, 0))
	for range 10 {
		if diff := cmp.Diff([]int{5, 1, 0, 3}, countPicks(t, set, p, 9)); diff != "" {
			t.Fatalf("one period (-want +got):\n%s", diff)
		}
	}
}

// A backend that is down must not give its share to the one that follows it.
func TestRoundRobinSkipsWithoutDoubling(t *testing.T) {
	for _, down := range []int{0, 1, 2, 3} {
		set := weighted(2, 2, 2, 2)
		p := newRoundRobin(entrantsOf(set, 0))
		set.Backends()[down].Live.setState(StateDown)
		want := []int{100, 100, 100, 100}
		want[down] = 0
		if diff := cmp.Diff(want, countPicks(t, set, p, 300)); diff != "" {
			t.Errorf("backend %d down (-want +got):\n%s", down, diff)
		}
	}
	set := weighted(4, 3, 2, 1)
	p := newRoundRobin(entrantsOf(set, 0))
	set.Backends()[1].Live.setState(StateDown)
	if diff := cmp.Diff([]int{400, 0, 200, 100}, countPicks(t, set, p, 700)); diff != "" {
		t.Errorf("weighted (-want +got):\n%s", diff)
	}
}

// One that refuses every dial: the second tries go to all others alike.
func TestRoundRobinSpreadsRetries(t *testing.T) {
	set := equalWeights(5)
	p := newRoundRobin(entrantsOf(set, 0))
	bad := set.Backends()[2]
	counts := make([]int, 5)
	for range 4000 {
		b := pick(t, p, Request{})
		b.Live.Release()
		if b == bad {
			b = pick(t, p, Request{Tried: []*Backend{bad}})
			b.Live.Release()
		}
		counts[slices.Index(set.Backends(), b)]++
	}
	if diff := cmp.Diff([]int{1000, 1000, 0, 1000, 1000}, counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A set that changes before each pick must not send every session to one backend.
func TestRoundRobinStartsAnywhere(t *testing.T) {
	set := weighted(3, 1)
	counts := make([]int, 2)
	for range 4000 {
		b := pick(t, newRoundRobin(entrantsOf(set, 0)), Request{})
		b.Live.Release()
		counts[slices.Index(set.Backends(), b)]++
	}
	checkShares(t, counts, []float64{3, 1})
}
