package balance

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/discovery"
)

func mustPolicy(t testing.TB, o Options) Policy {
	t.Helper()
	policy, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// variants are the policies with every option that changes how they pick.
var variants = []Options{
	{Policy: "round_robin"},
	{Policy: "least_connections"},
	{Policy: "consistent_hash"},
	{Policy: "consistent_hash", LoadFactor: 1},
	{Policy: "consistent_hash", LoadFactor: 1.25},
	{Policy: "power_of_two_choices"},
	{Policy: "random"},
	{Policy: "least_response_time"},
	{Policy: "least_load"},
	{Policy: "least_bandwidth"},
}

func eachVariant(t *testing.T, test func(t *testing.T, policy Policy)) {
	t.Helper()
	for _, o := range variants {
		t.Run(strings.TrimSuffix(fmt.Sprintf("%s/%v", o.Policy, o.LoadFactor), "/0"), func(t *testing.T) {
			test(t, mustPolicy(t, o))
		})
	}
}

// weighted makes a set of backends b0000, b0001, … of these weights.
func weighted(weights ...int) *Set {
	list := make([]discovery.Instance, 0, len(weights))
	for i, w := range weights {
		list = append(list, instance(fmt.Sprintf("b%04d", i), w))
	}
	return NewRegistry().Update(list)
}

func equalWeights(n int) *Set { return weighted(slices.Repeat([]int{1}, n)...) }

func pick(t testing.TB, p Picker, r Request) *Backend {
	t.Helper()
	b, err := p.Pick(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// countPicks picks n times, with a new hash each, ends each pick at once, and returns
// how often each backend of the set came.
func countPicks(t testing.TB, set *Set, p Picker, n int, tried ...*Backend) []int {
	t.Helper()
	counts := make([]int, set.Len())
	for range n {
		b := pick(t, p, Request{Hash: rand.Uint64(), Hashed: true, Tried: tried})
		b.Live.Release()
		counts[slices.Index(set.Backends(), b)]++
	}
	return counts
}

// checkShares fails if a count is further from its share than chance explains: six
// standard deviations, which happens by chance less than once in 10^8.
func checkShares(t *testing.T, counts []int, shares []float64) {
	t.Helper()
	var n, total float64
	for i := range counts {
		n += float64(counts[i])
		total += shares[i]
	}
	for i, count := range counts {
		p := shares[i] / total
		if off := math.Abs(float64(count) - n*p); off > 6*math.Sqrt(n*p*(1-p))+1e-6 {
			t.Errorf("backend %d was picked %d times of %.0f, want about %.0f", i, count, n, n*p)
		}
	}
}

func TestNew(t *testing.T) {
	for _, name := range Policies() {
		for _, factor := range []float64{0, 1, 1.25, 100} {
			if policy, err := New(Options{Policy: name, LoadFactor: factor}); err != nil || policy == nil {
				t.Errorf("%s with %v: %v", name, factor, err)
			}
		}
		for _, factor := range []float64{-1, 0.5, 0.999, math.NaN(), math.Inf(1), math.Inf(-1)} {
			if _, err := New(Options{Policy: name, LoadFactor: factor}); !errors.Is(err, ErrLoadFactor) {
				t.Errorf("%s with load factor %v: %v", name, factor, err)
			}
		}
	}
	if _, err := New(Options{Policy: "random", MaxSessions: -1}); !errors.Is(err, ErrMaxSessions) {
		t.Errorf("a negative number of sessions: %v", err)
	}
	for _, name := range []string{"", "p2x", "Random", "random "} {
		_, err := New(Options{Policy: name})
		if !errors.Is(err, ErrUnknownPolicy) || !strings.Contains(err.Error(), "power_of_two_choices") {
			t.Errorf("%q: %v", name, err)
		}
	}
	want := []string{"round_robin", "least_connections", "consistent_hash", "power_of_two_choices", "random",
		"least_response_time", "least_load", "least_bandwidth"}
	if diff := cmp.Diff(want, Policies()); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
}

// The values for "", "a" and "abc" are those of the XXH64 reference implementation.
func TestHashStringNeverChanges(t *testing.T) {
	for s, want := range map[string]uint64{
		"":             0xef46db3751d8e999,
		"a":            0xd24ec4f1a98c6e5b,
		"abc":          0x44bc2cf5ad770999,
		"203.0.113.77": 0x7134061e5aa24ef3,
		"2001:db8::1":  0x26c33ef1c67e1031,
	} {
		if got := HashString(s); got != want {
			t.Errorf("HashString(%q) = %#x, want %#x", s, got, want)
		}
	}
}

func TestNoBackend(t *testing.T) {
	withStates := func(states ...State) *Set {
		set := equalWeights(len(states))
		for i, s := range states {
			set.Backends()[i].Live.setState(s)
		}
		return set
	}
	for name, set := range map[string]*Set{
		"zero set":         {},
		"empty set":        weighted(),
		"weight 0":         weighted(0, 0),
		"negative weight":  weighted(-1),
		"no state of them": withStates(StateDown, StateDraining, StateEjected, StateRemoved),
	} {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, policy Policy) {
				p := policy(set)
				for _, r := range []Request{{}, {Hash: 5, Hashed: true}, {Tried: set.Backends()}} {
					if b, err := p.Pick(r); err != ErrNoBackend || b != nil {
						t.Errorf("%v, %v", b, err)
					}
				}
			})
		})
	}
}

func TestTriedAreNotPickedAgain(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		registry := NewRegistry()
		old := registry.Update(instances("a", "b", "c", "d"))
		set := registry.Update(instances("a", "b", "c", "d", "e"))
		find(t, set.Backends(), "e").Live.setState(StateDown)
		p := policy(set)
		for range 200 {
			var got []string
			r := Request{Hash: rand.Uint64(), Hashed: true}
			for range 4 {
				b := pick(t, p, r)
				b.Live.Release()
				got = append(got, b.ID)
				// As an earlier set knew it: identity is the Live.
				r.Tried = append(r.Tried, find(t, old.Backends(), b.ID))
			}
			slices.Sort(got)
			if diff := cmp.Diff([]string{"a", "b", "c", "d"}, got); diff != "" {
				t.Fatalf("four tries (-want +got):\n%s", diff)
			}
			_, err := p.Pick(r)
			if err != ErrAllTried || errors.Is(err, ErrNoBackend) {
				t.Fatalf("a fifth try: %v", err)
			}
			r.Tried = append(r.Tried, find(t, set.Backends(), "e"))
			if _, err := p.Pick(r); err != ErrAllTried {
				t.Fatalf("with the one that is down: %v", err)
			}
		}
		if total := totalLoad(set); total != 0 {
			t.Errorf("%d reservations left", total)
		}
	})
}

// One that comes up after the pick has looked does not make a first attempt "tried".
func TestRefusalOfAFirstAttempt(t *testing.T) {
	set := equalWeights(2)
	entrants := entrantsOf(set, 0)
	if err := refusal(entrants, &Request{}); err != ErrNoBackend {
		t.Errorf("nothing tried: %v", err)
	}
	if err := refusal(entrants, &Request{Tried: set.Backends()}); err != ErrAllTried {
		t.Errorf("all tried: %v", err)
	}
}

func totalLoad(set *Set) (total int64) {
	for _, b := range set.Backends() {
		total += b.Live.Load()
	}
	return total
}

func TestPickReserves(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := equalWeights(1)
		b := pick(t, policy(set), Request{})
		if b != set.Backends()[0] || b.Live.InFlight() != 1 || b.Live.Sessions() != 0 || b.Live.Picks() != 1 {
			t.Errorf("%v with %d in flight, %d sessions, %d picks", b.ID, b.Live.InFlight(), b.Live.Sessions(), b.Live.Picks())
		}
	})
}

// Health changes states between sets: a picker that stands must see it.
func TestStateIsReadWhenPicking(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := equalWeights(3)
		p := policy(set)
		for state := range numStates {
			a := set.Backends()[0].Live
			a.setState(state)
			counts := countPicks(t, set, p, 300)
			if picked := counts[0] > 0; picked != a.Eligible() {
				t.Errorf("%v: picked %d times", state, counts[0])
			}
			if counts[1] == 0 || counts[2] == 0 {
				t.Errorf("%v: the others were picked %v times", state, counts[1:])
			}
		}
	})
}

func TestWeightZeroIsNotPicked(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := weighted(0, 1, 0, 3, -5)
		counts := countPicks(t, set, policy(set), 1000)
		if counts[0]+counts[2]+counts[4] != 0 || counts[1] == 0 || counts[3] == 0 {
			t.Errorf("%v", counts)
		}
	})
}

// Weights of any size must neither overflow nor stop the build.
func TestHugeWeights(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := weighted(math.MaxInt, math.MaxInt, 1, math.MaxInt)
		counts := countPicks(t, set, policy(set), 3000)
		for _, i := range []int{0, 1, 3} {
			if counts[i] < 500 {
				t.Errorf("%v", counts)
			}
		}
		if counts[2] > 10 {
			t.Errorf("the light one: %v", counts)
		}
	})
}

// Sessions open, fail and end on all goroutines at once while states change, and in
// the end every count is back at zero.
func TestCountsConcurrently(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := weighted(1, 2, 3, 0, 5)
		p := policy(set)
		var all sync.WaitGroup
		var picked [8]uint64
		for g := range picked {
			all.Go(func() {
				var open []*Live
				for i := range 500 {
					b, err := p.Pick(Request{Hash: rand.Uint64(), Hashed: i%2 == 0})
					if err != nil {
						t.Errorf("goroutine %d: %v", g, err)
						return
					}
					picked[g]++
					if i%5 == 0 {
						b.Live.Release()
					} else {
						b.Live.Open()
						open = append(open, b.Live)
					}
					if len(open) > 20 {
						open[0].Close()
						open = open[1:]
					}
					if g == 0 { // the last one always stays up
						set.Backends()[i%4].Live.setState(State(rand.IntN(int(numStates))))
					}
				}
				for _, l := range open {
					l.Close()
				}
			})
		}
		all.Wait()
		var picks, want uint64
		for _, b := range set.Backends() {
			picks += b.Live.Picks()
			if b.Live.Sessions() != 0 || b.Live.InFlight() != 0 {
				t.Errorf("%s: %d sessions, %d in flight at the end", b.ID, b.Live.Sessions(), b.Live.InFlight())
			}
		}
		for _, n := range picked {
			want += n
		}
		if picks != want || set.Backends()[3].Live.Picks() != 0 {
			t.Errorf("%d picks counted, %d made, %d of weight 0", picks, want, set.Backends()[3].Live.Picks())
		}
	})
}

func TestPickDoesNotAllocate(t *testing.T) {
	eachVariant(t, func(t *testing.T, policy Policy) {
		set := equalWeights(20)
		for i, b := range set.Backends() {
			if i%2 == 0 {
				b.Live.setState(StateDown)
			}
		}
		p := policy(set)
		r := Request{Hash: 77, Hashed: true, Tried: set.Backends()[:5]}
		all := Request{Tried: set.Backends()}
		if n := testing.AllocsPerRun(200, func() {
			r.Hash += 1 << 57
			b, err := p.Pick(r)
			if err != nil {
				t.Error(err)
				return
			}
			b.Live.Open()
			b.Live.Close()
			if _, err := p.Pick(all); err != ErrAllTried {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations a pick", n)
		}
	})
}
