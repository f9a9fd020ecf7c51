package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/relay"
)

// startMeasured is startEdge with a policy that measures, often.
func startMeasured(t *testing.T, policy string, settings Settings) *testEdge {
	t.Helper()
	settings.Pools[0].Balance.Policy = policy
	return startEdgeWith(t, settings, func(s *Server) { s.measurePause = 20 * time.Millisecond })
}

// live returns the live state of the backend at an address.
func (e *testEdge) live(addr string) *balance.Live {
	e.t.Helper()
	for _, b := range e.Pools()[0].Backends {
		if b.Addr == addr {
			return b.Live
		}
	}
	e.t.Fatalf("no backend %s", addr)
	return nil
}

// A backend whose session is loud gets none while the other one is quiet, although both have
// one; when the loud session is gone, what it carried counts for a while.
func TestLeastBandwidth(t *testing.T) {
	t.Parallel()
	loud := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r) + serverFrame(ws.OpBinary, strings.Repeat("x", 1<<20)))
		c.rest()
	})
	quiet := echoBackend(t)
	e := startMeasured(t, leastBandwidth, defaults(loud.addr, quiet))
	for e.live(loud.addr).Sessions() == 0 || e.live(quiet).Sessions() == 0 {
		c := e.open("/")
		if e.session(c).Backend().Addr == loud.addr {
			c.frame()
		}
	}
	a, b := e.live(loud.addr), e.live(quiet)
	e.eventually("what was carried is known", func() bool {
		rate, sessions := a.Bandwidth()
		_, others := b.Bandwidth()
		return rate > 0 && sessions > 0 && others > 0
	})
	before := a.Picks()
	for range 8 {
		c := e.open("/")
		if got := e.session(c).Backend().Addr; got != quiet {
			t.Errorf("a session went to the loud backend")
		}
		c.Close()
		e.eventually("the session has ended", func() bool { return e.load() == 2 })
	}
	if a.Picks() != before {
		t.Errorf("the loud backend was picked %d times", a.Picks()-before)
	}
}

// Whatever a session carries is told once, to its backend: while it lives, at its end, when
// it lives between two looks only, and when it moves; what was carried before the meter was
// there is not told.
func TestMeter(t *testing.T) {
	t.Parallel()
	one, two := echoBackend(t), echoBackend(t)
	e := startEdge(t, defaults(one, two)) // not measured: the looks are the test's
	p := e.Current().pools[0].pool
	echo := func(c *rawConn, text string) {
		c.send(clientFrame(ws.OpText, text))
		c.wantText(text)
	}
	c := e.open("/")
	s := e.session(c)
	old := s.Backend()
	echo(c, strings.Repeat("a", 700))
	settled := func(n uint64) {
		e.eventually("all is counted", func() bool { return bytesOf(s.Counts()) == n })
	}
	settled(1400)
	m := p.traffic.begin()
	m.look(e.Server, p, 0)
	const long = 1000 * time.Second // after that only the last interval counts
	wants := func(what string, live *balance.Live, want float64) {
		t.Helper()
		m.look(e.Server, p, long)
		for _, b := range e.Pools()[0].Backends {
			rate, _ := b.Live.Bandwidth()
			if got := rate * long.Seconds(); b.Live == live && (got < want-0.01 || got > want+0.01) || b.Live != live && got > 0.01 {
				t.Errorf("%s: %s has %v, want %v on %s", what, b.ID, got, want, old.ID)
			}
		}
	}
	wants("before the meter", old.Live, 0)
	echo(c, "twenty bytes in all.")
	settled(1440)
	wants("a message", old.Live, 40)
	wants("nothing", old.Live, 0)

	other := e.Pools()[0].Backends[0]
	if other.Live == old.Live {
		other = e.Pools()[0].Backends[1]
	}
	s.backend.Store(other) // as one that moves does
	wants("moved", other.Live, 0)
	echo(c, "four")
	settled(1448)
	wants("after the move", other.Live, 8)
	s.backend.Store(old) // its reservation is there

	echo(c, "the last")
	c.Close()
	e.idle()
	wants("an end", old.Live, 16)

	old.Live.Set(balance.Drained, true)
	brief := e.open("/")
	echo(brief, "between")
	brief.Close()
	e.idle()
	wants("a short life", other.Live, 14)
	if len(m.before) != 0 || len(p.traffic.ended) != 0 {
		t.Errorf("%d sessions and %d ends are left", len(m.before), len(p.traffic.ended))
	}
	p.traffic.stop(m)
	p.traffic.end(1, old.Live, [2]relay.Count{})
	if len(p.traffic.ended) != 0 {
		t.Error("an end is kept when nobody measures")
	}
}

// The meter of a pool lives as long as its policy needs it.
func TestMeasuringEndsWithThePolicy(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startMeasured(t, leastBandwidth, settings)
	p := e.Current().pools[0].pool
	meter := func() *meter {
		p.traffic.mu.Lock()
		defer p.traffic.mu.Unlock()
		return p.traffic.meter
	}
	e.eventually("it measures", func() bool { return meter() != nil })
	first := meter()
	with := func(policy string, max int) {
		settings.Pools = []PoolSettings{settings.Pools[0]}
		settings.Pools[0].Balance = balance.Options{Policy: policy, MaxSessions: max}
		e.apply(settings)
	}
	with(leastBandwidth, 5)
	if meter() != first {
		t.Error("a reload with the same policy begins anew")
	}
	with("random", 0)
	e.eventually("it has ended", func() bool { return meter() == nil })
	with(leastBandwidth, 0)
	e.eventually("it measures again", func() bool { return meter() != nil && meter() != first })
	settings.Pools, settings.Routes = nil, nil
	e.apply(settings)
	e.eventually("it has ended with the pool", func() bool { return meter() == nil })
}
