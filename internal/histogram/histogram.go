package histogram

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"sync/atomic"
)

// Histogram counts observations below each of its upper bounds. The zero value has
// no bounds: it keeps only the count and the sum. It must not be copied after its
// first use.
type Histogram struct {
	bounds []float64       // strictly increasing, never changed
	counts []atomic.Uint64 // counts[i]: observations in (bounds[i-1], bounds[i]]
	above  atomic.Uint64   // observations over the last bound
	sum    atomic.Uint64   // the bits of a float64
}

// New returns an empty histogram with these inclusive upper bounds, in seconds. The
// bucket without a bound, +Inf, is implied. New panics unless the bounds are finite
// and strictly increasing, because they are written in code.
func New(bounds ...float64) *Histogram {
	for i, b := range bounds {
		if math.IsNaN(b) || math.IsInf(b, 0) || i > 0 && b <= bounds[i-1] {
			panic(fmt.Sprintf("histogram: bounds %v are not finite and strictly increasing", bounds))
		}
	}
	return &Histogram{bounds: slices.Clone(bounds), counts: make([]atomic.Uint64, len(bounds))}
}

// LatencyBounds returns bounds for what takes from half a millisecond to ten
// seconds: connecting, shaking hands. The slice is the caller's own.
func LatencyBounds() []float64 {
	return []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
}

// LifetimeBounds returns bounds for how long sessions live, from one second to
// seven days. The slice is the caller's own.
func LifetimeBounds() []float64 {
	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	return []float64{1, 5, 15, minute, 5 * minute, 15 * minute, hour, 4 * hour, 12 * hour, day, 3 * day, 7 * day}
}

// Observe counts one duration in seconds. A negative one (a clock was set back)
// counts as 0; what is not finite is no duration and is not counted.
func (h *Histogram) Observe(seconds float64) {
	if math.IsNaN(seconds) || math.IsInf(seconds, 0) {
		return
	}
	seconds = max(seconds, 0)
	if i := sort.SearchFloat64s(h.bounds, seconds); i < len(h.counts) {
		h.counts[i].Add(1)
	} else {
		h.above.Add(1)
	}
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+seconds)) {
			return
		}
	}
}

// Snapshot is what a histogram had counted at one moment. The zero value is that of
// a histogram without bounds and observations.
type Snapshot struct {
	// Count is the number of observations and Sum their total in seconds.
	Count uint64
	Sum   float64
	// Bounds are the upper bounds in seconds, shared with the histogram: read only.
	Bounds []float64
	// Cumulative[i] is the number of observations up to and including Bounds[i].
	// Those over the last bound are in Count only.
	Cumulative []uint64
}

// Snapshot returns the present counts. It may be called while others observe.
func (h *Histogram) Snapshot() Snapshot {
	s := Snapshot{Bounds: h.bounds, Cumulative: make([]uint64, len(h.counts))}
	for i := range h.counts {
		s.Count += h.counts[i].Load()
		s.Cumulative[i] = s.Count
	}
	s.Count += h.above.Load()
	s.Sum = math.Float64frombits(h.sum.Load())
	return s
}
