package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/net/http2"

	"github.com/tidegate/tidegate/proxy/relay"
)

// TestHTTP2Drain: the drain of a backend closes its streams, and touches no other stream of
// the connection.
func TestHTTP2Drain(t *testing.T) {
	t.Parallel()
	a, b := echoBackend(t), echoBackend(t)
	settings := withHTTP2(t, defaults(a, b))
	settings.Pools[0].Drain.Code = relay.StatusServiceRestart
	e := startEdge(t, settings)
	c := e.dialHTTP2()
	sockets := map[string]*http2Socket{}
	for n := 1; n <= 2; n++ {
		s := c.open("/", nil)
		e.eventually("the session is there", func() bool { return e.Totals().Live == n })
		for _, x := range e.Sessions(nil) {
			if sockets[x.Backend().ID] == nil {
				sockets[x.Backend().ID] = s
			}
		}
	}
	if len(sockets) != 2 {
		t.Fatal("both sessions went to one backend")
	}
	if err := e.Drain("apps", a, DrainPace{}); err != nil {
		t.Fatal(err)
	}
	sockets[a].wantClose(relay.StatusServiceRestart)
	sockets[a].send(clientFrame(ws.OpClose, "\x03\xf4"))
	sockets[a].wantStreamEnd()
	sockets[b].echo("still here")
	if c.State().Closing {
		t.Error("a GOAWAY came")
	}
}

// TestHTTP2Reload: a reload that changes the listener leaves a connection alone that has
// streams; those that come on it get the present settings, and the last one is followed by
// GOAWAY. A connection without streams gets it at once.
func TestHTTP2Reload(t *testing.T) {
	t.Parallel()
	settings := withHTTP2(t, defaults(echoBackend(t)))
	e := startEdge(t, settings)
	idle, busy := e.dialHTTP2(), e.dialHTTP2()
	idle.open("/", nil).bye()
	e.idle()
	old := busy.open("/", nil)

	settings.Listeners = []ListenerSettings{settings.Listeners[0]}
	settings.Listeners[0].Limits.MaxSessions = 2
	settings.Routes = []RouteSettings{settings.Routes[0]}
	settings.Routes[0].Name, settings.Routes[0].WebSocket.MaxMessageBytes = "next", 10
	e.apply(settings)
	e.eventually("the idle connection gets its GOAWAY", func() bool { return idle.State().Closing })
	e.eventually("it is closed", func() bool { return e.http2.len() == 1 })

	young := busy.open("/", nil)
	if res, body := busy.answer("/", nil); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("over the new limit: got %s %s", res.Status, body)
	}
	old.echo("longer than ten bytes")
	young.echo("short")
	if busy.State().Closing {
		t.Fatal("a GOAWAY came while there were streams")
	}
	if n := e.route("next").Active["edge"]; n != 1 {
		t.Errorf("the new route has %d sessions, want 1", n)
	}
	young.bye()
	old.echo("it is not the last one")
	old.bye()
	e.eventually("the GOAWAY follows the last stream", func() bool { return busy.State().Closing })
	e.eventually("the connection is closed", func() bool { return e.http2.len() == 0 })

	// Whoever comes now is served by the new endpoint, and another reload that does not
	// touch the listener is not noticed.
	next := e.dialHTTP2()
	next.open("/", nil).bye()
	e.idle()
	e.apply(settings)
	next.open("/", nil).echo("as before")
}

// TestHTTP2Shutdown: streams are closed as all sessions are, and GOAWAY follows.
func TestHTTP2Shutdown(t *testing.T) {
	t.Parallel()
	e := startEdge(t, withHTTP2(t, defaults(echoBackend(t))))
	c, silent := e.dialHTTP2(), dialTLS(t, e.addr(), "h2")
	var all []*http2Socket
	for range 5 {
		all = append(all, c.open("/", nil))
	}
	e.eventually("both connections are there", func() bool { return e.http2.len() == 2 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Shutdown(context.Background(), 10*time.Millisecond, patience)
	}()
	e.eventually("the shutdown has begun", e.Stopping)
	for _, s := range all {
		s.wantClose(ws.StatusGoingAway)
	}
	if c.State().Closing {
		t.Error("a GOAWAY came before the streams had ended")
	}
	if res, body := c.answer("/", nil); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a new one: got %s %s", res.Status, body)
	}
	for _, s := range all {
		s.send(clientFrame(ws.OpClose, "\x03\xe9"))
		s.wantStreamEnd()
	}
	<-done
	eventually(t, "the GOAWAY has come", func() bool { return c.State().Closing })
	if _, err := io.Copy(io.Discard, silent); err != nil {
		t.Logf("who said nothing: %v", err) // closed or reset
	}
}

// TestHTTP2ManyStreams: a hundred WebSockets on a connection; those who stop reading do not
// stop the others.
func TestHTTP2ManyStreams(t *testing.T) {
	t.Parallel()
	flood := serverFrame(ws.OpBinary, strings.Repeat("x", 50<<10))
	app := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		if r.URL.Path == "/flood" {
			for {
				_, err := io.WriteString(c, flood)
				if err != nil {
					return
				}
			}
		}
		io.Copy(c, maskless{c}) // frames go back without their mask
	})
	settings := withHTTP2(t, defaults(app.addr))
	settings.Routes[0].WebSocket.WriteTimeout = 0
	e := startEdge(t, settings)
	c := e.dialHTTP2()
	for range 5 {
		c.open("/flood", nil) // nobody reads
	}
	sockets := make([]*http2Socket, 95)
	for i := range sockets {
		sockets[i] = c.open("/", nil)
	}
	for round := range 3 {
		for i, s := range sockets {
			s.send(clientFrame(ws.OpText, fmt.Sprintf("%d of %d", i, round)))
		}
		for i, s := range sockets {
			s.wantText(fmt.Sprintf("%d of %d", i, round))
		}
	}
	if n := e.Totals().Live; n != 100 {
		t.Errorf("%d sessions are live, want 100", n)
	}
}

// maskless are the frames that a client sends, as a server would send them.
type maskless struct{ *rawConn }

func (m maskless) Read(p []byte) (int, error) {
	h, err := ws.ReadHeader(m.in)
	if err != nil {
		return 0, err
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(m.in, b); err != nil {
		return 0, err
	}
	ws.Cipher(b, h.Mask, 0)
	return copy(p, ws.MustCompileFrame(ws.NewFrame(h.OpCode, h.Fin, b))), nil
}

// TestHTTP2Backpressure: of a client whose backend does not read, a window is taken and what
// the sockets hold, and no more; another stream goes on.
func TestHTTP2Backpressure(t *testing.T) {
	t.Parallel()
	free := make(chan struct{})
	app := startRaw(t, func(c *rawConn, r *http.Request) {
		c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		c.send(switching(r))
		if r.URL.Path == "/" {
			<-free
		}
		io.Copy(c, maskless{c})
	})
	settings := withHTTP2(t, defaults(app.addr))
	settings.Routes[0].WebSocket.WriteTimeout = 0
	settings.Listeners[0].TCP.SendBuffer = 4 << 10
	e := startEdge(t, settings)
	f := e.frames()
	connect := []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "edge.test", ":path", "/", "sec-websocket-version", "13"}
	for _, path := range []string{"/", "/free"} {
		connect[9] = path
		if got := f.request(false, connect...); got != "200" {
			t.Fatalf("got %s", got)
		}
	}
	granted := http2StreamWindow
	const message = 16<<10 - 8
	frame := clientFrame(ws.OpBinary, strings.Repeat("x", message))
	sent := 0
	send := func() {
		for ; sent+len(frame) <= granted; sent += len(frame) {
			if err := f.WriteData(1, false, []byte(frame)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What the edge gives back of the window is what it has passed on. The echo on the other
	// stream comes behind that.
	for still := 0; still < 5; {
		before := granted
		send()
		if err := f.WriteData(3, false, []byte(clientFrame(ws.OpText, "ping"))); err != nil {
			t.Fatal(err)
		}
		for answered := false; !answered; {
			switch x := f.next().(type) {
			case *http2.WindowUpdateFrame:
				if x.StreamID == 1 {
					granted += int(x.Increment)
				}
			case *http2.DataFrame:
				answered = x.StreamID == 3
			}
		}
		if still++; granted != before {
			still = 0
		}
	}
	if passed := granted - http2StreamWindow; passed > 2<<20 {
		t.Errorf("%d bytes were taken for a backend that does not read", passed)
	}
	close(free)
}

// TestHTTP2Migrate: a session over HTTP/2 moves as any other.
func TestHTTP2Migrate(t *testing.T) {
	t.Parallel()
	a, b := newMovingApp(t, "a"), newMovingApp(t, "b")
	e := startEdge(t, withHTTP2(t, moving(a, b)))
	s := e.dialHTTP2().open("/ws", map[string]string{"Sec-Websocket-Protocol": "chat.v2"})
	ask := func() string {
		s.send(clientFrame(ws.OpText, "who"))
		_, p := s.frame()
		return p[:1]
	}
	first := ask()
	for range 3 { // a drain, the end of one by a Close, and by a crash
		from := ask()
		app, other := a, b.addr()
		if from == "b" {
			app, other = b, a.addr()
		}
		switch first {
		case "a", "b":
			if err := e.Drain("apps", app.addr(), DrainPace{}); err != nil {
				t.Fatal(err)
			}
			defer e.Undrain("apps", app.addr())
			first = "moved"
		case "moved":
			e.Undrain("apps", other)
			app.bye(1012)
			first = "left"
		default:
			app.crash()
		}
		e.eventually("the session has moved", func() bool { return e.sessionsOf(other) == 1 && e.load() == 1 })
		if now := ask(); now == from {
			t.Fatalf("%s still answers", from)
		}
	}
	s.bye()
	e.idle()
}

// TestHTTP2Timeouts: who makes no request, and who makes none any more, is not kept; who has
// a stream is.
func TestHTTP2Timeouts(t *testing.T) {
	t.Parallel()
	settings := withHTTP2(t, defaults(echoBackend(t)))
	settings.Listeners[0].Limits.HandshakeTimeout = 3 * time.Second
	settings.Listeners[0].Limits.KeepaliveTimeout = 3 * time.Second
	e := startEdge(t, settings)
	c, quiet := e.dialHTTP2(), e.dialHTTP2()
	s := c.open("/", nil)
	silent := dialTLS(t, e.addr(), "h2")
	if _, err := io.Copy(io.Discard, silent); err != nil {
		t.Logf("who said nothing: %v", err)
	}
	e.eventually("who asked for nothing is gone", func() bool { return e.http2.len() == 1 && quiet.State().Closed })
	s.echo("still here, after both times have passed")
	s.bye()
	e.eventually("an idle connection is gone", func() bool { return e.http2.len() == 0 })
	if !c.State().Closing {
		t.Error("no GOAWAY came")
	}
}

// TestHTTP1Stays: a client that does not ask for HTTP/2 gets what it got without.
func TestHTTP1Stays(t *testing.T) {
	t.Parallel()
	e := startEdge(t, withHTTP2(t, defaults(echoBackend(t))))
	c := newRawConn(t, dialTLS(t, e.addr(), "http/1.1"))
	c.send(upgradeRequest("/ws"))
	c.upgraded()
	c.send(clientFrame(ws.OpText, "hello"))
	c.wantText("hello")
	if got := e.onlySession().engine; loops > 0 == strings.Contains(fmt.Sprintf("%T", got), "pump") {
		t.Errorf("the session runs on a %T", got)
	}
}
