package load

import (
	"math"
	"time"
)

// schedule says when the messages of a connection are due: the k-th at start + k·every.
// Its times are computed, not kept, so that a backlog is a number.
type schedule struct {
	start int64   // ns
	every float64 // ns; 0: no schedule
}

// newSchedule spreads rate (per second, over all) evenly over of connections; index is
// this one's. A rate of 0 is none.
func newSchedule(start int64, rate float64, index, of int) schedule {
	if rate == 0 {
		return schedule{}
	}
	step := float64(time.Second) / rate
	return schedule{start: start + int64(step*float64(index)), every: step * float64(of)}
}

// at is when the k-th message is due, or never if that is centuries away.
func (s schedule) at(k uint64) int64 {
	after := s.every * float64(k)
	if after > math.MaxInt64/2 {
		return never
	}
	return s.start + int64(after)
}

// from is the schedule of which the first message is due next after a time, and each at the
// same part of the interval, as the clock has it.
func (s schedule) from(at int64, phase float64) schedule {
	if s.every >= 1 {
		turn := int64(min(s.every, math.MaxInt64/2))
		at += (int64(phase*float64(turn)) - at%turn + turn) % turn
	}
	s.start = at
	return s
}

// first is the number of the first message that is due at a time or later.
func (s schedule) first(at int64) uint64 {
	if at <= s.start {
		return 0
	}
	k := uint64(float64(at-s.start) / s.every)
	for ; s.at(k) < at; k++ { // a division may be off by one
	}
	for ; k > 0 && s.at(k-1) >= at; k-- {
	}
	return k
}

// count is how many messages are due from one time until before another.
func (s schedule) count(from, until int64) uint64 {
	if s.every == 0 || until <= from {
		return 0
	}
	return s.first(until) - s.first(from)
}

// tolerance is how late a message may be sent before the schedule counts as missed.
const tolerance = int64(time.Millisecond)
