package balance

// powerOfTwo draws two different backends at random in proportion to weight and takes
// the one with the lower load by weight, on a tie the first one drawn (Mitzenmacher,
// "The Power of Two Choices in Randomized Load Balancing", 1996). It is nearly as even
// as comparing all, looks at two, and keeps several edges that do not know of each
// other from choosing the same backend at the same time.
type powerOfTwo struct{ lottery }

func newPowerOfTwo(entrants []entrant) Picker { return &powerOfTwo{newLottery(entrants)} }

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
	if second != nil && second.lighter(second.live.Load(), first, first.live.Load()) {
		return second
	}
	return first
}
