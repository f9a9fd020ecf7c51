package test

import (
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// app is a backend that echoes, on a real socket. It can be stopped and started again on
// the same address.
type app struct {
	t    *testing.T
	name string
	addr string

	mu    sync.Mutex
	srv   *http.Server
	conns map[*websocket.Conn]bool
}

func newApp(t *testing.T, name string) *app {
	a := &app{t: t, name: name, addr: "127.0.0.1:0"}
	a.start()
	t.Cleanup(a.stop)
	return a
}

// start listens and serves.
func (a *app) start() {
	a.t.Helper()
	ln, err := net.Listen("tcp", a.addr)
	if err != nil {
		a.t.Fatal(err)
	}
	a.addr = ln.Addr().String()
	a.mu.Lock()
	a.conns = map[*websocket.Conn]bool{}
	a.srv = &http.Server{Handler: http.HandlerFunc(a.serve), ReadHeaderTimeout: 5 * time.Second}
	srv := a.srv
	a.mu.Unlock()
	go srv.Serve(ln)
}

// stop ends it with everything that is connected, as a killed process would.
func (a *app) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.srv.Close()
	for c := range a.conns {
		c.Close()
	}
}

func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	c, err := up.Upgrade(w, r, http.Header{"X-App": {a.name}})
	if err != nil {
		return
	}
	a.mu.Lock()
	a.conns[c] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.conns, c)
		a.mu.Unlock()
		c.Close()
	}()
	for {
		kind, p, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, p) != nil {
			return
		}
	}
}
