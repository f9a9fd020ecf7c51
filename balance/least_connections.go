package balance

// leastConnections picks the backend with the least sessions plus dials in flight,
// divided by weight, or by what a backend that warms up has of it. Ties fall at random in
// proportion to that.
//
// Concurrent picks do not pile on one backend: the winner is taken only if its load
// is still what it won with, else the comparison starts again. So with equal weights
// and while nothing ends, no two loads ever differ by more than one.
type leastConnections struct{ entrants []entrant }

func newLeastConnections(entrants []entrant) Picker { return &leastConnections{entrants} }

func (p *leastConnections) Pick(r Request) (*Backend, error) {
	d := newDice()
	for {
		best, load := p.least(&r, &d)
		if best == nil {
			return nil, refusal(p.entrants, &r)
		}
		if best.live.reserveAt(load) {
			return best.backend, nil
		}
	}
}

// least returns the open entrant with the least load by share, and that load, or nil.
func (p *leastConnections) least(r *Request, d *dice) (best *entrant, bestLoad int64) {
	var any word
	var tied uint64 // the shares of all that are as light as best
	bestLoad = 1    // of a share of 0: all are lighter
	var bestShare uint64
	for i := range p.entrants {
		e := &p.entrants[i]
		w, ok := e.open(r)
		if !ok {
			continue
		}
		any |= w
		load := w.load()
		mine, least := uint64(load)*bestShare, uint64(bestLoad)*e.share
		if mine > least {
			continue
		}
		if tied += e.share; mine < least {
			tied = e.share
		} else if d.below(tied) >= e.share {
			continue
		}
		best, bestLoad, bestShare = e, load, e.share
	}
	if any.has(Warming) {
		return p.leastWarming(r, d)
	}
	return best, bestLoad
}

// leastWarming is least by pull. It is apart, because pulls are too large to be compared
// as fast as shares.
func (p *leastConnections) leastWarming(r *Request, d *dice) (best *entrant, bestLoad int64) {
	var bestPull, tied uint64
	for i := range p.entrants {
		e := &p.entrants[i]
		w, ok := e.open(r)
		if !ok {
			continue
		}
		load, pull, order := w.load(), e.pull(w), -1
		if best != nil {
			order = compareLoads(load, pull, bestLoad, bestPull)
		}
		if order < 0 {
			best, bestLoad, bestPull, tied = e, load, pull, pull
			continue
		}
		if order == 0 {
			if tied += pull; d.below(tied) < pull {
				best, bestLoad, bestPull = e, load, pull
			}
		}
	}
	return best, bestLoad
}
