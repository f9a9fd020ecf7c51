package proxy

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

// RemovalAction is what happens to the sessions of a backend that has left its pool for
// longer than the grace.
type RemovalAction uint8

const (
	// KeepSessions does nothing.
	KeepSessions RemovalAction = iota
	// DrainSessions drains it as an operator would.
	DrainSessions
	// CloseSessions closes all at once.
	CloseSessions
)

// absence is a backend that has left its pool and has sessions, or an operator's mark. The
// pool's mutex guards it.
type absence struct {
	name  uint64             // balance.HashString of its ID
	final bool               // the grace has passed
	stop  context.CancelFunc // ends the wait for its return
}

// reconcile brings drains and absences in line with the present set. The mutex is held.
func (p *pool) reconcile() {
	if p.stopped {
		return
	}
	known := map[*balance.Live]bool{}
	for _, b := range p.registry.Backends() {
		known[b.Live] = true
		if b.Live.State() == balance.StateRemoved {
			p.miss(b)
		} else {
			p.settle(b)
		}
	}
	for live, a := range p.absences {
		if !known[live] {
			a.stop()
			delete(p.absences, live)
		}
	}
	for live, d := range p.drains {
		if !known[live] {
			p.end(d, "removed")
		} else {
			d.schedule(false)
		}
	}
}

// settle starts or ends the drain of a backend that discovery knows. The mutex is held.
func (p *pool) settle(b *balance.Backend) {
	over := "undrained"
	if a := p.absences[b.Live]; a != nil {
		a.stop()
		delete(p.absences, b.Live)
		over = "it is back"
	}
	var by DrainCause
	switch {
	case b.Live.Has(balance.Drained):
		by = ByOperator
	case b.Status == discovery.Maintenance:
		by = ByConsul
	}
	switch d := p.drains[b.Live]; {
	case by == 0 && d == nil:
	case by == 0:
		if d.by == ByConsul {
			over = "its maintenance is over"
		}
		p.end(d, over)
	case d == nil:
		p.begin(b, by, DrainPace{})
	case d.by != by:
		d.by, d.asked, d.atOnce = by, DrainPace{}, time.Time{}
		d.schedule(false)
	}
}

// miss notes that a backend has left, and waits for its return. A drain goes on. The mutex
// is held.
func (p *pool) miss(b *balance.Backend) {
	if p.absences[b.Live] != nil {
		return
	}
	a := &absence{name: balance.HashString(b.ID), stop: func() {}}
	p.absences[b.Live] = a
	grace := p.view.RemovalGrace
	if grace == 0 {
		p.give(b, a)
		return
	}
	a.stop = p.srv.start(func(ctx context.Context) {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.absences[b.Live] == a && !p.stopped {
			p.give(b, a)
		}
	})
}

// awaits reports whether a backend, by the hash of its ID, has left, may be back within the grace
// and will then take what is its own: it was not drained.
func (p *pool) awaits(name uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for live, a := range p.absences {
		if a.name == name {
			return !a.final && p.drains[live] == nil && !live.Has(balance.Drained)
		}
	}
	return false
}

// give gives up waiting for a backend. What an operator wanted of it is forgotten, or the
// registry would keep it for ever. The mutex is held.
func (p *pool) give(b *balance.Backend, a *absence) {
	a.final = true
	b.Live.Set(balance.Drained, false)
	d, left := p.drains[b.Live], b.Live.Load()
	p.log.Info("backend does not come back", zap.String("backend", b.ID), zap.Int64("sessions", b.Live.Sessions()))
	switch {
	case left == 0:
		if d != nil {
			p.end(d, "removed")
		}
		delete(p.absences, b.Live)
		return
	case p.view.OnRemoved == KeepSessions:
		return
	case d == nil:
		d = p.begin(b, ByRemoval, DrainPace{})
	}
	d.by = ByRemoval
	if p.view.OnRemoved == CloseSessions {
		d.atOnce = time.Now()
	}
	d.schedule(false)
}

// stopLeaving ends all drains and the rebalancing and waits for nothing: the edge is about to
// close all sessions.
func (p *pool) stopLeaving() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.stopRebalancing()
	for _, d := range p.drains {
		d.stop()
	}
	for _, a := range p.absences {
		a.stop()
	}
	clear(p.drains)
	clear(p.absences)
}
