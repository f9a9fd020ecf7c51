package proxy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"
)

// A pool whose backends all have as many sessions as they may refuses, says so, and takes
// the next one when a place is free or a reload makes more room.
func TestMaxSessionsPerBackend(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t), echoBackend(t))
	settings.Pools[0].Balance.MaxSessions = 2
	e := startEdge(t, settings)
	clients := []*rawConn{e.open("/"), e.open("/"), e.open("/"), e.open("/")}
	for _, b := range e.Pools()[0].Backends {
		if n := b.Live.Sessions(); n != 2 {
			t.Errorf("%s has %d sessions, want 2", b.ID, n)
		}
	}
	refused := func() {
		t.Helper()
		if res, _ := e.ask(upgradeRequest("/")); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("got %s %v, want 503 with Retry-After", res.Status, res.Header)
		}
	}
	refused()
	if shed, full := e.Totals().Shed["backends_full"], e.route("all").Handshakes["full"]; shed != 1 || full != 1 {
		t.Errorf("counted as shed %d times, as full %d times, want 1", shed, full)
	}
	clients[1].send(clientFrame(ws.OpText, "x"))
	clients[1].wantText("x")
	clients[0].Close()
	e.eventually("a place is free", func() bool { return e.load() == 3 })
	e.open("/")
	refused()

	settings.Pools = []PoolSettings{settings.Pools[0]}
	settings.Pools[0].Balance.MaxSessions = 3
	e.apply(settings)
	e.open("/")
	settings.Pools[0].Balance.MaxSessions = 1
	e.apply(settings)
	refused()
	clients[1].send(clientFrame(ws.OpText, "still here"))
	clients[1].wantText("still here")
}

// A backend that fails does not hide that the others are full.
func TestFullAfterAFailure(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t), deadAddr(t))
	settings.Pools[0].Balance.MaxSessions = 1
	e := startEdge(t, settings)
	e.open("/")
	if res, _ := e.ask(upgradeRequest("/")); res.StatusCode != 503 {
		t.Errorf("got %s, want 503", res.Status)
	}
}

// Handshakes that wait for their answers all at once have their places: no backend ever has
// more than the limit of them.
func TestMaxSessionsPerBackendInAStorm(t *testing.T) {
	t.Parallel()
	const limit, clients = 4, 24
	var most atomic.Int64
	arrived, answer := make(chan struct{}, clients), make(chan struct{})
	backend := func() string {
		var now atomic.Int64
		return startRaw(t, func(c *rawConn, r *http.Request) {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			arrived <- struct{}{}
			<-answer
			c.send(switching(r))
			c.rest()
		}).addr
	}
	settings := defaults(backend(), backend())
	settings.Pools[0].Balance.MaxSessions = limit
	settings.Pools[0].Balance.Policy = "least_connections"
	e := startEdge(t, settings)
	var all sync.WaitGroup
	var opened, refused atomic.Int64
	for range clients {
		c := dialRaw(t, e.addr())
		c.send(upgradeRequest("/"))
		all.Go(func() {
			switch res, err := http.ReadResponse(c.in, nil); {
			case err != nil:
				t.Error(err)
			case res.StatusCode == 101:
				opened.Add(1)
			case res.StatusCode == 503:
				refused.Add(1)
			default:
				t.Errorf("got %s", res.Status)
			}
		})
	}
	for range 2 * limit {
		<-arrived
	}
	e.eventually("the others are refused", func() bool { return refused.Load() == clients-2*limit })
	close(answer)
	all.Wait()
	if opened.Load() != 2*limit || most.Load() != limit {
		t.Errorf("%d sessions, at most %d on a backend; want %d and %d", opened.Load(), most.Load(), 2*limit, limit)
	}
}
