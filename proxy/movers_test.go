package proxy

import (
	"context"
	"testing"
	"time"
)

// TestDeadlineWhileMovesAreMany: a drain that moves as many sessions as it may at a time
// keeps its deadline all the same, and goes on as soon as one has moved.
func TestDeadlineWhileMovesAreMany(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	e := startEdge(t, moving(a, b))
	c := e.movingClient(nil)
	c.ask()
	s := e.onlySession()
	p := e.pools["apps"]
	d := &draining{drain: &drain{pool: p, backend: s.Backend(), wake: make(chan struct{}, 1)}, leavers: leavers{srv: p.srv, live: s.Backend().Live}}
	d.movers = newMovers(context.Background())
	d.movers.room = make(chan struct{}, 1)
	d.movers.room <- struct{}{}
	now := time.Now()
	deadline := now.Add(100 * time.Millisecond)
	d.plan.Store(&drainPlan{pace: 1, deadline: deadline, code: 1012, reason: "drained", why: WhyDrain})
	if next := d.step(now); next != deadline {
		t.Errorf("it looks again in %v", next.Sub(now))
	}
	<-d.movers.room
	d.movers.move(s, func(context.Context) {}, d.look)
	e.eventually("it looks when there is room", func() bool { return len(d.wake) == 1 && !d.movers.full() })
	d.movers.room <- struct{}{}
	d.step(deadline)
	c.wantClosed(1012)
	c.Close()
	e.idle()
}
