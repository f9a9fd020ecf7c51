package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
)

// DrainSettings say how the sessions of a draining backend leave it.
type DrainSettings struct {
	// Rate is how many leave a second. 0 leaves it to Window: those that there are at the
	// start are spread over it, and those that come late follow at the same distance; 0 of
	// both is no pace at all.
	Rate   float64
	Window time.Duration
	// Deadline is when all that are left are closed, after the start; 0 is never.
	Deadline time.Duration
	// Code and Reason are what clients are told.
	Code   ws.StatusCode
	Reason string
	Order  DrainOrder
}

// DrainOrder says which session leaves first.
type DrainOrder uint8

const (
	OldestFirst DrainOrder = iota
	// IdleFirst begins with those that have had no message, either way, for longest. Who
	// that is comes from looks at their counters, see sampleEvery.
	IdleFirst
	RandomOrder
)

// DrainPace is what an operator asks of one drain; nil leaves it to the pool's settings. A
// Window without a Rate also holds where the settings have a rate.
type DrainPace struct {
	Rate             *float64
	Window, Deadline *time.Duration
}

// of returns settings with what was asked for in place.
func (p DrainPace) of(s DrainSettings) DrainSettings {
	if p.Window != nil {
		s.Window, s.Rate = *p.Window, 0
	}
	if p.Rate != nil {
		s.Rate = *p.Rate
	}
	if p.Deadline != nil {
		s.Deadline = *p.Deadline
	}
	return s
}

// slot is how far apart n sessions leave.
func (s DrainSettings) slot(n int64) time.Duration {
	if s.Rate > 0 {
		return time.Duration(float64(time.Second) / s.Rate)
	}
	return s.Window / time.Duration(max(n, 1))
}

// DrainCause is who wants a backend drained.
type DrainCause uint8

const (
	// ByOperator is a call of Drain.
	ByOperator DrainCause = iota + 1
	// ByConsul is its maintenance, of which discovery tells.
	ByConsul
	// ByRemoval is that it has left its pool for longer than the grace.
	ByRemoval
)

// String returns the word of the API.
func (c DrainCause) String() string {
	return [...]string{"nobody", "operator", "consul", "removal"}[c]
}

// Errors of Drain and Undrain that have a meaning for who asks.
var (
	ErrNoPool     = errors.New("no such pool")
	ErrNoBackend  = errors.New("no such backend in this pool")
	ErrNotDrained = errors.New("this backend is not drained")
	ErrMaintained = errors.New("its maintenance in Consul drains this backend: end it there")
	// ErrBadPace is wrapped with what is wrong.
	ErrBadPace = errors.New("bad pace")
)

// drain is one backend whose sessions leave. It lasts until nobody wants it any more, also
// when none is left. What has no other word is guarded by the pool's mutex.
type drain struct {
	pool    *pool
	backend *balance.Backend
	since   time.Time
	by      DrainCause
	asked   DrainPace
	paced   DrainSettings      // what the plan was made of
	atOnce  time.Time          // from when on all are closed without a pace; zero: there is one
	stop    context.CancelFunc // ends its goroutine
	done    chan struct{}      // closed when that has ended

	plan    atomic.Pointer[drainPlan]
	wake    chan struct{} // capacity 1: there is a new plan, or a backend that may take sessions
	waiting atomic.Bool   // nobody else takes sessions
}

// drainPlan is how a drain goes on. It is immutable.
type drainPlan struct {
	pace     int // counts paces: with another one the slots begin anew
	slot     time.Duration
	deadline time.Time // zero: none
	alone    bool      // goes on though no other backend takes sessions
	order    DrainOrder
	code     ws.StatusCode
	reason   string
	why      string // of session_ends_total
}

// DrainView is a drain as it stands.
type DrainView struct {
	By        DrainCause
	Since     time.Time
	Deadline  time.Time // zero: none
	PerSecond float64   // 0: all at once
	Remaining int64     // sessions
	Waiting   bool      // no other backend takes sessions
}

func (d *drain) show() DrainView {
	plan := d.plan.Load()
	return DrainView{By: d.by, Since: d.since, Deadline: plan.deadline, PerSecond: plan.perSecond(),
		Remaining: d.backend.Live.Sessions(), Waiting: d.waiting.Load()}
}

// begin starts to drain a backend. The mutex is held.
func (p *pool) begin(b *balance.Backend, by DrainCause, asked DrainPace) *drain {
	d := &drain{pool: p, backend: b, since: time.Now(), by: by, asked: asked, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	p.drains[b.Live] = d
	d.schedule(true)
	p.log.Info("drain begins", zap.String("backend", b.ID), zap.Stringer("by", by), zap.Int64("sessions", b.Live.Sessions()),
		zap.Float64("per_second", d.plan.Load().perSecond()))
	d.stop = p.srv.start(func(ctx context.Context) {
		defer close(d.done)
		(&draining{drain: d, leavers: leavers{srv: p.srv, live: b.Live}}).run(ctx)
	})
	return d
}

// schedule makes a drain's plan of the pool's settings and what was asked for. A new pace
// begins if it is another one, or anew. The mutex is held.
func (d *drain) schedule(anew bool) {
	p := d.pool
	s := d.asked.of(p.view.Drain)
	next := &drainPlan{alone: p.closed, order: s.Order, code: s.Code, reason: s.Reason, why: WhyDrain}
	if d.by == ByRemoval {
		next.why = WhyRemoved
	}
	if s.Deadline > 0 {
		next.deadline = d.since.Add(s.Deadline)
	}
	if !d.atOnce.IsZero() {
		next.deadline = d.atOnce
	}
	if now := d.plan.Load(); now != nil {
		next.pace, next.slot = now.pace, now.slot
	}
	if before := d.paced; anew || before.Rate != s.Rate || before.Window != s.Window {
		next.pace++
		next.slot = s.slot(d.backend.Live.Load())
	}
	d.paced = s
	d.plan.Store(next)
	d.look()
}

// look makes the drain look at once at what has changed.
func (d *drain) look() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// perSecond is how many leave a second, 0 for all at once.
func (p *drainPlan) perSecond() float64 {
	if p.slot == 0 {
		return 0
	}
	return float64(time.Second) / float64(p.slot)
}

// end ends a drain for whom nobody asks any more; what is left stays. The mutex is held.
func (p *pool) end(d *drain, why string) {
	d.stop()
	delete(p.drains, d.backend.Live)
	p.log.Info("drain is over", zap.String("backend", d.backend.ID), zap.String("why", why), zap.Int64("sessions", d.backend.Live.Sessions()))
}

// ranOut is told by a drain whose last session has gone. A backend that discovery knows
// stays drained; one that has left for good is nobody's concern any more.
func (p *pool) ranOut(d *drain) {
	p.log.Info("drain has run out of sessions", zap.String("backend", d.backend.ID), zap.Duration("after", time.Since(d.since)))
	p.mu.Lock()
	defer p.mu.Unlock()
	live := d.backend.Live
	if a := p.absences[live]; p.drains[live] == d && a != nil && a.final {
		delete(p.drains, live)
		delete(p.absences, live)
	}
}

// drain starts to drain a backend for the operator, or changes the pace of its drain.
func (p *pool) drain(id string, asked DrainPace) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.find(id)
	switch s := asked.of(p.view.Drain); {
	case p.stopped:
		return ErrStopping
	case b == nil:
		return ErrNoBackend
	case s.Rate == 0 && s.Deadline > 0 && s.Window > s.Deadline:
		return fmt.Errorf("%w: window %v is longer than deadline %v", ErrBadPace, s.Window, s.Deadline)
	}
	if a := p.absences[b.Live]; a == nil || !a.final {
		b.Live.Set(balance.Drained, true) // also should it flap
	}
	if d := p.drains[b.Live]; d == nil {
		p.begin(b, ByOperator, asked)
	} else {
		d.by, d.asked = ByOperator, asked
		d.schedule(true)
		p.log.Info("drain has a new pace", zap.String("backend", id), zap.Float64("per_second", d.plan.Load().perSecond()))
	}
	return nil
}

// undrain takes back what the operator wanted of a backend. It returns the drain that has
// ended thereby; nil: discovery wants it to go on.
func (p *pool) undrain(id string) (ended *drain, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.find(id)
	switch {
	case p.stopped:
		return nil, ErrStopping
	case b == nil:
		return nil, ErrNoBackend
	}
	d := p.drains[b.Live]
	switch {
	case d == nil:
		return nil, ErrNotDrained
	case d.by == ByConsul && p.absences[b.Live] == nil:
		return nil, ErrMaintained
	}
	b.Live.Set(balance.Drained, false)
	if p.absences[b.Live] == nil {
		p.settle(b)
	} else {
		p.end(d, "undrained")
	}
	p.lookAgain()
	if p.drains[b.Live] == d {
		return nil, nil
	}
	return d, nil
}

// find returns a backend that discovery knows, or one that has left and has sessions, or
// nil. The mutex is held.
func (p *pool) find(id string) *balance.Backend {
	for _, b := range p.registry.Backends() {
		if b.ID == id {
			return b
		}
	}
	return nil
}

// lookAgain makes drains that wait for a backend to take sessions look for one. The mutex
// is held.
func (p *pool) lookAgain() {
	for _, d := range p.drains {
		d.look()
	}
}

// refuge reports whether a backend other than the given one takes sessions.
func (p *pool) refuge(not *balance.Live) bool {
	p.mu.Lock()
	set := p.set
	p.mu.Unlock()
	for _, b := range set.Backends() {
		if b.Live != not && b.Weight > 0 && b.Live.Eligible() {
			return true
		}
	}
	return false
}
