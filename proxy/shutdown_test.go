package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

// shutdown runs Shutdown and returns a channel that is closed at its end.
func (e *testEdge) shutdown(ctx context.Context, window, deadline time.Duration) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Shutdown(ctx, window, deadline)
	}()
	e.eventually("the shutdown has begun", e.Stopping)
	return done
}

func TestShutdownSpreadsItsCloses(t *testing.T) {
	t.Parallel()
	const n, window = 20, 400 * time.Millisecond
	codes := make(chan ws.StatusCode, n)
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		codes <- c.untilClose()
	})
	e := startEdge(t, defaults(b.addr))
	var clients []*rawConn
	for range n {
		clients = append(clients, e.open("/"))
	}
	var mu sync.Mutex
	var at []time.Duration
	var wg sync.WaitGroup
	start := time.Now()
	for _, c := range clients {
		wg.Go(func() {
			defer c.Close()
			op, p := c.frame()
			took := time.Since(start)
			if code, reason := ws.ParseCloseFrameData([]byte(p)); op != ws.OpClose || code != 1001 || reason != "shutdown" {
				t.Errorf("got opcode %d %q, want Close 1001", op, p)
			}
			io.WriteString(c, clientFrame(ws.OpClose, p))
			mu.Lock()
			defer mu.Unlock()
			at = append(at, took)
		})
	}
	e.Shutdown(context.Background(), window, patience)
	wg.Wait()
	// One in each slot: the i-th cannot come before its slot begins.
	slices.Sort(at)
	for i, took := range at {
		if begins := window * time.Duration(i) / n; took < begins {
			t.Errorf("close %d came after %v, before its slot begins at %v", i, took, begins)
		}
	}
	if len(at) != n {
		t.Errorf("%d clients were closed, want %d", len(at), n)
	}
	for range n {
		if code := <-codes; code != 1001 {
			t.Errorf("a backend got %d, want 1001", code)
		}
	}
	if got := e.route("all").Closes; got[CloseKey{1001, "edge"}] != n || len(got) != 1 {
		t.Errorf("counted %v", got)
	}
}

func TestShutdownCutsWhatIgnoresIt(t *testing.T) {
	t.Parallel()
	const deadline = time.Second
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.rest()
	})
	e := startEdge(t, defaults(b.addr))
	var clients []*rawConn
	for range 5 {
		clients = append(clients, e.open("/"))
	}
	start := time.Now()
	e.Shutdown(context.Background(), 0, deadline)
	if took := time.Since(start); took < deadline || took > deadline+5*time.Second {
		t.Errorf("it took %v, want %v", took, deadline)
	}
	for _, c := range clients {
		c.wantClose(1001)
		c.wantEnd()
	}
	if e.Totals().Live != 0 || e.load() != 0 {
		t.Errorf("%d sessions are left", e.Totals().Live)
	}
}

// TestShutdownIsCutShort ends the drain when its context ends, as a second SIGTERM does.
func TestShutdownIsCutShort(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(echoBackend(t)))
	c := e.open("/")
	ctx, cancel := context.WithCancel(context.Background())
	done := e.shutdown(ctx, time.Hour, time.Hour)
	select {
	case <-done:
		t.Fatal("the shutdown did not wait for the session")
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	<-done
	c.wantEnd()
}

// TestShutdownRefusesHandshakes sends the rest of a request that was begun before.
func TestShutdownRefusesHandshakes(t *testing.T) {
	t.Parallel()
	for attempt := 1; ; attempt++ {
		e := startEdge(t, defaults(echoBackend(t)))
		late := dialRaw(t, e.addr())
		request := upgradeRequest("/")
		late.send(request[:20])
		// The listener accepts in order, so that late has been accepted when this is open.
		session := e.open("/")
		session.send(clientFrame(ws.OpText, "x"))
		session.wantText("x")

		done := e.shutdown(context.Background(), time.Hour, time.Hour)
		if _, err := e.Prepare(defaults("127.0.0.1:1")); !errors.Is(err, ErrStopping) {
			t.Errorf("Prepare returned %v, want ErrStopping", err)
		}
		if e.Ready() {
			t.Error("the edge is ready")
		}
		late.send(request[20:])
		res, err := http.ReadResponse(late.in, nil)
		session.Close()
		<-done
		if err != nil && attempt < 5 {
			continue // it had not come as far as HTTP
		}
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !res.Close {
			t.Errorf("got %s %v, want 503 with Retry-After and Connection: close", res.Status, res.Header)
		}
		if got := e.Totals().Shed["shutdown"]; got != 1 {
			t.Errorf("counted %d, want 1", got)
		}
		return
	}
}

// TestShutdownLetsHandshakesFinish answers a handshake that the backend takes its time
// for, and ends the session at once.
func TestShutdownLetsHandshakesFinish(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		<-answer
		c.send(switching(r))
		c.wantClose(1001)
	})
	e := startEdge(t, defaults(b.addr))
	c := dialRaw(t, e.addr())
	c.send(upgradeRequest("/"))
	<-b.heads
	done := e.shutdown(context.Background(), 0, patience)
	close(answer)
	c.upgraded()
	c.wantClose(1001)
	c.send(clientFrame(ws.OpClose, "\x03\xe9"))
	c.wantEnd()
	c.Close()
	<-done
}

// TestShutdownLeavesNothing begins one of everything, and ends it all at once.
func TestShutdownLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	silent := startRaw(t, func(c *rawConn, r *http.Request) { c.rest() })
	stalls := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		c.rest()
	})
	sessions := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.rest()
	})
	settings := secured(t, defaults(sessions.addr))
	plain := defaults().Listeners[0]
	plain.Name, plain.Address = "plain", "localhost:0"
	settings.Listeners = append(settings.Listeners, plain)
	ws1 := settings.Routes[0]
	for _, p := range []struct{ name, addr string }{{"silent", silent.addr}, {"stalls", stalls.addr}} {
		r := ws1
		r.Name, r.Path, r.Pool = p.name, "/"+p.name, p.name
		settings.Routes = append(settings.Routes, r)
		settings.Pools = append(settings.Pools, pool1(p.name, p.addr))
	}
	e := &testEdge{Server: NewServer(zap.NewNop()), t: t}
	e.Loops = loops
	e.apply(settings)
	secureAddr, plainAddr := e.Current().Listeners()[0].Address, e.Current().Listeners()[1].Address

	dialRaw(t, secureAddr).send(clientHello(t)[:50])
	dialRaw(t, plainAddr)
	dialRaw(t, plainAddr).send("GET / HT")
	idle := dialRaw(t, plainAddr)
	idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	io.Copy(io.Discard, idle.response().Body)
	dialRaw(t, plainAddr).send(upgradeRequest("/silent"))
	<-silent.heads
	pipelined := dialRaw(t, plainAddr)
	pipelined.send(upgradeRequest("/silent"))
	<-silent.heads
	pipelined.send(clientFrame(ws.OpText, "x")) // hides the end of the connection from net/http
	relayed := dialRaw(t, plainAddr)
	relayed.send(upgradeRequest("/stalls"))
	relayed.response()
	session := dialRaw(t, plainAddr)
	session.send(upgradeRequest("/"))
	session.upgraded()

	start := time.Now()
	e.Shutdown(context.Background(), 0, 0)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if n := e.load(); n != 0 {
		t.Errorf("backends have a load of %d", n)
	}
	for _, b := range []*rawBackend{silent, stalls, sessions} {
		b.stop()
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

func TestShutdownWithoutConfiguration(t *testing.T) {
	t.Parallel()
	s := NewServer(zap.NewNop())
	if s.Ready() {
		t.Error("ready without a configuration")
	}
	s.Shutdown(context.Background(), time.Hour, time.Hour)
}
