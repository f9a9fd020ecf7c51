package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// TestHTTP2Refused: what opens no WebSocket is answered, and the connection goes on without
// a GOAWAY.
func TestHTTP2Refused(t *testing.T) {
	t.Parallel()
	plain := startRaw(t, func(c *rawConn, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		case "/teapot":
			c.send("HTTP/1.1 418 No\r\nContent-Length: 2\r\nX-Why: tea\r\nConnection: close\r\n\r\nno")
		default:
			c.send("HTTP/1.1 426 No\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
		}
	})
	settings := withHTTP2(t, defaults(plain.addr))
	settings.Routes[0].Path = "/"
	settings.Routes = append(settings.Routes, settings.Routes[0], settings.Routes[0])
	settings.Routes[1].Name, settings.Routes[1].Path, settings.Routes[1].Origins = "browser", "/browser", []string{"https://a.test"}
	settings.Routes[2].Name, settings.Routes[2].Path, settings.Routes[2].Protocol = "plain", "/plain", HTTPOnly
	e := startEdge(t, settings)
	c := e.dialHTTP2()
	for _, tt := range []struct {
		name, path string
		more       map[string]string
		status     int
		text       string
	}{
		{"another protocol", "/", map[string]string{":protocol": "connect-udp"}, 501, "the only protocol"},
		{"no version", "/", map[string]string{"Sec-Websocket-Version": ""}, 426, "version"},
		{"another version", "/", map[string]string{"Sec-Websocket-Version": "12"}, 426, "version"},
		{"no subprotocol", "/", map[string]string{"Sec-Websocket-Protocol": "a b"}, 400, "no list of tokens"},
		{"a subprotocol twice", "/", map[string]string{"Sec-Websocket-Protocol": "a, a"}, 400, "twice"},
		{"dot segments", "/a/../b", nil, 400, "dot segments"},
		{"another origin", "/browser", map[string]string{"Origin": "https://b.test"}, 403, "origin"},
		{"a route for HTTP", "/plain/x", nil, 426, ""}, // the one for all takes it
		{"a backend's answer", "/teapot", nil, 418, "no"},
		{"a backend's answer that would open it", "/ok", nil, 502, "opened no WebSocket"},
	} {
		res, body := c.answer(tt.path, tt.more)
		if res.StatusCode != tt.status || !strings.Contains(body, tt.text) {
			t.Errorf("%s: got %s %q, want %d %q", tt.name, res.Status, body, tt.status, tt.text)
		}
		for _, name := range []string{"Connection", "Upgrade"} {
			if got := res.Header.Get(name); got != "" {
				t.Errorf("%s: the answer has %s: %s", tt.name, name, got)
			}
		}
	}
	if c.State().Closing {
		t.Error("a GOAWAY came")
	}
	if res, _ := c.answer("/teapot", nil); res.Header.Get("X-Why") != "tea" {
		t.Errorf("the backend's answer came with %v", res.Header)
	}
	e.idle()
}

// TestHTTP2Malformed: requests that a well-behaved client cannot send.
func TestHTTP2Malformed(t *testing.T) {
	t.Parallel()
	app := startRaw(t, func(c *rawConn, r *http.Request) { c.send(switching(r)); c.rest() })
	e := startEdge(t, withHTTP2(t, defaults(app.addr)))
	sound := []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "edge.test", ":path", "/ws", "sec-websocket-version", "13"}
	with := func(name, value string) (list []string) {
		for i := 0; i < len(sound); i += 2 {
			switch {
			case sound[i] != name:
				list = append(list, sound[i], sound[i+1])
			case value != "":
				list = append(list, name, value)
			}
		}
		return list
	}
	f := e.frames()
	for _, tt := range []struct {
		name    string
		headers []string
		end     bool
		want    string
	}{
		{"sound", sound, false, "200"},
		{"any letter case", with(":protocol", "WebSocket"), false, "200"},
		{"no authority", with(":authority", ""), false, "400"},
		{"a host instead", append(with(":authority", ""), "host", "edge.test"), false, "200"},
		{"plain scheme", with(":scheme", "http"), false, "400"},
		{"no scheme", with(":scheme", ""), false, "400"},
		{"no path", with(":path", ""), false, "RST_STREAM PROTOCOL_ERROR"},
		{"an asterisk", with(":path", "*"), false, "400"},
		{"a length", append(with("x", ""), "content-length", "3"), false, "400"},
		{"END_STREAM", sound, true, "400"},
		{"GET with :protocol", with(":method", "GET"), false, "400"},
		{"plain CONNECT", []string{":method", "CONNECT", ":authority", "edge.test:443"}, false, "400"},
		{"key of HTTP/1", append(with(":path", "/key"), "sec-websocket-key", testKey), false, "200"},
		{"handshake of HTTP/1", append([]string{":method", "GET", ":scheme", "https", ":authority", "edge.test", ":path", "/ws"}, "sec-websocket-key", testKey, "sec-websocket-version", "13"), true, "400"},
		{"Upgrade", append(with("x", ""), "upgrade", "websocket"), false, "400"},
		{"Connection", append(with("x", ""), "connection", "upgrade"), false, "400"},
	} {
		if got := f.request(tt.end, tt.headers...); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	close(app.heads)
	for head := range app.heads {
		for _, bad := range []string{":protocol", testKey, "CONNECT"} {
			if strings.Contains(head, bad) {
				t.Errorf("the backend got %s in\n%s", bad, head)
			}
		}
		for _, good := range []string{"GET /", "HTTP/1.1\r\n", "Host: edge.test\r\n", "Upgrade: websocket\r\n", "Connection: Upgrade\r\n", "X-Forwarded-Proto: https\r\n", "Sec-Websocket-Version: 13\r\n"} {
			if !strings.Contains(head, good) {
				t.Errorf("the backend got no %q in\n%s", good, head)
			}
		}
	}
}

// TestHTTP2Forwarded: cookies that came in parts reach the backend in one line (RFC 9113
// §8.2.3).
func TestHTTP2Forwarded(t *testing.T) {
	t.Parallel()
	app := startRaw(t, func(c *rawConn, r *http.Request) { c.send(switching(r)); c.rest() })
	e := startEdge(t, withHTTP2(t, defaults(app.addr)))
	if got := e.frames().request(false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "edge.test", ":path", "/ws",
		"sec-websocket-version", "13", "cookie", "a=1", "cookie", "b=2", "x-a", "1"); got != "200" {
		t.Fatalf("got %s", got)
	}
	head := <-app.heads
	if !strings.Contains(head, "Cookie: a=1; b=2\r\n") || !strings.Contains(head, "X-A: 1\r\n") {
		t.Errorf("the backend got\n%s", head)
	}
}

// TestHTTP2Limits: limits hold for streams as they do for connections.
func TestHTTP2Limits(t *testing.T) {
	t.Parallel()
	settings := withHTTP2(t, defaults(echoBackend(t)))
	settings.Listeners[0].Limits.MaxSessionsPerIP = 2
	e := startEdge(t, settings)
	c := e.dialHTTP2()
	first := c.open("/", nil)
	c.open("/", nil)
	if res, body := c.answer("/", nil); res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("got %s %s", res.Status, body)
	}
	first.bye()
	e.eventually("a place is free", func() bool { return e.Current().Listeners()[0].Sessions == 1 })
	c.open("/", nil).echo("in")
	if got := e.frames().request(true, ":method", "GET", ":scheme", "https", ":authority", "edge.test", ":path", "/",
		"x-long", strings.Repeat("0", 9<<10), "x-longer", strings.Repeat("0", 9<<10)); got != "431" {
		t.Errorf("a long head: got %s", got)
	}
}

// TestHTTP2Policies: frames are looked at as anywhere.
func TestHTTP2Policies(t *testing.T) {
	t.Parallel()
	settings := withHTTP2(t, defaults(echoBackend(t)))
	settings.Routes[0].WebSocket.MaxMessageBytes = 100
	e := startEdge(t, settings)
	c := e.dialHTTP2()
	for _, tt := range []struct {
		name, bytes string
		code        ws.StatusCode
	}{
		{"no mask", serverFrame(ws.OpText, "x"), 1002},
		{"too long", clientFrame(ws.OpText, strings.Repeat("x", 101)), 1009},
	} {
		s := c.open("/", nil)
		s.send(tt.bytes)
		s.wantClose(tt.code)
		s.Close()
		if _, err := io.Copy(io.Discard, s.in); err != nil {
			t.Errorf("%s: the stream ended with %v", tt.name, err)
		}
	}
	e.idle()
	var codes []string
	for key, n := range e.route("all").Closes {
		codes = append(codes, fmt.Sprint(key.Code, key.Initiator, n))
	}
	if len(codes) != 2 {
		t.Errorf("counted closes %q", codes)
	}
}
