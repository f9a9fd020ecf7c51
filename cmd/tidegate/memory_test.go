package main

import (
	"runtime/debug"
	"testing"
	"time"
)

// TestGiveBack is when memory goes back to the system.
func TestGiveBack(t *testing.T) {
	const mib = 1 << 20
	heap := func(objects, live, free uint64) heapState {
		return heapState{objects: objects * mib, live: live * mib, free: free * mib}
	}
	start := time.Now()
	tests := []struct {
		name        string
		giver       giver
		after       time.Duration
		opened      uint64
		sessions    int
		handshaking int
		heap        heapState
		want        bool
	}{
		{name: "quiet after a burst", giver: giver{opened: 9000}, opened: 9000, sessions: 9000, heap: heap(40, 25, 5), want: true},
		{name: "free pages alone", giver: giver{opened: 9000}, opened: 9000, sessions: 9000, heap: heap(25, 25, 10), want: true},
		{name: "sessions are opening", giver: giver{opened: 8000}, opened: 9000, sessions: 9000, heap: heap(40, 25, 5)},
		{name: "a handshake is under way", giver: giver{opened: 9000}, opened: 9000, handshaking: 1, heap: heap(40, 25, 5)},
		{name: "never quiet for a minute", giver: giver{opened: 8000}, after: time.Minute, opened: 9000, heap: heap(40, 25, 5), want: true},
		{name: "little to gain", giver: giver{opened: 10}, opened: 10, heap: heap(40, 36, 4)},
		{name: "a small process", giver: giver{opened: 10}, opened: 10, heap: heapState{objects: mib, live: mib / 2, free: mib / 4}},
		{name: "too soon after the last time", giver: giver{opened: 10, next: start.Add(time.Second)}, opened: 10, heap: heap(40, 10, 5)},
		{name: "most sessions have ended", giver: giver{opened: 9000, sessions: 9000}, opened: 9000, sessions: 500, heap: heap(25, 25, 0), want: true},
		{name: "some sessions have ended", giver: giver{opened: 9000, sessions: 9000}, opened: 9000, sessions: 8000, heap: heap(25, 25, 0)},
		{name: "GOGC=off", giver: giver{opened: 9000}, opened: 9000, heap: heapState{objects: 40 * mib, free: 5 * mib, off: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := tt.giver
			g.last = start
			if got := g.due(start.Add(tt.after), tt.opened, tt.sessions, tt.handshaking, tt.heap); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}

	var g giver
	g.done(start, 5, 2*time.Second)
	if want := start.Add(100 * time.Second); !g.next.Equal(want) {
		t.Errorf("after one that took 2 s the next may come in %s", g.next.Sub(start))
	}
	g.done(start, 5, time.Millisecond)
	if want := start.Add(giveBackPause); !g.next.Equal(want) {
		t.Errorf("after one that took 1 ms the next may come in %s", g.next.Sub(start))
	}
	if h := readHeap(); h.objects == 0 || h.off {
		t.Errorf("the heap of this process is %+v", h)
	}
}

// TestGrowth is how far the heap grows before a collection.
func TestGrowth(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, 16 << 20: 200, 32 << 20: 100, 1 << 30: 100} {
		if got := growth(live); got != want {
			t.Errorf("%d bytes: %d %%, want %d", live, got, want)
		}
	}
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	if got := grow(100, 16<<20); got != 200 || debug.SetGCPercent(200) != 200 {
		t.Errorf("set to %d", got)
	}
	if got := grow(200, 15<<20); got != 200 {
		t.Errorf("a small change set it to %d", got)
	}
}
