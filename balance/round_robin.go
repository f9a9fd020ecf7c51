package balance

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// minSlots and slotsPerEntrant bound the sequence of a round robin: it has at most
// about max(minSlots, slotsPerEntrant × backends) slots. Weights that need more are
// rounded to that many slots, at least one each, which shifts the share of a backend
// by half a slot at most unless it would have had less than one.
const (
	minSlots        = 1 << 14
	slotsPerEntrant = 8
)

// roundRobin is nginx's smooth weighted round robin: a backend of weight 5 among two
// of weight 1 is picked as a a b a c a a, not as five in a row. nginx computes each
// step under a lock; here one whole period is laid out when the set is built, and a
// pick takes the next slot.
//
// A slot whose backend takes no sessions, or was tried, is used up with the slot that
// is taken instead. The others so keep their shares among themselves: the one that
// follows does not get the missing one's on top of its own.
//
// So it is with a slot whose backend warms up, unless chance lets it have the slot.
//
// A new set starts anywhere in its period, lest edges march in step and lest a set
// that changes often favours the first backend.
type roundRobin struct {
	entrants []entrant
	slots    []uint32 // one period, as indexes of entrants
	_        [64]byte // the cursor is written at every pick
	cursor   atomic.Uint64
	_        [56]byte
}

func newRoundRobin(entrants []entrant) Picker {
	p := &roundRobin{entrants: entrants}
	p.slots = smoothSequence(slotWeights(p.entrants))
	if n := len(p.slots); n > 0 {
		p.cursor.Store(rand.Uint64N(uint64(n)))
	}
	return p
}

func (p *roundRobin) Pick(r Request) (*Backend, error) {
	for {
		at := p.cursor.Load()
		e, skipped := p.next(at, &r)
		if e == nil {
			return nil, refusal(p.entrants, &r)
		}
		if p.cursor.CompareAndSwap(at, at+skipped+1) && e.reserve() {
			return e.backend, nil
		}
	}
}

// next returns the first entrant from the cursor's position on that is open and ripe, and
// how many slots come before it. If the warmest closes meanwhile and chance is against all
// others, it is the first one that is open; it is nil if none is.
func (p *roundRobin) next(at uint64, r *Request) (choice *entrant, skipped uint64) {
	n := uint64(len(p.slots))
	if n == 0 {
		return nil, 0
	}
	slot := at % n
	for i := range n {
		e := &p.entrants[p.slots[slot]]
		if w, ok := e.open(r); ok {
			if e.ripe(w, p.entrants, r) {
				return e, i
			}
			if choice == nil {
				choice, skipped = e, i
			}
		}
		if slot++; slot == n {
			slot = 0
		}
	}
	return choice, skipped
}

// slotWeights returns how many slots of a period each entrant gets.
func slotWeights(entrants []entrant) []uint64 {
	weights := make([]uint64, len(entrants))
	for i := range entrants {
		weights[i] = entrants[i].share
	}
	total := reduce(weights)
	limit := max(minSlots, slotsPerEntrant*uint64(len(weights)))
	if total > limit {
		for i, w := range weights {
			weights[i] = max(1, (w*limit+total/2)/total)
		}
		reduce(weights)
	}
	return weights
}

// reduce divides weights by their greatest common divisor and returns their sum.
func reduce(weights []uint64) (total uint64) {
	var divisor uint64
	for _, w := range weights {
		for a := w; a != 0; {
			divisor, a = a, divisor%a
		}
	}
	for i := range weights {
		weights[i] /= divisor
		total += weights[i]
	}
	return total
}

// smoothSequence lays out one period of nginx's algorithm
// (ngx_http_upstream_get_peer): each step raises the score of everyone by its weight,
// takes the first of those with the highest score, and lowers its score by the total.
//
// Entrants of the same weight take turns, so only the next one of each weight needs to
// be compared. A period of n slots has room for √2n different weights at most, which
// bounds the work however many backends there are.
func smoothSequence(weights []uint64) []uint32 {
	turns, total := turnsOf(weights)
	slots := make([]uint32, 0, total)
	for step := int64(1); step <= total; step++ {
		best := 0
		for i := range turns {
			turns[i].score = step*turns[i].weight - int64(turns[i].rounds)*total
			if i != 0 && turns[i].before(&turns[best]) {
				best = i
			}
		}
		slots = append(slots, turns[best].take())
	}
	return slots
}

// turn is the entrants of one weight, in their order.
type turn struct {
	weight  int64
	score   int64 // of the one whose turn it is
	members []uint32
	at      int // whose turn it is
	rounds  int // how often everyone had a turn
}

func (t *turn) before(other *turn) bool {
	if t.score != other.score {
		return t.score > other.score
	}
	return t.members[t.at] < other.members[other.at]
}

func (t *turn) take() uint32 {
	member := t.members[t.at]
	if t.at++; t.at == len(t.members) {
		t.at = 0
		t.rounds++
	}
	return member
}

// turnsOf groups entrants by weight and returns the sum of all weights.
func turnsOf(weights []uint64) (turns []turn, total int64) {
	byWeight := make([]uint32, len(weights))
	for i := range byWeight {
		byWeight[i] = uint32(i)
	}
	slices.SortStableFunc(byWeight, func(a, b uint32) int { return int(weights[a]) - int(weights[b]) })
	for _, i := range byWeight {
		weight := int64(weights[i])
		total += weight
		if n := len(turns); n == 0 || turns[n-1].weight != weight {
			turns = append(turns, turn{weight: weight})
		}
		last := &turns[len(turns)-1]
		last.members = append(last.members, i)
	}
	return turns, total
}
