package proxy

import "github.com/tidegate/tidegate/balance"

// scales are the loads of the backends that a pool's sessions are spread over, at one moment.
type scales struct {
	backends []*balance.Backend
	burdens  []balance.Burden
	surplus  []int64                 // of each, by the tolerance
	leaving  map[*balance.Live]int64 // sessions that are on their way elsewhere
}

// weigh takes stock. It returns a backend that is warming up or unhealthy, if there is one:
// then shares mean nothing, and the scales stay as they were. Those that drain, or have no
// weight, are nobody's concern here.
func (r *rebalancing) weigh() (unsettled *balance.Backend) {
	r.pool.mu.Lock()
	set := r.pool.set
	r.pool.mu.Unlock()
	r.absent.follow(set)
	leaving, away := r.leaving()
	next := scales{leaving: leaving}
	for _, b := range set.Backends() {
		switch state := b.Live.State(); {
		case b.Weight <= 0 || state == balance.StateDraining || state == balance.StateRemoved:
			continue
		case state != balance.StateUp:
			return b
		}
		next.backends = append(next.backends, b)
		next.burdens = append(next.burdens, balance.Burden{Load: max(0, b.Live.Load()-leaving[b.Live]), Weight: int64(b.Weight), Giving: r.givers[b.Live] != nil})
	}
	shares := balance.SharesOf(next.burdens, away+r.absent.expected)
	next.surplus = shares.Surplus(next.burdens, r.now.Tolerance)
	r.scales = next
	r.mu.Lock()
	r.shares = shares
	r.mu.Unlock()
	return nil
}

// leaving returns how many sessions of each backend are on their way elsewhere, and how many
// of those another backend of the pool will have for certain: a session that was told to come
// again is among the absent already.
func (r *rebalancing) leaving() (from map[*balance.Live]int64, away int64) {
	from = map[*balance.Live]int64{}
	for x, live := range r.closing {
		if x.State() == StateClosed {
			delete(r.closing, x)
		} else {
			from[live]++
		}
	}
	for _, x := range r.movers.all() {
		if live := x.Backend().Live; r.givers[live] != nil && x.State() != StateClosed {
			from[live]++
			away++
		}
	}
	return from, away
}

// full returns the backends that have their share, for a move to pass by. It is called by
// movers.
func (r *rebalancing) full() (all []*balance.Backend) {
	r.mu.Lock()
	shares := r.shares
	r.mu.Unlock()
	r.pool.mu.Lock()
	set := r.pool.set
	r.pool.mu.Unlock()
	for _, b := range set.Backends() {
		if b.Weight > 0 && !shares.Under(b.Live.Load(), int64(b.Weight)) {
			all = append(all, b)
		}
	}
	return all
}

// absent counts clients that were told to come again and have not. Whoever opens a session
// counts as one of them: clients that never come back make the shares of the others no
// smaller, or all that stay would be sent after them.
type absent struct {
	expected int64
	picks    map[*balance.Live]uint64 // of each backend so far
}

func (a *absent) follow(set *balance.Set) {
	next := make(map[*balance.Live]uint64, set.Len())
	for _, b := range set.Backends() {
		picks := b.Live.Picks()
		next[b.Live] = picks
		a.expected -= int64(picks - a.picks[b.Live])
	}
	a.expected = max(0, a.expected)
	a.picks = next
}
