package balance

// leastConnections picks the backend with the least sessions plus dials in flight,
// divided by weight. Ties fall at random in proportion to weight.
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
	var tied uint64 // the shares of all that are as light as best
	for i := range p.entrants {
		e := &p.entrants[i]
		load, ok := e.open(r)
		switch {
		case !ok || best != nil && best.lighter(bestLoad, e, load):
			continue
		case best == nil || e.lighter(load, best, bestLoad):
			best, bestLoad, tied = e, load, e.share
			continue
		}
		if tied += e.share; d.below(tied) < e.share {
			best, bestLoad = e, load
		}
	}
	return best, bestLoad
}
