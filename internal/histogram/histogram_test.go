package histogram

import (
	"math"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestObserve(t *testing.T) {
	for _, tt := range []struct {
		name     string
		bounds   []float64
		observed []float64
		want     Snapshot
	}{
		{"nothing observed", []float64{1, 2}, nil,
			Snapshot{Bounds: []float64{1, 2}, Cumulative: []uint64{0, 0}}},
		{"a bound belongs to its bucket", []float64{1, 2}, []float64{1, 2},
			Snapshot{Count: 2, Sum: 3, Bounds: []float64{1, 2}, Cumulative: []uint64{1, 2}}},
		{"just over a bound", []float64{1, 2}, []float64{math.Nextafter(1, 2)},
			Snapshot{Count: 1, Sum: math.Nextafter(1, 2), Bounds: []float64{1, 2}, Cumulative: []uint64{0, 1}}},
		{"over the last bound", []float64{1, 2}, []float64{3},
			Snapshot{Count: 1, Sum: 3, Bounds: []float64{1, 2}, Cumulative: []uint64{0, 0}}},
		{"zero", []float64{1, 2}, []float64{0},
			Snapshot{Count: 1, Bounds: []float64{1, 2}, Cumulative: []uint64{1, 1}}},
		{"a clock that went back", []float64{1}, []float64{-5},
			Snapshot{Count: 1, Bounds: []float64{1}, Cumulative: []uint64{1}}},
		{"no durations", []float64{1}, []float64{math.NaN(), math.Inf(1), math.Inf(-1)},
			Snapshot{Bounds: []float64{1}, Cumulative: []uint64{0}}},
		{"no bounds", nil, []float64{4, 5},
			Snapshot{Count: 2, Sum: 9, Cumulative: []uint64{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := New(tt.bounds...)
			for _, v := range tt.observed {
				h.Observe(v)
			}
			if diff := cmp.Diff(tt.want, h.Snapshot()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestZeroValue(t *testing.T) {
	var h Histogram
	h.Observe(2)
	if s := h.Snapshot(); s.Count != 1 || s.Sum != 2 {
		t.Errorf("count %d sum %v, want 1 and 2", s.Count, s.Sum)
	}
}

func TestNewPanics(t *testing.T) {
	for _, bounds := range [][]float64{{1, 1}, {2, 1}, {math.NaN()}, {1, math.Inf(1)}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%v) accepted the bounds", bounds)
				}
			}()
			New(bounds...)
		}()
	}
}

func TestNewKeepsItsOwnBounds(t *testing.T) {
	bounds := []float64{1, 2}
	h := New(bounds...)
	bounds[0] = 9
	h.Observe(1)
	if got := h.Snapshot().Cumulative[0]; got != 1 {
		t.Errorf("a caller's slice changed the histogram: first bucket %d, want 1", got)
	}
}

func TestReadyMadeBounds(t *testing.T) {
	New(LatencyBounds()...) // panics when they are wrong
	New(LifetimeBounds()...)
	lifetimes := LifetimeBounds()
	if lifetimes[0] != 1 || lifetimes[len(lifetimes)-1] != 7*24*3600 {
		t.Errorf("lifetimes reach from %v to %v seconds", lifetimes[0], lifetimes[len(lifetimes)-1])
	}
}

// Snapshots that are taken while others observe must be consistent in themselves,
// and nothing may be lost in the end.
func TestConcurrent(t *testing.T) {
	h := New(LatencyBounds()...)
	const writers, each = 8, 2000
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for i := range each {
				h.Observe(float64(i%4) * 4) // 0, 4, 8, 12: the last is over every bound
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		checkCumulative(t, h.Snapshot())
	}
	s := h.Snapshot()
	if want := uint64(writers * each); s.Count != want {
		t.Errorf("count %d, want %d", s.Count, want)
	}
	if want := float64(writers * each * 6); s.Sum != want {
		t.Errorf("sum %v, want %v", s.Sum, want)
	}
}

func checkCumulative(t *testing.T, s Snapshot) {
	t.Helper()
	var last uint64
	for i, n := range append(s.Cumulative, s.Count) {
		if n < last {
			t.Fatalf("bucket %d has %d after %d", i, n, last)
		}
		last = n
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	h := New(LatencyBounds()...)
	if n := testing.AllocsPerRun(100, func() { h.Observe(0.3) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	h := New(LatencyBounds()...)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.Observe(0.042)
		}
	})
}
