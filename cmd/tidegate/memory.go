package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"go.uber.org/zap"
)

// Sessions leave no garbage while they live, handshakes do: about 30 KiB each with TLS, ten
// times what an idle session holds.
//
// While handshakes come, the collector lets the heap grow by growBytes before it runs, or
// by as much as it holds if that is more (Go's own rule, which for a small heap is 4 MiB
// and means ten collections a second during a storm of reconnects).
//
// Once it is quiet, a collection is run and what is free goes back to the system, which
// would otherwise take minutes: an edge whose clients have all just connected would look
// several times as big as it is.
const (
	growBytes = 32 << 20
	// growStep is by how much the setting of the collector has to be off to be changed,
	// which stops the program for a moment.
	growStep = 0.2

	// giveBackEvery is how often memory is looked at.
	giveBackEvery = time.Second
	// Returning is worth it for giveBackShare of the heap, and at least giveBackBytes.
	giveBackShare = 0.25
	giveBackBytes = 1 << 20
	// giveBackPause is the least time between two collections of this kind, and
	// giveBackRest how many times as long as the last one took it is.
	giveBackPause = 5 * time.Second
	giveBackRest  = 50
	// giveBackAnyway is after how long it is done though the edge is never quiet.
	giveBackAnyway = time.Minute
)

// heapState is what the decision to return memory goes by.
type heapState struct {
	objects uint64 // bytes of objects, dead ones that were not found yet included
	live    uint64 // bytes of what the last collection has found alive
	free    uint64 // bytes without objects that are not returned
	off     bool   // the operator has turned the collector off (GOGC=off)
}

func readHeap() heapState {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return heapState{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64() == math.MaxUint64}
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

// giver decides when memory is returned.
type giver struct {
	opened   uint64 // sessions ever, when last looked
	sessions int    // the most since memory was last returned
	last     time.Time
	next     time.Time // not before
}

// due reports whether memory should be returned now: once no session has opened since the
// last look, and no handshake is under way, if enough could be free.
func (g *giver) due(now time.Time, opened uint64, sessions, handshaking int, h heapState) bool {
	quiet := opened == g.opened && handshaking == 0
	g.opened = opened
	if h.off || now.Before(g.next) || !quiet && now.Sub(g.last) < giveBackAnyway {
		return false
	}
	gain := h.free
	if h.objects > h.live {
		gain += h.objects - h.live
	}
	// Sessions that have ended are garbage that only a collection finds.
	ended := g.sessions - sessions
	return gain >= giveBackBytes && float64(gain) >= giveBackShare*float64(h.objects+h.free) ||
		ended >= 100 && float64(ended) >= giveBackShare*float64(g.sessions)
}

// done notes that memory was returned.
func (g *giver) done(now time.Time, sessions int, took time.Duration) {
	g.sessions, g.last, g.next = sessions, now, now.Add(max(giveBackPause, giveBackRest*took))
}

// keepHeap lets the heap grow while handshakes come and returns memory to the system when
// that is due, until ctx is done. A GOGC of the operator's own stays as it is, and a
// GOMEMLIMIT goes before all.
func (e *edge) keepHeap(ctx context.Context) {
	g, percent := giver{last: time.Now()}, 100
	own := os.Getenv("GOGC") != ""
	for tick := time.NewTicker(giveBackEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		t, h := e.srv.Totals(), readHeap()
		if !own {
			percent = grow(percent, h.live)
		}
		if !g.due(time.Now(), t.Opened, t.Live, t.Handshaking, h) {
			g.sessions = max(g.sessions, t.Live)
			continue
		}
		start := time.Now()
		debug.FreeOSMemory()
		now := time.Now()
		g.done(now, t.Live, now.Sub(start))
		e.log.Debug("memory returned", zap.Uint64("free", h.free), zap.Uint64("objects", h.objects), zap.Uint64("live", h.live),
			zap.Duration("took", now.Sub(start)))
	}
}
