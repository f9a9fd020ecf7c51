package proxy

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/discovery/static"
	"github.com/tidegate/tidegate/tls"
)

// TestBackendHandshake holds the upstream leg to RFC 6455 §4.1: what a backend answers
// and what comes of it for the client and for the backend's counters.
func TestBackendHandshake(t *testing.T) {
	t.Parallel()
	accept := "Sec-WebSocket-Accept: " + acceptKey(testKey)
	with := func(lines ...string) func(*http.Request) string {
		return func(r *http.Request) string { return switching(r, lines...) }
	}
	before := func(s string) func(*http.Request) string {
		return func(r *http.Request) string { return s + switching(r) }
	}
	literal := func(s string) func(*http.Request) string { return func(*http.Request) string { return s } }
	tests := []struct {
		name   string
		answer func(r *http.Request) string
		ok     bool
	}{
		{"sound", with(), true},
		{"any letter case", with("Upgrade: WebSocket", "Connection: keep-alive, UPGRADE"), true},
		{"an offered subprotocol", with("Sec-WebSocket-Protocol: chat.v1"), true},
		{"empty extensions", with("Sec-WebSocket-Extensions: "), true},
		{"100 before it", before("HTTP/1.1 100 Continue\r\n\r\n"), true},
		{"103 before it", before("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), true},
		{"several informational answers", before(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5)), true},
		{"a head of 60 KiB", with("X-Big: " + strings.Repeat("x", 60<<10)), true},

		{"another Accept", with("Sec-WebSocket-Accept: " + acceptKey("x")), false},
		{"no Accept", with("Sec-WebSocket-Accept:"), false},
		{"two Accepts", with(accept, accept), false},
		{"the key for an Accept", with("Sec-WebSocket-Accept: " + testKey), false},
		{"no Upgrade", with("Upgrade:"), false},
		{"another Upgrade", with("Upgrade: h2c"), false},
		{"no Connection", with("Connection:"), false},
		{"another Connection", with("Connection: keep-alive"), false},
		{"a subprotocol that was not offered", with("Sec-WebSocket-Protocol: chat.v3"), false},
		{"a subprotocol in another case", with("Sec-WebSocket-Protocol: CHAT.V1"), false},
		{"two subprotocols", with("Sec-WebSocket-Protocol: chat.v1", "Sec-WebSocket-Protocol: chat.v2"), false},
		{"a list of subprotocols", with("Sec-WebSocket-Protocol: chat.v1, chat.v2"), false},
		{"an empty subprotocol", with("Sec-WebSocket-Protocol: "), false},
		{"an extension", with("Sec-WebSocket-Extensions: permessage-deflate"), false},
		{"too many informational answers", before(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20)), false},
		{"endless informational answers", literal(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000)), false},
		{"a head over 64 KiB", with("X-Big: " + strings.Repeat("x", 70<<10)), false},
		{"header lines without end", literal("HTTP/1.1 101 Switching Protocols\r\n" + strings.Repeat("X-A: b\r\n", 10000)), false},
		{"a status line without end", literal("HTTP/1.1 101 " + strings.Repeat("x", 100<<10)), false},
		{"garbage", literal("\x00\x01\x02\x03\r\n\r\n"), false},
		{"another protocol", literal("SSH-2.0-OpenSSH_9.2\r\n"), false},
		{"frames instead of HTTP", literal(strings.Repeat(serverFrame(ws.OpText, "hello\r\n"), 10)), false},
		{"a bad header line", literal("HTTP/1.1 101 Switching Protocols\r\nno colon\r\n\r\n"), false},
		{"a status that is no number", literal("HTTP/1.1 abc Switching Protocols\r\n\r\n"), false},
	}
	var answer atomic.Pointer[func(*http.Request) string]
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		io.WriteString(c, (*answer.Load())(r))
		c.Conn.(*net.TCPConn).CloseWrite()
		c.rest()
	})
	settings := defaults(b.addr)
	settings.Pools[0].Upstream.Retries = 0
	e := startEdge(t, settings)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer.Store(&tt.answer)
			before := failures(e.backend())
			c := dialRaw(t, e.addr())
			defer c.Close()
			c.send(upgradeRequest("/", "Sec-WebSocket-Protocol: chat.v1, chat.v2"))
			if tt.ok {
				c.upgraded()
				c.Close()
				e.idle()
				return
			}
			if res := c.response(); res.StatusCode != http.StatusBadGateway {
				t.Errorf("the client got %s, want 502", res.Status)
			}
			want := maps.Clone(before)
			want["handshake"]++
			if diff := cmp.Diff(want, failures(e.backend())); diff != "" {
				t.Errorf("failures of the backend (-want +got):\n%s", diff)
			}
		})
	}
	e.idle()
	if got := e.route("all").Handshakes; got["backend_handshake"] == 0 || got["ok"] == 0 || len(got) != 2 {
		t.Errorf("counted %v", got)
	}
}

// TestBackendEndsItsHandshake covers backends that leave, and those that stay silent.
func TestBackendEndsItsHandshake(t *testing.T) {
	t.Parallel()
	half := "HTTP/1.1 101 Switching Protocols\r\nUpgr"
	tests := []struct {
		name   string
		handle func(c *rawConn, r *http.Request)
		want   int
		kind   string
	}{
		{"closed before the head", func(c *rawConn, r *http.Request) {}, 502, "handshake"},
		{"closed inside the head", func(c *rawConn, r *http.Request) { c.send(half) }, 502, "handshake"},
		{"reset before the head", func(c *rawConn, r *http.Request) { c.Conn.(*net.TCPConn).SetLinger(0) }, 502, "handshake"},
		{"silent", func(c *rawConn, r *http.Request) { c.rest() }, 504, "timeout"},
		{"silent inside the head", func(c *rawConn, r *http.Request) { c.send(half); c.rest() }, 504, "timeout"},
		{"silent behind a 100", func(c *rawConn, r *http.Request) { c.send("HTTP/1.1 100 Continue\r\n\r\n"); c.rest() }, 504, "timeout"},
		{"a byte now and then", func(c *rawConn, r *http.Request) {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := io.WriteString(c, "H"); err != nil {
					return
				}
			}
		}, 504, "timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settings := defaults(startRaw(t, tt.handle).addr)
			settings.Pools[0].Upstream.Retries = 0
			settings.Pools[0].Upstream.HandshakeTimeout = 200 * time.Millisecond
			if tt.want == 502 {
				settings.Pools[0].Upstream.HandshakeTimeout = patience
			}
			e := startEdge(t, settings)
			if res, body := e.ask(upgradeRequest("/")); res.StatusCode != tt.want {
				t.Errorf("got %s: %s", res.Status, body)
			}
			if diff := cmp.Diff(map[string]uint64{tt.kind: 1}, failures(e.backend())); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			e.idle()
		})
	}
}

// TestFramesBehindThe101 sends frames in the same packet as the answer.
func TestFramesBehindThe101(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		n, size int
	}{{"one", 1, 10}, {"empty", 1, 0}, {"many", 1000, 1}, {"over the read buffer", 3, 5000}, {"64 KiB", 1, 64 << 10}, {"1 MiB", 64, 16 << 10}}
	for _, secure := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, tls %v", tt.name, secure), func(t *testing.T) {
				text := func(i int) string { return (strconv.Itoa(i) + strings.Repeat("x", tt.size))[:tt.size] }
				handle := func(c *rawConn, r *http.Request) {
					var b strings.Builder
					b.WriteString("HTTP/1.1 100 Continue\r\n\r\n" + switching(r))
					for i := range tt.n {
						b.WriteString(serverFrame(ws.OpText, text(i)))
					}
					c.send(b.String() + serverFrame(ws.OpClose, "\x0f\xa0bye"))
					c.wantClose(4000)
				}
				settings := defaults()
				if secure {
					settings = upstreamTLS(t, handle)
				} else {
					settings.Pools[0] = pool1("apps", startRaw(t, handle).addr)
				}
				e := startEdge(t, settings)
				c := dialRaw(t, e.addr())
				c.send(upgradeRequest("/"))
				c.upgraded()
				for i := range tt.n {
					c.wantText(text(i))
				}
				if reason := c.wantClose(4000); reason != "bye" {
					t.Errorf("got reason %q", reason)
				}
				c.send(clientFrame(ws.OpClose, "\x0f\xa0"))
				c.wantEnd()
				c.Close()
				e.idle()
			})
		}
	}
}

// upstreamTLS are settings with a raw backend behind TLS whose CA the edge knows.
func upstreamTLS(t *testing.T, handle func(c *rawConn, r *http.Request)) Settings {
	t.Helper()
	ca := newAuthority(t)
	_, cert := ca.issue(t, "127.0.0.1")
	b := startRawTLS(t, &cryptotls.Config{Certificates: []cryptotls.Certificate{cert}}, handle)
	settings := defaults(b.addr)
	cfg, err := tls.NewClientConfig(tls.ClientSettings{CAFile: ca.caFile()})
	if err != nil {
		t.Fatal(err)
	}
	settings.Pools[0].Upstream.TLS = cfg
	return settings
}

// TestBackendAnswersItself relays what is no 101 as it came.
func TestBackendAnswersItself(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 64<<10/16)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(long), long)
	tests := []struct {
		name   string
		answer string // and the end of the connection
		status int
		header http.Header
		body   string
	}{
		{"200 with a body", "HTTP/1.1 200 OK\r\nContent-Type: text/x-own\r\nContent-Length: 5\r\n\r\nhello", 200,
			http.Header{"Content-Type": {"text/x-own"}, "Content-Length": {"5"}}, "hello"},
		{"no Content-Type is made up", "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>", 200,
			http.Header{"Content-Length": {"13"}}, "<html></html>"},
		{"302", "HTTP/1.1 302 Found\r\nLocation: https://login.test/?a=b\r\nContent-Length: 0\r\n\r\n", 302,
			http.Header{"Location": {"https://login.test/?a=b"}, "Content-Length": {"0"}}, ""},
		{"401 with its headers", "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nno", 401,
			http.Header{"Www-Authenticate": {"Bearer"}, "Set-Cookie": {"a=1", "b=2"}, "Content-Length": {"2"}}, "no"},
		{"429", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 429,
			http.Header{"Retry-After": {"7"}, "Content-Length": {"0"}}, ""},
		{"204", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", 204, http.Header{"X-A": {"b"}}, ""},
		{"500", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops", 500, http.Header{"Content-Length": {"4"}}, "oops"},
		{"503 of its own", "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n", 503,
			http.Header{"Retry-After": {"9"}, "Content-Length": {"0"}}, ""},
		{"chunked", "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, 16) + "0\r\n\r\n", 403,
			http.Header{}, strings.Repeat(long, 16)},
		{"to the end of the connection", "HTTP/1.1 200 OK\r\n\r\n" + long, 200, http.Header{}, long},
		{"headers of its connection are its own", "HTTP/1.1 403 Forbidden\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n",
			403, http.Header{"X-End": {"1"}, "Content-Length": {"0"}}, ""},
		{"426 with what it wants", "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n", 426,
			http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Content-Length": {"0"}}, ""},
		{"behind a 103", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404,
			http.Header{"Content-Length": {"0"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := startRaw(t, func(c *rawConn, r *http.Request) { c.send(tt.answer) })
			e := startEdge(t, defaults(b.addr, deadAddr(t)))
			// The dead one is tried at most once before: an answer ends the search.
			res, body := e.ask(upgradeRequest("/"))
			res.Header.Del("Date")
			if res.StatusCode != tt.status || body != tt.body {
				t.Errorf("got %s and %d bytes, want %d and %d", res.Status, len(body), tt.status, len(tt.body))
			}
			if diff := cmp.Diff(tt.header, res.Header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if len(b.heads) != 1 {
				t.Errorf("the backend was asked %d times", len(b.heads))
			}
			e.idle()
			for _, x := range e.Pools()[0].Backends {
				if got := failures(x)["status"]; x.Addr == b.addr && (got == 1) != (tt.status >= 500) {
					t.Errorf("counted %d failures by status", got)
				}
			}
			if got := e.route("all").Handshakes; got["backend_answer"] != 1 || len(got) != 1 {
				t.Errorf("counted %v", got)
			}
			if got := e.route("all").Requests; got[tt.status] != 1 || len(got) != 1 {
				t.Errorf("counted %v", got)
			}
		})
	}
}

// TestBackendCutsItsAnswer must not let a part look like the whole.
func TestBackendCutsItsAnswer(t *testing.T) {
	t.Parallel()
	sized, chunked := "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
	end, reset := func(*rawConn) {}, func(c *rawConn) { c.Conn.(*net.TCPConn).SetLinger(0) }
	stall := func(c *rawConn) { c.rest() }
	const short = 300 * time.Millisecond
	tests := []struct {
		name, answer string
		then         func(c *rawConn)
		timeout      time.Duration
	}{
		{"sized, ended", sized, end, patience},
		{"sized, stalled", sized, stall, short},
		{"chunked, ended", chunked, end, patience},
		{"chunked, reset", chunked, reset, patience},
		{"chunked, stalled", chunked, stall, short},
		{"chunked, broken", chunked + "zz\r\n", stall, patience},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := startRaw(t, func(c *rawConn, r *http.Request) {
				c.send(tt.answer)
				tt.then(c)
			})
			settings := defaults(b.addr)
			settings.Pools[0].Upstream.HandshakeTimeout = tt.timeout
			e := startEdge(t, settings)
			c := dialRaw(t, e.addr())
			c.send(upgradeRequest("/"))
			res, err := http.ReadResponse(c.in, nil)
			if err == nil {
				_, err = io.ReadAll(res.Body)
			}
			if err == nil {
				t.Error("the answer looks complete")
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the client was left waiting")
			}
			c.Close()
			e.idle()
		})
	}
}

// TestBackendAnswersSlowly gives a body the time that it takes while it moves.
func TestBackendAnswersSlowly(t *testing.T) {
	t.Parallel()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for range 8 {
			<-tick.C
			io.WriteString(c, "x")
		}
	})
	tests := []struct {
		name             string
		handshake, total time.Duration
	}{
		{"moves within the handshake timeout", time.Second, 0},
		{"the total timeout is for the answer's head", 0, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			settings := defaults(b.addr)
			settings.Pools[0].Upstream.HandshakeTimeout, settings.Pools[0].Upstream.TotalTimeout = tt.handshake, tt.total
			e := startEdge(t, settings)
			if res, body := e.ask(upgradeRequest("/")); body != "xxxxxxxx" {
				t.Errorf("got %s %q", res.Status, body)
			}
		})
	}
}

// TestRetries tries other backends, each once, and gives up in time.
func TestRetries(t *testing.T) {
	t.Parallel()
	closes := func() string { return startRaw(t, func(c *rawConn, r *http.Request) {}).addr }
	silent := func() string { return startRaw(t, func(c *rawConn, r *http.Request) { c.rest() }).addr }
	refuses := func() string { return deadAddr(t) }
	sound := func() string { return echoBackend(t) }
	many := func(n int, f func() string) (list []func() string) { return slices.Repeat([]func() string{f}, n) }
	tests := []struct {
		name     string
		backends []func() string
		retries  int
		want     int
		attempts uint64 // 0: as many as there is time for
	}{
		{"a second one is sound", []func() string{refuses, sound}, 2, 101, 0},
		{"the last one is sound", []func() string{refuses, closes, refuses, sound}, 3, 101, 0},
		{"all refuse", many(3, refuses), 10, 502, 3},
		{"all leave", many(3, closes), 10, 502, 3},
		{"retries are bounded", many(5, refuses), 2, 502, 3},
		{"no retry", many(5, refuses), 0, 502, 1},
		{"one backend", many(1, refuses), 5, 502, 1},
		{"all are silent", many(2, silent), 5, 504, 2},
		{"the total timeout ends it", many(8, silent), 7, 504, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var addrs []string
			for _, start := range tt.backends {
				addrs = append(addrs, start())
			}
			settings := defaults(addrs...)
			up := &settings.Pools[0].Upstream
			up.Retries, up.HandshakeTimeout, up.TotalTimeout = tt.retries, 150*time.Millisecond, 400*time.Millisecond
			if tt.want != 504 {
				up.HandshakeTimeout = 0
			}
			if tt.attempts != 0 || tt.want != 504 {
				up.TotalTimeout = 0
			}
			e := startEdge(t, settings)
			start := time.Now()
			res, _ := e.ask(upgradeRequest("/"))
			if res.StatusCode != tt.want {
				t.Errorf("got %s, want %d", res.Status, tt.want)
			}
			if took := time.Since(start); tt.want == 504 && took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			var attempts uint64
			for _, b := range e.Pools()[0].Backends {
				if b.Live.Picks() > 1 {
					t.Errorf("a backend was tried %d times", b.Live.Picks())
				}
				attempts += b.Live.Picks()
			}
			if tt.attempts != 0 && attempts != tt.attempts || attempts > 4 {
				t.Errorf("%d attempts, want %d", attempts, tt.attempts)
			}
			e.idle()
		})
	}
}

// TestNoBackend answers 503 when there is nobody to ask.
func TestNoBackend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		instances []discovery.Instance
	}{
		{"none", nil},
		{"down", []discovery.Instance{{ID: "a", Addr: "127.0.0.1:1", Weight: 1, Status: discovery.Down}}},
		{"in maintenance", []discovery.Instance{{ID: "a", Addr: "127.0.0.1:1", Weight: 1, Status: discovery.Maintenance}}},
		{"weight 0", []discovery.Instance{{ID: "a", Addr: "127.0.0.1:1"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settings := defaults()
			settings.Pools[0].Sources[0] = SourceSettings{Slot: "other", Key: tt.name, Source: static.New(tt.instances)}
			e := startEdge(t, settings)
			e.eventually("discovery has spoken", func() bool { return len(e.Pools()[0].Backends) == len(tt.instances) })
			waits := map[string]int{}
			for range 40 {
				res, _ := e.ask(upgradeRequest("/"))
				if res.StatusCode != 503 {
					t.Fatalf("got %s, want 503", res.Status)
				}
				wait := res.Header.Get("Retry-After")
				if n, err := strconv.Atoi(wait); err != nil || n < 1 || n > 10 {
					t.Fatalf("got Retry-After %q", wait)
				}
				waits[wait]++
			}
			if len(waits) < 2 {
				t.Errorf("Retry-After is not jittered: %v", waits)
			}
			if got := e.route("all").Handshakes; got["no_backend"] != 40 {
				t.Errorf("counted %v", got)
			}
		})
	}
}

// startRawTLS is startRaw behind TLS.
func startRawTLS(t *testing.T, cfg *cryptotls.Config, handle func(c *rawConn, r *http.Request)) *rawBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveRaw(t, cryptotls.NewListener(ln, cfg), handle)
}

func TestBackendTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	_, byAddress := ca.issue(t, "127.0.0.1")
	_, byName := ca.issue(t, "app.internal")
	clientFiles, _ := ca.issue(t, "edge.internal")
	trust := tls.ClientSettings{CAFile: ca.caFile()}
	tests := []struct {
		name   string
		cert   cryptotls.Certificate
		auth   cryptotls.ClientAuthType
		edge   tls.ClientSettings
		want   int
		kind   string
		server string // SNI
	}{
		{"certificate for the address", byAddress, 0, trust, 101, "", ""},
		{"certificate for another name", byName, 0, trust, 502, "tls", ""},
		{"certificate of an unknown CA", byAddress, 0, tls.ClientSettings{CAFile: other.caFile()}, 502, "tls", ""},
		{"not verified", byName, 0, tls.ClientSettings{SkipVerify: true}, 101, "", ""},
		{"server_name", byName, 0, tls.ClientSettings{CAFile: ca.caFile(), ServerName: "app.internal"}, 101, "", "app.internal"},
		{"server_name that does not fit", byAddress, 0, tls.ClientSettings{CAFile: ca.caFile(), ServerName: "app.internal"}, 502, "tls", "app.internal"},
		{"client certificate", byAddress, cryptotls.RequireAndVerifyClientCert,
			tls.ClientSettings{CAFile: ca.caFile(), CertFile: clientFiles.CertFile, KeyFile: clientFiles.KeyFile}, 101, "", ""},
		{"no client certificate", byAddress, cryptotls.RequireAndVerifyClientCert, trust, 502, "handshake", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var sni atomic.Value
			cfg := &cryptotls.Config{Certificates: []cryptotls.Certificate{tt.cert}, ClientAuth: tt.auth, ClientCAs: ca.pool()}
			cfg.GetConfigForClient = func(h *cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
				sni.Store(h.ServerName)
				return nil, nil
			}
			b := startRawTLS(t, cfg, func(c *rawConn, r *http.Request) {
				c.send(switching(r))
				c.wantText("hello")
				c.send(serverFrame(ws.OpText, "hello"))
				c.rest()
			})
			settings := defaults(b.addr)
			edge, err := tls.NewClientConfig(tt.edge)
			if err != nil {
				t.Fatal(err)
			}
			settings.Pools[0].Upstream.TLS = edge
			e := startEdge(t, settings)
			c := dialRaw(t, e.addr())
			c.send(upgradeRequest("/"))
			if tt.want == 101 {
				c.upgraded()
				c.send(clientFrame(ws.OpText, "hello"))
				c.wantText("hello")
			} else if res := c.response(); res.StatusCode != tt.want {
				t.Errorf("got %s, want %d", res.Status, tt.want)
			}
			want := map[string]uint64{}
			if tt.kind != "" {
				want[tt.kind] = 1
			}
			if diff := cmp.Diff(want, failures(e.backend())); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			if got := sni.Load(); got != tt.server {
				t.Errorf("got SNI %q, want %q", got, tt.server)
			}
			c.Close()
			e.idle()
		})
	}
}

// TestBackendSpeaksNoTLS has an edge that expects TLS talk to other things.
func TestBackendSpeaksNoTLS(t *testing.T) {
	t.Parallel()
	accept := func(handle func(net.Conn)) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				handle(c)
				c.Close()
			}
		}()
		t.Cleanup(func() { ln.Close(); <-done })
		return ln.Addr().String()
	}
	tests := []struct {
		name string
		addr string
		want int
		kind string
	}{
		{"plain HTTP", accept(func(c net.Conn) {
			io.ReadFull(c, make([]byte, 5))
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}), 502, "tls"},
		{"silence", accept(func(c net.Conn) { io.Copy(io.Discard, c) }), 504, "timeout"},
		{"nothing there", deadAddr(t), 502, "connect"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settings := defaults(tt.addr)
			settings.Pools[0].Upstream.TLS = &cryptotls.Config{InsecureSkipVerify: true}
			settings.Pools[0].Upstream.ConnectTimeout = 300 * time.Millisecond
			if tt.kind != "timeout" {
				settings.Pools[0].Upstream.ConnectTimeout = patience
			}
			e := startEdge(t, settings)
			if res, _ := e.ask(upgradeRequest("/")); res.StatusCode != tt.want {
				t.Errorf("got %s, want %d", res.Status, tt.want)
			}
			if diff := cmp.Diff(map[string]uint64{tt.kind: 1}, failures(e.backend())); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
}
