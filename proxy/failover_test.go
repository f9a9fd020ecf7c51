package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/relay"
)

// TestLostAtOnce: a backend that leaves with its 101 finds the session as whole as any other.
func TestLostAtOnce(t *testing.T) {
	a := newMovingApp(t, "a")
	a.Server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerSession) != "" {
			w.WriteHeader(http.StatusGone)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(buf, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x88\x02\x03\xf4",
			acceptKey(r.Header.Get("Sec-WebSocket-Key")))
		buf.Flush()
	})
	e := startEdge(t, moving(a))
	for range 50 {
		c := e.movingClient(nil)
		c.wantClosed(1012)
		c.Close()
	}
	e.idle()
}

// stubborn makes an app server that neither answers a Close nor ends a connection.
// It tells told of the first.
func stubborn(t *testing.T, told chan<- struct{}) *httptest.Server {
	up := websocket.Upgrader{Subprotocols: []string{"chat.v2"}}
	gone := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		c.SetCloseHandler(func(int, string) error { told <- struct{}{}; return nil })
		for err == nil {
			_, _, err = c.ReadMessage()
		}
		<-gone
	}))
	t.Cleanup(func() { close(gone); s.Close() })
	return s
}

// TestShutdownWhileLeaving: nor does one that waits for its old backend's last words.
func TestShutdownWhileLeaving(t *testing.T) {
	told := make(chan struct{}, 2)
	a, b := stubborn(t, told), stubborn(t, told)
	settings := moving()
	settings.Pools[0].Sources = []SourceSettings{staticSource(a.Listener.Addr().String(), b.Listener.Addr().String())}
	e := startEdge(t, settings)
	e.movingClient(nil)
	from := e.onlySession().Backend().Addr
	if err := e.Drain("apps", from, DrainPace{}); err != nil {
		t.Fatal(err)
	}
	<-told
	began := time.Now()
	e.Shutdown(context.Background(), time.Minute, 0)
	if took := time.Since(began); took > patience/4 {
		t.Errorf("the end took %v", took)
	}
}

// TestMoveMeetsFailOver: a session whose backend is lost while it is to be moved changes its
// backend once, whoever comes first, and one line tells how many messages are in doubt.
func TestMoveMeetsFailOver(t *testing.T) {
	t.Run("behind a fail-over", func(t *testing.T) {
		a, b, c := newMovingApp(t, "a"), newMovingApp(t, "b"), newMovingApp(t, "c")
		e := startEdge(t, moving(a, b, c))
		client := e.movingClient(nil)
		client.ask()
		s := e.onlySession()
		from := s.Backend()
		s.again.one.Lock() // as a fail-over has it
		result := make(chan string)
		go func() { result <- s.move(t.Context(), "test", from.Live, nil) }()
		if got := s.tryOthers(t.Context(), []*balance.Backend{from}, nil); got != relay.MoveDone {
			t.Fatal(got)
		}
		to := s.Backend()
		s.again.one.Unlock()
		if got := <-result; got != moveCancelled || s.Backend() != to || s.Attempts() != 1 {
			t.Errorf("%s, moved %d times", got, s.Attempts())
		}
		client.Close()
		e.idle()
	})
	t.Run("before one", func(t *testing.T) {
		a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
		settings := moving(a, b)
		settings.Pools[0].Migrate.Settle = 9 * time.Second
		e := startEdge(t, settings)
		client := e.movingClient(nil)
		from, to := a, b
		if client.ask() == "b" {
			from, to = b, a
		}
		s := e.onlySession()
		result := make(chan string)
		go func() { result <- s.Move(t.Context(), "test") }()
		e.eventually("the other one is connected", func() bool { return to.header("Upgrade") != "" })
		from.crash()
		if got := <-result; got != relay.MoveDone {
			t.Fatal(got)
		}
		client.ask()
		client.Close()
		e.idle()
		e.Shutdown(t.Context(), 0, 0) // whoever looks for a backend is through
		told := uint64(0)
		for _, line := range e.logs.FilterMessage("session moved").All() {
			told += line.ContextMap()["in_doubt"].(uint64)
		}
		if p := e.Pools()[0]; len(p.Migrations) != 1 || p.Migrations[relay.MoveDone] != 1 || p.InDoubt != told || told != 1 {
			t.Errorf("migrations %v, %d in doubt, %d as logged", p.Migrations, p.InDoubt, told)
		}
	})
}

// TestFailOverToFull: sessions come back to a backend that has restarted though they are as
// many as it may have: their places are their own.
func TestFailOverToFull(t *testing.T) {
	a := newMovingApp(t, "a")
	settings := moving(a)
	settings.Pools[0].Balance.MaxSessions = 2
	settings.Pools[0].Migrate.Timeout = 2 * time.Second
	e := startEdge(t, settings)
	clients := []*movingClient{e.movingClient(nil), e.movingClient(nil)}
	for _, c := range clients {
		c.ask()
	}
	a.crash()
	e.eventually("all have come back", func() bool {
		return !slices.ContainsFunc(e.Sessions(nil), func(s *Session) bool { return s.Attempts() == 0 || s.again.orphaned.Load() })
	})
	for _, c := range clients {
		if got := c.ask(); got != "a" {
			t.Errorf("%s answered", got)
		}
	}
	if n := e.sessionsOf(a.addr()); n != 2 {
		t.Errorf("it has %d sessions, want 2", n)
	}
	if res, _ := e.ask(upgradeRequest("/")); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a third one: %s", res.Status)
	}
	for _, c := range clients {
		c.Close()
	}
	e.idle()
}

// TestCalledOff: a move that is called off while it waits for its only attempt counts as such,
// and the session is not closed for it.
func TestCalledOff(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a, b)
	settings.Pools[0].Upstream.Retries = 0
	e := startEdge(t, settings)
	c := e.movingClient(nil)
	to := a
	if c.ask() == "a" {
		to = b
	}
	asked := make(chan struct{})
	to.Server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if got := e.onlySession().Move(ctx, "test"); got != moveCancelled {
		t.Errorf("got %s, want %s", got, moveCancelled)
	}
	c.ask()
	c.Close()
	e.idle()
}

// TestBudgetOutlivesSettings: sessions that opened while they could move still have the budget of
// then when a reload has switched moves off.
func TestBudgetOutlivesSettings(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a, b)
	settings.Pools[0].Migrate.RedialsPerSecond = 1
	e := startEdge(t, settings)
	c := e.movingClient(nil)
	c.ask()
	settings.Pools = []PoolSettings{settings.Pools[0]}
	settings.Pools[0].Migrate = nil
	e.apply(settings)
	s := e.onlySession()
	for i := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		got := s.Move(ctx, "test")
		if want := [...]string{relay.MoveDone, moveNoBackend}[i]; got != want {
			t.Errorf("move %d: %s, want %s", i+1, got, want)
		}
		cancel()
	}
	c.ask()
	c.Close()
	e.idle()
}

// stuckCore is a log in which one line is not written until it is let go.
type stuckCore struct {
	zapcore.Core
	message string
	stuck   chan struct{}
}

func (c *stuckCore) With(f []zapcore.Field) zapcore.Core {
	return &stuckCore{c.Core.With(f), c.message, c.stuck}
}

func (c *stuckCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Message == c.message {
		return to.AddCore(e, c)
	}
	return c.Core.Check(e, to)
}

func (c *stuckCore) Write(e zapcore.Entry, f []zapcore.Field) error {
	<-c.stuck
	return c.Core.Write(e, f)
}

// TestLostWhileLogBlocks: a loop goes on though the line about a backend that is ejected waits
// for whoever reads the log.
func TestLostWhileLogBlocks(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	settings := moving(a, b)
	settings.Pools[0].Balance.Policy = "round_robin"
	settings.Pools[0].Health.Passive = health.Passive{ConsecutiveFailures: 1, EjectionTime: time.Hour, MaxEjected: 1}
	stuck := make(chan struct{})
	defer close(stuck)
	e := startEdgeWith(t, settings, func(s *Server) {
		s.Loops = min(s.Loops, 1)
		s.log = s.log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return &stuckCore{c, "backend ejected", stuck} }))
	})
	clients := map[string]*movingClient{}
	for range 2 {
		c := e.movingClient(nil)
		clients[c.ask()] = c
	}
	a.crash()
	e.eventually("it is ejected", func() bool { return len(e.Pools()[0].Reasons) == 1 })
	clients["b"].ask()
}

// TestUndrainMeetsRefusal: a session whose move was refused when its drain was taken back stays.
func TestUndrainMeetsRefusal(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	stuck := make(chan struct{})
	e := startEdgeWith(t, moving(a, b), func(s *Server) {
		s.noise = s.log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return &stuckCore{c, "session not moved", stuck} }))
	})
	c := e.movingClient(nil)
	from, to := a, b
	if c.ask() == "b" {
		from, to = b, a
	}
	to.answer.Store(http.StatusConflict)
	if err := e.Drain("apps", from.addr(), DrainPace{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("it was refused", func() bool { return e.Pools()[0].Migrations[relay.MoveRefused] == 1 })
	if err := e.Undrain("apps", from.addr()); err != nil {
		t.Fatal(err)
	}
	close(stuck)
	s := e.onlySession()
	locked := func() { s.again.one.Lock(); defer s.again.one.Unlock() }
	locked() // whoever has it is through
	for range 10 {
		c.ask()
		time.Sleep(time.Millisecond) // for a Close that should not come
	}
	c.Close()
	e.idle()
}
