package balance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// eachLimited is eachVariant with room for max sessions on each backend.
func eachLimited(t *testing.T, max int, test func(t *testing.T, policy Policy)) {
	t.Helper()
	for _, o := range variants {
		o.MaxSessions = max
		t.Run(fmt.Sprintf("%s/%v", o.Policy, o.LoadFactor), func(t *testing.T) { test(t, mustPolicy(t, o)) })
	}
}

// Whatever the policy and the weights, all places are taken and none twice; then the
// pool is full until a place is free.
func TestMaxSessions(t *testing.T) {
	eachLimited(t, 3, func(t *testing.T, policy Policy) {
		set := weighted(1, 9, 0, 2)
		p := policy(set)
		for range 9 {
			pick(t, p, Request{Hash: rand.Uint64(), Hashed: true}).Live.Open()
		}
		if diff := cmp.Diff([]int64{3, 3, 0, 3}, loads(set)); diff != "" {
			t.Fatalf("nine sessions (-want +got):\n%s", diff)
		}
		for _, r := range []Request{{}, {Hash: 7, Hashed: true}, {Tried: set.Backends()[:1]}} {
			if b, err := p.Pick(r); err != ErrFull || b != nil {
				t.Errorf("a tenth: %v, %v", b, err)
			}
		}
		if _, err := p.Pick(Request{Tried: set.Backends()}); err != ErrAllTried {
			t.Errorf("all tried: %v", err)
		}
		set.Backends()[1].Live.Close()
		if b := pick(t, p, Request{Hash: 7, Hashed: true}); b != set.Backends()[1] {
			t.Errorf("picked %s", b.ID)
		}
		for _, b := range set.Backends() {
			b.Live.setState(StateDown)
		}
		if _, err := p.Pick(Request{}); err != ErrNoBackend {
			t.Errorf("all down: %v", err)
		}
	})
}

// A dial in flight has a place, and a lower limit of new options leaves alone who is there.
func TestMaxSessionsCountsDials(t *testing.T) {
	eachLimited(t, 1, func(t *testing.T, policy Policy) {
		set := equalWeights(2)
		a, b := set.Backends()[0].Live, set.Backends()[1].Live
		for range 5 {
			a.reserveBelow(countMask)
			a.Open()
		}
		p := policy(set)
		if pick(t, p, Request{}).Live != b || b.InFlight() != 1 {
			t.Fatal("want a dial to the idle one")
		}
		if _, err := p.Pick(Request{}); err != ErrFull {
			t.Errorf("with a dial in flight: %v", err)
		}
		b.Release()
		if pick(t, p, Request{}).Live != b || a.Sessions() != 5 {
			t.Error("want the place of the dial that failed")
		}
	})
}

// A hash goes on to the next backend of the ring, and back.
func TestMaxSessionsKeepsHashes(t *testing.T) {
	set := equalWeights(10)
	p := mustPolicy(t, Options{Policy: "consistent_hash", LoadFactor: 1.25, MaxSessions: 1})(set)
	for hash := range uint64(200) {
		r := Request{Hash: hash << 56, Hashed: true}
		first := pick(t, p, r)
		second := pick(t, p, r)
		first.Live.Release()
		if again := pick(t, p, r); first == second || again != first {
			t.Fatalf("hash %d: %s, then %s, then %s", hash, first.ID, second.ID, again.ID)
		}
		first.Live.Release()
		second.Live.Release()
	}
}

// Picks on all goroutines at once never go over, and find every place.
func TestMaxSessionsConcurrently(t *testing.T) {
	const limit, goroutines = 5, 8
	eachLimited(t, limit, func(t *testing.T, policy Policy) {
		set := weighted(1, 3, 1, 20)
		p := policy(set)
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				var open []*Live
				for range 400 {
					b, err := p.Pick(Request{Hash: rand.Uint64(), Hashed: true})
					switch {
					case err == nil:
						if n := b.Live.Load(); n > limit {
							t.Errorf("%s has %d", b.ID, n)
						}
						b.Live.Open()
						open = append(open, b.Live)
					case !errors.Is(err, ErrFull):
						t.Error(err)
					}
					if err != nil || len(open) > 6 {
						for _, l := range open {
							l.Close()
						}
						open = open[:0]
					}
				}
				for _, l := range open {
					l.Close()
				}
			})
		}
		all.Wait()
		if got := loads(set); slices.Max(got) != 0 {
			t.Fatalf("%v left", got)
		}
		var full sync.WaitGroup
		for range goroutines {
			full.Go(func() {
				for {
					if _, err := p.Pick(Request{Hash: rand.Uint64(), Hashed: true}); err != nil {
						return
					}
				}
			})
		}
		full.Wait()
		if diff := cmp.Diff([]int64{limit, limit, limit, limit}, loads(set)); diff != "" {
			t.Errorf("when all were full (-want +got):\n%s", diff)
		}
	})
}
