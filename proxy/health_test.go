package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/discovery/static"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/frame"
	"github.com/tidegate/tidegate/proxy/relay"
)

// heldPort is an address that stays the test's own while backends there come and go. It
// refuses connections when there is none.
type heldPort struct {
	addr string
	t    *testing.T
}

func reusePort(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
}

func holdPort(t *testing.T) *heldPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port}
	return &heldPort{at.String(), t}
}

// start runs a backend there.
func (p *heldPort) start(handle func(c *rawConn, r *http.Request)) *rawBackend {
	p.t.Helper()
	config := net.ListenConfig{Control: reusePort}
	ln, err := config.Listen(context.Background(), "tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	return serveRaw(p.t, ln, handle)
}

// resting is a backend that opens sessions and lets them be.
func resting(c *rawConn, r *http.Request) {
	c.send(switching(r))
	c.rest()
}

// ejecting are passive checks that eject after three failures, for an hour, and never panic.
var ejecting = health.Passive{ConsecutiveFailures: 3, EjectionTime: time.Hour, MaxEjected: 0.5, EarlyDeath: time.Hour}

// named is a pool of backends with ids of their own.
func named(addrs map[string]string) SourceSettings {
	var list []discovery.Instance
	var key []string
	for id, addr := range addrs {
		list = append(list, discovery.Instance{ID: id, Addr: addr, Weight: 1})
		key = append(key, id)
	}
	return SourceSettings{Slot: "static", Key: strings.Join(key, " "), Source: static.New(list)}
}

// unfit are settings of a pool with health checks.
func unfit(checks health.Checks, addrs map[string]string) Settings {
	s := defaults()
	s.Pools[0].Sources = []SourceSettings{named(addrs)}
	s.Pools[0].Health = checks
	return s
}

// the returns a backend of the first pool by its id.
func (e *testEdge) the(id string) *balance.Backend {
	e.t.Helper()
	for _, b := range e.Pools()[0].Backends {
		if b.ID == id {
			return b
		}
	}
	e.t.Fatalf("no backend %q", id)
	return nil
}

// in waits until a backend of the first pool is in a state.
func (e *testEdge) in(id string, state balance.State) {
	e.t.Helper()
	e.eventually(id+" is "+state.String(), func() bool {
		return slices.ContainsFunc(e.Pools()[0].Backends, func(b *balance.Backend) bool { return b.ID == id && b.Live.State() == state })
	})
}

// tries makes n handshakes and returns how often they came to which status. Sessions are ended.
func (e *testEdge) tries(n int) map[int]int {
	e.t.Helper()
	got := map[int]int{}
	for range n {
		c := dialRaw(e.t, e.addr())
		c.send(upgradeRequest("/"))
		got[c.response().StatusCode]++
		c.Close()
	}
	e.idle()
	return got
}

// logged counts lines with a message about a backend.
func (e *testEdge) logged(message, backend string) (n int) {
	for _, line := range e.logs.FilterMessage(message).All() {
		if line.ContextMap()["backend"] == backend {
			n++
		}
	}
	return n
}

// TestKilledBackend is ejected by what its handshakes come to, which no client notices, and
// returns when its time is up.
func TestKilledBackend(t *testing.T) {
	t.Parallel()
	port := holdPort(t)
	first := port.start(resting)
	checks := health.Checks{Passive: ejecting}
	checks.Passive.EjectionTime = 300 * time.Millisecond
	e := startEdge(t, unfit(checks, map[string]string{"a": port.addr, "b": startRaw(t, resting).addr}))
	var doomed, others []*rawConn
	for len(doomed) < 2 {
		c := e.open("/")
		if e.session(c).Backend().ID == "a" {
			doomed = append(doomed, c)
		} else {
			others = append(others, c)
		}
	}
	first.stop()
	for _, c := range doomed {
		c.wantClose(relay.StatusServiceRestart)
		c.Close()
	}
	for range 6 {
		c := e.open("/")
		if e.session(c).Backend().ID != "b" {
			t.Error("a session on a dead backend")
		}
		others = append(others, c)
	}
	e.eventually("a has been ejected", func() bool { return e.logged("backend ejected", "a") == 1 })
	if f := failures(e.the("a")); f["aborted"] != 2 || f["connect"] != 3 {
		t.Errorf("failures of a: %v, want 2 aborted and 3 connect", f)
	}
	port.start(resting)
	e.eventually("a is back", func() bool { return e.logged("backend healthy", "a") == 1 })
	e.eventually("a gets sessions", func() bool {
		c := e.open("/")
		others = append(others, c)
		return e.session(c).Backend().ID == "a"
	})
	if n := e.logged("backend ejected", "b"); n != 0 {
		t.Errorf("b was ejected %d times", n)
	}
	for _, c := range others {
		c.Close()
	}
	e.idle()
}

// TestBackendThatRefuses answers handshakes with 503, which clients see, until it is ejected.
func TestBackendThatRefuses(t *testing.T) {
	t.Parallel()
	busy := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	})
	settings := unfit(health.Checks{Passive: ejecting}, map[string]string{"a": busy.addr, "b": startRaw(t, resting).addr})
	e := startEdge(t, settings)
	if got := e.tries(20); got[503] != 3 || got[101] != 17 {
		t.Errorf("got %v, want three times 503", got)
	}
	e.in("a", balance.StateEjected)
	if got, want := e.Pools()[0].Reasons["a"], "3 handshakes failed in a row, the last one: status 503; back in "; !strings.HasPrefix(got, want) {
		t.Errorf("reason %q", got)
	}
	// A reload with the same settings does not pardon it; without the check it does.
	e.apply(settings)
	e.in("a", balance.StateEjected)
	settings.Pools[0].Health = health.Checks{}
	e.apply(settings)
	e.in("a", balance.StateUp)
}

// TestClientErrorsAreNotTheBackends: 4xx answers eject nobody.
func TestClientErrorsAreNotTheBackends(t *testing.T) {
	t.Parallel()
	picky := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
	})
	e := startEdge(t, unfit(health.Checks{Passive: ejecting}, map[string]string{"a": picky.addr, "b": startRaw(t, resting).addr}))
	if got := e.tries(20); got[401] < 5 || got[401]+got[101] != 20 {
		t.Errorf("got %v, want about half of each", got)
	}
	e.in("a", balance.StateUp)
}

// TestBackendThatDiesYoung opens every session and closes it at once.
func TestBackendThatDiesYoung(t *testing.T) {
	t.Parallel()
	young := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r) + serverFrame(ws.OpClose, closeWith(1013, "not now")))
		c.untilClose()
	})
	e := startEdge(t, unfit(health.Checks{Passive: ejecting}, map[string]string{"a": young.addr, "b": startRaw(t, resting).addr}))
	landed := 0
	for range 10 {
		if e.untilBackendEnds("a", 1013) {
			landed++
		}
	}
	e.in("a", balance.StateEjected)
	if f := failures(e.the("a")); landed != 3 || f["early_death"] != 3 {
		t.Errorf("%d sessions landed on a, failures %v, want three", landed, f)
	}
	if got, want := e.Pools()[0].Reasons["a"], "3 sessions ended badly in a row, the last one: closed with 1013; back in "; !strings.HasPrefix(got, want) {
		t.Errorf("reason %q", got)
	}
}

// untilBackendEnds makes a session and reports whether it landed on a backend, which then
// ends it with a code.
func (e *testEdge) untilBackendEnds(backend string, code ws.StatusCode) bool {
	e.t.Helper()
	before := e.the(backend).Live.Picks()
	c := dialRaw(e.t, e.addr())
	c.send(upgradeRequest("/"))
	c.upgraded()
	landed := e.the(backend).Live.Picks() > before
	if landed {
		c.wantClose(code)
		c.send(clientFrame(ws.OpClose, closeWith(code, "")))
	}
	c.Close()
	e.idle()
	return landed
}

// TestEndOf says for every end whether it speaks against the backend.
func TestEndOf(t *testing.T) {
	t.Parallel()
	closed := func(code ws.StatusCode) relay.Verdict {
		return relay.Verdict{Cause: relay.BackendClosed, Code: code, Why: relay.WhyClosed}
	}
	for _, tt := range []struct {
		verdict relay.Verdict
		want    health.End
		why     string
	}{
		{closed(1000), health.EndWell, ""},
		{closed(1001), health.EndWell, ""},
		{closed(1005), health.EndWell, ""},
		{closed(3000), health.EndWell, ""},
		{closed(4999), health.EndWell, ""},
		{closed(1011), health.EndInternalError, "closed with 1011"},
		{closed(1012), health.EndClosed, "closed with 1012"},
		{closed(1008), health.EndClosed, "closed with 1008"},
		{relay.Verdict{Cause: relay.BackendGone, Code: 1012, Why: relay.WhyGone}, health.EndAborted, "it ended without a Close"},
		{relay.Verdict{Cause: relay.BackendGone, Code: 1012, Why: relay.WhyPongTimeout}, health.EndAborted, "pong_timeout"},
		{relay.Verdict{Cause: relay.BackendViolation, Code: 1011, Err: &frame.Error{Code: 1002, Text: "masked"}}, health.EndViolation, "masked"},
		{relay.Verdict{Cause: relay.BackendViolation, Code: 1011, Err: relay.ErrMessageTooBig}, health.EndOther, ""},
		{relay.Verdict{Cause: relay.ClientClosed, Code: 1011}, health.EndOther, ""},
		{relay.Verdict{Cause: relay.ClientGone, Code: 1006}, health.EndOther, ""},
		{relay.Verdict{Cause: relay.ClientViolation, Code: 1002, Err: &frame.Error{Code: 1002}}, health.EndOther, ""},
		{relay.Verdict{Cause: relay.EdgeClosed, Code: 1011}, health.EndOther, ""},
	} {
		end, err := endOf(&engine.Result{Verdict: tt.verdict})
		if end != tt.want || (err == nil) != (tt.why == "") || err != nil && !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%+v: got %d, %v; want %d, %q", tt.verdict, end, err, tt.want, tt.why)
		}
	}
	_, err := endOf(&engine.Result{Verdict: relay.Verdict{Cause: relay.BackendGone, Why: relay.WhyGone}, BackendErr: os.ErrDeadlineExceeded})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestLateAttempt: a backend that others have left too little time for is not to blame.
func TestLateAttempt(t *testing.T) {
	t.Parallel()
	var mute atomic.Bool
	port := holdPort(t)
	first := port.start(resting)
	second := startRaw(t, func(c *rawConn, r *http.Request) {
		if mute.Load() {
			c.rest()
			return
		}
		resting(c, r)
	})
	checks := health.Checks{Passive: ejecting}
	checks.Passive.ConsecutiveFailures, checks.Passive.MaxEjected = 1, 1
	settings := unfit(checks, map[string]string{"a": port.addr, "b": second.addr})
	settings.Pools[0].Balance.Policy, settings.Pools[0].HashOn = "consistent_hash", HashOn{Source: HashPath}
	e := startEdge(t, settings)
	path := "/" // one for which a comes before b
	e.eventually("a path leads to a", func() bool {
		path += "x"
		c := e.open(path)
		defer e.idle()
		defer c.Close()
		return e.session(c).Backend().ID == "a"
	})
	settings.Pools[0].Upstream.TotalTimeout = 300 * time.Millisecond
	e.apply(settings)
	mute.Store(true)
	first.stop()
	if res, _ := e.ask(upgradeRequest(path)); res.StatusCode != 504 {
		t.Errorf("got %s, want 504", res.Status)
	}
	e.in("a", balance.StateEjected)
	e.in("b", balance.StateUp)
	if f := failures(e.the("b")); f["timeout"] != 1 {
		t.Errorf("failures of b: %v", f)
	}
	if res, _ := e.ask(upgradeRequest(path)); res.StatusCode != 504 {
		t.Errorf("got %s, want 504", res.Status)
	}
	e.in("b", balance.StateEjected) // it had all the time there is
}

// quick are probes that follow each other soon.
func quick(what health.Probe) *health.Active {
	return &health.Active{Probe: what, Path: "/healthz", Interval: 20 * time.Millisecond, Timeout: patience, Rise: 2, Fall: 2}
}

// TestDiscoveryAndProbesMustAgree, and probes decide when discovery has nothing to say.
func TestDiscoveryAndProbesMustAgree(t *testing.T) {
	t.Parallel()
	settings := defaults()
	var source lateSource
	settings.Pools[0], source = latePool("apps", patience)
	settings.Pools[0].Health.Active = quick(health.TCP)
	e := startEdge(t, settings)
	port, other := holdPort(t), holdPort(t)
	backend := port.start(resting)
	instance := func(id, addr string, status discovery.Status) discovery.Instance {
		return discovery.Instance{ID: id, Addr: addr, Weight: 1, Status: status}
	}

	source.say <- []discovery.Instance{instance("a", port.addr, discovery.Down)}
	e.eventually("a is known", func() bool { return len(e.Pools()[0].Backends) == 1 })
	if got := e.tries(2); got[503] != 2 {
		t.Errorf("got %v: the probes pass, but discovery says no", got)
	}
	source.say <- []discovery.Instance{instance("a", port.addr, discovery.Up)}
	e.in("a", balance.StateUp)
	if got := e.tries(2); got[101] != 2 {
		t.Errorf("got %v, both say yes", got)
	}
	// A newcomer that does not listen gets no session, not even a try.
	source.say <- []discovery.Instance{instance("a", port.addr, discovery.Up), instance("b", other.addr, discovery.Up)}
	e.in("b", balance.StateEjected)
	if got := e.tries(6); got[101] != 6 || e.the("b").Live.Picks() != 0 {
		t.Errorf("got %v, %d picks of a backend that does not answer", got, e.the("b").Live.Picks())
	}
	// From here on discovery says nothing.
	other.start(resting)
	e.in("b", balance.StateUp)
	backend.stop()
	e.in("a", balance.StateEjected)
	if got := e.tries(4); got[101] != 4 {
		t.Errorf("got %v", got)
	}
	if got := e.Pools()[0].Reasons["a"]; !strings.HasPrefix(got, "probe: connection refused (") {
		t.Errorf("reason %q", got)
	}
	port.start(resting)
	e.in("a", balance.StateUp)
	if failures(e.the("a"))["probe"] < 2 {
		t.Errorf("failures of a: %v", failures(e.the("a")))
	}
}

// TestPanicUsesAll: when no backend passes its probes, sessions go to all of them.
func TestPanicUsesAll(t *testing.T) {
	t.Parallel()
	var fit atomic.Bool
	handle := func(c *rawConn, r *http.Request) {
		switch {
		case r.URL.Path != "/healthz":
			resting(c, r)
		case fit.Load():
			c.send("HTTP/1.1 204 No Content\r\n\r\n")
		default:
			c.send("HTTP/1.1 500 Internal Server Error\r\n\r\n")
		}
	}
	checks := health.Checks{Active: quick(health.HTTP), Passive: health.Passive{PanicThreshold: 0.3}}
	e := startEdge(t, unfit(checks, map[string]string{"a": startRaw(t, handle).addr, "b": startRaw(t, handle).addr}))
	e.eventually("the pool panics", func() bool { return e.Pools()[0].Panic })
	e.in("a", balance.StateEjected)
	e.in("b", balance.StateEjected)
	if got := e.tries(4); got[101] != 4 || e.the("a").Live.Picks() == 0 || e.the("b").Live.Picks() == 0 {
		t.Errorf("got %v", got)
	}
	fit.Store(true)
	e.in("a", balance.StateUp)
	e.in("b", balance.StateUp)
	if e.Pools()[0].Panic {
		t.Error("still panicking")
	}
	if n := e.logs.FilterMessageSnippet("backends are healthy").Len(); n != 2 {
		t.Errorf("%d lines about panic", n)
	}
}

// TestProbesGoTheSessionsWay: with the pool's TLS and Host, also after a reload, and not for
// a pool that is gone.
func TestProbesGoTheSessionsWay(t *testing.T) {
	t.Parallel()
	var asked atomic.Uint64
	settings := upstreamTLS(t, func(c *rawConn, r *http.Request) {
		if r.Host != "app.internal" || r.RequestURI != "/healthz" {
			t.Errorf("asked for %s at %s", r.RequestURI, r.Host)
		}
		asked.Add(1)
		c.send("HTTP/1.1 200 OK\r\n\r\n")
	})
	settings.Pools[0].Health.Active, settings.Pools[0].Upstream.Host = quick(health.HTTP), "app.internal"
	e := startEdge(t, settings)
	id, secure := e.backend().ID, settings.Pools[0].Upstream.TLS
	e.eventually("it was asked", func() bool { return asked.Load() > 0 })
	e.in(id, balance.StateUp)

	plain := defaults()
	plain.Pools = []PoolSettings{settings.Pools[0]}
	plain.Pools[0].Upstream.TLS = nil
	e.apply(plain)
	e.in(id, balance.StateEjected)
	plain.Pools[0].Upstream.TLS = secure
	e.apply(plain)
	e.in(id, balance.StateUp)

	gone := plain
	gone.Routes, gone.Pools = nil, nil
	e.apply(gone)
	before := asked.Load()
	e.apply(settings)
	e.in(id, balance.StateUp)
	e.eventually("it is asked again", func() bool { return asked.Load() > before+1 })
}

// TestSlowStartOfANewcomer is up to its share in the end, and nobody else is warmed.
func TestSlowStartOfANewcomer(t *testing.T) {
	t.Parallel()
	settings := unfit(health.Checks{}, map[string]string{"a": startRaw(t, resting).addr})
	settings.Pools[0].SlowStart = time.Hour
	e := startEdge(t, settings)
	a, b := e.the("a"), startRaw(t, resting)
	settings.Pools[0].Sources = []SourceSettings{named(map[string]string{"a": a.Addr, "b": b.addr})}
	e.apply(settings)
	e.in("b", balance.StateSlowStart)
	e.in("a", balance.StateUp)
	if got := e.Pools()[0].Reasons["b"]; got != "slow start: 10% of its share" {
		t.Errorf("reason %q", got)
	}
	settings.Pools[0].SlowStart = 0
	e.apply(settings)
	e.in("b", balance.StateUp)
}
