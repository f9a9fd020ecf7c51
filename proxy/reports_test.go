package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/discovery/static"
)

// reporting is a backend that reports a load, as text, in its answers; with a status of 503 it
// refuses.
func reporting(t *testing.T, load *atomic.Pointer[string], status *atomic.Int64) string {
	return startRaw(t, func(c *rawConn, r *http.Request) {
		lines := []string{"X-App: yes"}
		if v := load.Load(); v != nil {
			lines = append(lines, "Tidegate-Load: "+*v)
		}
		if status != nil && status.Load() == 503 {
			c.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nX-App: yes\r\n" + lines[len(lines)-1] + "\r\n\r\n")
			return
		}
		c.send(switching(r, lines...))
		c.rest()
	}).addr
}

func text(s string) *atomic.Pointer[string] {
	var p atomic.Pointer[string]
	p.Store(&s)
	return &p
}

// A backend that reports more gets less, from its first answer on; its report is the edge's
// alone.
func TestLeastLoad(t *testing.T) {
	t.Parallel()
	busy, idle, status := text("0.9"), text("0.1"), new(atomic.Int64)
	busyAddr, idleAddr := reporting(t, busy, status), reporting(t, idle, nil)
	settings := defaults(busyAddr, idleAddr)
	settings.Pools[0].LoadHeader = "tidegate-load"
	settings.Pools[0].Balance.Policy = leastLoad
	e := startEdge(t, settings)
	a, b := e.live(busyAddr), e.live(idleAddr)
	for range 2 { // nobody has reported: one session each
		c := dialRaw(t, e.addr())
		c.send(upgradeRequest("/"))
		if res := c.upgraded(); res.Header.Get("Tidegate-Load") != "" || res.Header.Get("X-App") != "yes" {
			t.Errorf("the client got %v", res.Header)
		}
		e.session(c)
	}
	_, _, first := a.Reported()
	if _, _, second := b.Reported(); !first || !second {
		t.Fatal("the backends were not heard")
	}
	open := func(n int) (busy, idle uint64) {
		before, others := a.Picks(), b.Picks()
		for range n {
			e.open("/")
		}
		return a.Picks() - before, b.Picks() - others
	}
	if n, m := open(6); n != 0 || m != 6 {
		t.Errorf("the busy one got %d sessions and the other one %d, want 0 and 6", n, m)
	}

	// It is heard in any answer. What is no load changes nothing.
	none := "0"
	busy.Store(&none)
	status.Store(503)
	b.Set(balance.Drained, true)
	res, _ := e.ask(upgradeRequest("/"))
	if load, _, _ := a.Reported(); res.StatusCode != 503 || res.Header.Get("Tidegate-Load") != "" || res.Header.Get("X-App") != "yes" || load != 0 {
		t.Errorf("got %s %v; the load is %v", res.Status, res.Header, load)
	}
	for _, nonsense := range []string{"-3", "NaN", "+Inf", "1e999", "busy", "1, 2", ""} {
		busy.Store(&nonsense)
		if e.ask(upgradeRequest("/")); a.Sessions() != 1 {
			t.Fatal("a session was opened")
		}
		if load, _, ok := a.Reported(); load != 0 || !ok {
			t.Errorf("%q is a load of %v, %v", nonsense, load, ok)
		}
	}
	twice := "0.7\r\nTidegate-Load: 0.8"
	busy.Store(&twice)
	e.ask(upgradeRequest("/"))
	if load, _, _ := a.Reported(); load != 0 {
		t.Errorf("of two reports %v counts", load)
	}
}

// What is not asked for is neither read nor shown.
func TestLoadHeaderUnderOtherPolicies(t *testing.T) {
	t.Parallel()
	settings := defaults(reporting(t, text("0.5"), nil))
	settings.Pools[0].LoadHeader = "Tidegate-Load"
	e := startEdge(t, settings)
	c := dialRaw(t, e.addr())
	c.send(upgradeRequest("/"))
	if res := c.upgraded(); res.Header.Get("Tidegate-Load") != "" {
		t.Errorf("the client got %v", res.Header)
	}
	e.eventually("the session is counted", func() bool { return e.backend().Live.Sessions() == 1 })
	if _, _, ok := e.backend().Live.Reported(); ok {
		t.Error("a report counts under round_robin")
	}

	// A probe's answer is heard once the policy asks for it, under the name of the moment.
	settings.Pools = []PoolSettings{settings.Pools[0]}
	settings.Pools[0].Balance.Policy, settings.Pools[0].LoadHeader = leastLoad, "x-load"
	e.apply(settings)
	p, live := e.Current().pools[0].pool, e.backend().Live
	p.report(live, http.Header{"Tidegate-Load": {"0.7"}})
	if _, _, ok := live.Reported(); ok {
		t.Error("the former header counts")
	}
	p.report(live, http.Header{"X-Load": {"0.7"}})
	if load, sessions, ok := live.Reported(); !ok || load < 0.69 || load > 0.71 || sessions != 1 {
		t.Errorf("heard %v at %d, %v", load, sessions, ok)
	}
	settings.Pools = []PoolSettings{settings.Pools[0]}
	settings.Pools[0].Balance.Policy = "random"
	e.apply(settings)
	p.report(live, http.Header{"X-Load": {"0.1"}})
	if load, _, _ := live.Reported(); load < 0.69 {
		t.Errorf("heard %v when nobody asks", load)
	}
}

// Where backends say nothing themselves, their registration may.
func TestLeastLoadOfMetadata(t *testing.T) {
	t.Parallel()
	settings := defaults()
	addrs := []string{echoBackend(t), echoBackend(t)}
	settings.Pools[0].Balance.Policy = leastLoad
	settings.Pools[0].Sources[0] = SourceSettings{Slot: "static", Key: addrs[0] + " " + addrs[1], Source: static.New([]discovery.Instance{
		{ID: addrs[0], Addr: addrs[0], Weight: 1, Meta: map[string]string{"load": "0.8"}},
		{ID: addrs[1], Addr: addrs[1], Weight: 1, Meta: map[string]string{"load": "0.2"}}})}
	e := startEdge(t, settings)
	e.open("/")
	if e.live(addrs[1]).Sessions() != 1 {
		t.Error("the session went to the backend with the higher load")
	}
}
