package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/discovery"
)

// These pairs were computed by another implementation from what ring's comment says.
// They must never change: edges of different versions share a pool.
var golden = []struct{ key, backend string }{
	{"", "10.0.0.1:9001"},
	{"a", "10.0.0.2:9001"},
	{"user-1", "10.0.0.2:9001"},
	{"user-2", "10.0.0.2:9001"},
	{"user-3", "node-4"},
	{"alice", "10.0.0.2:9001"},
	{"bob", "node-4"},
	{"carol", "node-4"},
	{"203.0.113.7", "10.0.0.3:9001"},
	{"203.0.113.8", "node-4"},
	{"203.0.113.9", "node-4"},
	{"2001:db8::1", "10.0.0.1:9001"},
	{"/ws", "10.0.0.2:9001"},
	{"/chat/room/17", "node-4"},
	{"session=0123456789", "node-4"},
}

func goldenInstances() []discovery.Instance {
	return []discovery.Instance{
		instance("10.0.0.1:9001", 1), instance("10.0.0.2:9001", 2),
		instance("10.0.0.3:9001", 1), instance("node-4", 3), instance("no-weight", 0),
	}
}

func TestConsistentHashNeverChanges(t *testing.T) {
	list := goldenInstances()
	for _, factor := range []float64{0, 1, 1.25} {
		for range 10 {
			rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			p := newConsistentHash(entrantsOf(NewRegistry().Update(list), 0), factor)
			for _, g := range golden {
				b := pick(t, p, Request{Hash: HashString(g.key), Hashed: true})
				b.Live.Release()
				if b.ID != g.backend {
					t.Errorf("factor %v: %q belongs to %s, went to %s", factor, g.key, g.backend, b.ID)
				}
			}
		}
	}
}

// owners returns where each of n keys goes.
func owners(t testing.TB, set *Set, n int) []string {
	t.Helper()
	p := newConsistentHash(entrantsOf(set, 0), 0)
	ids := make([]string, n)
	for i := range ids {
		b := pick(t, p, Request{Hash: HashString("key-" + strconv.Itoa(i)), Hashed: true})
		b.Live.Release()
		ids[i] = b.ID
	}
	return ids
}

const manyKeys = 20000

// One change of a set of ten, and which keys may move from where to where.
func TestConsistentHashDisruption(t *testing.T) {
	var ten []discovery.Instance
	for i := range 10 {
		ten = append(ten, instance(fmt.Sprintf("node-%d", i), 2))
	}
	reweighted := func(weight int) []discovery.Instance {
		list := slices.Clone(ten)
		list[3].Weight = weight
		return list
	}
	down := slices.Clone(ten)
	down[3].Status = discovery.Down
	renamed := slices.Clone(ten)
	renamed[3].Addr, renamed[3].Tags = "192.0.2.1:1", []string{"v2"}
	for _, c := range []struct {
		name   string
		after  []discovery.Instance
		moves  func(from, to string) bool // which moves are called for
		moved  float64                    // the share of keys that move, ideally
		spread int                        // how many others take part at least
	}{
		{"nothing", ten, nil, 0, 0},
		{"address and tags", renamed, nil, 0, 0},
		{"one leaves", slices.Delete(slices.Clone(ten), 3, 4), func(from, _ string) bool { return from == "node-3" }, 0.1, 9},
		{"one goes down", down, func(from, _ string) bool { return from == "node-3" }, 0.1, 9},
		{"weight 0", reweighted(0), func(from, _ string) bool { return from == "node-3" }, 0.1, 9},
		{"weight halved", reweighted(1), func(from, _ string) bool { return from == "node-3" }, 0.1 - 1./19, 9},
		{"weight doubled", reweighted(4), func(_, to string) bool { return to == "node-3" }, 4./22 - 0.1, 9},
		{"one joins", append(slices.Clone(ten), instance("new", 2)), func(_, to string) bool { return to == "new" }, 1. / 11, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := owners(t, NewRegistry().Update(ten), manyKeys)
			after := owners(t, NewRegistry().Update(c.after), manyKeys)
			moved, others := 0, map[string]bool{}
			for i, from := range before {
				to := after[i]
				if from == to {
					continue
				}
				moved++
				others[from], others[to] = true, true
				if c.moves == nil || !c.moves(from, to) {
					t.Fatalf("key %d moved from %s to %s", i, from, to)
				}
			}
			// The points of a weight of 2 give a share ± 6 %: allow five times that.
			if share := float64(moved) / manyKeys; math.Abs(share-c.moved) > 0.3*c.moved {
				t.Errorf("%.3f of the keys moved, want about %.3f", share, c.moved)
			}
			if c.spread > 0 && len(others) < c.spread+1 {
				t.Errorf("only %d backends took part", len(others))
			}
		})
	}
}

func TestConsistentHashFollowsWeights(t *testing.T) {
	set := weighted(1, 2, 0, 4, 8, 1, 1, 1, 1, 1)
	counts := map[string]float64{}
	for _, id := range owners(t, set, manyKeys) {
		counts[id]++
	}
	for _, b := range set.Backends() {
		want := float64(b.Weight) / 20 * manyKeys
		// Four times the typical error of that many points, and of that many keys.
		tolerance := 4 * (want/math.Sqrt(pointsPerWeight*float64(b.Weight)+1e-9) + math.Sqrt(want))
		if b.Weight == 0 {
			tolerance = 0
		}
		if math.Abs(counts[b.ID]-want) > tolerance {
			t.Errorf("weight %d has %.0f keys, want about %.0f", b.Weight, counts[b.ID], want)
		}
	}
}

// What has no hash is spread over all, and skips as the others do.
func TestConsistentHashWithoutHash(t *testing.T) {
	for _, factor := range []float64{0, 1.25} {
		set := equalWeights(4)
		set.Backends()[1].Live.setState(StateDown)
		p := newConsistentHash(entrantsOf(set, 0), factor)
		counts := make([]int, 4)
		for range 6000 {
			b := pick(t, p, Request{Hash: 12345})
			b.Live.Release()
			counts[slices.Index(set.Backends(), b)]++
		}
		if counts[1] != 0 || slices.Min([]int{counts[0], counts[2], counts[3]}) < 1000 {
			t.Errorf("factor %v: %v", factor, counts)
		}
	}
}

// checkBound fails if b has more than its bound of the set's present load. While loads
// only grow it may be called at any time: what b has is read first.
func checkBound(t *testing.T, set *Set, factor float64, b *Backend) {
	t.Helper()
	has := b.Live.Load()
	var load int64
	var weight int
	for _, other := range set.Backends() {
		if other.Weight > 0 && other.Live.Eligible() {
			load += other.Live.Load()
			weight += other.Weight
		}
	}
	if bound := int64(math.Ceil(factor * float64(load) * float64(b.Weight) / float64(weight))); has > bound {
		t.Errorf("%s of weight %d has %d of %d, bound %d", b.ID, b.Weight, has, load, bound)
	}
}

// All sessions hash alike: no pick lifts a backend over its bound. (When one goes down
// the bound of the others falls, perhaps below what they have: nothing moves for that.)
func TestBoundedLoads(t *testing.T) {
	for _, factor := range []float64{1, 1.25, 2} {
		for _, weights := range [][]int{{1}, {1, 1, 1}, {1, 2, 3, 4, 0}, slices.Repeat([]int{100}, 20)} {
			set := weighted(weights...)
			p := newConsistentHash(entrantsOf(set, 0), factor)
			for i := range 500 {
				if i == 250 && len(weights) > 2 {
					set.Backends()[1].Live.setState(StateDown)
				}
				b := pick(t, p, Request{Hash: HashString("everyone"), Hashed: true})
				b.Live.Open()
				checkBound(t, set, factor, b)
			}
		}
	}
}

func TestUnboundedLoads(t *testing.T) {
	set := equalWeights(3)
	p := newConsistentHash(entrantsOf(set, 0), 0)
	for range 100 {
		pick(t, p, Request{Hash: HashString("everyone"), Hashed: true}).Live.Open()
	}
	if got := slices.Sorted(slices.Values(loads(set))); !slices.Equal(got, []int64{0, 0, 100}) {
		t.Errorf("loads %v", got)
	}
}

// A key stays with its backend as long as that one is not full, and comes back to it.
func TestBoundedLoadsKeepOwners(t *testing.T) {
	set := equalWeights(4)
	p := newConsistentHash(entrantsOf(set, 0), 1.25)
	r := Request{Hash: HashString("alice"), Hashed: true}
	owner := pick(t, p, r)
	owner.Live.Open()
	other := pick(t, p, r) // the bound of two sessions on four is one
	if other == owner {
		t.Fatal("the second session went over the bound")
	}
	other.Live.Release()
	for _, b := range set.Backends() {
		for b.Live.Load() < 10 {
			b.Live.reserveBelow(countMask)
		}
	}
	if b := pick(t, p, r); b != owner {
		t.Errorf("at even loads alice went to %s, not %s", b.ID, owner.ID)
	}
}

// The bound counts the session that is coming: at 40 of four a factor of 1 lets one
// backend have 11.
func TestBoundedLoadsCountTheNewSession(t *testing.T) {
	set := equalWeights(4)
	p := newConsistentHash(entrantsOf(set, 0), 1)
	r := Request{Hash: HashString("alice"), Hashed: true}
	owner := pick(t, p, r)
	others := []int64{9, 10, 11}
	for _, b := range set.Backends() {
		want := int64(10)
		if b != owner {
			want, others = others[0], others[1:]
		}
		for b.Live.Load() < want {
			b.Live.reserveBelow(countMask)
		}
	}
	if b := pick(t, p, r); b != owner {
		t.Errorf("the session went to %s, not %s", b.ID, owner.ID)
	}
	if b := pick(t, p, r); b == owner {
		t.Errorf("%s has %d of 42", b.ID, b.Live.Load())
	}
}

// Those that were tried or are down do not count for the bound of the others, or
// else all of these could be full.
func TestBoundedLoadsWithTried(t *testing.T) {
	set := equalWeights(3)
	p := newConsistentHash(entrantsOf(set, 0), 1)
	for i, n := range []int{0, 5, 5} {
		for range n {
			set.Backends()[i].Live.reserveBelow(countMask)
		}
	}
	for range 100 {
		pick(t, p, Request{Hash: rand.Uint64(), Hashed: true, Tried: set.Backends()[:1]}).Live.Open()
		if n := loads(set); n[1]-n[2] > 1 || n[2]-n[1] > 1 {
			t.Fatalf("loads %v", n)
		}
	}
}

// Everyone looks full after others were quicker: the walk gives the least loaded.
func TestWalkWithStaleBound(t *testing.T) {
	set := weighted(1, 4, 1)
	p := newConsistentHash(entrantsOf(set, 0), 1.25).(*consistentHash)
	for i, n := range []int{3, 8, 4} {
		for range n {
			set.Backends()[i].Live.reserveBelow(countMask)
		}
	}
	e, load := p.walk(rand.Uint64(), &Request{}, bound{})
	if e == nil || e.backend != set.Backends()[1] || load != 8 {
		t.Errorf("%+v, %d", e, load)
	}
	for _, b := range set.Backends() {
		b.Live.setState(StateDown)
	}
	if e, _ := p.walk(rand.Uint64(), &Request{}, bound{}); e != nil {
		t.Errorf("%s is down", e.backend.ID)
	}
}

func TestBoundedLoadsConcurrently(t *testing.T) {
	for _, factor := range []float64{1, 1.25} {
		set := weighted(1, 2, 1, 4)
		p := newConsistentHash(entrantsOf(set, 0), factor)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 500 {
					b, err := p.Pick(Request{Hash: HashString("everyone"), Hashed: true})
					if err != nil {
						t.Error(err)
						return
					}
					checkBound(t, set, factor, b)
					b.Live.Open()
				}
			})
		}
		all.Wait()
		for _, b := range set.Backends() {
			checkBound(t, set, factor, b)
		}
	}
}
