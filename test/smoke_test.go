package test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const oneRoute = `
ADMIN
shutdown: {drain_window: 100ms, deadline: 10s}
listeners:
  - {name: edge, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: all, match: {path: /}, pool: apps}
pools:
  - {name: apps, backends: [BACKENDS]}
`

// withBackends fills the list of static backends of a configuration.
func withBackends(yaml string, addrs ...string) string {
	var list []string
	for _, a := range addrs {
		list = append(list, `{address: "`+a+`"}`)
	}
	return strings.ReplaceAll(yaml, "BACKENDS", strings.Join(list, ", "))
}

func TestSmoke(t *testing.T) {
	app := newApp(t, "a")
	e := start(t, withBackends(oneRoute, app.addr))
	dialer := websocket.Dialer{TLSClientConfig: insecure()}
	c, _, err := dialer.Dial("wss://"+e.addr("edge")+"/ws", nil)
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
	if code, out, _ := e.cli("sessions"); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("sessions: exit %d\n%s", code, out)
	}
	e.signal(syscall.SIGTERM)
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("got %v, want Close 1001", err)
	}
	c.Close()
	e.waitExit(10 * time.Second)
	if e.err != nil {
		t.Errorf("exit: %v", e.err)
	}
	end := e.waitLogAfterExit("session ended")
	if end["code"] != float64(1001) || end["initiator"] != "edge" || end["messages_upstream"] != float64(1) {
		t.Errorf("logged %v", end)
	}
}
