package balance

// leastCost picks the backend with the least cost divided by weight, or by what a backend
// that warms up has of it. On a tie the lower load decides, and then chance in proportion to
// weight. What a cost is, its gauge says.
//
// As with least_connections the winner is taken only if its load is still what it won with,
// so that picks at once do not pile on one backend: each gauge has the load in its cost.
type leastCost struct {
	entrants []entrant
	gauge    gauge
}

// gauge computes costs of what was measured of backends.
type gauge interface {
	// survey looks at all entrants that take new sessions.
	survey(entrants []entrant) survey
	// cost returns what entrant i costs with a load: a finite number that is not negative.
	cost(i int, e *entrant, load int64, s survey) float64
}

// survey is what entrants have in common, for the cost of those of which less is known;
// each gauge has its own use of it.
type survey struct{ mean, each, sessions, pong float64 }

func newLeastCost(entrants []entrant, g gauge) Picker { return &leastCost{entrants, g} }

func (p *leastCost) Pick(r Request) (*Backend, error) {
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

// least returns the open entrant with the least cost by pull, and its load, or nil.
func (p *leastCost) least(r *Request, d *dice) (best *entrant, bestLoad int64) {
	var bestCost float64
	var bestPull, tied uint64 // tied are the pulls of all that are as good as best
	s := p.gauge.survey(p.entrants)
	for i := range p.entrants {
		e := &p.entrants[i]
		w, ok := e.open(r)
		if !ok {
			continue
		}
		load, pull := w.load(), e.pull(w)
		cost := p.gauge.cost(i, e, load, s)
		// Crosswise, so that neither rounds what the other does not.
		mine, least := cost*float64(bestPull), bestCost*float64(pull)
		order := 0
		switch {
		case best == nil || mine < least:
			order = -1
		case mine > least:
			continue
		default:
			order = compareLoads(load, pull, bestLoad, bestPull)
		}
		if order > 0 {
			continue
		}
		if tied += pull; order < 0 {
			tied = pull
		} else if d.below(tied) >= pull {
			continue
		}
		best, bestLoad, bestCost, bestPull = e, load, cost, pull
	}
	return best, bestLoad
}
