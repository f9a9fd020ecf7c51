package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
)

func TestOrigins(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		origins []string
		lines   []string
		want    int
	}{
		{"any", nil, []string{"Origin: https://evil.test"}, 101},
		{"allowed", []string{"https://a.test", "https://b.test"}, []string{"Origin: https://b.test"}, 101},
		{"allowed in another case", []string{"https://a.test"}, []string{"Origin: HTTPS://A.Test"}, 101},
		{"none is no browser's", []string{"https://a.test"}, nil, 101},
		{"another", []string{"https://a.test"}, []string{"Origin: https://evil.test"}, 403},
		{"another scheme", []string{"https://a.test"}, []string{"Origin: http://a.test"}, 403},
		{"another port", []string{"https://a.test"}, []string{"Origin: https://a.test:8443"}, 403},
		{"a longer name", []string{"https://a.test"}, []string{"Origin: https://a.test.evil.test"}, 403},
		{"null", []string{"https://a.test"}, []string{"Origin: null"}, 403},
		{"null where it is allowed", []string{"null"}, []string{"Origin: null"}, 101},
		{"two", []string{"https://a.test"}, []string{"Origin: https://a.test", "Origin: https://evil.test"}, 403},
		{"empty", []string{"https://a.test"}, []string{"Origin: "}, 403},
	}
	addr := echoBackend(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settings := defaults(addr)
			settings.Routes[0].Origins = tt.origins
			e := startEdge(t, settings)
			if res, _ := e.ask(upgradeRequest("/", tt.lines...)); res.StatusCode != tt.want {
				t.Errorf("got %s, want %d", res.Status, tt.want)
			}
			e.idle()
			if got := e.route("all").Handshakes["origin"]; (got == 1) != (tt.want == 403) {
				t.Errorf("counted %d", got)
			}
			if picks := e.backend().Live.Picks(); (picks == 0) != (tt.want == 403) {
				t.Errorf("the backend was picked %d times", picks)
			}
		})
	}
}

func TestMaxSessions(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Limits.MaxSessions = 2
	e := startEdge(t, settings)
	first, second := e.open("/"), e.open("/")
	res, _ := e.ask(upgradeRequest("/"))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %s %v, want 503 with Retry-After", res.Status, res.Header)
	}
	if got := e.Totals().Shed["max_sessions"]; got != 1 {
		t.Errorf("counted %d, want 1", got)
	}
	if got := e.route("all").Handshakes["max_sessions"]; got != 1 {
		t.Errorf("counted %d, want 1", got)
	}
	// Those that are open notice nothing, and the next one takes the place that is left.
	first.send(clientFrame(ws.OpText, "x"))
	first.wantText("x")
	second.Close()
	e.eventually("a place is free", func() bool { return e.Current().Listeners()[0].Sessions == 1 })
	e.open("/")
	if got := e.Current().Listeners()[0].Sessions; got != 2 {
		t.Errorf("%d sessions, want 2", got)
	}
}

// TestMaxSessionsOverAListenersReturn: sessions keep their places while their listener is
// away, so that it does not come back with room for as many again.
func TestMaxSessionsOverAListenersReturn(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Address = freeAddr(t)
	settings.Listeners[0].Limits.MaxSessions = 1
	e := startEdge(t, settings)
	held := e.open("/")
	without := settings
	without.Listeners = []ListenerSettings{{Name: "other", Address: "127.0.0.1:0", Limits: settings.Listeners[0].Limits}}
	e.apply(without)
	e.apply(settings)
	if res, _ := e.ask(upgradeRequest("/")); res.StatusCode != 503 {
		t.Errorf("got %s, want 503 while the first session is open", res.Status)
	}
	held.Close()
	e.eventually("the place is free", func() bool { return e.Current().Listeners()[0].Sessions == 0 })
	e.open("/")
}

// TestMaxSessionsAtOnce admits exactly as many of those that come together.
func TestMaxSessionsAtOnce(t *testing.T) {
	t.Parallel()
	const n, limit = 40, 10
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Limits.MaxSessions = limit
	e := startEdge(t, settings)
	codes := make(chan int, n)
	var wg sync.WaitGroup
	for range n {
		c := dialRaw(t, e.addr())
		wg.Go(func() {
			c.Write([]byte(upgradeRequest("/")))
			res, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Error(err)
				return
			}
			codes <- res.StatusCode
		})
	}
	wg.Wait()
	close(codes)
	got := map[int]int{}
	for code := range codes {
		got[code]++
	}
	if got[101] != limit || got[503] != n-limit {
		t.Errorf("got %v, want %d sessions", got, limit)
	}
}

func TestMaxSessionsPerIP(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Limits.MaxSessionsPerIP = 2
	trustLoopback(&settings)
	e := startEdge(t, settings)
	from := func(xff string) string { return "X-Forwarded-For: " + xff }
	refused := func(line string) {
		t.Helper()
		res, _ := e.ask(upgradeRequest("/", line))
		if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got %s, want 429 with Retry-After", line, res.Status)
		}
	}
	first := e.open("/", from("1.1.1.1"))
	e.open("/", from("9.9.9.9, 1.1.1.1")) // what a client says of itself does not count
	refused(from("1.1.1.1"))
	refused(from("1.1.1.1:4711"))
	refused(from("::ffff:1.1.1.1"))
	e.open("/", from("2.2.2.2"))
	e.open("/", from("2001:db8::1"))
	if got := e.Totals().Shed["max_sessions_per_ip"]; got != 3 {
		t.Errorf("counted %d, want 3", got)
	}
	if got := e.session(first).ClientIP().String(); got != "1.1.1.1" {
		t.Errorf("the session's client is %s", got)
	}
	first.Close()
	e.eventually("a place is free", func() bool { return e.Totals().Live == 3 && e.Current().Listeners()[0].Sessions == 3 })
	e.open("/", from("1.1.1.1"))
	refused(from("1.1.1.1"))
}

// TestPerIPWithoutTrust counts by the connection, whatever it claims.
func TestPerIPWithoutTrust(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Listeners[0].Limits.MaxSessionsPerIP = 1
	e := startEdge(t, settings)
	e.open("/", "X-Forwarded-For: 1.1.1.1")
	if res, _ := e.ask(upgradeRequest("/", "X-Forwarded-For: 2.2.2.2")); res.StatusCode != 429 {
		t.Errorf("got %s, want 429", res.Status)
	}
}

// TestPlacesComeBack has one place, which everything that can happen to a handshake
// must leave free for the next.
func TestPlacesComeBack(t *testing.T) {
	t.Parallel()
	answer := make(chan string, 1)
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		switch a := <-answer; a {
		case "session":
			c.send(switching(r))
			c.untilClose()
		case "silence":
			c.rest()
		default:
			c.send(a)
		}
	})
	settings := defaults(b.addr)
	settings.Listeners[0].Limits.MaxSessions, settings.Listeners[0].Limits.MaxSessionsPerIP = 1, 1
	settings.Routes[0].Origins = []string{"https://a.test"}
	settings.Pools[0].Upstream.Retries = 0
	e := startEdge(t, settings)
	tests := []struct {
		name, answer string
		do           func(c *rawConn)
	}{
		{"malformed", "", func(c *rawConn) {
			c.send(upgradeRequest("/", "Sec-WebSocket-Key:"))
			c.response()
		}},
		{"origin", "", func(c *rawConn) {
			c.send(upgradeRequest("/", "Origin: https://evil.test"))
			c.response()
		}},
		{"failure", "garbage\r\n\r\n", func(c *rawConn) {
			c.send(upgradeRequest("/"))
			c.response()
		}},
		{"the backend's answer", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", func(c *rawConn) {
			c.send(upgradeRequest("/"))
			c.response()
		}},
		{"the backend's answer, cut", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\n", func(c *rawConn) {
			c.send(upgradeRequest("/"))
			c.wantEnd()
		}},
		{"client gone", "silence", func(c *rawConn) {
			c.send(upgradeRequest("/"))
			e.eventually("the backend is asked", func() bool { return len(answer) == 0 })
		}},
		{"session", "session", func(c *rawConn) {
			c.send(upgradeRequest("/"))
			c.upgraded()
		}},
		{"session that is violated", "session", func(c *rawConn) {
			c.send(upgradeRequest("/") + "\xff\xff")
			c.upgraded()
			c.wantClose(1002)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 {
				if tt.answer != "" {
					answer <- tt.answer
				}
				c := dialRaw(t, e.addr())
				tt.do(c)
				c.Close()
				e.idle()
			}
		})
	}
	if got := e.Totals().Shed; len(got) > 0 {
		t.Errorf("shed %v", got)
	}
}

// TestSizeLimits tells each side its own code.
func TestSizeLimits(t *testing.T) {
	t.Parallel()
	const frame, message = 100, 250
	fragment := func(op ws.OpCode, fin bool, n int) ws.Frame {
		return ws.NewFrame(op, fin, []byte(strings.Repeat("x", n)))
	}
	tests := []struct {
		name   string
		frames []ws.Frame
		ok     bool
	}{
		{"a frame of the limit", []ws.Frame{fragment(ws.OpBinary, true, frame)}, true},
		{"a message of the limit", []ws.Frame{fragment(ws.OpBinary, false, frame), fragment(ws.OpContinuation, false, frame), fragment(ws.OpContinuation, true, message-2*frame)}, true},
		{"a frame too big", []ws.Frame{fragment(ws.OpBinary, true, frame+1)}, false},
		{"a frame far too big", []ws.Frame{fragment(ws.OpBinary, true, 70000)}, false},
		{"a message too big", []ws.Frame{fragment(ws.OpText, false, frame), fragment(ws.OpContinuation, false, frame), fragment(ws.OpContinuation, true, message-2*frame+1)}, false},
	}
	for _, tt := range tests {
		for _, from := range []string{"client", "backend"} {
			t.Run(tt.name+" from the "+from, func(t *testing.T) {
				var fromClient, fromBackend string
				for _, f := range tt.frames {
					if from == "client" {
						fromClient += string(ws.MustCompileFrame(ws.MaskFrame(f)))
					} else {
						fromBackend += string(ws.MustCompileFrame(f))
					}
				}
				end := clientFrame(ws.OpClose, "\x03\xe8")
				toClient, toBackend := ws.StatusCode(1000), ws.StatusCode(1000)
				if !tt.ok {
					end = ""
					toClient, toBackend = 1009, 1001
					if from == "backend" {
						toClient, toBackend = 1011, 1009
					}
				}
				codes := make(chan ws.StatusCode, 1)
				b := startRaw(t, func(c *rawConn, r *http.Request) {
					c.send(switching(r) + fromBackend)
					codes <- c.untilClose()
				})
				settings := defaults(b.addr)
				settings.Routes[0].WebSocket.MaxFrameBytes, settings.Routes[0].WebSocket.MaxMessageBytes = frame, message
				e := startEdge(t, settings)
				c := dialRaw(t, e.addr())
				c.send(upgradeRequest("/") + fromClient + end)
				c.upgraded()
				c.wantClose(toClient)
				if got := <-codes; got != toBackend {
					t.Errorf("the backend got %d, want %d", got, toBackend)
				}
				c.Close()
				e.idle()
				want := CloseKey{uint16(toClient), "edge"}
				if tt.ok {
					want.Initiator = "client"
				}
				if got := e.route("all").Closes; got[want] != 1 || len(got) != 1 {
					t.Errorf("counted %v, want %v", got, want)
				}
			})
		}
	}
}

// TestLimitsCount gives back what was taken, in any order.
func TestLimitsCount(t *testing.T) {
	t.Parallel()
	var l limits
	b := ListenerLimits{MaxSessions: 5, MaxSessionsPerIP: 2}
	addrs := loopbacks(4)
	admitted := 0
	for range 3 {
		for _, a := range addrs {
			if l.admit(b, a) == nil {
				admitted++
			}
		}
	}
	if admitted != 5 || l.total != 5 {
		t.Errorf("%d admitted, %d counted, want 5", admitted, l.total)
	}
	for a, n := range l.perIP {
		for range n {
			l.release(a)
		}
	}
	if l.total != 0 || len(l.perIP) != 0 {
		t.Errorf("left over: %d, %v", l.total, l.perIP)
	}
	if ref := l.admit(ListenerLimits{}, addrs[0]); ref != nil {
		t.Error(fmt.Errorf("without limits: %w", ref))
	}
}

func loopbacks(n int) (list []netip.Addr) {
	for i := range n {
		list = append(list, netip.AddrFrom4([4]byte{127, 0, 0, byte(i)}))
	}
	return list
}
