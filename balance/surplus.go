package balance

import (
	"math"
	"math/bits"
)

// Burden is what a backend that takes sessions has to carry.
type Burden struct {
	// Load are its sessions: those that come are in it, those that are about to leave are
	// not.
	Load int64
	// Weight is more than 0.
	Weight int64
	// Giving says that it gives sessions away already: it does so until it has no more than
	// its share.
	Giving bool
}

// Shares are the fair shares of backends in all sessions of a pool.
type Shares struct{ total, weights uint64 }

// SharesOf returns the shares of some backends. away are sessions that none of them has at
// the moment, and one of them will have again.
func SharesOf(all []Burden, away int64) Shares {
	s := Shares{total: uint64(away)}
	for _, b := range all {
		s.total += uint64(b.Load)
		s.weights += uint64(b.Weight)
	}
	return s
}

// Most returns the most whole sessions that a backend with this weight has to carry: its
// share, rounded up.
func (s Shares) Most(weight int64) int64 {
	high, low := bits.Mul64(s.total, uint64(weight))
	switch {
	case s.weights == 0:
		return 0
	case high >= s.weights:
		return math.MaxInt64 // of none of those that have shares
	}
	share, rest := bits.Div64(high, low, s.weights)
	if rest > 0 {
		share++
	}
	return int64(share)
}

// Under reports whether a backend has less than its share.
func (s Shares) Under(load, weight int64) bool { return load < s.Most(weight) }

// Surplus returns how many sessions each of all is to give away so that it has its share,
// rounded up: 0 for those that have no more than that, and for those that are not Giving and
// have no more than tolerance times their share. Those under their share have room for all
// of them.
func (s Shares) Surplus(all []Burden, tolerance float64) []int64 {
	out := make([]int64, len(all))
	for i, b := range all {
		over := b.Load - s.Most(b.Weight)
		share := float64(s.total) * float64(b.Weight) / float64(s.weights)
		if over > 0 && (b.Giving || float64(b.Load) > tolerance*share) {
			out[i] = over
		}
	}
	return out
}
