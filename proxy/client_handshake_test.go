package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"
)

// TestClientHandshake holds the edge to RFC 6455 §4.2.1 and RFC 9112 with raw requests.
func TestClientHandshake(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	big := strings.Repeat("x", settings.Listeners[0].Limits.MaxHeaderBytes)
	ok, bad, required := http.StatusSwitchingProtocols, http.StatusBadRequest, http.StatusUpgradeRequired
	tests := []struct {
		name    string
		request string
		want    int
	}{
		{"plain and sound", upgradeRequest("/ws"), ok},
		{"keep-alive beside Upgrade", upgradeRequest("/ws", "Connection: keep-alive, Upgrade"), ok},
		{"Connection in two lines", upgradeRequest("/ws", "Connection: keep-alive", "Connection: Upgrade"), ok},
		{"any letter case", upgradeRequest("/ws", "Connection: UPGRADE", "Upgrade: WebSocket"), ok},
		{"header names in any case", strings.Replace(upgradeRequest("/ws"), "Sec-WebSocket-Key", "sEC-wEBSOCKET-kEY", 1), ok},
		{"list of upgrades", upgradeRequest("/ws", "Upgrade: h2c, websocket"), ok},
		{"upgrades in two lines", upgradeRequest("/ws", "Upgrade: h2c", "Upgrade: websocket"), ok},
		{"Content-Length 0", upgradeRequest("/ws", "Content-Length: 0"), ok},
		{"extension offers", upgradeRequest("/ws", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"), ok},
		{"absolute-form target", upgradeRequest("http://edge.test/ws"), ok},
		{"absolute-form target of scheme ws", upgradeRequest("ws://edge.test/ws"), ok},
		{"subprotocols", upgradeRequest("/ws", "Sec-WebSocket-Protocol: other, chat.v1"), ok},

		{"no key", upgradeRequest("/ws", "Sec-WebSocket-Key:"), bad},
		{"empty key", upgradeRequest("/ws", "Sec-WebSocket-Key: "), bad},
		{"two keys", upgradeRequest("/ws", "Sec-WebSocket-Key: "+testKey, "Sec-WebSocket-Key: "+testKey), bad},
		{"key that is not base64", upgradeRequest("/ws", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), bad},
		{"key of 15 bytes", upgradeRequest("/ws", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"), bad},
		{"key of 17 bytes", upgradeRequest("/ws", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="), bad},
		{"key without padding", upgradeRequest("/ws", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), bad},
		{"key with stray bits", upgradeRequest("/ws", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="), bad},
		{"key but no Upgrade", upgradeRequest("/ws", "Upgrade:"), bad},
		{"key but another Upgrade", upgradeRequest("/ws", "Upgrade: h2c"), bad},
		{"no Connection", upgradeRequest("/ws", "Connection:"), bad},
		{"Connection without Upgrade", upgradeRequest("/ws", "Connection: keep-alive"), bad},
		{"POST", strings.Replace(upgradeRequest("/ws"), "GET", "POST", 1), bad},
		{"HEAD", strings.Replace(upgradeRequest("/ws"), "GET", "HEAD", 1), bad},
		{"HTTP/1.0", strings.Replace(upgradeRequest("/ws"), "HTTP/1.1", "HTTP/1.0", 1), bad},
		{"body by Content-Length", upgradeRequest("/ws", "Content-Length: 5") + "hello", bad},
		{"body that never comes", upgradeRequest("/ws", "Content-Length: 5"), bad},
		{"chunked body", upgradeRequest("/ws", "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n", bad},
		{"no Host", upgradeRequest("/ws", "Host:"), bad},
		{"two Hosts", upgradeRequest("/ws", "Host: a.test", "Host: b.test"), bad},
		{"subprotocol twice", upgradeRequest("/ws", "Sec-WebSocket-Protocol: chat.v1, chat.v1"), bad},
		{"subprotocol in two lines twice", upgradeRequest("/ws", "Sec-WebSocket-Protocol: chat.v1", "Sec-WebSocket-Protocol: chat.v1"), bad},
		{"subprotocol that is no token", upgradeRequest("/ws", "Sec-WebSocket-Protocol: chat v1"), bad},
		{"dot segments", upgradeRequest("/ws/../admin"), bad},
		{"encoded dot segments", upgradeRequest("/ws/%2e%2E/admin"), bad},
		{"encoded dot segments and slashes", upgradeRequest("/ws%2f..%2fadmin"), bad},
		{"single dot", upgradeRequest("/ws/./admin"), bad},
		{"dot segments of plain HTTP", "GET /a/../b HTTP/1.1\r\nHost: x\r\n\r\n", bad},
		{"target that is no path", upgradeRequest("ws"), bad},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", bad},
		{"CONNECT", "CONNECT edge.test:443 HTTP/1.1\r\nHost: edge.test:443\r\n\r\n", bad},
		{"bad escape in the target", upgradeRequest("/ws%zz"), bad},
		{"space in a header name", upgradeRequest("/ws", "X Y: z"), bad},
		{"garbage", "\x00\x01\x02\x03garbage\r\n\r\n", bad},

		{"no version", upgradeRequest("/ws", "Sec-WebSocket-Version:"), required},
		{"version 8", upgradeRequest("/ws", "Sec-WebSocket-Version: 8"), required},
		{"version 14", upgradeRequest("/ws", "Sec-WebSocket-Version: 14"), required},
		{"version 13, 8", upgradeRequest("/ws", "Sec-WebSocket-Version: 13, 8"), required},
		{"two versions", upgradeRequest("/ws", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"), required},

		{"header too large", upgradeRequest("/ws", "X-Big: "+big), http.StatusRequestHeaderFieldsTooLarge},
		{"target too large", upgradeRequest("/" + big), http.StatusRequestHeaderFieldsTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dialRaw(t, e.addr())
			defer c.Close()
			c.send(tt.request)
			res := c.response()
			if res.StatusCode != tt.want {
				body, _ := io.ReadAll(res.Body)
				t.Fatalf("got %s (%s), want %d", res.Status, body, tt.want)
			}
			if strings.Contains(tt.name, "body") && !res.Close {
				t.Error("a connection whose body nobody reads is kept")
			}
			switch res.StatusCode {
			case ok:
				if got := res.Header.Values("Sec-WebSocket-Accept"); len(got) != 1 || got[0] != acceptKey(testKey) {
					t.Errorf("got Sec-WebSocket-Accept %q", got)
				}
				if got := res.Header.Values("Sec-WebSocket-Extensions"); len(got) > 0 {
					t.Errorf("got extensions %q", got)
				}
				c.send(clientFrame(ws.OpText, tt.name))
				c.wantText(tt.name)
			case required:
				if got := res.Header.Get("Sec-WebSocket-Version"); got != "13" {
					t.Errorf("got Sec-WebSocket-Version %q, want 13", got)
				}
				if got := res.Header.Get("Upgrade"); got != "websocket" {
					t.Errorf("got Upgrade %q, want websocket", got)
				}
			case http.StatusRequestHeaderFieldsTooLarge:
				if _, err := io.ReadAll(c.in); err != nil {
					t.Errorf("the answer ends with %v: it could be lost", err)
				}
			}
		})
	}
	e.idle()
}

func TestSubprotocolIsNegotiatedEndToEnd(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(echoBackend(t)))
	c := dialRaw(t, e.addr())
	c.send(upgradeRequest("/", "Sec-WebSocket-Protocol: chat.v1", "Sec-WebSocket-Protocol: other, chat.v2"))
	if got := c.upgraded().Header["Sec-Websocket-Protocol"]; len(got) != 1 || got[0] != "chat.v2" {
		t.Errorf("got subprotocol %q, want the backend's choice, chat.v2", got)
	}
	if got := e.session(c).Info().Subprotocol; got != "chat.v2" {
		t.Errorf("the session's subprotocol is %q", got)
	}
	c.Close()
	e.idle()
}

// TestHeaderLimit sets the bound at which a head is too large.
func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		limit, size, want int
	}{
		{4 << 10, 3 << 10, 101}, // the smallest that the configuration takes
		{4 << 10, 4 << 10, 431},
		{8 << 10, 7 << 10, 101},
		{8 << 10, 9 << 10, 431},
		{0, 200 << 10, 101}, // 0 is no limit, to the edge; the backend has one of its own
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.limit, tt.size), func(t *testing.T) {
			b := startRaw(t, func(c *rawConn, r *http.Request) {
				c.send(switching(r))
				c.rest()
			})
			settings := defaults(b.addr)
			settings.Listeners[0].Limits.MaxHeaderBytes = tt.limit
			e := startEdge(t, settings)
			c := dialRaw(t, e.addr())
			defer c.Close()
			c.send(upgradeRequest("/ws", "X-Big: "+strings.Repeat("x", tt.size)))
			if got := c.response().StatusCode; got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// TestWrongProtocolOnPort speaks TLS to a plain port and the reverse. Either ends the
// connection, with one clear line in the log.
func TestWrongProtocolOnPort(t *testing.T) {
	t.Parallel()
	plain := startEdge(t, defaults(echoBackend(t)))
	secure := startEdge(t, secured(t, defaults(echoBackend(t))))
	tests := []struct {
		name string
		e    *testEdge
		bytes,
		message string
	}{
		{"TLS on the plain port", plain, clientHello(t), "connection ended before a request was complete"},
		{"garbage on the plain port", plain, strings.Repeat("\xff\x00", 5000), "connection ended before a request was complete"},
		{"plain on the TLS port", secure, upgradeRequest("/"), "TLS handshake failed"},
		{"garbage on the TLS port", secure, strings.Repeat("\xff\x00", 5000), "TLS handshake failed"},
		{"half a ClientHello", secure, clientHello(t)[:50], "TLS handshake failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.e.logs.TakeAll()
			c := dialRaw(t, tt.e.addr())
			c.send(tt.bytes)
			c.Conn.(*net.TCPConn).CloseWrite()
			c.wantEnd()
			tt.e.eventually("a line is logged", func() bool { return tt.e.logs.Len() > 0 })
			if all := tt.e.logs.TakeAll(); len(all) != 1 || all[0].Message != tt.message {
				t.Errorf("logged %v, want one line %q", all, tt.message)
			}
		})
	}
	c := plain.open("/") // and goes on
	c.send(clientFrame(ws.OpText, "x"))
	c.wantText("x")
}

func TestRequestInPieces(t *testing.T) {
	t.Parallel()
	request := upgradeRequest("/ws", "Cookie: a=b") + clientFrame(ws.OpText, "first")
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls %v", secure), func(t *testing.T) {
			e, dial := startEither(t, secure, defaults(echoBackend(t)))
			c := dial()
			for i := range len(request) {
				c.send(request[i : i+1])
			}
			c.upgraded()
			c.wantText("first")
			c.Close()
			e.idle()
		})
	}
}

// TestFramesBehindTheRequest sends frames without waiting for the 101.
func TestFramesBehindTheRequest(t *testing.T) {
	t.Parallel()
	frames := func(n, size int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprint(i)+strings.Repeat("x", size))
		}
		return list
	}
	tests := []struct {
		name  string
		texts []string
	}{
		{"one small frame", []string{"x"}},
		{"an empty frame", []string{""}},
		{"many small frames", frames(1000, 0)},
		{"more than the HTTP buffer", frames(3, 5000)},
		{"64 KiB", frames(1, 64<<10)},
		{"1 MiB", frames(64, 16<<10)},
	}
	for _, secure := range []bool{false, true} {
		e, dial := startEither(t, secure, defaults(echoBackend(t)))
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, tls %v", tt.name, secure), func(t *testing.T) {
				c := dial()
				var all strings.Builder
				all.WriteString(upgradeRequest("/ws"))
				for _, s := range tt.texts {
					all.WriteString(clientFrame(ws.OpText, s))
				}
				go io.WriteString(c, all.String())
				c.upgraded()
				for _, s := range tt.texts {
					c.wantText(s)
				}
				c.Close()
			})
		}
		e.idle()
	}
}

// TestSecondRequestUpgrades reuses an HTTP connection, also after answers of the
// edge's own and of the backend.
func TestSecondRequestUpgrades(t *testing.T) {
	t.Parallel()
	refusals := 0
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		if refusals++; refusals == 1 {
			c.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		c.send(switching(r))
		c.rest()
	})
	e := startEdge(t, defaults(b.addr))
	c := dialRaw(t, e.addr())
	steps := []struct {
		request string
		want    int
	}{
		{"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n", 400},
		{upgradeRequest("/ws", "Sec-WebSocket-Version: 8"), 426},
		{upgradeRequest("/ws"), 401},
		{upgradeRequest("/ws", "Sec-WebSocket-Key:"), 400},
		{upgradeRequest("/ws"), 101},
	}
	for _, s := range steps {
		c.send(s.request)
		res := c.response()
		if res.StatusCode != s.want {
			t.Fatalf("got %s, want %d", res.Status, s.want)
		}
		if s.want != 101 {
			io.Copy(io.Discard, res.Body)
		}
	}
	c.Close()
	e.idle()
}

// TestSlowHead ends connections that do not come to a request in time.
func TestSlowHead(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	slow := func(secure bool) (*testEdge, func() *rawConn) {
		settings := defaults(echoBackend(t))
		settings.Listeners[0].Limits.HandshakeTimeout = timeout
		return startEither(t, secure, settings)
	}
	plain, dialPlain := slow(false)
	secure, dialSecure := slow(true)
	dialTCP := func() *rawConn { return dialRaw(t, secure.addr()) }
	request := upgradeRequest("/ws", "X-Fill: "+strings.Repeat("x", 4000))
	tests := []struct {
		name    string
		e       *testEdge
		dial    func() *rawConn
		bytes   string
		trickle bool
	}{
		{"silence", plain, dialPlain, "", false},
		{"half a head", plain, dialPlain, request[:100], false},
		{"a byte now and then", plain, dialPlain, request, true},
		{"silence instead of TLS", secure, dialTCP, "", false},
		{"half a ClientHello", secure, dialTCP, clientHello(t)[:80], false},
		{"silence after TLS", secure, dialSecure, "", false},
		{"half a head in TLS", secure, dialSecure, request[:100], false},
		{"a byte now and then in TLS", secure, dialSecure, request, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			c := tt.dial()
			if tt.trickle {
				go func() {
					tick := time.NewTicker(timeout / 20)
					defer tick.Stop()
					for i := range len(tt.bytes) {
						if _, err := io.WriteString(c, tt.bytes[i:i+1]); err != nil {
							return
						}
						<-tick.C
					}
				}()
			} else {
				io.WriteString(c, tt.bytes) // may come too late
			}
			if got := c.wantEnd(); strings.Contains(got, " 101 ") {
				t.Errorf("got %q", got)
			}
			if took := time.Since(start); took > timeout+5*time.Second {
				t.Errorf("it took %v", took)
			}
			c.Close()
		})
	}
}

// deadlines keeps the read deadline that is set on it.
type deadlines struct {
	net.Conn
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = t; return nil }

// TestHandshakeDeadlineStands until a request has come, whatever net/http sets: the time
// that TLS took is not given again for the head.
func TestHandshakeDeadlineStands(t *testing.T) {
	t.Parallel()
	now := time.Now()
	under := &deadlines{}
	c := &clientConn{Conn: under, deadline: now.Add(time.Second)}
	for _, tt := range []struct{ set, want time.Time }{
		{now.Add(time.Minute), now.Add(time.Second)},
		{now.Add(time.Millisecond), now.Add(time.Millisecond)},
	} {
		if c.SetReadDeadline(tt.set); !under.read.Equal(tt.want) {
			t.Errorf("%v from now became %v", tt.set.Sub(now), under.read.Sub(now))
		}
	}
	c.served.Store(true)
	if c.SetReadDeadline(now.Add(time.Minute)); !under.read.Equal(now.Add(time.Minute)) {
		t.Errorf("after a request %v from now became %v", time.Minute, under.read.Sub(now))
	}
}

// TestHandshakeTimeoutsEnd with the handshake of either leg: a session, and the next
// request of an HTTP connection, have their own time.
func TestHandshakeTimeoutsEnd(t *testing.T) {
	t.Parallel()
	const timeout = 800 * time.Millisecond
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Limits.HandshakeTimeout = timeout
	settings.Pools[0].Upstream.HandshakeTimeout, settings.Pools[0].Upstream.TotalTimeout = timeout, timeout
	e := startEdge(t, settings)
	c := dialRaw(t, e.addr())
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	res := c.response()
	if res.StatusCode != 400 {
		t.Fatal(res.Status)
	}
	io.Copy(io.Discard, res.Body)
	<-time.After(timeout + timeout/4)
	c.send(upgradeRequest("/"))
	c.upgraded()
	<-time.After(timeout + timeout/4)
	c.alive()
	c.Close()
	e.idle()
}

// TestClientLeavesDuringItsHandshake gives the backend back and counts no failure. Bytes
// behind the request hide it until the answer cannot be written.
func TestClientLeavesDuringItsHandshake(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, behind string
		reset        bool
	}{
		{"end of stream", "", false},
		{"reset", "", true},
		{"reset behind a frame", clientFrame(ws.OpText, "x"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			left := make(chan struct{})
			b := startRaw(t, func(c *rawConn, r *http.Request) {
				<-left
				if tt.behind != "" {
					io.WriteString(c, switching(r))
				}
				c.rest()
			})
			e := startEdge(t, defaults(b.addr))
			c := dialRaw(t, e.addr())
			c.send(upgradeRequest("/") + tt.behind)
			<-b.heads
			if got := e.backend().Live.InFlight(); got != 1 {
				t.Fatalf("%d in flight, want 1", got)
			}
			if tt.reset {
				c.Conn.(*net.TCPConn).SetLinger(0)
			}
			c.Close()
			close(left)
			e.idle()
			for kind := range failures(e.backend()) {
				t.Errorf("counted a failure of kind %s", kind)
			}
			if got := e.route("all").Handshakes; got["client_gone"] != 1 || len(got) != 1 {
				t.Errorf("counted %v, want one client_gone", got)
			}
		})
	}
}

// TestPlain has a handler of its own for what opens no WebSocket.
func TestPlain(t *testing.T) {
	t.Parallel()
	e := &testEdge{Server: NewServer(zap.NewNop()), t: t}
	e.Loops = loops
	e.Plain = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Page", r.URL.Path)
		w.WriteHeader(http.StatusTeapot)
	})
	t.Cleanup(func() { e.Shutdown(context.Background(), 0, 0) })
	settings := defaults(echoBackend(t))
	settings.Routes[0].Hosts = []string{"edge.test"}
	e.apply(settings)
	if res, _ := e.ask("GET /a/../b HTTP/1.1\r\nHost: other.test\r\n\r\n"); res.StatusCode != 418 || res.Header.Get("X-Page") != "/a/../b" {
		t.Errorf("got %s of %q", res.Status, res.Header.Get("X-Page"))
	}
	if res, _ := e.ask(upgradeRequest("/", "Host: other.test")); res.StatusCode != 404 {
		t.Errorf("got %s of no route", res.Status)
	}
	e.open("/").alive()
}

// TestClientThatReadsNoAnswers is cut: each request that it pipelines needs room for an
// answer.
func TestClientThatReadsNoAnswers(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Limits.HandshakeTimeout = 300 * time.Millisecond
	settings.Listeners[0].TCP.SendBuffer = 4 << 10
	e := startEdge(t, settings)
	c := dialRaw(t, e.addr())
	c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	requests := strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 100)
	for {
		_, err := io.WriteString(c, requests)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection was kept")
		}
		if err != nil {
			break
		}
	}
	e.idle()
}
