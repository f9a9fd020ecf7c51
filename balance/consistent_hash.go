package balance

import "math/rand/v2"

// consistentHash gives a hash to the backend whose point follows it on the [ring], on
// every edge that knows the same backends. Backends that take no sessions keep their
// points and are skipped, so that they get their hashes back when they return.
//
// With a load factor c, a backend is skipped too while it is full: while one session
// more would lift it over ⌈c·(m+1)·w/W⌉, where m is the load and W the weight of all
// backends that could be picked and w is its own weight (Mirrokni, Thorup,
// Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016, with weights). There
// is always one that is not full. Sessions that are open are never moved for it. A backend
// that has as many sessions as it may have at all is skipped like one that is closed, and the
// others share what is left.
//
// A request without a hash goes to a random place on the ring: that is a random
// backend in proportion to its points, under the same bound.
type consistentHash struct {
	entrants   []entrant
	ring       ring
	loadFactor float64 // 0: unbounded
}

func newConsistentHash(entrants []entrant, loadFactor float64) Picker {
	return &consistentHash{entrants: entrants, ring: newRing(entrants), loadFactor: loadFactor}
}

func (p *consistentHash) Pick(r Request) (*Backend, error) {
	hash := r.Hash
	if !r.Hashed {
		hash = rand.Uint64()
	}
	for {
		full, ok := p.boundFor(&r)
		if !ok {
			return nil, refusal(p.entrants, &r)
		}
		e, load := p.walk(hash, &r, full)
		switch {
		case e == nil: // the last open one closed during the walk
		case p.loadFactor == 0:
			if e.reserve() {
				return e.backend, nil
			}
		case e.live.reserveAt(load):
			return e.backend, nil
		}
	}
}

// bound is the load of all open entrants with one more, times the factor, and their
// share: both sides of the fraction of which an entrant's bound is its share.
type bound struct{ load, share float64 }

// reached reports whether load on e has reached its bound ⌈x⌉. For a whole number that
// is the same as to have reached x. Multiplied out, it is exact up to 2^53, where a
// quotient would be rounded up at times and let one session too many in.
func (b bound) reached(e *entrant, load int64) bool {
	return float64(load)*b.share >= b.load*float64(e.share)
}

// boundFor returns the present bound for r and whether any entrant is open.
func (p *consistentHash) boundFor(r *Request) (b bound, ok bool) {
	var load int64
	var share uint64
	for i := range p.entrants {
		e := &p.entrants[i]
		w, open := e.open(r)
		if !open {
			continue
		}
		if p.loadFactor == 0 {
			return bound{}, true
		}
		load += w.load()
		share += e.share
	}
	return bound{load: p.loadFactor * float64(load+1), share: float64(share)}, share != 0
}

// walk returns the first entrant from hash on that is open and not full, and its load.
// Loads may have grown since the bound was computed. If everyone looks full for that,
// or by an error of rounding, it returns the one with the least load by share, which
// is never over its bound. It returns nil if nobody is open any more.
func (p *consistentHash) walk(hash uint64, r *Request, full bound) (least *entrant, leastLoad int64) {
	at := p.ring.after(hash)
	for range len(p.ring.points) {
		e := &p.entrants[p.ring.points[at].owner]
		if w, ok := e.open(r); ok {
			load := w.load()
			if p.loadFactor == 0 || !full.reached(e, load) {
				return e, load
			}
			if least == nil || e.lighter(load, least, leastLoad) {
				least, leastLoad = e, load
			}
		}
		if at++; at == len(p.ring.points) {
			at = 0
		}
	}
	return least, leastLoad
}
