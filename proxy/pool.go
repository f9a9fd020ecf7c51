package proxy

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/internal/histogram"
)

// pool is what lasts of a pool while configurations and sets of backends come and go.
type pool struct {
	name       string
	srv        *Server
	log        *zap.Logger
	registry   *balance.Registry
	health     *health.Monitor
	connect    *histogram.Histogram // how long it took to reach backends
	picker     atomic.Pointer[balance.Picker]
	moved      moveStats
	rebalanced atomic.Uint64 // sessions
	turn       atomic.Uint32 // of the source addresses
	traffic    traffic
	reports    atomic.Pointer[string] // the header, in canonical form, that has reports of load; nil: none counts

	measured  string // the policy that is measured for; with unmeasure guarded by Server.applying
	unmeasure context.CancelFunc

	mu     sync.Mutex
	slots  []*watch
	silent chan struct{} // closed when a source has spoken or the pool is gone; nil: one has
	set    *balance.Set
	view   *poolView // under the last configuration that has it
	closed bool      // the present one does not have it

	// Backends that are drained, and those that have left and are not forgotten.
	drains   map[*balance.Live]*drain
	absences map[*balance.Live]*absence
	stopped  bool               // the edge ends: nothing is drained or rebalanced any more
	rest     context.CancelFunc // ends the monitor; nil: it does not run

	transport   *http.Transport // of requests; nil before the first settings
	transportOf UpstreamSettings

	rebalancer *rebalancer // nil: nobody looks at who has too many
}

// watch is one running source of a pool.
type watch struct {
	SourceSettings
	last   *discovery.Snapshot // what it, or the source in whose place it is, said last
	cancel context.CancelFunc
}

// poolView is a pool under one configuration.
type poolView struct {
	*pool
	PoolSettings
	policy    balance.Policy
	transport *http.Transport // from apply on
}

func newPool(name string, srv *Server) *pool {
	log := srv.log.With(zap.String("pool", name))
	return &pool{name: name, srv: srv, log: log, registry: balance.NewRegistry(), health: health.New(log),
		connect: histogram.New(histogram.LatencyBounds()...), drains: map[*balance.Live]*drain{}, absences: map[*balance.Live]*absence{}}
}

// apply brings a pool to new settings: sources that are the same go on, a source that
// takes another's place leaves that one's set in force until it has spoken.
func (p *pool) apply(v *poolView) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.slots
	p.slots = nil
	for _, s := range v.Sources {
		i := slices.IndexFunc(old, func(w *watch) bool { return w.Slot == s.Slot })
		if i >= 0 && old[i].Key == s.Key {
			p.slots = append(p.slots, old[i])
			old = slices.Delete(old, i, i+1)
			continue
		}
		w := &watch{SourceSettings: s}
		if i >= 0 {
			w.last = old[i].last
		}
		if known, ok := s.Source.(discovery.Known); ok {
			w.last = known.Snapshot() // in force from the commit on
		}
		p.slots = append(p.slots, w)
		w.cancel = p.srv.start(func(ctx context.Context) { p.watch(ctx, w) })
	}
	for _, w := range old {
		w.cancel()
	}
	p.view, p.closed = v, false
	v.transport = p.transportFor(v.Upstream)
	p.moved.bound(v.Migrate)
	p.reports.Store(v.reportHeader())
	p.health.Apply(v.healthSettings())
	if p.rest == nil {
		p.rest = p.srv.start(p.health.Run)
	}
	p.rebalanceBy(v)
	if p.silent == nil && len(p.slots) > 0 && !p.spoken() {
		p.silent = make(chan struct{})
	}
	p.rebuild()
}

// spoken reports whether any source has said something. The mutex is held.
func (p *pool) spoken() bool {
	return slices.ContainsFunc(p.slots, func(w *watch) bool { return w.last != nil })
}

// hear waits for the first word of a pool that is so new that no source of it has spoken,
// until ctx is done. What was said is in force when it returns.
func (p *pool) hear(ctx context.Context) {
	p.mu.Lock()
	silent := p.silent
	p.mu.Unlock()
	if silent == nil {
		return
	}
	select {
	case <-silent:
	case <-ctx.Done():
	}
}

// close ends the sources and the monitor. The backends count as removed, under the last
// settings that the pool had; it reports whether any of them still has sessions.
func (p *pool) close() bool {
	p.stopMeasuring()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.slots {
		w.cancel()
	}
	p.slots, p.closed = nil, true
	p.transport.CloseIdleConnections()
	if p.rest != nil {
		p.rest()
		p.rest = nil
	}
	p.stopRebalancing()
	p.rebuild()
	p.health.Retire()
	return len(p.registry.Backends()) > 0
}

func (p *pool) watch(ctx context.Context, w *watch) {
	err := w.Source.Watch(ctx, func(s *discovery.Snapshot) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !slices.Contains(p.slots, w) {
			return
		}
		before := w.last
		w.last = s
		if before == nil || !discovery.SameInstances(before, s) {
			p.rebuild() // otherwise the turns of the picker go on
		}
	})
	if err != nil && ctx.Err() == nil {
		p.log.Error("discovery has ended", zap.String("source", w.Slot), zap.Error(err))
	}
}

// rebuild makes the next set and its picker. The mutex is held.
func (p *pool) rebuild() {
	var all []discovery.Instance
	for _, w := range p.slots {
		if w.last != nil {
			all = append(all, w.last.Instances...)
		}
	}
	// Of two sources that know an ID the first in the configuration wins.
	merged := discovery.NewSnapshot(0, all)
	before := p.set
	p.set = p.registry.Update(merged.Instances)
	p.health.Update(p.set, len(p.slots) > 0 && !slices.ContainsFunc(p.slots, func(w *watch) bool { return w.last == nil }))
	picker := p.view.policy(p.set)
	p.picker.Store(&picker)
	if p.silent != nil && (p.spoken() || len(p.slots) == 0) {
		close(p.silent)
		p.silent = nil
	}
	p.logChange(before)
	p.reconcile()
}

func (p *pool) logChange(before *balance.Set) {
	known := map[string]discovery.Instance{}
	if before != nil {
		for _, b := range before.Backends() {
			known[b.ID] = b.Instance
		}
	}
	for _, b := range p.set.Backends() {
		was, ok := known[b.ID]
		delete(known, b.ID)
		if !ok || !was.Equal(b.Instance) {
			p.log.Info("backend", zap.String("backend", b.ID), zap.String("address", b.Addr), zap.Int("weight", b.Weight),
				zap.Stringer("state", b.Live.State()), zap.Bool("new", !ok))
		}
	}
	for id := range known {
		p.log.Info("backend removed", zap.String("backend", id))
	}
}

// pick reserves a backend.
func (p *pool) pick(req balance.Request) (*balance.Backend, error) {
	return (*p.picker.Load()).Pick(req)
}

// PoolView is a pool as it stands, for whoever shows it.
type PoolView struct {
	Name, Policy string
	// Backends are those of the present set and removed ones that still have sessions.
	Backends []*balance.Backend
	// Index and Stale are those of the latest snapshot of a source that has them.
	Index uint64
	Stale bool
	// Panic says that all backends are used because too few are healthy.
	Panic bool
	// Reasons are why health has backends ejected or warming, by id; untrusted text.
	Reasons map[string]string
	// Sources are those that run.
	Sources []discovery.Source
	Connect histogram.Snapshot
	// Drains are those of its backends that are drained, by ID.
	Drains map[string]DrainView
	// Migrations are moves of sessions by their result, InDoubt the messages of which
	// nobody knows whether a backend that was lost has dealt with them.
	Migrations map[string]uint64
	InDoubt    uint64
	// Rebalanced is how many sessions were moved or closed because their backend had more
	// than its share, Rebalancing nil while none are.
	Rebalanced  uint64
	Rebalancing *RebalanceView
}

// show returns the pool as it stands.
func (p *pool) show() PoolView {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := PoolView{Name: p.name, Policy: p.view.Balance.Policy, Backends: p.registry.Backends(), Connect: p.connect.Snapshot(),
		Drains: map[string]DrainView{}}
	fitness := p.health.View()
	out.Panic, out.Reasons = fitness.Panic, fitness.Reasons
	out.Migrations, out.InDoubt = p.moved.view()
	out.Rebalanced = p.rebalanced.Load()
	if r := p.rebalancer; r != nil {
		out.Rebalancing = r.view.Load()
	}
	for _, d := range p.drains {
		out.Drains[d.backend.ID] = d.show()
	}
	for _, w := range p.slots {
		out.Sources = append(out.Sources, w.Source)
		if w.last != nil {
			out.Index = max(out.Index, w.last.Index)
			out.Stale = out.Stale || w.last.Stale
		}
	}
	return out
}
