package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"
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
