package proxy

import (
	"net/http"
	"strings"
	"testing"
)

// TestHTTP2Echo: a WebSocket over HTTP/2 is one as any other.
func TestHTTP2Echo(t *testing.T) {
	t.Parallel()
	e := startEdge(t, withHTTP2(t, defaults(echoBackend(t))))
	c := e.dialHTTP2()
	s := c.open("/ws?x=1", map[string]string{"Sec-Websocket-Protocol": "chat.v3, chat.v1"})
	for name, want := range map[string]string{"Sec-Websocket-Protocol": "chat.v1", "X-Path": "/ws?x=1",
		"Sec-Websocket-Accept": "", "Upgrade": "", "Connection": "", "Content-Type": ""} {
		if got := s.res.Header.Get(name); got != want {
			t.Errorf("the answer has %s %q, want %q", name, got, want)
		}
	}
	for _, text := range []string{"", "hello", strings.Repeat("0123456789abcdef", 3<<16)} {
		s.echo(text)
	}
	x := e.onlySession()
	if i := x.Info(); i.Subprotocol != "chat.v1" || i.Path != "/ws" || i.Host != "edge.test" {
		t.Errorf("the session is %+v", i)
	}
	s.bye()
	e.idle()
	if got := e.route("all").Answers; got.Handshakes["ok"] != 1 || got.Requests[http.StatusOK] != 1 {
		t.Errorf("counted %+v", got)
	}
	if c.State().Closing {
		t.Error("a GOAWAY came")
	}
	c.open("/ws", nil).echo("again")
}
