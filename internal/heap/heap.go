// Package heap keeps the Go heap of a program whose garbage is handshakes.
//
// Sessions leave no garbage while they live, handshakes do: about 30 KiB each with TLS, ten
// times what an idle session holds.
//
// While handshakes come, the collector lets the heap grow by 32 MiB before it runs, or by
// as much as it holds if that is more. (Go's own rule, which for a small heap is 4 MiB,
// means ten collections a second during a storm of reconnects.)
//
// Once it is quiet, a collection is run and what is free goes back to the system, which
// would otherwise take minutes: a program whose clients have all just connected would look
// several times as big as it is.
package heap

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	growBytes = 32 << 20
	// growStep is by how much the setting of the collector has to be off to be changed,
	// which stops the program for a moment.
	growStep = 0.2

	// lookEvery is how often the heap is looked at.
	lookEvery = time.Second
	// Returning memory is worth it for returnShare of the heap, and at least returnBytes;
	// or when as large a share of the sessions, and at least returnSessions, has ended.
	returnShare    = 0.25
	returnBytes    = 1 << 20
	returnSessions = 100
	// returnPause is the least time between two collections of this kind, and returnRest
	// how many times as long as the last one took it is.
	returnPause = 5 * time.Second
	returnRest  = 50
	// returnAnyway is after how long without a quiet moment it is done nevertheless.
	returnAnyway = time.Minute
)

// Activity is what the program does, as far as it concerns the heap.
type Activity struct {
	Opened      uint64 // sessions ever
	Live        int    // sessions
	Handshaking int
}

// State is what the heap holds, in bytes.
type State struct {
	Objects uint64 // dead ones that were not found yet included
	Live    uint64 // what the last collection has found alive
	Free    uint64 // without objects, and not returned
	off     bool   // the operator has turned the collector off (GOGC=off)
}

func read() State {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return State{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64() == math.MaxUint64}
}

// Keep looks after the heap until ctx is done. Now tells what the program does; returned is
// called after memory was returned to the system, with the state before and how long that
// took. A GOGC of the operator's own stays as it is, with GOGC=off nothing is collected,
// and a GOMEMLIMIT goes before all.
func Keep(ctx context.Context, now func() Activity, returned func(before State, took time.Duration)) {
	k, percent := keeper{calm: time.Now()}, 100
	own := os.Getenv("GOGC") != ""
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a, s := now(), read()
		if !own {
			percent = grow(percent, s.Live)
		}
		if !k.due(time.Now(), a, s) {
			continue
		}
		start := time.Now()
		debug.FreeOSMemory()
		took := time.Since(start)
		k.done(time.Now(), a.Live, took)
		returned(s, took)
	}
}

// growth is the value of GOGC, in percent, that lets a heap grow by growBytes or double,
// whatever is more.
func growth(live uint64) int {
	// Below 4 MiB the collector takes the heap for one of 4 MiB.
	return int(max(100, 100*growBytes/max(live, 4<<20)))
}

// grow sets the collector's percentage for a heap of this size, unless it is about right,
// and returns what is set.
func grow(percent int, live uint64) int {
	want := growth(live)
	if math.Abs(float64(want-percent)) > growStep*float64(percent) {
		debug.SetGCPercent(want)
		return want
	}
	return percent
}

// keeper decides when memory is returned.
type keeper struct {
	opened uint64    // sessions ever, when last looked
	most   int       // sessions since memory was last returned
	calm   time.Time // when it was last quiet, or memory returned
	next   time.Time // not before
}

// due reports whether memory should be returned now: once no session has opened since the
// last look, and no handshake is under way, if enough could be free.
func (k *keeper) due(now time.Time, a Activity, s State) bool {
	quiet := a.Opened == k.opened && a.Handshaking == 0
	k.opened, k.most = a.Opened, max(k.most, a.Live)
	if quiet {
		k.calm = now
	}
	if s.off || now.Before(k.next) || !quiet && now.Sub(k.calm) < returnAnyway {
		return false
	}
	gain := s.Free
	if s.Objects > s.Live {
		gain += s.Objects - s.Live
	}
	// Sessions that have ended are garbage that only a collection finds.
	ended := k.most - a.Live
	return gain >= returnBytes && float64(gain) >= returnShare*float64(s.Objects+s.Free) ||
		ended >= returnSessions && float64(ended) >= returnShare*float64(k.most)
}

// done notes that memory was returned.
func (k *keeper) done(now time.Time, sessions int, took time.Duration) {
	k.most, k.calm, k.next = sessions, now, now.Add(max(returnPause, returnRest*took))
}
