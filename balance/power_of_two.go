package balance

import "math/rand/v2"

// powerOfTwo draws two different backends at random in proportion to weight and takes
// the one with the lower load by weight and warmth, on a tie the first one drawn (Mitzenmacher,
// "The Power of Two Choices in Randomized Load Balancing", 1996). It is nearly as even
// as comparing all, looks at two, and keeps several edges that do not know of each
// other from choosing the same backend at the same time.
type powerOfTwo struct{ lottery }

func newPowerOfTwo(entrants []entrant) Picker { return &powerOfTwo{newLottery(entrants, false)} }

func (p *powerOfTwo) Pick(r Request) (*Backend, error) {
	for {
		e := p.choose(&r)
		if e == nil {
			return nil, refusal(p.entrants, &r)
		}
		if e.reserve() {
			return e.backend, nil
		}
	}
}

func (p *powerOfTwo) choose(r *Request) *entrant {
	first := p.draw(r, nil)
	if first == nil {
		return nil
	}
	second := p.draw(r, first)
	if second == nil {
		return first
	}
	a, b := word(first.live.word.Load()), word(second.live.word.Load())
	order := 1
	if (a | b).has(Warming) {
		order = compareLoads(b.load(), second.pull(b), a.load(), first.pull(a))
		if order == 0 && first.yields(a, second, b) {
			return second
		}
	} else if second.lighter(b.load(), first, a.load()) {
		order = -1
	}
	if order < 0 {
		return second
	}
	return first
}

// yields reports whether an entrant that is as light as the other lets it go first: a
// colder one mostly does, lest a backend that warms up in an idle pool get its full share.
func (e *entrant) yields(w word, other *entrant, otherWord word) bool {
	mine, others := e.warmth(w), other.warmth(otherWord)
	return mine < others && rand.Uint64N(others) >= mine
}
