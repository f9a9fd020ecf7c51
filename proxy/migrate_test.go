package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/relay"
)

const migrationSecret = "0123456789abcdef"

// movingApp is an app server that answers each message with its name and the message, and
// says welcome to those who come new. It notes who came with which headers.
type movingApp struct {
	*httptest.Server
	name   string
	answer atomic.Int32 // an HTTP status for handshakes; 0: it takes them

	mu    sync.Mutex
	came  []http.Header
	conns []*websocket.Conn
}

func newMovingApp(t *testing.T, name string) *movingApp {
	a := &movingApp{name: name}
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat.v2", "chat.v1"}}
	if name == "other" {
		up.Subprotocols = []string{"chat.v1"}
	}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := a.answer.Load(); status != 0 {
			w.WriteHeader(int(status))
			return
		}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		a.mu.Lock()
		a.came, a.conns = append(a.came, r.Header.Clone()), append(a.conns, c)
		a.mu.Unlock()
		for {
			_, p, err := c.ReadMessage()
			if err != nil {
				return
			}
			if c.WriteMessage(websocket.TextMessage, []byte(a.name+":"+string(p))) != nil {
				return
			}
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *movingApp) addr() string { return a.Listener.Addr().String() }

// header returns a header of the last one who came.
func (a *movingApp) header(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.came) == 0 {
		return ""
	}
	return a.came[len(a.came)-1].Get(name)
}

// crash ends all connections without a Close.
func (a *movingApp) crash() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		c.NetConn().(*net.TCPConn).SetLinger(0)
		c.NetConn().Close()
	}
}

// bye sends a Close to everybody.
func (a *movingApp) bye(code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "restarting"), time.Now().Add(patience))
	}
}

// moving are settings whose sessions may move between app servers.
func moving(apps ...*movingApp) Settings {
	var addrs []string
	for _, a := range apps {
		addrs = append(addrs, a.addr())
	}
	s := defaults(addrs...)
	s.Pools[0].Migrate = &MigrateSettings{CloseCodes: []ws.StatusCode{1012}, OnFailure: true, MaxBufferedBytes: 1 << 20,
		Settle: 20 * time.Millisecond, Timeout: 10 * time.Second, RedialsPerSecond: 100, Secret: []byte(migrationSecret)}
	return s
}

type movingClient struct {
	*websocket.Conn
	t *testing.T
	n int
}

func (e *testEdge) movingClient(header http.Header) *movingClient {
	e.t.Helper()
	d := websocket.Dialer{Subprotocols: []string{"chat.v2", "chat.v1"}}
	c, _, err := d.Dial(e.url("/ws?room=1"), header)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	return &movingClient{Conn: c, t: e.t}
}

// ask sends a message and returns who answered it.
func (c *movingClient) ask() (who string) {
	c.t.Helper()
	c.n++
	text := fmt.Sprint(c.n)
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
	_, p, err := c.ReadMessage()
	if err != nil {
		c.t.Fatal(err)
	}
	who, got, _ := strings.Cut(string(p), ":")
	if got != text {
		c.t.Fatalf("got %q for %q", p, text)
	}
	return who
}

func (c *movingClient) wantClosed(code int) {
	c.t.Helper()
	_, p, err := c.ReadMessage()
	if !websocket.IsCloseError(err, code) {
		c.t.Fatalf("got %q, %v; want Close %d", p, err, code)
	}
}

func (e *testEdge) onlySession() *Session {
	e.t.Helper()
	e.eventually("there is a session", func() bool { return len(e.Sessions(nil)) == 1 })
	return e.Sessions(nil)[0]
}

func (e *testEdge) sessionsOf(addr string) (n int64) {
	for _, b := range e.Pools()[0].Backends {
		if b.Addr == addr {
			n = b.Live.Load()
		}
	}
	return n
}

// TestMigrate: a session moves to and fro; headers, books and counters follow.
func TestMigrate(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	e := startEdge(t, moving(a, b))
	c := e.movingClient(http.Header{"Cookie": {"user=1"}, "Tidegate-Session": {"forged"}, "Tidegate-Signature": {"forged"}})
	from, to := a, b
	if c.ask() == "b" {
		from, to = b, a
	}
	if got := from.header(headerSession) + from.header(headerSignature); got != "" {
		t.Errorf("a client's reattach headers went on: %q", got)
	}
	s := e.onlySession()
	for attempt := 1; attempt <= 3; attempt++ {
		if result := s.Move(t.Context(), "test"); result != relay.MoveDone {
			t.Fatalf("moved: %q", result)
		}
		if who := c.ask(); who != to.name {
			t.Fatalf("%s answered, not %s", who, to.name)
		}
		if s.Backend().Addr != to.addr() || e.sessionsOf(to.addr()) != 1 || e.sessionsOf(from.addr()) != 0 || s.Attempts() != attempt {
			t.Errorf("session with %s after %d attempts; %d sessions there, %d left behind", s.Backend().Addr, s.Attempts(), e.sessionsOf(to.addr()), e.sessionsOf(from.addr()))
		}
		want := http.Header{}
		var at int64
		if _, err := fmt.Sscanf(to.header(headerSignature), "t=%d,", &at); err != nil {
			t.Fatal(err, to.header(headerSignature))
		}
		sign(want, []byte(migrationSecret), s.ID(), uint32(attempt), from.addr(), time.Unix(at, 0))
		for name := range want {
			if got := to.header(name); got != want.Get(name) {
				t.Errorf("%s: %q, want %q", name, got, want.Get(name))
			}
		}
		if to.header("Cookie") != "user=1" || to.header("Sec-Websocket-Protocol") != "chat.v2" || to.header("X-Request-Id") != from.header("X-Request-Id") {
			t.Errorf("the handshake with the next backend: %v", to.came)
		}
		from, to = to, from
	}
	if p := e.Pools()[0]; p.Migrations[relay.MoveDone] != 3 || p.InDoubt != 0 {
		t.Errorf("migrations %v, %d in doubt", p.Migrations, p.InDoubt)
	}
	if n := e.logs.FilterMessage("session moved").Len(); n != 3 {
		t.Errorf("%d lines for 3 moves", n)
	}
	c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience))
	c.wantClosed(1000)
	c.Close()
	e.idle()
}

// TestMigrateOnFailure: a backend that dies, or says that it restarts, loses no client.
func TestMigrateOnFailure(t *testing.T) {
	for name, leave := range map[string]func(*movingApp){"crash": (*movingApp).crash, "close": func(a *movingApp) { a.bye(1012) }} {
		t.Run(name, func(t *testing.T) {
			a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
			e := startEdge(t, moving(a, b))
			c := e.movingClient(nil)
			from, to := a, b
			if c.ask() == "b" {
				from, to = b, a
			}
			leave(from)
			e.eventually("it has moved", func() bool { return e.Pools()[0].Migrations[relay.MoveDone] == 1 })
			if who := c.ask(); who != to.name {
				t.Errorf("%s answered", who)
			}
			if p := e.Pools()[0]; p.InDoubt != 1 {
				t.Errorf("%d messages in doubt, want the one that was just answered", p.InDoubt)
			}
			c.Close()
			e.idle()
		})
	}
}

// TestMigrateToItself: a backend that restarts at its address gets its sessions back.
func TestMigrateToItself(t *testing.T) {
	a := newMovingApp(t, "a")
	e := startEdge(t, moving(a))
	c := e.movingClient(nil)
	c.ask()
	a.answer.Store(503)
	a.crash()
	e.eventually("it is tried", func() bool { return e.backend().Live.Failures(balance.FailureStatus) >= 2 })
	a.answer.Store(0)
	if who := c.ask(); who != "a" {
		t.Errorf("%s answered", who)
	}
	c.Close()
	e.idle()
}

// TestMigrateRefused: what an answer of the next backend means.
func TestMigrateRefused(t *testing.T) {
	for _, c := range []struct {
		status int
		other  string
		result string
	}{{409, "b", relay.MoveRefused}, {410, "b", relay.MoveRefused}, {403, "b", moveUnreachable}, {503, "b", moveUnreachable}, {0, "other", moveSubprotocol}} {
		t.Run(fmt.Sprint(c.status, c.other), func(t *testing.T) {
			a, b := newMovingApp(t, "a"), newMovingApp(t, c.other)
			b.answer.Store(404)
			e := startEdge(t, moving(a, b))
			var client *movingClient
			for client == nil {
				d := websocket.Dialer{Subprotocols: []string{"chat.v2"}}
				if conn, _, err := d.Dial(e.url("/ws"), nil); err == nil {
					conn.SetReadDeadline(time.Now().Add(patience))
					client = &movingClient{Conn: conn, t: t}
					t.Cleanup(func() { conn.Close() })
				}
			}
			client.ask()
			b.answer.Store(int32(c.status))
			s := e.onlySession()
			if got := s.Move(t.Context(), "test"); got != c.result {
				t.Errorf("moved: %q, want %q", got, c.result)
			}
			if who := client.ask(); who != "a" {
				t.Errorf("%s answered", who)
			}
			a.answer.Store(503)
			if c.result == relay.MoveRefused {
				a.crash()
				client.wantClosed(1012)
			}
			client.Close()
			e.idle()
		})
	}
}

// TestMoveIsCancelled: a move that nobody wants any more leaves the session where it is.
func TestMoveIsCancelled(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a, b)
	settings.Pools[0].Migrate.Settle = 5 * time.Second
	e := startEdge(t, settings)
	c := e.movingClient(nil)
	who := c.ask()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan string)
	s := e.onlySession()
	go func() { result <- s.Move(ctx, "test") }()
	other := map[string]*movingApp{"a": b, "b": a}[who]
	e.eventually("the other one is connected", func() bool { return other.header("Upgrade") != "" })
	cancel()
	if got := <-result; got != moveCancelled {
		t.Errorf("moved: %q", got)
	}
	if c.ask() != who || e.sessionsOf(other.addr()) != 0 {
		t.Error("it has moved")
	}
	c.Close()
	e.idle()
}

// TestShutdownDuringMoves: sessions that wait for another backend do not hold up the end.
func TestShutdownDuringMoves(t *testing.T) {
	a := newMovingApp(t, "a")
	e := startEdge(t, moving(a))
	for range 20 {
		e.movingClient(nil).ask()
	}
	a.answer.Store(503)
	a.crash()
	e.eventually("they wait", func() bool { return e.backend().Live.Failures(balance.FailureStatus) >= 2 })
	began := time.Now()
	e.Shutdown(context.Background(), 0, time.Second)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the end took %v", took)
	}
	if e.Totals().Live != 0 {
		t.Error("sessions are left")
	}
}

// TestSessionsThatStay: without migrate nothing is kept of a handshake.
func TestSessionsThatStay(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a, b)
	settings.Pools[0].Migrate = nil
	e := startEdge(t, settings)
	c := e.movingClient(nil)
	who := c.ask()
	s := e.onlySession()
	if s.again != nil || s.Move(t.Context(), "test") != relay.MoveNotPossible {
		t.Error("it can be moved")
	}
	map[string]*movingApp{"a": a, "b": b}[who].crash()
	c.wantClosed(1012)
	c.Close()
	e.idle()
}

// TestMovesUnderLoad moves many sessions to and fro while their clients talk.
func TestMovesUnderLoad(t *testing.T) {
	const clients, rounds = 20, 4
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a, b)
	settings.Pools[0].Migrate.RedialsPerSecond = 0
	e := startEdge(t, settings)
	stop := make(chan struct{})
	var talking sync.WaitGroup
	for range clients {
		c := e.movingClient(nil)
		talking.Go(func() {
			defer c.Close()
			for {
				select {
				case <-stop:
					return
				default:
					c.ask()
					time.Sleep(5 * time.Millisecond) // a pace, below what settles
				}
			}
		})
	}
	e.eventually("all are open", func() bool { return len(e.Sessions(nil)) == clients })
	for range rounds {
		var moves sync.WaitGroup
		for _, s := range e.Sessions(nil) {
			moves.Go(func() {
				if result := s.Move(t.Context(), "test"); result != relay.MoveDone {
					t.Errorf("moved: %q", result)
				}
			})
		}
		moves.Wait()
	}
	close(stop)
	talking.Wait()
	e.idle()
	if p := e.Pools()[0]; p.InDoubt != 0 || p.Migrations[relay.MoveDone] != clients*rounds {
		t.Errorf("migrations %v, %d in doubt", p.Migrations, p.InDoubt)
	}
}

// TestDrainMoves: the sessions of a backend that is drained go on with another one, those
// that cannot are closed.
func TestDrainMoves(t *testing.T) {
	const clients = 12
	for _, c := range []struct {
		name     string
		status   int // of the other backend's answers, from the drain on
		movesAll bool
	}{{"moved", 0, true}, {"refused", 409, false}} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
			settings := moving(a, b)
			settings.Pools[0].Drain = DrainSettings{Window: time.Second, Code: 1012, Reason: "service restart"}
			e := startEdge(t, settings)
			var on []*movingClient
			for range clients {
				if c := e.movingClient(nil); c.ask() == "a" {
					on = append(on, c)
				}
			}
			b.answer.Store(int32(c.status))
			if err := e.Drain("apps", a.addr(), DrainPace{}); err != nil {
				t.Fatal(err)
			}
			e.eventually("nobody is left", func() bool { return e.sessionsOf(a.addr()) == 0 })
			for _, client := range on {
				if !c.movesAll {
					client.wantClosed(1012)
				} else if who := client.ask(); who != "b" {
					t.Errorf("%s answered", who)
				}
			}
			ends := e.route("all").Ends[EndKey{"edge", WhyDrain}]
			if moved := e.Pools()[0].Migrations[relay.MoveDone]; c.movesAll && (moved != uint64(len(on)) || ends != 0) || !c.movesAll && (moved != 0 || ends != uint64(len(on))) {
				t.Errorf("%d were moved and %d closed of %d", moved, ends, len(on))
			}
		})
	}
}

// TestUndrainCancelsMoves: those that have not left stay.
func TestUndrainCancelsMoves(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a, b)
	settings.Pools[0].Migrate.Settle = 9 * time.Second
	e := startEdge(t, settings)
	c := e.movingClient(nil)
	from, to := a, b
	if c.ask() == "b" {
		from, to = b, a
	}
	if err := e.Drain("apps", from.addr(), DrainPace{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("the other one is connected", func() bool { return to.header("Upgrade") != "" })
	if err := e.Undrain("apps", from.addr()); err != nil {
		t.Fatal(err)
	}
	e.eventually("the move was called off", func() bool { return e.Pools()[0].Migrations[moveCancelled] == 1 })
	if who := c.ask(); who != from.name || e.sessionsOf(to.addr()) != 0 {
		t.Errorf("%s answered", who)
	}
	c.Close()
	e.idle()
}

// TestRedialBudget: sessions that are lost together come upon the others at a pace.
func TestRedialBudget(t *testing.T) {
	const clients, perSecond = 6, 5
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a)
	settings.Pools[0].Migrate.RedialsPerSecond = perSecond
	e := startEdge(t, settings)
	var all []*movingClient
	for range clients {
		all = append(all, e.movingClient(nil))
		all[len(all)-1].ask()
	}
	settings.Pools = []PoolSettings{settings.Pools[0]}
	settings.Pools[0].Sources = []SourceSettings{staticSource(a.addr(), b.addr())}
	e.apply(settings)
	began := time.Now()
	a.crash()
	e.eventually("all have moved", func() bool { return e.Pools()[0].Migrations[relay.MoveDone] == clients })
	if took, least := time.Since(began), time.Second*(clients-1)/perSecond; took < least*9/10 {
		t.Errorf("%d handshakes at %d a second took %v", clients, perSecond, took)
	}
	for _, c := range all {
		if who := c.ask(); who != "b" {
			t.Errorf("%s answered", who)
		}
		c.Close()
	}
	e.idle()
}
