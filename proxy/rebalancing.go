package proxy

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/relay"
)

// What clients are told that are to come again.
const (
	rebalanceCode   = ws.StatusCode(1012)
	rebalanceReason = "rebalance"
)

// stayFor is how long a session is left alone at least that could not be moved.
const stayFor = time.Minute

// rebalancing is a rebalancer at work. It belongs to the goroutine of run but for what a
// mutex guards.
//
// Of a backend that has too many the youngest leave first that are old enough: they have
// built up least, and those that have stayed for long go on undisturbed.
type rebalancing struct {
	*rebalancer
	now    *rebalancePlan // what it goes by
	next   time.Time      // when to look at the pool
	pacer  pacer
	held   bool // nothing could leave when it was time
	scales scales
	movers *movers

	givers  map[*balance.Live]*giver
	closing map[*Session]*balance.Live // that were told to come again, and have not ended
	absent  absent
	began   time.Time // with the first of givers
	left    int       // sessions since then

	mu     sync.Mutex
	stays  map[*Session]time.Time // until when sessions are left alone that could not be moved
	shares balance.Shares         // by the last look at the scales
}

// giver is a backend that has too many sessions.
type giver struct {
	backend *balance.Backend
	queue   []*Session // those that can leave, the next one at the end
}

func newRebalancing(ctx context.Context, r *rebalancer) *rebalancing {
	return &rebalancing{rebalancer: r, movers: newMovers(ctx), givers: map[*balance.Live]*giver{}, closing: map[*Session]*balance.Live{},
		absent: absent{picks: map[*balance.Live]uint64{}}, stays: map[*Session]time.Time{}}
}

// run lets sessions leave until ctx is done, or there is nothing to do any more.
func (r *rebalancing) run(ctx context.Context) {
	defer r.view.Store(nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait := time.Until(r.step(time.Now()))
		if len(r.givers) == 0 && r.retire() {
			return
		}
		if wait <= 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-r.wake:
		case to := <-r.asks:
			err := r.begin(time.Now())
			a := rebalanceAnswer{view: RebalanceView{PerSecond: r.now.Rate}, err: err}
			if v := r.view.Load(); v != nil {
				a.view = *v
			}
			r.answer(to, a)
		case <-ctx.Done():
		}
	}
}

// step does what is due, one session at most, and returns when to look again.
func (r *rebalancing) step(now time.Time) time.Time {
	r.follow(now)
	if !now.Before(r.next) {
		r.next = now.Add(spread(r.now.Interval))
		if r.now.On {
			r.begin(now)
		}
	}
	if len(r.givers) == 0 {
		return r.next
	}
	soon := earlier(r.next, now.Add(lookEvery))
	if b := r.weigh(); b != nil {
		r.wait(b)
		r.held = true
		return soon
	}
	r.wait(nil)
	if r.over(now) {
		return r.next
	}
	if r.held {
		r.held = false
		r.pacer.lose(now)
	}
	if now.Before(r.pacer.moment) {
		return earlier(soon, r.pacer.moment)
	}
	if r.movers.full() {
		r.held = true
		return soon
	}
	x, from := r.leaver()
	if x == nil { // all that are to leave are about to
		r.held = true
		return soon
	}
	r.leave(x, from)
	r.pacer.took(now)
	return now
}

// follow takes the latest plan.
func (r *rebalancing) follow(now time.Time) {
	plan := r.plan.Load()
	if plan == r.now {
		return
	}
	if r.now == nil || r.now.Rate != plan.Rate {
		r.pacer, r.held = newPacer(time.Duration(float64(time.Second)/plan.Rate), now), false
	}
	if next := now.Add(spread(plan.Interval)); r.now == nil || !r.now.On || next.Before(r.next) {
		r.next = next
	}
	r.now = plan
}

// spread is about d: edges that have started together are not to look together.
func spread(d time.Duration) time.Duration {
	return time.Duration((0.9 + 0.2*rand.Float64()) * float64(d))
}

// begin looks which backends have too many sessions and can give some away. The error is
// that of a pool in which shares mean nothing at present.
func (r *rebalancing) begin(now time.Time) error {
	if b := r.weigh(); b != nil {
		return unsettled(b)
	}
	found := map[*balance.Live]*giver{}
	for i, n := range r.scales.surplus {
		if b := r.scales.backends[i]; n > 0 && r.givers[b.Live] == nil {
			found[b.Live] = &giver{backend: b}
		}
	}
	if len(found) == 0 {
		return nil
	}
	r.list(found, now)
	if len(r.givers) == 0 {
		r.began, r.left, r.held = now, 0, true // the slots of the time before are lost
	}
	for live, g := range found {
		if len(g.queue) > 0 {
			r.givers[live] = g
		}
	}
	if len(r.givers) > 0 {
		r.weigh()
		v := r.show(false)
		r.pool.log.Info("rebalancing begins", zap.Int("backends", len(r.givers)), zap.Int64("sessions", v.Remaining), zap.Float64("per_second", v.PerSecond))
	}
	return nil
}

// list finds the sessions of givers that can leave. Those of sticky routes stay: the next
// request of their clients would go where they were.
func (r *rebalancing) list(givers map[*balance.Live]*giver, now time.Time) {
	all := r.pool.srv.sessions.list(func(x *Session) bool {
		return givers[x.Backend().Live] != nil && !x.place.sticky && x.age() >= r.now.MinAge && (x.Moves() || r.now.closes)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.stays, func(_ *Session, until time.Time) bool { return !now.Before(until) })
	for _, x := range all {
		_, stays := r.stays[x]
		if g := givers[x.Backend().Live]; g != nil && !stays {
			g.queue = append(g.queue, x)
		}
	}
}

// leaver takes out the session whose turn it is, or returns nil: of the backend that has
// most to give.
func (r *rebalancing) leaver() (x *Session, from *giver) {
	most := int64(0)
	for i, n := range r.scales.surplus {
		if g := r.givers[r.scales.backends[i].Live]; g != nil && n > most && r.prune(g) {
			from, most = g, n
		}
	}
	if from == nil {
		return nil, nil
	}
	last := len(from.queue) - 1
	x = from.queue[last]
	from.queue[last] = nil
	from.queue = from.queue[:last]
	return x, from
}

// prune takes those off the end of a queue that cannot leave any more: they have ended, or
// have another backend. It reports whether anybody is left.
func (r *rebalancing) prune(g *giver) bool {
	for last := len(g.queue) - 1; last >= 0; last-- {
		if x := g.queue[last]; x.Backend().Live == g.backend.Live && x.State() == StateOpen && !r.movers.has(x) {
			return true
		}
		g.queue[last] = nil
		g.queue = g.queue[:last]
	}
	return false
}

// leave lets one session go: to a backend that has less than its share where it can, else
// with a Close upon which its client comes again. One that cannot be moved now stays.
func (r *rebalancing) leave(x *Session, from *giver) {
	live := from.backend.Live
	r.left++
	if !x.Moves() {
		r.closing[x] = live
		r.absent.expected++
		r.pool.rebalanced.Add(1)
		x.Close(rebalanceCode, rebalanceReason, WhyRebalance)
		return
	}
	r.movers.move(x, func(ctx context.Context) {
		switch x.move(ctx, WhyRebalance, live, r.full) {
		case relay.MoveDone:
			r.pool.rebalanced.Add(1)
		case moveCancelled, moveNoBackend:
		default:
			r.stay(x)
		}
	}, r.look)
}

// stay leaves a session alone for a while that could not be moved.
func (r *rebalancing) stay(x *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stays[x] = time.Now().Add(stayFor)
}

// over lets go of backends that have no more than their share, or nobody who could leave,
// and reports whether none is left.
func (r *rebalancing) over(now time.Time) bool {
	present := map[*balance.Live]bool{}
	for i, n := range r.scales.surplus {
		b := r.scales.backends[i]
		g := r.givers[b.Live]
		present[b.Live] = true
		if g != nil && r.scales.leaving[b.Live] == 0 && (n == 0 || !r.prune(g)) {
			delete(r.givers, b.Live)
		}
	}
	for live := range r.givers {
		if !present[live] {
			delete(r.givers, live) // it takes no sessions any more: they leave by other ways, or stay
		}
	}
	if len(r.givers) > 0 {
		return false
	}
	r.view.Store(nil)
	r.pool.log.Info("rebalancing is over", zap.Int("sessions", r.left), zap.Duration("after", now.Sub(r.began)))
	return true
}

// wait says for which backend the rebalancing waits, nil for none, and logs when that
// changes.
func (r *rebalancing) wait(b *balance.Backend) {
	before := r.view.Load()
	was := before != nil && before.Waiting
	switch r.show(b != nil); {
	case b != nil && !was:
		r.pool.log.Info("rebalancing waits", zap.String("backend", b.ID), zap.Stringer("state", b.Live.State()))
	case b == nil && was:
		r.pool.log.Info("rebalancing goes on")
	}
}

// show publishes how the rebalancing stands.
func (r *rebalancing) show(waiting bool) RebalanceView {
	v := RebalanceView{PerSecond: r.now.Rate, Waiting: waiting}
	for _, n := range r.scales.leaving {
		v.Remaining += n
	}
	for i, n := range r.scales.surplus {
		if g := r.givers[r.scales.backends[i].Live]; g != nil {
			v.Remaining += min(n, int64(len(g.queue)))
		}
	}
	r.view.Store(&v)
	return v
}
