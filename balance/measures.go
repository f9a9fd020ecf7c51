package balance

import (
	"math"
	"sync/atomic"
)

// pair is two numbers that are read and written as one.
type pair struct{ atomic.Uint64 }

func (p *pair) load() (a, b float64) { return unpack(p.Load()) }

// update replaces the numbers by what change makes of them, once or more often.
func (p *pair) update(change func(a, b float64) (float64, float64)) {
	for {
		old := p.Load()
		if next := pack(change(unpack(old))); next == old || p.CompareAndSwap(old, next) {
			return
		}
	}
}

func pack(a, b float64) uint64 {
	return uint64(math.Float32bits(float32(a)))<<32 | uint64(math.Float32bits(float32(b)))
}

func unpack(v uint64) (a, b float64) {
	return float64(math.Float32frombits(uint32(v >> 32))), float64(math.Float32frombits(uint32(v)))
}

// remains returns what an exponentially weighted mean keeps of its value after a time, by its
// time constant.
func remains(seconds, constant float64) float64 { return math.Exp(-seconds / constant) }
