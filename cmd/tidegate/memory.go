package main

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"go.uber.org/zap"
)

// Handshakes leave garbage: about 30 KiB each with TLS, ten times what an idle session
// holds. The collector is in no hurry with it, since it waits until the heap has doubled
// (GOGC), and what it frees goes back to the system slowly. An edge whose clients have all
// just connected would look several times as big as it is for as long as it is quiet. So
// once it is quiet, a collection is run and what is free returned.
const (
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

// giveBack returns memory to the system when it is due, until ctx is done.
func (e *edge) giveBack(ctx context.Context) {
	g := giver{last: time.Now()}
	for tick := time.NewTicker(giveBackEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		t, h := e.srv.Totals(), readHeap()
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
