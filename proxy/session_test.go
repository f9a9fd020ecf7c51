package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/proxy/relay"
)

// closeWith is the payload of a Close.
func closeWith(code ws.StatusCode, reason string) string {
	return string(ws.NewCloseFrameBody(code, reason))
}

// TestSessionEnds goes through every way in which a session ends: what either side sees,
// what is counted, and what the log says.
func TestSessionEnds(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200)
	reset := func(c *rawConn) { c.Conn.(*net.TCPConn).SetLinger(0); c.Close() }
	type ends struct{ client, backend string }
	tests := []struct {
		name    string
		client  func(c *rawConn, s *Session) // after the exchange
		backend func(c *rawConn)
		sees    ends // the last thing that a side gets: a code, with its reason, or the end
		key     CloseKey
		cause   string
		log     map[string]any
		failure string // of the backend, in one word
	}{
		{name: "the client closes",
			client: func(c *rawConn, s *Session) { c.send(clientFrame(ws.OpClose, closeWith(4001, "bye"))) },
			sees:   ends{"4001 bye", "4001 bye"}, key: CloseKey{4001, "client"}, cause: "client_closed", log: map[string]any{"reason": "bye"}},
		{name: "the client closes without a code",
			client: func(c *rawConn, s *Session) { c.send(clientFrame(ws.OpClose, "")) },
			sees:   ends{"1005", "1005"}, key: CloseKey{1005, "client"}, cause: "client_closed"},
		{name: "the backend closes",
			backend: func(c *rawConn) { c.send(serverFrame(ws.OpClose, closeWith(3000, "enough"))) },
			sees:    ends{"3000 enough", "3000 enough"}, key: CloseKey{3000, "backend"}, cause: "backend_closed", log: map[string]any{"reason": "enough"}},
		{name: "the backend fails within",
			backend: func(c *rawConn) { c.send(serverFrame(ws.OpClose, closeWith(1011, "oops"))) },
			sees:    ends{"1011 oops", "1011 oops"}, key: CloseKey{1011, "backend"}, cause: "backend_closed", failure: "internal_error"},
		{name: "the backend closes with another code",
			backend: func(c *rawConn) { c.send(serverFrame(ws.OpClose, closeWith(1013, "later"))) },
			sees:    ends{"1013 later", "1013 later"}, key: CloseKey{1013, "backend"}, cause: "backend_closed"},
		{name: "the client ends its stream",
			client: func(c *rawConn, s *Session) { c.Conn.(*net.TCPConn).CloseWrite() },
			sees:   ends{"end", "end"}, key: CloseKey{0, "client"}, cause: "client_gone"},
		{name: "the client resets its connection",
			client: func(c *rawConn, s *Session) { reset(c) },
			sees:   ends{"end", "end"}, key: CloseKey{0, "client"}, cause: "client_gone"},
		{name: "the backend ends its stream",
			backend: func(c *rawConn) { c.Conn.(*net.TCPConn).CloseWrite() },
			sees:    ends{"1012 backend went away", "end"}, key: CloseKey{1012, "backend"}, cause: "backend_gone", failure: "aborted"},
		{name: "the backend resets its connection",
			backend: reset,
			sees:    ends{"1012 backend went away", "end"}, key: CloseKey{1012, "backend"}, cause: "backend_gone", failure: "aborted"},
		{name: "the client breaks the protocol",
			client: func(c *rawConn, s *Session) { c.send(serverFrame(ws.OpText, "without a mask")) },
			sees:   ends{"1002", "1001"}, key: CloseKey{1002, "edge"}, cause: "client_violation", log: map[string]any{"violation": ""}},
		{name: "the backend breaks the protocol",
			backend: func(c *rawConn) { c.send(clientFrame(ws.OpText, "with a mask")) },
			sees:    ends{"1011", "1002"}, key: CloseKey{1011, "edge"}, cause: "backend_violation", failure: "violation", log: map[string]any{"violation": ""}},
		{name: "the client sends too much",
			client: func(c *rawConn, s *Session) { c.send(clientFrame(ws.OpText, long)) },
			sees:   ends{"1009", "1001"}, key: CloseKey{1009, "edge"}, cause: "client_violation", log: map[string]any{"violation": ""}},
		{name: "the backend sends too much",
			backend: func(c *rawConn) { c.send(serverFrame(ws.OpText, long)) },
			sees:    ends{"1011", "1009"}, key: CloseKey{1011, "edge"}, cause: "backend_violation", log: map[string]any{"violation": ""}},
		{name: "the edge closes",
			client: func(c *rawConn, s *Session) { s.Close(4008, "by the API", WhyAPI) },
			sees:   ends{"4008 by the API", "1001 by the API"}, key: CloseKey{4008, "edge"}, cause: "edge_closed", log: map[string]any{"reason": "by the API"}},
		{name: "the edge kills",
			client: func(c *rawConn, s *Session) { s.kill() },
			sees:   ends{"end", "end"}, key: CloseKey{0, ""}, cause: ""}, // whichever end is noticed first
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			backendSaw := make(chan string, 1)
			b := startRaw(t, func(c *rawConn, r *http.Request) {
				c.send(switching(r))
				c.wantText("question")
				c.send(serverFrame(ws.OpText, "answer one") + serverFrame(ws.OpBinary, "two") + serverFrame(ws.OpPing, "p"))
				if op, _ := c.frame(); op != ws.OpPong {
					t.Errorf("got opcode %d, want the pong", op)
				}
				if tt.backend != nil {
					tt.backend(c)
				}
				backendSaw <- c.lastWord(func(p string) string { return serverFrame(ws.OpClose, p) })
			})
			settings := defaults(b.addr)
			settings.Routes[0].WebSocket.MaxMessageBytes = 100
			e := startEdge(t, settings)
			c := e.open("/chat?x=1", "Sec-WebSocket-Protocol:")
			s := e.session(c)
			c.send(clientFrame(ws.OpText, "question"))
			c.wantText("answer one")
			if op, p := c.frame(); op != ws.OpBinary || p != "two" {
				t.Errorf("got opcode %d %q", op, p)
			}
			if op, _ := c.frame(); op != ws.OpPing {
				t.Errorf("got opcode %d, want the ping", op)
			}
			c.send(clientFrame(ws.OpPong, "p"))
			e.eventually("the pong is counted", func() bool { return s.Counts()[relay.Client].Frames == 2 })
			if tt.client != nil {
				tt.client(c, s)
			}
			saw := ends{c.lastWord(func(p string) string { return clientFrame(ws.OpClose, p) }), <-backendSaw}
			c.Close()
			for _, side := range []struct{ name, got, want string }{{"client", saw.client, tt.sees.client}, {"backend", saw.backend, tt.sees.backend}} {
				// The texts of violations are not held here.
				if side.got != side.want && !(len(side.want) == 4 && strings.HasPrefix(side.got, side.want)) {
					t.Errorf("the %s saw %q, want %q", side.name, side.got, side.want)
				}
			}
			e.idle()
			if s.State() != StateClosed || e.Session(s.ID()) != nil {
				t.Errorf("the session is %s, found: %v", s.State(), e.Session(s.ID()) != nil)
			}
			counts := s.Counts()
			up, down := counts[relay.Client], counts[relay.Backend]
			if up.Messages != 1 || up.Bytes != 8 || down.Messages != 2 || down.Bytes != 13 {
				t.Errorf("counted %+v up and %+v down", up, down)
			}
			if tt.cause != "" {
				checkEnd(t, e, s, tt.key, tt.cause, tt.log)
			}
			want := map[string]uint64{}
			if tt.failure != "" {
				want[tt.failure] = 1
			}
			if got := failures(e.backend()); tt.cause != "" && !cmp.Equal(got, want) {
				t.Errorf("failures of the backend: %v, want %v", got, want)
			}
		})
	}
}

// lastWord reads a side to its end and returns its Close, which it answers, or "end".
func (c *rawConn) lastWord(answer func(payload string) string) string {
	last := "end"
	for {
		h, err := ws.ReadHeader(c.in)
		if err != nil {
			return last
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c.in, p); err != nil {
			return last
		}
		if h.Masked {
			ws.Cipher(p, h.Mask, 0)
		}
		if h.OpCode != ws.OpClose {
			continue
		}
		code, reason := ws.ParseCloseFrameData(p)
		if len(p) == 0 {
			code = ws.StatusNoStatusRcvd
		}
		last = strings.TrimSpace(fmt.Sprint(int(code), " ", reason))
		io.WriteString(c, answer(string(p)))
		c.Conn.(*net.TCPConn).CloseWrite()
	}
}

// checkEnd holds counters and log lines of the one session against what they must say.
func checkEnd(t *testing.T, e *testEdge, s *Session, key CloseKey, cause string, more map[string]any) {
	t.Helper()
	v := e.route("all")
	if v.Closes[key] != 1 || len(v.Closes) != 1 {
		t.Errorf("closes: %v, want %v", v.Closes, key)
	}
	if v.Active["edge"] != 0 || v.SessionDuration.Count != 1 {
		t.Errorf("%d active, %d durations", v.Active["edge"], v.SessionDuration.Count)
	}
	if up, down := v.Traffic[0], v.Traffic[1]; up.Messages != [2]uint64{1, 0} || down.Messages != [2]uint64{1, 1} || up.Bytes != 8 || down.Bytes != 13 || down.Frames[4] != 1 || up.Frames[5] != 1 {
		t.Errorf("traffic: %+v", v.Traffic)
	}
	opened, ended := e.logs.FilterMessage("session opened").All(), e.logs.FilterMessage("session ended").All()
	if len(opened) != 1 || len(ended) != 1 {
		t.Fatalf("%d lines at the opening, %d at the end", len(opened), len(ended))
	}
	who := map[string]any{"session": s.ID(), "listener": "edge", "route": "all", "pool": "apps", "backend": s.Backend().ID,
		"client": s.Info().Client.String(), "request_id": s.Info().RequestID}
	what := map[string]any{"messages_upstream": uint64(1), "bytes_upstream": uint64(8), "messages_downstream": uint64(2), "bytes_downstream": uint64(13),
		"initiator": key.Initiator, "cause": cause}
	start, end := opened[0].ContextMap(), ended[0].ContextMap()
	for name, want := range who {
		if start[name] != want || end[name] != want {
			t.Errorf("%s is %v at the opening and %v at the end, want %v", name, start[name], end[name], want)
		}
	}
	for name, want := range what {
		if end[name] != want {
			t.Errorf("%s is %v, want %v", name, end[name], want)
		}
	}
	for name, want := range more {
		if got, _ := end[name].(string); got == "" || want != "" && got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	code := key.Code
	if code == 0 {
		code = 1006
	}
	if end["code"] != code {
		t.Errorf("code is %v, want %d", end["code"], code)
	}
	if d, _ := end["duration"].(time.Duration); d <= 0 {
		t.Errorf("duration is %v", end["duration"])
	}
	if start["path"] != "/chat" || start["host"] != "edge.test" {
		t.Errorf("path %v of host %v", start["path"], start["host"])
	}
}

// TestSessionStates shows closing while a side has not answered.
func TestSessionStates(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(echoBackend(t)))
	c := e.open("/")
	s := e.session(c)
	if s.State() != StateOpen || s.State().String() != "open" {
		t.Errorf("the session is %s", s.State())
	}
	s.Close(1008, "first", WhyAPI)
	s.Close(1000, "second", WhyAPI)
	e.eventually("it is closing", func() bool { return s.State() == StateClosing })
	if reason := c.wantClose(1008); reason != "first" {
		t.Errorf("got reason %q", reason)
	}
	if e.Session(s.ID()) != s {
		t.Error("a session that is closing is not shown")
	}
	c.send(clientFrame(ws.OpClose, closeWith(1008, "")))
	c.wantEnd()
	c.Close()
	e.idle()
	if s.State() != StateClosed || s.State().String() != "closed" {
		t.Errorf("the session is %s", s.State())
	}
	s.Close(1000, "too late", WhyAPI)
}

// TestSessionThatDoesNotAnswer is given up after close_timeout.
func TestSessionThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Routes[0].WebSocket.CloseTimeout = 100 * time.Millisecond
	e := startEdge(t, settings)
	c := e.open("/")
	e.session(c).Close(1008, "", WhyAPI)
	c.wantClose(1008)
	e.idle()
	if got := e.route("all").Closes; got[CloseKey{1008, "edge"}] != 1 {
		t.Errorf("counted %v", got)
	}
}

// TestStuckClient is given up after write_timeout, and its backend freed.
func TestStuckClient(t *testing.T) {
	t.Parallel()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		frame := serverFrame(ws.OpBinary, strings.Repeat("x", 64<<10))
		for {
			if _, err := io.WriteString(c, frame); err != nil {
				return
			}
		}
	})
	settings := defaults(b.addr)
	settings.Routes[0].WebSocket.WriteTimeout = 200 * time.Millisecond
	settings.Routes[0].WebSocket.CloseTimeout = 200 * time.Millisecond
	settings.Listeners[0].TCP.SendBuffer = 8 << 10
	e := startEdge(t, settings)
	e.open("/")
	e.idle()
	if got := e.route("all").Closes; got[CloseKey{0, "client"}] != 1 || len(got) != 1 {
		t.Errorf("counted %v", got)
	}
	end := e.logs.FilterMessage("session ended").All()
	if len(end) != 1 || !strings.Contains(fmt.Sprint(end[0].ContextMap()["client_error"]), "timeout") {
		t.Errorf("logged %v", end)
	}
}

// TestSessionsAreListed finds them by id, in the order of their age.
func TestSessionsAreListed(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(echoBackend(t), echoBackend(t)))
	var want []string
	for range 40 {
		want = append(want, e.session(e.open("/")).ID())
	}
	if !slices.IsSorted(want) {
		t.Errorf("ids do not sort by age: %v", want)
	}
	if diff := cmp.Diff(want, idsOf(e.Sessions(nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, id := range want {
		if s := e.Session(id); s == nil || s.ID() != id || len(id) != 13 {
			t.Errorf("%q leads to %v", id, s)
		}
	}
	if s := e.Session("nonsense"); s != nil {
		t.Errorf("found %v", s)
	}
	first := e.Pools()[0].Backends[0]
	half := e.Sessions(func(s *Session) bool { return s.Backend().ID == first.ID })
	if n := len(half); n == 0 || n == len(want) || int64(n) != first.Live.Sessions() {
		t.Errorf("%d sessions of a backend that has %d", n, first.Live.Sessions())
	}
	if got := e.Totals(); got.Live != 40 || got.Opened != 40 || got.Handshaking != 0 {
		t.Errorf("totals %+v", got)
	}
}

// TestSessionThatEndsBeforeItIsListed must not stay in the list.
func TestSessionThatEndsBeforeItIsListed(t *testing.T) {
	t.Parallel()
	all := newSessions()
	x := &Session{number: newIDs(time.Now()).new()}
	x.state.Store(uint32(StateClosed))
	all.remove(x)
	all.add(x)
	if all.len() != 0 || all.get(x.number) != nil {
		t.Error("it is listed")
	}
}

// TestLongPathsAreCut in the log, where a client chooses how long they are.
func TestLongPathsAreCut(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(echoBackend(t)))
	e.open("/" + strings.Repeat("ä", 1000))
	e.ask(upgradeRequest("/"+strings.Repeat("x", 1000), "Sec-WebSocket-Version: 8"))
	for _, message := range []string{"session opened", "refused"} {
		lines := e.logs.FilterMessage(message).All()
		if len(lines) != 1 {
			t.Fatalf("%d lines %q", len(lines), message)
		}
		if path := fmt.Sprint(lines[0].ContextMap()["path"]); len(path) > 300 || !strings.HasSuffix(path, "…") {
			t.Errorf("%q has a path of %d bytes", message, len(path))
		}
	}
}
