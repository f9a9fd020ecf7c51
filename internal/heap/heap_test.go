package heap

import (
	"runtime/debug"
	"testing"
	"time"
)

// TestDue is when memory goes back to the system.
func TestDue(t *testing.T) {
	const mib = 1 << 20
	state := func(objects, live, free uint64) State {
		return State{Objects: objects * mib, Live: live * mib, Free: free * mib}
	}
	start := time.Now()
	quiet := keeper{opened: 9000}
	tests := []struct {
		name     string
		keeper   keeper
		after    time.Duration
		activity Activity
		state    State
		want     bool
	}{
		{"quiet after a burst", quiet, 0, Activity{Opened: 9000, Live: 9000}, state(40, 25, 5), true},
		{"free pages alone", quiet, 0, Activity{Opened: 9000, Live: 9000}, state(25, 25, 10), true},
		{"sessions are opening", keeper{opened: 8000}, 0, Activity{Opened: 9000, Live: 9000}, state(40, 25, 5), false},
		{"a handshake is under way", quiet, 0, Activity{Opened: 9000, Live: 9000, Handshaking: 1}, state(40, 25, 5), false},
		{"never quiet for a minute", keeper{opened: 8000}, time.Minute, Activity{Opened: 9000, Live: 9000}, state(40, 25, 5), true},
		{"little to gain", quiet, 0, Activity{Opened: 9000}, state(40, 36, 4), false},
		{"a small process", quiet, 0, Activity{Opened: 9000}, State{Objects: mib, Live: mib / 2, Free: mib / 4}, false},
		{"too soon after the last time", keeper{opened: 9000, next: start.Add(time.Second)}, 0, Activity{Opened: 9000}, state(40, 10, 5), false},
		{"most sessions have ended", keeper{opened: 9000, most: 9000}, 0, Activity{Opened: 9000, Live: 500}, state(25, 25, 0), true},
		{"some sessions have ended", keeper{opened: 9000, most: 9000}, 0, Activity{Opened: 9000, Live: 8000}, state(25, 25, 0), false},
		{"few sessions have ended", keeper{opened: 9000, most: 50}, 0, Activity{Opened: 9000}, state(25, 25, 0), false},
		{"GOGC=off", quiet, 0, Activity{Opened: 9000}, State{Objects: 40 * mib, Free: 5 * mib, off: true}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := tt.keeper
			k.calm = start
			if got := k.due(start.Add(tt.after), tt.activity, tt.state); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	// A storm after a long silence is left alone.
	k := keeper{calm: start}
	k.due(start.Add(time.Hour), Activity{}, state(25, 25, 0))
	if k.due(start.Add(time.Hour+time.Second), Activity{Opened: 1000, Live: 1000}, state(40, 25, 5)) {
		t.Error("due in the first second of a storm")
	}
	if s := read(); s.Objects == 0 || s.off {
		t.Errorf("the heap of this process is %+v", s)
	}
}

// TestRest: collections take a fiftieth of the time at most.
func TestRest(t *testing.T) {
	start := time.Now()
	for took, want := range map[time.Duration]time.Duration{2 * time.Second: 100 * time.Second, time.Millisecond: returnPause} {
		var k keeper
		if k.done(start, 5, took); !k.next.Equal(start.Add(want)) || k.most != 5 {
			t.Errorf("after one that took %s the next may come in %s, want %s", took, k.next.Sub(start), want)
		}
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
