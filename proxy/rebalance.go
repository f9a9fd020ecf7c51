package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// RebalanceSettings say how sessions leave backends that have more than their share.
type RebalanceSettings struct {
	// On says that the pool is looked at every Interval, at about. Otherwise it is only when
	// Server.Rebalance asks for it.
	On       bool
	Interval time.Duration
	// Tolerance is which multiple of its share a backend may have before it gives away what is
	// too much. It is at least 1.
	Tolerance float64
	// Rate is how many sessions leave a second, of the pool as a whole; more than 0.
	Rate float64
	// MinAge is how old a session is at least that leaves.
	MinAge time.Duration
}

// hashedPolicy is the policy whose sessions are where a hash says.
const hashedPolicy = "consistent_hash"

func (s *PoolSettings) hashed() bool { return s.Balance.Policy == hashedPolicy }

// RebalanceView is a rebalancing as it stands.
type RebalanceView struct {
	Remaining int64 // sessions that are to leave, or about to
	PerSecond float64
	Waiting   bool // a backend is warming up, or unhealthy
}

// Errors of Server.Rebalance that have a meaning for who asks.
var (
	ErrHashed = errors.New("the sessions of this pool are where its hash says: they are not rebalanced")
	// ErrStrict says that a strictly sticky route leads to a pool that is rebalanced.
	ErrStrict = errors.New("its sessions stay with their backends, and its pool is rebalanced")
	// ErrUnsettled is wrapped with which backend is what.
	ErrUnsettled = errors.New("nothing is rebalanced while a backend is new or unhealthy")
)

func unsettled(b *balance.Backend) error {
	return fmt.Errorf("%w: %s is %s", ErrUnsettled, b.ID, b.Live.State())
}

// rebalancer spreads the sessions of one pool. It lasts as long as the pool's settings want
// one, or until what was asked for is done.
type rebalancer struct {
	pool *pool
	stop context.CancelFunc // ends its goroutine
	done chan struct{}      // closed when that has ended
	plan atomic.Pointer[rebalancePlan]
	wake chan struct{} // capacity 1: there is a new plan, or a move is over
	asks chan chan<- rebalanceAnswer
	view atomic.Pointer[RebalanceView] // nil: all are where they are to be

	asked int // who have not been answered; the pool's mutex guards it
}

// rebalancePlan is how a rebalancing goes on. It is immutable.
type rebalancePlan struct {
	RebalanceSettings
	closes bool // sessions that cannot be moved
}

type rebalanceAnswer struct {
	view RebalanceView
	err  error
}

// rebalanceBy follows new settings. The mutex is held.
func (p *pool) rebalanceBy(v *poolView) {
	switch r := p.rebalancer; {
	case p.stopped:
	case r != nil && (v.hashed() || r.plan.Load().On && !v.Rebalance.On):
		p.stopRebalancing()
	case r != nil:
		r.plan.Store(v.rebalancePlan())
		r.look()
	case v.Rebalance.On && !v.hashed():
		p.startRebalancing(v)
	}
}

func (v *poolView) rebalancePlan() *rebalancePlan {
	return &rebalancePlan{RebalanceSettings: v.Rebalance, closes: v.Migrate == nil}
}

// startRebalancing begins to look at the pool. The mutex is held.
func (p *pool) startRebalancing(v *poolView) {
	r := &rebalancer{pool: p, done: make(chan struct{}), wake: make(chan struct{}, 1), asks: make(chan chan<- rebalanceAnswer)}
	r.plan.Store(v.rebalancePlan())
	p.rebalancer = r
	r.stop = p.srv.start(func(ctx context.Context) {
		defer close(r.done)
		newRebalancing(ctx, r).run(ctx)
	})
}

// stopRebalancing ends what is at work; sessions stay where they are. The mutex is held.
func (p *pool) stopRebalancing() {
	r := p.rebalancer
	if r == nil {
		return
	}
	r.stop()
	p.rebalancer = nil
	if r.view.Load() != nil {
		p.log.Info("rebalancing is stopped")
	}
}

// retire lets go of a rebalancer that nobody needs any more, and reports whether it has.
func (r *rebalancer) retire() bool {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.plan.Load().On || r.asked > 0 {
		return false
	}
	if p.rebalancer == r {
		p.rebalancer = nil
	}
	return true
}

// look makes the rebalancer look at once at what has changed.
func (r *rebalancer) look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// rebalance begins with what is to be done at present and returns what that is.
func (p *pool) rebalance() (RebalanceView, error) {
	for {
		r, err := p.ask()
		if err != nil {
			return RebalanceView{}, err
		}
		answer := make(chan rebalanceAnswer, 1)
		select {
		case r.asks <- answer:
			a := <-answer
			return a.view, a.err
		case <-r.done: // stopped by a reload, or with the edge
		}
	}
}

// ask returns the pool's rebalancer, or one for the time being, which waits for a question.
func (p *pool) ask() (*rebalancer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.stopped:
		return nil, ErrStopping
	case p.closed:
		return nil, ErrNoPool
	case p.view.hashed():
		return nil, ErrHashed
	}
	if p.rebalancer == nil {
		p.startRebalancing(p.view)
	}
	p.rebalancer.asked++
	return p.rebalancer, nil
}

// answer answers one question.
func (r *rebalancer) answer(to chan<- rebalanceAnswer, a rebalanceAnswer) {
	r.pool.mu.Lock()
	r.asked--
	r.pool.mu.Unlock()
	to <- a
}

// Rebalance looks at a pool now, at whatever interval it is looked at otherwise, and lets
// the sessions leave of which backends have too many, by the pool's settings. It returns how
// many they are and does not wait for them. Errors are ErrNoPool, ErrHashed, ErrStopping and
// what wraps ErrUnsettled.
func (s *Server) Rebalance(pool string) (RebalanceView, error) {
	p := s.pool(pool)
	if p == nil {
		return RebalanceView{}, ErrNoPool
	}
	return p.rebalance()
}
