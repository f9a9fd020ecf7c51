package test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// lobby is a backend that many tests share at once: it hands each connection to the test
// that opened it.
type lobby struct {
	*rawBackend
	mu      sync.Mutex
	opened  int
	waiting map[string]chan *rawEnd // by the request's path
}

// openLobby listens until the test ends.
func openLobby(t *testing.T) *lobby {
	t.Helper()
	l := &lobby{rawBackend: listenRaw(t, nil), waiting: map[string]chan *rawEnd{}}
	go func() {
		for {
			conn, err := l.ln.Accept()
			if err != nil {
				return
			}
			go l.admit(conn)
		}
	}()
	return l
}

// admit reads the request of a connection and hands both over.
func (l *lobby) admit(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(soon))
	r := bareEnd(conn, false)
	req, err := http.ReadRequest(r.r)
	if err != nil {
		conn.Close()
		return
	}
	r.req = req
	l.mu.Lock()
	taker := l.waiting[req.URL.Path]
	delete(l.waiting, req.URL.Path)
	l.mu.Unlock()
	if taker == nil {
		conn.Close()
		return
	}
	taker <- r
}

// entrance is a listener that leads to a lobby.
type entrance struct {
	lobby  *lobby
	addr   string
	secure bool
}

// connect opens a session and returns both of its ends.
func (to entrance) connect(t *testing.T) (c, b *rawEnd) {
	t.Helper()
	c, b = to.request(t, "", "")
	b.write([]byte(b.switching()))
	c.wantSwitching()
	return c, b
}

// request sends a request for a path below prefix, with more header lines, and returns
// what got it.
func (to entrance) request(t *testing.T, prefix, lines string) (c, b *rawEnd) {
	t.Helper()
	path, taker := to.lobby.expect(prefix)
	c = dialRaw(t, to.addr, to.secure)
	c.write([]byte(strings.Replace(opening(path), "\r\n\r\n", "\r\n"+lines+"\r\n", 1)))
	select {
	case b = <-taker:
	case <-time.After(soon):
		t.Fatal("the backend got no request")
	}
	b.adopt(t)
	return c, b
}

// expect returns a path that nobody else asks for, and where what asks for it will be.
func (l *lobby) expect(prefix string) (path string, taker <-chan *rawEnd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened++
	path = fmt.Sprintf("%s/%d", prefix, l.opened)
	c := make(chan *rawEnd, 1)
	l.waiting[path] = c
	return path, c
}
