package load

import "time"

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

// at is when the k-th message is due.
func (s schedule) at(k uint64) int64 { return s.start + int64(s.every*float64(k)) }

// tolerance is how late a message may be sent before the schedule counts as missed.
const tolerance = int64(time.Millisecond)
