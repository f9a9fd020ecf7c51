package balance

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/discovery"
)

// stickyTo is a request with a key, and maybe a backend that it comes back to.
func stickyTo(key uint64, how Stickiness, preferred *Backend, tried ...*Backend) Request {
	r := Request{Hash: key, Sticky: how, Tried: tried}
	if preferred != nil {
		r.Preferred = HashString(preferred.ID)
	}
	return r
}

// settle ends a reservation and returns the backend's place in the set.
func settle(t *testing.T, set *Set, p Picker, r Request) int {
	t.Helper()
	b, err := p.Pick(r)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	if b.Live.InFlight() != 1 {
		t.Fatalf("%s has %d reservations, want one", b.ID, b.Live.InFlight())
	}
	b.Live.Release()
	return slices.Index(set.Backends(), b)
}

// TestRendezvousVectors holds what edges of all versions must agree on.
func TestRendezvousVectors(t *testing.T) {
	names := []string{"", "a", "10.0.0.5:9001", "dc1/node-1/chat-1"}
	draws := map[string]uint64{}
	for _, name := range names {
		for _, key := range []uint64{0, 1, HashString("alice")} {
			draws[fmt.Sprintf("%s %x", name, key)] = drawOf(HashString(name), key)
		}
	}
	if want := wantDraws; !maps.Equal(draws, want) {
		t.Errorf("draws: %#v", draws)
	}
	for draw, want := range wantCosts {
		if got := math.Float64bits(cost(draw)); got != want {
			t.Errorf("cost of %#x: %#x, want %#x", draw, got, want)
		}
	}
	set := weighted(1, 2, 3, 5, 0, 8)
	p := mustPolicy(t, Options{Policy: "random"})(set)
	got := ""
	for key := range uint64(40) {
		got += fmt.Sprint(settle(t, set, p, stickyTo(key, Sticky, nil)))
	}
	if want := wantWinners; got != want {
		t.Errorf("winners of the keys from 0 on: %s, want %s", got, want)
	}
}

// The cost is the logarithm, wherever the draw lies.
func TestCostIsTheLogarithm(t *testing.T) {
	draws := []uint64{0, 1, 1 << 12, 1 << 51, 1<<63 - 1, 1 << 63, math.MaxUint64, math.MaxUint64 - 1<<12}
	for range 10_000 {
		draws = append(draws, rand.Uint64()>>rand.IntN(64))
	}
	for _, draw := range draws {
		got, want := cost(draw), -math.Log((float64(draw>>12)+0.5)/(1<<52))
		if !(got > 0) || math.Abs(got-want) > 1e-14*want {
			t.Errorf("%#x: %v, want %v", draw, got, want)
		}
	}
}

// Every policy gives keys to backends by weight, and the same ones.
func TestStickyDistribution(t *testing.T) {
	const keys = 60_000
	weights := []int{1, 2, 3, 4, 0, 10}
	var first []int
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := weighted(weights...)
		p := policy(set)
		counts, all := make([]int, len(weights)), make([]int, keys)
		for k := range all {
			all[k] = settle(t, set, p, stickyTo(HashString(fmt.Sprint(k)), Sticky, nil))
			counts[all[k]]++
		}
		if first == nil {
			first = all
			for i, w := range weights {
				want := float64(keys) * float64(w) / 20
				if off := math.Abs(float64(counts[i]) - want); off > 0.04*want {
					t.Errorf("weight %d: %d keys, want about %.0f", w, counts[i], want)
				}
			}
		}
		if !slices.Equal(all, first) {
			t.Error("this policy gives keys to other backends than the first")
		}
	})
}

// A backend that leaves, closes or changes its weight moves its own keys only, and those that
// it had come back with it.
func TestStickyMinimalDisruption(t *testing.T) {
	const keys = 5000
	registry := NewRegistry()
	set := func(weights ...int) *Set {
		var list []discovery.Instance
		for i, w := range weights {
			if w >= 0 {
				list = append(list, instance(string(rune('a'+i)), w))
			}
		}
		return registry.Update(list)
	}
	policy := mustPolicy(t, Options{Policy: "least_connections"})
	owners := func(s *Set) (ids []string) {
		p := policy(s)
		for k := range keys {
			ids = append(ids, s.Backends()[settle(t, s, p, stickyTo(HashString(fmt.Sprint(k)), Sticky, nil))].ID)
		}
		return ids
	}
	moved := func(before, after []string, only string) (n int) {
		t.Helper()
		for k := range before {
			if before[k] != after[k] {
				if n++; before[k] != only && after[k] != only {
					t.Fatalf("key %d moved from %s to %s, though only %s has changed", k, before[k], after[k], only)
				}
			}
		}
		return n
	}
	all := set(1, 1, 2, 3)
	before := owners(all)
	all.Backends()[2].Live.Set(Drained, true)
	drained := owners(all)
	if n := moved(before, drained, "c"); n == 0 || slices.Contains(drained, "c") {
		t.Errorf("%d keys moved from a drained backend", n)
	}
	all.Backends()[2].Live.Set(Drained, false)
	if !slices.Equal(owners(all), before) {
		t.Error("keys did not come back")
	}
	if !slices.Equal(owners(set(1, 1, -1, 3)), drained) {
		t.Error("a backend that is gone does not leave its keys to the same ones as one that is drained")
	}
	if n := moved(before, owners(set(1, 1, 4, 3)), "c"); n == 0 {
		t.Error("twice the weight brought no keys")
	}
	if n := moved(before, owners(set(1, 1, 2, 3, 1)), "e"); n == 0 || n > keys/4 {
		t.Errorf("%d of %d keys moved to a fifth backend, want about an eighth", n, keys)
	}
}

// TestStickyPick are the rules, under every policy. Backends are numbered by place; the winners
// of the key among all are w[0], w[1], w[2].
func TestStickyPick(t *testing.T) {
	const key = 12345
	down := func(l *Live) { l.Set(Failing, true) }
	full := func(l *Live) { l.reserveBelow(countMask) }
	eachVariant(t, func(t *testing.T, policy Policy) {
		open := weighted(1, 1, 1)
		p := policy(open)
		w := []int{settle(t, open, p, stickyTo(key, Sticky, nil))}
		w = append(w, settle(t, open, p, stickyTo(key, Sticky, nil, open.Backends()[w[0]])))
		w = append(w, 3-w[0]-w[1])
		const gone = -2
		tests := []struct {
			name      string
			how       Stickiness
			preferred int // place among the winners; -1: none
			broken    []int
			how2      func(*Live)
			tried     []int
			want      int // place among the winners
			err       error
		}{
			{name: "the preferred one", how: Sticky, preferred: 1, want: 1},
			{name: "no preferred one", how: Sticky, preferred: -1, want: 0},
			{name: "a preferred one of another set", how: Sticky, preferred: gone, want: 0},
			{name: "the preferred one is down", how: Sticky, preferred: 1, broken: []int{1}, how2: down, want: 0},
			{name: "it and the next one are", how: Sticky, preferred: 1, broken: []int{0, 1}, how2: down, want: 2},
			{name: "it was tried", how: Sticky, preferred: 0, tried: []int{0}, want: 1},
			{name: "all are down", how: Sticky, preferred: 0, broken: []int{0, 1, 2}, how2: down, err: ErrNoBackend},
			{name: "all were tried", how: Sticky, preferred: 0, tried: []int{0, 1, 2}, err: ErrAllTried},
			{name: "strict", how: StrictlySticky, preferred: 2, want: 2},
			{name: "strict without a preferred one", how: StrictlySticky, preferred: -1, want: 0},
			{name: "strict, one of another set", how: StrictlySticky, preferred: gone, want: 0},
			{name: "strict, one of another set, the winner is down", how: StrictlySticky, preferred: gone, broken: []int{0}, how2: down, want: 1},
			{name: "strict, one of another set, the winner was tried", how: StrictlySticky, preferred: gone, tried: []int{0}, want: 1},
			{name: "strict, one of another set, all are down", how: StrictlySticky, preferred: gone, broken: []int{0, 1, 2}, how2: down, err: ErrNoBackend},
			{name: "strict, down", how: StrictlySticky, preferred: 2, broken: []int{2}, how2: down, err: ErrNoBackend},
			{name: "strict, the winner is down", how: StrictlySticky, preferred: -1, broken: []int{0}, how2: down, err: ErrNoBackend},
			{name: "strict, tried", how: StrictlySticky, preferred: 2, tried: []int{2}, err: ErrAllTried},
			{name: "strict, others are down", how: StrictlySticky, preferred: 2, broken: []int{0, 1}, how2: down, want: 2},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				set := weighted(1, 1, 1)
				p, all := policy(set), set.Backends()
				for _, i := range tt.broken {
					tt.how2(all[w[i]].Live)
				}
				var tried []*Backend
				for _, i := range tt.tried {
					tried = append(tried, all[w[i]])
				}
				preferred := (*Backend)(nil)
				switch {
				case tt.preferred == gone:
					preferred = &Backend{Instance: instance("elsewhere", 1)}
				case tt.preferred >= 0:
					preferred = all[w[tt.preferred]]
				}
				b, err := p.Pick(stickyTo(key, tt.how, preferred, tried...))
				if !errors.Is(err, tt.err) || (err == nil && b != all[w[tt.want]]) {
					t.Fatalf("got %v, %v; want winner %d, %v", b, err, tt.want, tt.err)
				}
				var load int64
				for _, b := range all {
					load += b.Live.Load()
				}
				if want := int64(1); err == nil && load != want || err != nil && load != 0 {
					t.Errorf("%d reservations", load)
				}
			})
		}
	})

	// Limits and weights of 0, which weighted sets of the table do not have.
	set := weighted(1, 1, 0)
	p := mustPolicy(t, Options{Policy: "round_robin", MaxSessions: 1})(set)
	all := set.Backends()
	winner := settle(t, set, p, stickyTo(key, Sticky, nil))
	full(all[winner].Live)
	if got := settle(t, set, p, stickyTo(key, Sticky, all[winner])); got != 1-winner {
		t.Errorf("a full backend: %d, want the other", got)
	}
	if got := settle(t, set, p, stickyTo(key, Sticky, all[2])); got != 1-winner {
		t.Errorf("a preferred backend of weight 0: %d", got)
	}
	for _, tt := range []struct {
		r    Request
		want error
	}{
		{stickyTo(key, StrictlySticky, all[winner]), ErrFull},
		{stickyTo(key, StrictlySticky, nil), ErrFull},
		{stickyTo(key, StrictlySticky, all[2]), ErrNoBackend},
		{stickyTo(key, Sticky, nil, all[1-winner]), ErrFull},
	} {
		if b, err := p.Pick(tt.r); err != tt.want || b != nil {
			t.Errorf("%+v: %v, %v; want %v", tt.r, b, err, tt.want)
		}
	}
	full(all[1-winner].Live)
	if _, err := p.Pick(stickyTo(key, Sticky, all[winner])); err != ErrFull {
		t.Errorf("all are full: %v", err)
	}
	empty := mustPolicy(t, Options{Policy: "random"})(&Set{})
	for _, how := range []Stickiness{Sticky, StrictlySticky} {
		if _, err := empty.Pick(stickyTo(key, how, all[0])); err != ErrNoBackend {
			t.Errorf("an empty set: %v", err)
		}
	}
}

// Each pick places one reservation, within the limit, while states change and all processors
// pick.
func TestStickyConcurrently(t *testing.T) {
	const limit = 5
	set := weighted(1, 2, 3)
	p := mustPolicy(t, Options{Policy: "least_connections", MaxSessions: limit})(set)
	var all sync.WaitGroup
	var picked [8]uint64
	for g := range picked {
		all.Go(func() {
			for i := range 2000 {
				how := Sticky
				if i%3 == 0 {
					how = StrictlySticky
				}
				b, err := p.Pick(stickyTo(rand.Uint64(), how, set.Backends()[i%3]))
				if g == 0 {
					set.Backends()[i%2].Live.Set(Drained, i%5 == 0)
				}
				switch {
				case err == nil:
					picked[g]++
					if b.Live.Load() > limit {
						t.Errorf("%s has %d", b.ID, b.Live.Load())
					}
					b.Live.Open()
					b.Live.Close()
				case !errors.Is(err, ErrFull) && !errors.Is(err, ErrNoBackend):
					t.Errorf("pick: %v", err)
				}
			}
		})
	}
	all.Wait()
	var picks, want uint64
	for _, n := range picked {
		want += n
	}
	for _, b := range set.Backends() {
		if picks += b.Live.Picks(); b.Live.Load() != 0 {
			t.Errorf("%s has %d left", b.ID, b.Live.Load())
		}
	}
	if picks != want || want == 0 {
		t.Errorf("%d picks counted, %d made", picks, want)
	}
}

func TestStickyPickDoesNotAllocate(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := weighted(1, 2, 3, 4, 5, 6, 7, 8)
		set.Backends()[0].Live.Set(Drained, true)
		p := policy(set)
		r := stickyTo(77, Sticky, set.Backends()[0], set.Backends()[1:3]...)
		strict := stickyTo(77, StrictlySticky, set.Backends()[4])
		if n := testing.AllocsPerRun(200, func() {
			r.Hash += 1 << 57
			for _, r := range []Request{r, strict} {
				b, err := p.Pick(r)
				if err != nil {
					t.Error(err)
					return
				}
				b.Live.Release()
			}
			strict.Hash++
		}); n != 0 {
			t.Errorf("%v allocations a pick", n)
		}
	})
}

// BenchmarkStickyPick is a pick of a request with a key: one that comes back to its backend,
// and one that goes where its key says.
func BenchmarkStickyPick(b *testing.B) {
	for _, bench := range []struct {
		name string
		sets func(n int) *Set
		back bool
	}{
		{"preferred", equalWeights, true},
		{"rendezvous", equalWeights, false},
		{"rendezvous with weights", func(n int) *Set {
			weights := make([]int, n)
			for i := range weights {
				weights[i] = 1 + i%7
			}
			return weighted(weights...)
		}, false},
	} {
		for _, n := range benchSizes {
			b.Run(fmt.Sprintf("%s/backends=%d", bench.name, n), func(b *testing.B) {
				b.ReportAllocs()
				set := bench.sets(n)
				p := mustPolicy(b, Options{Policy: "least_connections"})(set)
				r := Request{Sticky: Sticky, Hash: rand.Uint64()}
				if bench.back {
					r.Preferred = HashString(set.Backends()[n/2].ID)
				}
				for b.Loop() {
					r.Hash += 0x9e3779b97f4a7c15
					backend, err := p.Pick(r)
					if err != nil {
						b.Fatal(err)
					}
					backend.Live.Release()
				}
			})
		}
	}
}
