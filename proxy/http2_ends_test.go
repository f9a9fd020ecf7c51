package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"
	"golang.org/x/net/http2"

	"github.com/tidegate/tidegate/proxy/relay"
)

// TestHTTP2Ends: how one side ends is how the other one sees it (RFC 8441 §5).
func TestHTTP2Ends(t *testing.T) {
	t.Parallel()
	seen := make(chan ws.StatusCode, 100) // by the backend; 0 is no Close
	leave := make(chan string, 1)         // what the backend says before it leaves
	app := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		if r.URL.Path == "/leaves" {
			c.send(<-leave)
			if r.URL.RawQuery == "waits" {
				seen <- c.untilClose()
			}
			return
		}
		seen <- c.untilClose()
	})
	e := startEdge(t, withHTTP2(t, defaults(app.addr)))
	wantSeen := func(what string, want ws.StatusCode) {
		t.Helper()
		if got := <-seen; got != want {
			t.Errorf("%s: the backend saw %d, want %d", what, got, want)
		}
		e.idle()
	}
	c := e.dialHTTP2()

	s := c.open("/", nil)
	s.send(clientFrame(ws.OpClose, "\x0f\xa1why"))
	if reason := s.wantClose(4001); reason != "why" {
		t.Errorf("got the reason %q", reason)
	}
	s.wantStreamEnd()
	wantSeen("client's Close", 4001)

	s = c.open("/", nil)
	s.Close()
	s.wantStreamEnd()
	wantSeen("END_STREAM", 0)

	s = c.open("/", nil)
	s.reset()
	wantSeen("RST_STREAM", 0)

	s = c.open("/leaves?waits", nil)
	leave <- serverFrame(ws.OpClose, "\x0f\xa2bye")
	if reason := s.wantClose(4002); reason != "bye" {
		t.Errorf("got the reason %q", reason)
	}
	s.send(clientFrame(ws.OpClose, "\x0f\xa2bye"))
	s.wantStreamEnd()
	wantSeen("backend's Close", 4002)

	s = c.open("/leaves", nil)
	leave <- serverFrame(ws.OpText, "last words")
	s.wantText("last words")
	s.wantClose(relay.StatusServiceRestart)
	s.send(clientFrame(ws.OpClose, "\x03\xf4"))
	s.wantStreamEnd()
	e.idle()

	s = c.open("/leaves", nil)
	leave <- serverFrame(ws.OpText, "cut")[:3]
	if b, err := io.ReadAll(s.in); err != nil || len(b) != 3 {
		t.Errorf("a cut frame: got %q, %v", b, err)
	}
	e.idle()

	s = c.open("/", nil)
	e.onlySession().Close(4003, "enough", WhyAPI)
	if reason := s.wantClose(4003); reason != "enough" {
		t.Errorf("got the reason %q", reason)
	}
	s.send(clientFrame(ws.OpClose, "\x0f\xa3"))
	s.wantStreamEnd()
	wantSeen("the edge's Close", 1001)

	s = c.open("/", nil)
	e.onlySession().kill()
	var reset http2.StreamError
	if _, err := io.ReadAll(s.in); !errors.As(err, &reset) {
		t.Errorf("killed: got %v, want RST_STREAM", err)
	}
	wantSeen("killed", 0)

	if c.State().Closing {
		t.Error("a GOAWAY came")
	}
	for range 3 {
		c.open("/", nil)
	}
	c.conn.Close()
	for range 3 {
		if got := <-seen; got != 0 {
			t.Errorf("connection lost: the backend saw %d", got)
		}
	}
	e.idle()
	e.eventually("the connection is gone", func() bool { return e.http2.len() == 0 })
}

// TestHTTP2StopsReading: who takes nothing for the write timeout is given up, by RST_STREAM,
// and only the stream.
func TestHTTP2StopsReading(t *testing.T) {
	t.Parallel()
	flood := strings.Repeat(serverFrame(ws.OpBinary, strings.Repeat("x", 60<<10)), 20)
	app := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		if r.URL.Path == "/flood" {
			io.WriteString(c, flood)
		}
		c.rest()
	})
	settings := withHTTP2(t, defaults(app.addr))
	settings.Routes[0].WebSocket.WriteTimeout = 200 * time.Millisecond
	e := startEdge(t, settings)
	f := e.frames() // which opens no window beyond the first 64 KiB
	connect := []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "edge.test", ":path", "/flood", "sec-websocket-version", "13"}
	if got := f.request(false, connect...); got != "200" {
		t.Fatalf("got %s", got)
	}
	for got := 0; ; {
		switch x := f.next().(type) {
		case *http2.DataFrame:
			got += len(x.Data())
			continue
		case *http2.RSTStreamFrame:
			if got != 65535 {
				t.Errorf("the client got %d bytes", got)
			}
		case *http2.GoAwayFrame:
			t.Fatalf("got %v", x)
		default:
			continue
		}
		break
	}
	e.idle()
	if n := len(e.logs.FilterMessage("session ended").FilterField(zap.String("why", "write_timeout")).All()); n != 1 {
		t.Errorf("%d sessions ended by the write timeout, want 1", n)
	}
	connect[9] = "/"
	if got := f.request(false, connect...); got != "200" {
		t.Errorf("another stream: got %s", got)
	}
}

// TestHTTP2Wedged: a session ends, also when the connection below takes nothing at all.
func TestHTTP2Wedged(t *testing.T) {
	t.Parallel()
	app := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		for frame := serverFrame(ws.OpBinary, strings.Repeat("x", 60<<10)); ; {
			if _, err := io.WriteString(c, frame); err != nil {
				return
			}
		}
	})
	settings := withHTTP2(t, defaults(app.addr))
	settings.Routes[0].WebSocket.CloseTimeout = 100 * time.Millisecond
	settings.Listeners[0].TCP.SendBuffer = 16 << 10
	e := startEdge(t, settings)
	f := e.frames()
	f.WriteWindowUpdate(0, 1<<30)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if got := f.request(false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "edge.test", ":path", "/", "sec-websocket-version", "13"); got != "200" {
		t.Fatalf("got %s", got)
	}
	s := e.onlySession()
	var before uint64
	still := 0
	e.eventually("nothing moves any more", func() bool {
		now := s.Counts()[relay.Backend].Bytes
		if still++; now != before || now == 0 {
			before, still = now, 0
		}
		return still == 20
	})
	s.Close(1001, "", WhyAPI)
	e.idle()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	e.Shutdown(ctx, 0, time.Hour) // which the connection does not hold up
}
