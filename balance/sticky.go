package balance

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Stickiness says whether a request has a key, and how much that counts.
type Stickiness uint8

const (
	// Unsticky has none: the policy picks.
	Unsticky Stickiness = iota
	// Sticky is for the backend of its key while that takes sessions, else for another one
	// that its key says.
	Sticky
	// StrictlySticky is for the backend of its key, whatever that does, or for none.
	StrictlySticky
)

// sticky gives a request that has a key to the backend that it prefers. Where there is no
// such backend, or it takes no sessions, weighted rendezvous hashing says which one: each
// backend has a score for each key, and of those that take sessions the highest one wins
// (Thaler, Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998; the weights
// are those of Schindelhauer, Schomaker, "Weighted Distributed Hash Tables", 2005). So every
// edge that knows the same backends gives a key to the same one, keys are spread by weight,
// and a backend that comes or goes moves no keys but its own.
//
// A strict request has one backend: the one that it prefers, or, if it prefers none, the one
// with the highest score of all, also of those that take no sessions. If what it prefers is not
// of the set, it has lost its backend and is like one that is not strict.
//
// Other requests are the policy's.
type sticky struct {
	policy   Picker
	entrants []entrant
	names    []uint64       // XXH64 of the IDs, by entrant
	byName   map[uint64]int // index of an entrant, -1: it has no weight
}

func newSticky(policy Picker, set *Set, entrants []entrant) Picker {
	p := &sticky{policy: policy, entrants: entrants, names: make([]uint64, len(entrants)), byName: make(map[uint64]int, set.Len())}
	for _, b := range set.backends {
		p.byName[HashString(b.ID)] = -1
	}
	for i := range entrants {
		p.names[i] = HashString(entrants[i].backend.ID)
		p.byName[p.names[i]] = i
	}
	return p
}

// Pick does nothing that needs the request in memory: those without a key are to pay as little
// as they can.
func (p *sticky) Pick(r Request) (*Backend, error) {
	if r.Sticky == Unsticky {
		return p.policy.Pick(r)
	}
	return p.pick(r)
}

// pick is Pick for a request with a key.
func (p *sticky) pick(r Request) (*Backend, error) {
	i, known := p.byName[r.Preferred]
	known = known && r.Preferred != 0
	switch {
	case r.Sticky == StrictlySticky && known:
		return p.strict(i, &r)
	case r.Sticky == StrictlySticky && r.Preferred == 0:
		return p.strict(p.highest(r.Hash, nil), &r)
	case known && i >= 0:
		if e := &p.entrants[i]; !r.tried(e.live) && e.reserve() {
			return e.backend, nil
		}
	}
	for {
		i := p.highest(r.Hash, &r)
		if i < 0 {
			return nil, refusal(p.entrants, &r)
		}
		if e := &p.entrants[i]; e.reserve() {
			return e.backend, nil
		}
	}
}

// strict picks the entrant i, the one that there is for r, or none.
func (p *sticky) strict(i int, r *Request) (*Backend, error) {
	if i < 0 {
		return nil, ErrNoBackend
	}
	e := &p.entrants[i]
	if !r.tried(e.live) && e.reserve() {
		return e.backend, nil
	}
	return nil, refusal(p.entrants[i:i+1], r)
}

// highest returns the entrant with the highest score for a key of those that are open to r,
// or, if that is nil, of all; -1 if there is none.
//
// A score is share ÷ -ln(u), u being the draw as a number between 0 and 1. Among equal shares
// that is the order of the draws. Of two that are the same the one of the lower ID wins.
func (p *sticky) highest(key uint64, r *Request) int {
	best := -1
	var bestDraw uint64
	var bestCost float64 // 0: nobody has needed it yet
	for i := range p.entrants {
		e := &p.entrants[i]
		if r != nil {
			if _, ok := e.open(r); !ok {
				continue
			}
		}
		draw, drawCost := drawOf(p.names[i], key), 0.0
		switch {
		case best < 0:
		case e.share == p.entrants[best].share:
			if draw <= bestDraw {
				continue
			}
		default:
			if bestCost == 0 {
				bestCost = cost(bestDraw)
			}
			drawCost = cost(draw)
			if float64(e.share)*bestCost <= float64(p.entrants[best].share)*drawCost {
				continue
			}
		}
		best, bestDraw, bestCost = i, draw, drawCost
	}
	return best
}

// artanh are the coefficients of its series divided by s, the last one first.
var artanh = [...]float64{1. / 21, 1. / 19, 1. / 17, 1. / 15, 1. / 13, 1. / 11, 1. / 9, 1. / 7, 1. / 5, 1. / 3, 1}

// drawOf is what a key draws for a backend: the XXH64 of the XXH64 of its ID and the key,
// each as 64 bits, low byte first. This and the scores never change between versions: edges
// of different versions must agree.
func drawOf(name, key uint64) uint64 {
	var both [16]byte
	binary.LittleEndian.PutUint64(both[:8], name)
	binary.LittleEndian.PutUint64(both[8:], key)
	return xxhash.Sum64(both[:])
}

// cost is -ln(u) of a draw, for u = (⌊draw ÷ 4096⌋ + ½) ÷ 2^52. Processors differ in math.Log,
// and in whether they round a product before a sum; every step here is one that IEEE 754
// rounds in one way, for which the conversions are there.
func cost(draw uint64) float64 {
	m, exponent := math.Frexp(float64(draw>>12) + 0.5)
	exponent -= 52
	if m < math.Sqrt2/2 {
		m, exponent = 2*m, exponent-1
	}
	// ln m = 2 artanh s, whose series ends where it adds nothing any more: s² is below 0.03.
	s := (m - 1) / (m + 1)
	square := float64(s * s)
	sum := 0.0
	for _, c := range artanh {
		sum = float64(sum*square) + c
	}
	return -(float64(2*float64(s*sum)) + float64(float64(exponent)*math.Ln2))
}
