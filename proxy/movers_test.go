package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/tidegate/tidegate/proxy/relay"
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

// TestHopeless: which results of a move make a drain close the session.
func TestHopeless(t *testing.T) {
	for result, closes := range map[string][]bool{ // at the first, second and third try
		relay.MoveDone:         {false, false, false},
		moveCancelled:          {false, false, false},
		relay.MoveClientClosed: {false, false, false},
		moveNoBackend:          {false, false, false},
		relay.MoveNoPong:       {false, false, true},
		relay.MoveNoBoundary:   {false, false, true},
		moveUnreachable:        {false, false, true},
		relay.MoveRefused:      {true, true, true},
		moveSubprotocol:        {true, true, true},
	} {
		m, x := newMovers(context.Background()), new(Session)
		for try, want := range closes {
			if got := m.hopeless(x, result, false); got != want {
				t.Errorf("%s at try %d closes: %v", result, try+1, got)
			}
		}
		alone := newMovers(context.Background()).hopeless(x, result, true)
		if stays := result == relay.MoveDone || result == moveCancelled || result == relay.MoveClientClosed; alone == stays {
			t.Errorf("%s where no other backend will come closes: %v", result, alone)
		}
	}
}
