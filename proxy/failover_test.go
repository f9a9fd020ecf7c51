package proxy

import (
	"fmt"
	"net/http"
	"testing"
)

// TestLostAtOnce: a backend that leaves with its 101 finds the session as whole as any other.
func TestLostAtOnce(t *testing.T) {
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
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
	b.answer.Store(410)
	e := startEdge(t, moving(a))
	for range 50 {
		c := e.movingClient(nil)
		c.wantClosed(1012)
		c.Close()
	}
	e.idle()
}
