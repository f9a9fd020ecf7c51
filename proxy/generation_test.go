package proxy

import (
	"context"
	cryptotls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/tls"
)

// alive exchanges a message in a session.
func (c *rawConn) alive() {
	c.t.Helper()
	c.send(clientFrame(ws.OpText, "alive"))
	c.wantText("alive")
}

func TestListenerIsAddedAndRemoved(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	first := e.addr()
	both := settings
	second := settings.Listeners[0]
	second.Name, second.Address = "second", "localhost:0"
	both.Listeners = append(both.Listeners[:1:1], second)
	old := e.open("/")

	e.apply(both)
	views := e.Current().Listeners()
	if len(views) != 2 || views[0].Address != first {
		t.Fatalf("the listeners are %+v, the first was at %s", views, first)
	}
	c := dialRaw(t, views[1].Address)
	c.send(upgradeRequest("/"))
	c.upgraded()

	e.apply(settings)
	if views := e.Current().Listeners(); len(views) != 1 || views[0].Address != first {
		t.Errorf("the listeners are %+v, the first was at %s", views, first)
	}
	if conn, err := net.Dial("tcp", views[1].Address); err == nil {
		conn.Close()
		t.Error("the removed listener takes connections")
	}
	c.alive()
	old.alive()

	none := settings
	none.Listeners = nil
	e.apply(none)
	old.alive()
	if conn, err := net.Dial("tcp", first); err == nil {
		conn.Close()
		t.Error("the removed listener takes connections")
	}
}

// TestListenerChanges has new settings for new connections, on the same socket.
func TestListenerChanges(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	addr := e.addr()
	old := e.open("/")
	// A connection of the former settings whose request comes later.
	late := dialRaw(t, addr)
	request := upgradeRequest("/")
	late.send(request[:30])
	e.open("/").Close()
	e.eventually("one place is taken", func() bool { return e.Current().Listeners()[0].Sessions == 1 })

	changed := defaults(echoBackend(t))
	changed.Pools = settings.Pools
	changed.Listeners[0].Limits.MaxSessions = 3
	changed = secured(t, changed)
	e.apply(changed)
	if e.addr() != addr {
		t.Fatalf("the address became %s", e.addr())
	}
	old.alive()
	late.send(request[30:])
	if res, err := http.ReadResponse(late.in, nil); err == nil && res.StatusCode == 101 {
		late.alive()
	} else if err == nil || !strings.Contains(err.Error(), "malformed HTTP") {
		// It may have been handed to the next settings, which answer it in TLS.
		t.Errorf("the late request got %v, %v", res, err)
	}
	c := newRawConn(t, tlsClient(dialRaw(t, addr)))
	c.send(upgradeRequest("/"))
	c.upgraded()
	c.alive()
	full := newRawConn(t, tlsClient(dialRaw(t, addr)))
	full.send(upgradeRequest("/"))
	if res := full.response(); res.StatusCode != 503 {
		t.Errorf("got %s: the sessions of the former settings do not count", res.Status)
	}
}

// TestLateRequest is answered under settings that are gone by the time it is complete.
func TestLateRequest(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	request := upgradeRequest("/")
	for i := range 20 {
		late := dialRaw(t, e.addr())
		late.send(request[:1+i])
		e.open("/").Close()
		settings.Listeners[0].Limits.MaxSessions = 1000 + i
		e.apply(settings)
		late.send(request[1+i:])
		late.upgraded()
		late.alive()
		late.Close()
	}
	e.idle()
}

// TestIdleConnections stay while their listener stays as it is, and end with its settings.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	c := dialRaw(t, e.addr())
	for range 3 {
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		res := c.response()
		if res.StatusCode != 400 || res.Close {
			t.Fatalf("got %s, close: %v", res.Status, res.Close)
		}
		io.Copy(io.Discard, res.Body)
		e.apply(settings)
	}
	settings.Listeners = []ListenerSettings{settings.Listeners[0]}
	settings.Listeners[0].Limits.MaxSessions = 7
	e.apply(settings)
	if got := c.wantEnd(); got != "" {
		t.Errorf("got %q", got)
	}
}

// haltedConn stops in the middle of its first write until it is told to go on.
type haltedConn struct {
	net.Conn
	halted, goOn chan struct{}
}

func (c *haltedConn) Write(p []byte) (int, error) {
	if c.halted == nil {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:len(p)/2])
	close(c.halted)
	c.halted = nil
	<-c.goOn
	if err == nil {
		var more int
		more, err = c.Conn.Write(p[n:])
		n += more
	}
	return n, err
}

// TestReloadDuringTLS finishes a handshake under settings that are gone, and is served
// under the next ones.
func TestReloadDuringTLS(t *testing.T) {
	t.Parallel()
	settings := secured(t, defaults(echoBackend(t)))
	e := startEdge(t, settings)
	raw := dialRaw(t, e.addr())
	halted := &haltedConn{raw.Conn, make(chan struct{}), make(chan struct{})}
	begun := halted.halted
	conn := cryptotls.Client(halted, &cryptotls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- conn.Handshake() }()
	<-begun
	// The listener accepts in order, so that the halted one has been accepted by now.
	if _, err := e.handshake(&cryptotls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	settings.Listeners = []ListenerSettings{settings.Listeners[0]}
	settings.Listeners[0].Limits.MaxSessions = 7
	e.apply(settings)
	close(halted.goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c := newRawConn(t, conn)
	c.send(upgradeRequest("/"))
	c.upgraded()
	c.alive()
}

// TestTwoListenersOnFreePorts share the address that they ask for, but nothing else.
func TestTwoListenersOnFreePorts(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	second := settings.Listeners[0]
	second.Name = "second"
	settings.Listeners = append(settings.Listeners, second)
	e := startEdge(t, settings)
	before := e.Current().Listeners()
	if before[0].Address == before[1].Address {
		t.Fatalf("both are at %s", before[0].Address)
	}
	e.apply(settings)
	for i, v := range e.Current().Listeners() {
		if v.Address != before[i].Address {
			t.Errorf("%s moved from %s to %s", v.Name, before[i].Address, v.Address)
		}
		c := dialRaw(t, v.Address)
		c.send(upgradeRequest("/"))
		c.upgraded()
		if got := e.session(c).Info().Listener; got != v.Name {
			t.Errorf("%s answers for %s", got, v.Name)
		}
		c.Close()
	}
	settings.Listeners = settings.Listeners[:1]
	e.apply(settings)
	if conn, err := net.Dial("tcp", before[1].Address); err == nil {
		conn.Close()
		t.Error("the removed listener takes connections")
	}
}

// TestPrepareFails changes nothing and leaves nothing behind.
func TestPrepareFails(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	listener := func(name, address string) ListenerSettings {
		l := settings.Listeners[0]
		l.Name, l.Address = name, address
		return l
	}
	tests := []struct {
		name   string
		change func(s *Settings)
		want   []string
	}{
		{"an address in use", func(s *Settings) { s.Listeners = append(s.Listeners, listener("new", taken.Addr().String())) }, []string{"listener new: ", "in use"}},
		{"an address that is none", func(s *Settings) { s.Listeners = append(s.Listeners, listener("new", "nonsense")) }, []string{"listener new: "}},
		{"an address twice", func(s *Settings) {
			addr := freeAddr(t)
			s.Listeners = append(s.Listeners, listener("a", addr), listener("b", addr))
		}, []string{"listener b: "}},
		{"the address of another one", func(s *Settings) { s.Listeners = append(s.Listeners, listener("b", s.Listeners[1].Address)) }, []string{"listener b: "}},
		{"no certificate", func(s *Settings) { s.Listeners[0].TLS = &tls.ServerSettings{} }, []string{"listener edge: ", "certificate"}},
		{"an unknown policy", func(s *Settings) { s.Pools[0].Balance.Policy = "best" }, []string{"pool apps: ", "best"}},
		{"an unknown pool", func(s *Settings) { s.Routes[0].Pool = "other" }, []string{"route all: ", `"other"`}},
		{"all at once", func(s *Settings) {
			s.Listeners = append(s.Listeners, listener("new", "nonsense"))
			s.Pools[0].Balance.Policy = "best"
			s.Routes[0].Pool = "other"
		}, []string{"listener new: ", "pool apps: ", "route all: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := e.Current()
			free := freeAddr(t)
			bad := defaults("127.0.0.1:1")
			bad.Listeners = append(bad.Listeners, listener("fine", free))
			tt.change(&bad)
			next, err := e.Prepare(bad)
			if err == nil {
				next.Discard()
				t.Fatal("it was prepared")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			if e.Current() != before {
				t.Error("the generation has changed")
			}
			isFree(t, free)
			e.open("/").alive()
		})
	}
	if got := len(e.Routes()); got != 1 {
		t.Errorf("%d routes are counted", got)
	}
}

// TestAddressTwice names the address of a listener that runs for two.
func TestAddressTwice(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Address = freeAddr(t)
	e := startEdge(t, settings)
	second := settings.Listeners[0]
	second.Name = "second"
	twice := settings
	twice.Listeners = []ListenerSettings{settings.Listeners[0], second}
	if _, err := e.Prepare(twice); err == nil || !strings.Contains(err.Error(), "listener second: ") {
		t.Errorf("got %v", err)
	}
	e.open("/").alive()
}

// TestLookDuringAReload: who looks at the routes between Prepare and Commit does not know
// the new ones, and takes nothing from them.
func TestLookDuringAReload(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	settings.Routes = []RouteSettings{settings.Routes[0]}
	settings.Routes[0].Name = "new"
	next, err := e.Prepare(settings)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Routes(); len(got) != 1 || got[0].Name != "all" {
		t.Errorf("before the commit the routes are %+v", got)
	}
	next.Commit()
	e.open("/").alive()
	if got := e.route("new"); got.Handshakes["ok"] != 1 || got.Active["edge"] != 1 || got.Pool != "apps" {
		t.Errorf("counted %+v", got)
	}
}

// freeAddr is an address that can be bound. It is on a loopback address of its own, where
// no other test gets a port, if the system has more than one.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// isFree checks that nobody listens on an address any more.
func isFree(t *testing.T, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Errorf("the socket was kept: %v", err)
		return
	}
	ln.Close()
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	before := e.Current()
	free := freeAddr(t)
	other := defaults("127.0.0.1:1")
	other.Listeners[0].Address = free
	next, err := e.Prepare(other)
	if err != nil {
		t.Fatal(err)
	}
	next.Discard()
	next.Discard()
	isFree(t, free)
	if e.Current() != before {
		t.Error("the generation has changed")
	}
	e.open("/").alive()
	if gen := e.apply(settings); gen.Number != before.Number+1 || gen.Applied.Before(before.Applied) {
		t.Errorf("after generation %d came %d", before.Number, gen.Number)
	}
}

// TestPoolReturns finds the counts of sessions that it had before it went.
func TestPoolReturns(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	c := e.open("/")
	live := e.backend().Live

	other := defaults(echoBackend(t))
	other.Pools[0].Name, other.Routes[0].Pool = "others", "others"
	e.apply(other)
	if live.State() != balance.StateRemoved || live.Sessions() != 1 {
		t.Errorf("the backend is %s with %d sessions", live.State(), live.Sessions())
	}
	c.alive()
	e.apply(other)
	e.apply(settings)
	if b := e.backend(); b.Live != live || live.State() != balance.StateUp || live.Sessions() != 1 {
		t.Errorf("the backend that returned is %s with %d sessions", b.Live.State(), b.Live.Sessions())
	}
	c.alive()
	c.Close()
	e.idle()

	e.apply(other)
	e.apply(settings)
	if e.backend().Live == live {
		t.Error("a pool without sessions was kept")
	}
}

// TestBackendReturns does the same with one backend of a pool, whose address has changed
// meanwhile.
func TestBackendReturns(t *testing.T) {
	t.Parallel()
	first, second := echoBackend(t), echoBackend(t)
	s := newSource()
	settings := defaults()
	settings.Pools[0].Sources = []SourceSettings{{Slot: "test", Key: "k", Source: s}}
	e := startEdge(t, settings)
	s.say(t, discovery.Instance{ID: "a", Addr: first, Weight: 1})
	c := e.open("/")
	live := e.backend().Live
	s.say(t)
	if live.State() != balance.StateRemoved || e.Pools()[0].Backends[0].Live != live {
		t.Error("a removed backend with a session is not shown as such")
	}
	s.say(t, discovery.Instance{ID: "a", Addr: second, Weight: 1})
	c2 := e.open("/")
	if live.Sessions() != 2 || e.backend().Live != live {
		t.Errorf("%d sessions, want 2", live.Sessions())
	}
	if got := e.session(c2).Backend().Addr; got != second {
		t.Errorf("the new session goes to %s", got)
	}
	c.alive()
	c2.alive()
}

// testSource says what a test wants it to.
type testSource struct {
	words   chan *discovery.Snapshot
	taken   chan struct{}
	publish atomic.Pointer[func(*discovery.Snapshot)]
	watched atomic.Int32
	ended   atomic.Int32
}

func newSource() *testSource {
	return &testSource{words: make(chan *discovery.Snapshot), taken: make(chan struct{})}
}

func (s *testSource) Watch(ctx context.Context, publish func(*discovery.Snapshot)) error {
	s.publish.Store(&publish)
	s.watched.Add(1)
	defer s.ended.Add(1)
	for {
		select {
		case w := <-s.words:
			publish(w)
			s.taken <- struct{}{}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// say publishes a set and returns when it is in force.
func (s *testSource) say(t *testing.T, list ...discovery.Instance) {
	t.Helper()
	select {
	case s.words <- discovery.NewSnapshot(7, list):
		<-s.taken
	case <-time.After(patience):
		t.Fatal("nobody watches the source")
	}
}

// ids are the backends of the first pool with what is told of them.
func (e *testEdge) ids() string {
	var list []string
	for _, b := range present(e.Pools()[0]) {
		list = append(list, fmt.Sprintf("%s=%d", b.ID, b.Weight))
	}
	return strings.Join(list, " ")
}

// TestTurnsGoOn: a source that repeats itself, or only goes stale, does not begin the turns of
// round robin anew.
func TestTurnsGoOn(t *testing.T) {
	t.Parallel()
	list := []discovery.Instance{
		{ID: "a", Addr: echoBackend(t), Weight: 1},
		{ID: "b", Addr: echoBackend(t), Weight: 1},
	}
	s := newSource()
	settings := defaults()
	settings.Pools[0].Sources = []SourceSettings{{Slot: "test", Key: "k", Source: s}}
	settings.Pools[0].Balance.Policy = "round_robin"
	e := startEdge(t, settings)
	s.say(t, list...)
	turns := ""
	for range 20 {
		c := e.open("/")
		turns += e.session(c).Backend().ID
		c.Close()
		e.idle()
		s.say(t, slices.Clone(list)...)
	}
	if even := strings.Repeat("ab", 10); turns != even && turns != strings.Repeat("ba", 10) {
		t.Errorf("the turns were %s", turns)
	}
}

// TestSources keeps what is the same and replaces what is not, without a gap.
func TestSources(t *testing.T) {
	t.Parallel()
	instance := func(id string, weight int) discovery.Instance {
		return discovery.Instance{ID: id, Addr: "127.0.0.1:1", Weight: weight}
	}
	with := func(sources ...SourceSettings) Settings {
		settings := defaults()
		settings.Pools[0].Sources = sources
		return settings
	}
	first, second, third := newSource(), newSource(), newSource()
	e := startEdge(t, with(SourceSettings{Slot: "a", Key: "1", Source: first}))
	want := func(when, ids string) {
		t.Helper()
		if got := e.ids(); got != ids {
			t.Errorf("%s: the backends are %q, want %q", when, got, ids)
		}
	}
	first.say(t, instance("x", 1), instance("y", 1))
	want("first word", "x=1 y=1")

	e.apply(with(SourceSettings{Slot: "a", Key: "1", Source: second}))
	want("same key", "x=1 y=1")
	first.say(t, instance("x", 2))
	want("the one that was left running", "x=2")
	if second.watched.Load() != 0 {
		t.Error("a source with the same key was started")
	}

	e.apply(with(SourceSettings{Slot: "a", Key: "2", Source: second}))
	want("replaced, but silent", "x=2")
	e.eventually("the former source has ended", func() bool { return first.ended.Load() == 1 })
	second.say(t, instance("z", 1))
	want("replaced", "z=1")

	e.apply(with(SourceSettings{Slot: "b", Key: "1", Source: third}, SourceSettings{Slot: "a", Key: "2", Source: second}))
	want("beside a silent one", "z=1")
	third.say(t, instance("w", 1), instance("z", 9))
	want("the first in the configuration wins", "w=1 z=9")
	if v := e.Pools()[0]; v.Index != 7 || v.Stale || len(v.Sources) != 2 {
		t.Errorf("the pool shows %+v", v)
	}

	e.apply(with(SourceSettings{Slot: "b", Key: "1", Source: third}))
	want("one is gone", "w=1 z=9")
	(*first.publish.Load())(discovery.NewSnapshot(8, []discovery.Instance{instance("late", 1)}))
	want("a word of one that was replaced", "w=1 z=9")
	e.apply(with())
	want("all are gone", "")
	e.eventually("they have ended", func() bool { return second.ended.Load() == 1 && third.ended.Load() == 1 })
	if first.watched.Load() != 1 || second.watched.Load() != 1 || third.watched.Load() != 1 {
		t.Error("a source was watched more than once")
	}
}

// TestRoutesOverReloads keeps counters, and gives new sessions alone the new settings.
func TestRoutesOverReloads(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Routes[0].WebSocket.MaxMessageBytes = 10
	e := startEdge(t, settings)
	old := e.open("/")
	old.alive()

	settings.Routes = []RouteSettings{settings.Routes[0]}
	settings.Routes[0].WebSocket.MaxMessageBytes = 100
	e.apply(settings)
	fresh := e.open("/")
	text := strings.Repeat("x", 50)
	fresh.send(clientFrame(ws.OpText, text))
	fresh.wantText(text)
	old.alive()
	old.send(clientFrame(ws.OpText, text))
	old.wantClose(1009)
	old.Close()
	e.eventually("the old session is over", func() bool { return e.Totals().Live == 1 })
	v := e.route("all")
	if v.Handshakes["ok"] != 2 || v.Closes[CloseKey{1009, "edge"}] != 1 || v.Active["edge"] != 1 || v.Traffic[0].Messages[0] != 3 {
		t.Errorf("counted %+v", v)
	}

	other := defaults(echoBackend(t))
	other.Routes[0].Name = "other"
	e.apply(other)
	if v := e.route("all"); v.Pool != "" || v.Active["edge"] != 1 {
		t.Errorf("the former route with a session shows %+v", v)
	}
	fresh.alive()
	if v := e.route("all"); v.Traffic[0].Messages[0] != 4 {
		t.Errorf("its traffic is not counted: %+v", v.Traffic)
	}
	fresh.Close()
	e.idle()
	if got := len(e.Routes()); got != 1 {
		t.Errorf("%d routes are shown after its last session", got)
	}
}

// TestGenerationsAreFreed: no session, listener or pool holds on to a generation.
func TestGenerationsAreFreed(t *testing.T) {
	t.Parallel()
	settings := secured(t, defaults(echoBackend(t)))
	e := startEdge(t, settings)
	const n = 10
	var freed atomic.Int32
	var sessions []*rawConn
	func() {
		for i := range n {
			settings.Listeners = append([]ListenerSettings(nil), settings.Listeners...)
			settings.Listeners[0].Limits.MaxSessions = 100 + i/2 // every other one stays the same
			gen := e.apply(settings)
			runtime.AddCleanup(gen, func(*atomic.Int32) { freed.Add(1) }, &freed)
			c := newRawConn(t, tlsClient(dialRaw(t, e.addr())))
			c.send(upgradeRequest("/"))
			c.upgraded()
			sessions = append(sessions, c)
		}
	}()
	e.apply(settings)
	e.eventually("all but the last generation are freed", func() bool {
		runtime.GC()
		return freed.Load() == n
	})
	for _, c := range sessions {
		c.alive()
	}
}

// TestReloadsUnderTraffic changes everything again and again while sessions exchange
// numbered messages and somebody looks at it all.
func TestReloadsUnderTraffic(t *testing.T) {
	const sessions, reloads = 50, 200
	settings := defaults(echoBackend(t), echoBackend(t))
	extra := staticSource(deadAddr(t))
	extra.Slot = "extra"
	e := startEdge(t, settings)

	var stop atomic.Bool
	var wg sync.WaitGroup
	var rounds atomic.Int64
	for range sessions {
		c := e.open("/")
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				text := fmt.Sprint(i)
				if _, err := io.WriteString(c, clientFrame(ws.OpText, text)); err != nil {
					t.Error(err)
					return
				}
				h, err := ws.ReadHeader(c.in)
				p := make([]byte, h.Length)
				if err == nil {
					_, err = io.ReadFull(c.in, p)
				}
				if err != nil || h.OpCode != ws.OpText || string(p) != text {
					t.Errorf("message %d came back as %q of opcode %d, %v", i, p, h.OpCode, err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !stop.Load() {
			e.Routes()
			e.Pools()
			e.Current().Listeners()
			e.Totals()
			<-tick.C
		}
	})
	e.eventually("traffic flows", func() bool { return rounds.Load() > sessions })

	runtime.GC()
	before := runtime.NumGoroutine()
	ids := idsOf(e.Sessions(nil))
	for i := range reloads {
		next := Settings{}
		next.Listeners = append(next.Listeners, settings.Listeners...)
		next.Routes = append(next.Routes, settings.Routes...)
		next.Pools = append(next.Pools, settings.Pools...)
		next.Listeners[0].Limits.MaxSessions = 1000 + i%3
		next.Routes[0].SetHeaders = map[string]string{"X-Generation": fmt.Sprint(i)}
		next.Routes[0].WebSocket.MaxMessageBytes = int64(1000 + i)
		next.Pools[0].Balance.Policy = balance.Policies()[i%len(balance.Policies())]
		switch i % 4 {
		case 1:
			next.Pools[0].Sources = append(next.Pools[0].Sources[:1:1], extra)
		case 2:
			l := next.Listeners[0]
			l.Name, l.Address = "more", "localhost:0"
			next.Listeners = append(next.Listeners, l)
		case 3:
			next.Pools[0].Name, next.Routes[0].Pool, next.Routes[0].Name = "renamed", "renamed", "renamed"
		}
		e.apply(next)
	}
	e.apply(settings)
	if diff := cmp.Diff(ids, idsOf(e.Sessions(nil))); diff != "" {
		t.Errorf("sessions (-before +after):\n%s", diff)
	}
	e.eventually("the goroutines are as many as before", func() bool { return runtime.NumGoroutine() <= before })
	stop.Store(true)
	wg.Wait()
	if n := e.logs.FilterMessage("session ended").Len(); n != 0 {
		t.Errorf("%d sessions have ended", n)
	}
	if got := e.Current().Number; got != reloads+2 {
		t.Errorf("the generation is %d", got)
	}
	var load int64
	for _, b := range e.Pools()[0].Backends {
		load += b.Live.Sessions()
	}
	if load != sessions {
		t.Errorf("the backends have %d sessions, want %d", load, sessions)
	}
}

func idsOf(sessions []*Session) (ids []string) {
	for _, s := range sessions {
		ids = append(ids, s.ID())
	}
	return ids
}
