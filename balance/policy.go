package balance

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Request is what a policy may know about the session that needs a backend. The zero
// value is a first attempt without a hash.
type Request struct {
	// Hash is the [HashString] of what the pool hashes on. It counts if Hashed is set
	// and the policy is consistent_hash. If Sticky is set it is that of the key, and
	// counts under every policy.
	Hash   uint64
	Hashed bool
	Sticky Stickiness
	// Preferred is the HashString of the ID of the backend that a sticky request comes
	// back to; 0: there is none.
	Preferred uint64
	// Tried are the backends that were already tried for this session, of this set or
	// an earlier one. They are not picked again. Pick does not keep the slice.
	Tried []*Backend
}

func (r *Request) tried(l *Live) bool {
	for _, b := range r.Tried {
		if b.Live == l {
			return true
		}
	}
	return false
}

// Picker picks among the backends of the one set that it was built for. It takes no
// lock, allocates nothing, and may be called from any goroutine.
type Picker interface {
	// Pick returns a backend that takes new sessions, with one reservation placed on
	// it, which the caller ends (see [Live]). It returns ErrNoBackend, ErrFull or
	// ErrAllTried, unwrapped, and places nothing, if there is none.
	Pick(Request) (*Backend, error)
}

var (
	// ErrNoBackend says that no backend of the set takes new sessions: there is none,
	// or each is down, ejected, draining, removed or of weight 0.
	ErrNoBackend = errors.New("no backend takes new sessions")
	// ErrFull says that backends would take new sessions, were it not that each one that was
	// not tried yet has as many as Options.MaxSessions allows.
	ErrFull = errors.New("every backend has as many sessions as it may have")
	// ErrAllTried says that backends take new sessions, but all of them were tried for
	// this session. It is not an ErrNoBackend: a client is told that its backends could
	// not be reached, not that there are none.
	ErrAllTried = errors.New("every backend that takes new sessions was tried")

	// ErrUnknownPolicy says that Options.Policy is none of Policies.
	ErrUnknownPolicy = errors.New("unknown policy")
	// ErrLoadFactor says that Options.LoadFactor is neither 0 nor a number from 1.
	ErrLoadFactor = errors.New("load factor must be 0 or at least 1")
	// ErrMaxSessions says that Options.MaxSessions is negative.
	ErrMaxSessions = errors.New("the most sessions of a backend must be 0 or more")
)

// Policy builds the picker of a set. It may be called from any goroutine.
type Policy func(*Set) Picker

// Options choose a policy.
type Options struct {
	// Policy is one of Policies. There is no default.
	Policy string
	// LoadFactor bounds the load of a backend under consistent_hash to that many times
	// its fair share. 0 does not bound it. Other policies have no use for it, but a
	// value that is wrong is refused with any of them.
	LoadFactor float64
	// MaxSessions is how many sessions, dials in flight included, a backend may have;
	// one that has more, of former options, keeps them. 0 is no limit.
	MaxSessions int
}

// policies stand in the order in which the documentation lists them.
var policies = []struct {
	name string
	make func([]entrant, Options) Picker
}{
	{"round_robin", func(e []entrant, _ Options) Picker { return newRoundRobin(e) }},
	{"least_connections", func(e []entrant, _ Options) Picker { return newLeastConnections(e) }},
	{"consistent_hash", func(e []entrant, o Options) Picker { return newConsistentHash(e, o.LoadFactor) }},
	{"power_of_two_choices", func(e []entrant, _ Options) Picker { return newPowerOfTwo(e) }},
	{"random", func(e []entrant, _ Options) Picker { return newRandom(e) }},
	{"least_response_time", func(e []entrant, _ Options) Picker { return newLeastCost(e, responseTime{}) }},
	{"least_load", func(e []entrant, _ Options) Picker { return newLeastCost(e, newReported(e)) }},
	{"least_bandwidth", func(e []entrant, _ Options) Picker { return newLeastCost(e, bandwidth{}) }},
}

// New returns the policy that options name. Errors are ErrUnknownPolicy, ErrLoadFactor
// and ErrMaxSessions, wrapped.
func New(options Options) (Policy, error) {
	if f := options.LoadFactor; f != 0 && !(f >= 1) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%w, not %v", ErrLoadFactor, f)
	}
	if options.MaxSessions < 0 {
		return nil, fmt.Errorf("%w, not %d", ErrMaxSessions, options.MaxSessions)
	}
	for _, p := range policies {
		if p.name == options.Policy {
			return func(set *Set) Picker {
				entrants := entrantsOf(set, options.MaxSessions)
				return newSticky(p.make(entrants, options), set, entrants)
			}, nil
		}
	}
	return nil, fmt.Errorf("%w %q, not one of %s", ErrUnknownPolicy, options.Policy, strings.Join(Policies(), ", "))
}

// Policies returns the names that New knows. The slice is the caller's.
func Policies() []string {
	names := make([]string, 0, len(policies))
	for _, p := range policies {
		names = append(names, p.name)
	}
	return names
}

// HashString returns the Request.Hash of a value: its XXH64 with seed 0. This never
// changes between versions, since edges of different versions must agree.
func HashString(s string) uint64 { return xxhash.Sum64String(s) }

// entrant is a backend of a set that has a weight, ready for picking.
type entrant struct {
	live    *Live
	share   uint64 // the weight, from 1 to maxShare
	limit   int64  // of the load, countMask at most
	backend *Backend
}

// maxShare leaves room to multiply a share by any load, or by any number of points or
// slots, in 64 bits.
const maxShare = 1 << 30

// entrantsOf returns the backends of a set that have a weight, in the set's order, each
// with room for maxSessions; 0 is no limit.
func entrantsOf(set *Set, maxSessions int) []entrant {
	limit := int64(countMask)
	if maxSessions > 0 {
		limit = min(limit, int64(maxSessions))
	}
	largest := 0
	for _, b := range set.backends {
		largest = max(largest, b.Weight)
	}
	shift := 0
	for largest>>shift > maxShare {
		shift++
	}
	entrants := make([]entrant, 0, len(set.backends))
	for _, b := range set.backends {
		if b.Weight > 0 {
			entrants = append(entrants, entrant{live: b.Live, share: max(1, uint64(b.Weight)>>shift), limit: limit, backend: b})
		}
	}
	return slices.Clip(entrants)
}

// open reports whether the entrant may be picked for r at this moment, and returns what that
// follows from, which has the load.
func (e *entrant) open(r *Request) (w word, ok bool) {
	w = word(e.live.word.Load())
	return w, w.takes(e.limit) && !r.tried(e.live)
}

// lighter reports, warmth aside, whether load on e is less, by share, than otherLoad on other.
func (e *entrant) lighter(load int64, other *entrant, otherLoad int64) bool {
	return uint64(load)*other.share < uint64(otherLoad)*e.share
}

// reserve places one reservation if the entrant still takes one.
func (e *entrant) reserve() bool { return e.live.reserveBelow(e.limit) }

// refusal says why none of the entrants was open to r.
func refusal(entrants []entrant, r *Request) error {
	err := ErrNoBackend
	for i := range entrants {
		e := &entrants[i]
		switch {
		case !e.live.Eligible():
		case e.limit < countMask && !r.tried(e.live):
			return ErrFull // or was so when the pick looked
		case len(r.Tried) > 0:
			err = ErrAllTried
		}
	}
	return err
}
