package balance

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// random picks at random in proportion to weight, and warmth, among the backends that are
// open.
type random struct{ lottery }

func newRandom(entrants []entrant) Picker { return &random{newLottery(entrants, true)} }

func (p *random) Pick(r Request) (*Backend, error) {
	for {
		e := p.draw(&r, nil)
		if e == nil {
			return nil, refusal(p.entrants, &r)
		}
		if e.reserve() {
			return e.backend, nil
		}
	}
}

// lottery draws entrants at random in proportion to their shares.
type lottery struct {
	entrants []entrant
	ends     []uint64 // the sum of the shares up to and with each entrant
	warming  bool     // entrants that warm up are drawn less often
}

func newLottery(entrants []entrant, warming bool) lottery {
	l := lottery{entrants: entrants, warming: warming, ends: make([]uint64, len(entrants))}
	var sum uint64
	for i := range l.entrants {
		sum += l.entrants[i].share
		l.ends[i] = sum
	}
	return l
}

// quickDraws is how often a draw that hits a closed entrant is repeated before all
// entrants are looked at.
const quickDraws = 8

// draw returns an open entrant other than not, or nil if there is none. To draw from
// all and to repeat when a closed one comes up leaves those that are open with their
// proportions.
func (l *lottery) draw(r *Request, not *entrant) *entrant {
	if len(l.ends) == 0 {
		return nil
	}
	total := l.ends[len(l.ends)-1]
	for range quickDraws {
		i, found := slices.BinarySearch(l.ends, rand.Uint64N(total))
		if found { // an end belongs to the next entrant
			i++
		}
		e := &l.entrants[i]
		if w, ok := e.open(r); ok && e != not && (!l.warming || e.ripe(w, l.entrants, r)) {
			return e
		}
	}
	return l.drawOpen(r, not)
}

// drawOpen is draw in one pass over all entrants: each open one replaces the choice
// so far with a chance of its share of the sum so far (reservoir sampling).
func (l *lottery) drawOpen(r *Request, not *entrant) (choice *entrant) {
	d := newDice()
	var sum uint64
	for i := range l.entrants {
		e := &l.entrants[i]
		w, ok := e.open(r)
		if !ok || e == not {
			continue
		}
		pull := e.share
		if l.warming {
			pull = e.pull(w)
		}
		if sum += pull; d.below(sum) < pull {
			choice = e
		}
	}
	return choice
}

// dice is a generator for the many numbers of one pick: SplitMix64 (Steele, Lea,
// Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
type dice uint64

func newDice() dice { return dice(rand.Uint64()) }

// below returns a number in [0, n). Its bias is n/2^64.
func (d *dice) below(n uint64) uint64 {
	*d += 0x9e3779b97f4a7c15
	x := uint64(*d)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	number, _ := bits.Mul64(x^x>>31, n)
	return number
}
