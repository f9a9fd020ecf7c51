package proxy

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// lookEvery is how often a drain looks for what nobody tells it: sessions that have
	// opened late, and other backends that take sessions again.
	lookEvery = time.Second
	// killAfter is how long after the deadline those sessions are given that know no
	// close_timeout of their own.
	killAfter = 5 * time.Second
)

// draining is a drain at work. It belongs to the goroutine of run.
type draining struct {
	*drain
	now     *drainPlan // what it goes by
	pacer   pacer
	held    bool // nothing could leave when it was time
	cutting bool // the deadline has passed
	leavers leavers
	movers  *movers
}

// run lets the sessions leave until none is left or ctx is done.
func (d *draining) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	d.movers = newMovers(ctx)
	for d.backend.Live.Load() > 0 && ctx.Err() == nil {
		wait := time.Until(d.step(time.Now()))
		if wait <= 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-d.wake:
		case <-ctx.Done():
		}
	}
	d.waiting.Store(false)
	if ctx.Err() == nil {
		d.pool.ranOut(d.drain)
	}
}

// step does what is due, one session at most while there is a pace, and returns when to
// look again.
func (d *draining) step(now time.Time) time.Time {
	d.follow(now)
	next := now.Add(lookEvery)
	if deadline := d.now.deadline; !deadline.IsZero() {
		if !now.Before(deadline) {
			return d.cut(now)
		}
		next = earlier(next, deadline)
	}
	if d.now.order == IdleFirst {
		next = earlier(next, d.leavers.sample(now))
	}
	switch {
	case now.Before(d.pacer.moment):
		return earlier(next, d.pacer.moment)
	case !d.now.alone && !d.pool.refuge(d.backend.Live):
		d.wait(true)
		d.held = true
		return next
	case d.movers.full():
		d.wait(false)
		d.held = true
		return next
	}
	d.wait(false)
	if d.held {
		d.held = false
		if d.pacer.lose(now); now.Before(d.pacer.moment) {
			return earlier(next, d.pacer.moment)
		}
	}
	x := d.leavers.next(now, d.now.order)
	for x != nil && d.movers.has(x) {
		x = d.leavers.next(now, d.now.order)
	}
	if x == nil {
		stream := d.pool.srv.streams.next(d.backend.Live)
		if stream == nil {
			d.held = true
			return next
		}
		stream.end()
		d.pacer.took(now)
		return now
	}
	d.leave(x)
	d.pacer.took(now)
	return now
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// follow takes the latest plan.
func (d *draining) follow(now time.Time) {
	next := d.plan.Load()
	if d.now == nil || d.now.pace != next.pace {
		d.pacer, d.held = newPacer(next.slot, now), false
	}
	if d.now == nil || d.now.deadline != next.deadline {
		d.cutting = false
	}
	d.now = next
}

// wait says whether the drain waits for another backend, and logs when that changes.
func (d *draining) wait(on bool) {
	if d.waiting.Swap(on) == on {
		return
	}
	backend, left := zap.String("backend", d.backend.ID), zap.Int64("sessions", d.backend.Live.Sessions())
	if on {
		d.pool.log.Warn("drain waits: no other backend takes sessions", backend, left)
	} else {
		d.pool.log.Info("drain goes on", backend, left)
	}
}

// leave lets one session go whose turn it is: to another backend where it can, else with a
// Close. It does not wait for that.
func (d *draining) leave(x *Session) {
	now := d.now
	closes := func() { x.Close(now.code, now.reason, now.why) }
	if !x.Moves() {
		closes()
		return
	}
	d.movers.move(x, func(ctx context.Context) {
		hopeless := d.movers.hopeless(x, x.move(ctx, now.why, d.backend.Live, nil), now.alone)
		if hopeless && x.Backend().Live == d.backend.Live && ctx.Err() == nil { // or the drain is over
			closes()
		}
	}, d.look)
}

// cut closes all that are left, also those that open later, and ends in the end those that
// nothing else does: a session without a close_timeout could go on for ever.
func (d *draining) cut(now time.Time) (next time.Time) {
	d.waiting.Store(false)
	if !d.cutting {
		d.cutting = true
		d.pool.log.Warn("drain closes all that are left", zap.String("backend", d.backend.ID), zap.Int64("sessions", d.backend.Live.Sessions()))
	}
	for _, x := range d.leavers.all() {
		x.Close(d.now.code, d.now.reason, d.now.why)
	}
	for _, stream := range d.pool.srv.streams.of(d.backend.Live) {
		stream.end()
	}
	kill := d.now.deadline.Add(killAfter)
	if now.Before(kill) {
		return earlier(now.Add(lookEvery), kill)
	}
	for _, x := range d.pool.srv.sessions.list(func(x *Session) bool { return x.Backend().Live == d.backend.Live && x.place.endless }) {
		x.kill()
	}
	return now.Add(lookEvery)
}
