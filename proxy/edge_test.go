package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/discovery/static"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testEdge is a running server with its settings.
type testEdge struct {
	*Server
	t        *testing.T
	settings Settings
}

// defaults are the settings of a plain listener on a free port, one route for all and
// one pool.
func defaults(addrs ...string) Settings {
	return Settings{
		Listeners: []ListenerSettings{{Name: "edge", Address: "127.0.0.1:0", Limits: ListenerLimits{
			HandshakeTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10, KeepaliveTimeout: 30 * time.Second}}},
		Routes: []RouteSettings{{Name: "all", Path: "/", Pool: "apps", WebSocket: WebSocketSettings{
			MaxMessageBytes: 16 << 20, CloseTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, MaxBufferedBytes: 256 << 10}}},
		Pools: []PoolSettings{{Name: "apps", Sources: []SourceSettings{staticSource(addrs...)},
			Balance: balance.Options{Policy: "round_robin"}, Upstream: UpstreamSettings{ConnectTimeout: 3 * time.Second,
				HandshakeTimeout: 5 * time.Second, TotalTimeout: 15 * time.Second, Retries: 2, Host: HostPreserve}}},
	}
}

func staticSource(addrs ...string) SourceSettings {
	var list []discovery.Instance
	for _, a := range addrs {
		list = append(list, discovery.Instance{ID: a, Addr: a, Weight: 1})
	}
	return SourceSettings{Slot: "static", Key: strings.Join(addrs, " "), Source: static.New(list)}
}

// startEdge runs a server with settings and waits until its pools have backends.
func startEdge(t *testing.T, settings Settings) *testEdge {
	t.Helper()
	e := &testEdge{Server: NewServer(zap.NewNop()), t: t}
	t.Cleanup(func() { e.Shutdown(context.Background(), 0, 0) })
	e.apply(settings)
	return e
}

func (e *testEdge) apply(settings Settings) *Generation {
	e.t.Helper()
	next, err := e.Prepare(settings)
	if err != nil {
		e.t.Fatal(err)
	}
	e.settings = settings
	gen := next.Commit()
	e.eventually("every pool has its backends", func() bool {
		for i, p := range e.Pools() {
			want := 0
			for _, s := range settings.Pools[i].Sources {
				if s.Key != "" {
					want += len(strings.Fields(s.Key))
				}
			}
			present := 0
			for _, b := range p.Backends {
				if b.Live.State() != balance.StateRemoved {
					present++
				}
			}
			if present != want {
				return false
			}
		}
		return true
	})
	return gen
}

// eventually polls cond; what it waits for happens on goroutines of the server.
func (e *testEdge) eventually(what string, cond func() bool) {
	e.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			e.t.Fatalf("not so within 10 s: %s", what)
		}
	}
}

func (e *testEdge) addr() string { return e.Current().Listeners()[0].Address }

func (e *testEdge) url(path string) string { return "ws://" + e.addr() + path }

// echoBackend is an app server that echoes and answers with the name of its subprotocol.
func echoBackend(t *testing.T) (addr string) {
	t.Helper()
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat.v2", "chat.v1"}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, p, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, p) != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestEcho(t *testing.T) {
	e := startEdge(t, defaults(echoBackend(t), echoBackend(t)))
	c, _, err := websocket.DefaultDialer.Dial(e.url("/ws"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, p, err := c.ReadMessage(); err != nil || string(p) != "hello" {
		t.Fatalf("got %q, %v", p, err)
	}
	if got := e.Sessions(nil); len(got) != 1 || got[0].Backend.Live.Sessions() != 1 {
		t.Fatalf("sessions %v", got)
	}
	c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 1000) {
		t.Fatalf("got %v, want Close 1000", err)
	}
	e.eventually("the session is over", func() bool { return len(e.Sessions(nil)) == 0 })
}

// rawGet sends a request as it stands and returns the whole answer's head.
func rawSend(t *testing.T, addr, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, request)
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestPlainHTTPGets426(t *testing.T) {
	e := startEdge(t, defaults(echoBackend(t)))
	got := rawSend(t, e.addr(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 426 ") || !strings.Contains(got, "Sec-Websocket-Version: 13") {
		t.Errorf("got %q", got)
	}
}
