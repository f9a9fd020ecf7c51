package balance

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
)

// A backend that is [Warming] gets the share of its weight that [Live.Warmth] says. What
// compares loads divides by weight × warmth; what takes turns or draws by weight lets one
// that is not the warmest go by, at random. Both only compare backends with each other: if
// all warm up equally, picks are what they would be if none did, and if all others are
// closed, the coldest is taken. consistent_hash does not look at it.

// fullWarmth is the warmth of a backend that does not warm up.
const fullWarmth = 1 << 16

// warmth returns the share of its weight that an entrant has, of fullWarmth, at least 1.
func (e *entrant) warmth(w word) uint64 {
	if !w.has(Warming) {
		return fullWarmth
	}
	return fullWarmth - uint64(min(e.live.cold.Load(), fullWarmth-1))
}

// pull returns the entrant's share times its warmth. Those of 2^17 entrants fit in 64 bits
// together, if each has the highest share.
func (e *entrant) pull(w word) uint64 { return e.share * e.warmth(w) }

// compareLoads compares the loads of two entrants, each divided by the entrant's pull,
// exactly: it returns -1 if the first is lighter, 0 if there is no difference, else 1.
func compareLoads(load int64, pull uint64, otherLoad int64, otherPull uint64) int {
	high, low := bits.Mul64(uint64(load), otherPull)
	otherHigh, otherLow := bits.Mul64(uint64(otherLoad), pull)
	return cmp.Or(cmp.Compare(high, otherHigh), cmp.Compare(low, otherLow))
}

// ripe reports whether an entrant whose turn it is takes it: if it is warming with a chance
// of its warmth by that of the warmest entrant that is open, which is always ripe.
func (e *entrant) ripe(w word, entrants []entrant, r *Request) bool {
	if !w.has(Warming) {
		return true
	}
	warmest := uint64(1)
	for i := range entrants {
		if w, ok := entrants[i].open(r); ok {
			if warmest = max(warmest, entrants[i].warmth(w)); warmest == fullWarmth {
				break
			}
		}
	}
	return rand.Uint64N(warmest) < e.warmth(w)
}
