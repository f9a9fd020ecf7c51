package main

import (
	"runtime"
	"testing"

	"go.uber.org/zap"
)

// TestRunLoops: there is one loop a CPU unless a number is given, and with all of them
// busy, as many processors of Go's are left.
func TestRunLoops(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for n, want := range map[int]int{0: before, 1: 1, 3: 3} {
		runtime.GOMAXPROCS(before)
		e := newEdge("", zap.NewNop(), zap.NewAtomicLevel())
		e.runLoops(n)
		if got := runtime.GOMAXPROCS(0); e.srv.Loops != want || got != 2*want {
			t.Errorf("--loops %d: %d loops on %d processors, want %d on %d", n, e.srv.Loops, got, want, 2*want)
		}
	}
}
