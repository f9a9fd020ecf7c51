package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/internal/admin"
)

func shutdownConfig(window, deadline string, addrs ...string) string {
	return withBackends(`
ADMIN
shutdown: {drain_window: `+window+`, deadline: `+deadline+`}
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: secure, address: "127.0.0.2:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: talk, match: {path: /}, pool: apps, websocket: {close_timeout: 1m, write_timeout: 2m}}
pools:
  - {name: apps, backends: [BACKENDS]}
`, addrs...)
}

// ended are the end lines of the log by the path of their session.
func (e *edge) ended() map[string]map[string]any {
	e.mu.Lock()
	defer e.mu.Unlock()
	paths, ends := map[any]string{}, map[string]map[string]any{}
	for _, l := range e.logs {
		switch l["msg"] {
		case "session opened":
			paths[l["session"]] = l["path"].(string)
		case "session ended":
			ends[paths[l["session"]]] = l
		}
	}
	return ends
}

// TestShutdown: 300 talking sessions end with 1001, evenly over the window, while the edge
// says that it goes.
func TestShutdown(t *testing.T) {
	const sessions, window, tenths = 300, 4 * time.Second, 10
	talkers := []*talker{newTalker(t, "a"), newTalker(t, "b")}
	e := start(t, shutdownConfig(window.String(), "30s", talkers[0].addr, talkers[1].addr))
	plain, secure := e.addr("plain"), e.addr("secure")
	f := newFleet(t, 300*time.Millisecond)
	f.open(sessions, func(i int) string {
		return pickOf(i%5 == 0, "ws://"+plain, "wss://"+secure) + fmt.Sprintf("/talk/%d", i)
	})
	f.flows("before")
	if status, _ := e.get("/readyz"); status != http.StatusOK {
		t.Fatalf("/readyz answers %d", status)
	}
	stall := stallMeter()
	e.signal(syscall.SIGTERM)
	begun := time.Now()
	e.eventually("/readyz fails", func() bool { status, _ := e.get("/readyz"); return status == http.StatusServiceUnavailable })
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("/readyz failed only after %v", took)
	}
	if status, _ := e.get("/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d while sessions drain", status)
	}
	for _, addr := range []string{plain, secure} {
		e.eventually(addr+" refuses connections", func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
	if s := e.status(); s.Ready || !s.ShuttingDown {
		t.Errorf("status is %+v", s)
	}
	if _, err := e.api.Reload(context.Background()); err == nil {
		t.Error("a reload was applied")
	} else if refusal, ok := errors.AsType[*admin.APIError](err); !ok || refusal.Status != http.StatusServiceUnavailable {
		t.Errorf("a reload got %v, want 503", err)
	}

	patience := time.After(30 * time.Second)
	for _, k := range f.talks {
		select {
		case <-k.ended:
		case <-patience:
			t.Fatalf("%s has not ended", k.url)
		}
		if k.code != websocket.CloseGoingAway || k.wrong != "" {
			t.Errorf("%s ended with %v; %s", k.url, k.err, k.wrong)
		}
		k.conn.Close()
	}
	e.waitExit(10 * time.Second)
	took := time.Since(begun)
	if e.err != nil {
		t.Errorf("exit: %v", e.err)
	}
	if took < window/2 || took > window+5*time.Second {
		t.Errorf("the shutdown took %v, the window is %v", took, window)
	}

	// No tenth of the window has more than about twice the mean. A machine that stands
	// still for a while has what was due in it afterwards.
	late := stall()
	most := 2*sessions/tenths + sessions/20 + int(2*late*sessions/window)
	var closed [tenths + 1]int
	for _, k := range f.talks {
		closed[min(tenths, max(0, int(k.at.Sub(begun)*tenths/window)))]++
	}
	t.Logf("closed in each tenth of the window, and later: %v (stalls of %v); exit after %v", closed, late, took.Round(time.Millisecond))
	for i, n := range closed {
		if n > most {
			t.Errorf("%d of %d sessions were closed in tenth %d of the window, want %d at most", n, sessions, i, most)
		}
	}

	ends := e.ended()
	if len(ends) != sessions {
		t.Errorf("%d sessions have an end line, want %d", len(ends), sessions)
	}
	for _, k := range f.talks {
		l := ends[k.url[strings.Index(k.url, "/talk/"):]]
		// What the client wrote behind the Close counts for nobody.
		down := float64(k.echoed.Load() + k.pushed.Load())
		if l == nil || l["code"] != 1001.0 || l["initiator"] != "edge" || l["cause"] == "" || l["backend"] == "" || l["duration"] == 0.0 ||
			l["messages_downstream"].(float64) < down || l["messages_upstream"].(float64) > float64(k.sent.Load()) || l["messages_upstream"].(float64) < float64(k.echoed.Load()) {
			t.Errorf("%s sent %d, got %v; its end line is %v", k.url, k.sent.Load(), down, l)
		}
	}
	e.waitLogAfterExit("stopped")
	for _, b := range talkers {
		for b.stats().Live > 0 {
			if time.Since(begun) > time.Minute {
				t.Fatalf("%s still has sessions", b.name)
			}
		}
		if s := b.stats(); len(s.Wrong) > 0 {
			t.Errorf("talker %s: %v", b.name, s.Wrong)
		}
	}
}

// stuck opens a session whose client reads nothing any more, not even its Close, while
// its backend sends until nothing more fits.
func stuck(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprintf(c, "GET /stuck HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", addr)
	status, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err != nil || !strings.Contains(status, " 101 ") {
		t.Fatalf("got %q, %v", status, err)
	}
	return c
}

// floodApp is a backend that sends as much as is taken, to clients that ask for it by
// path.
func floodApp(t *testing.T) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		go func() {
			defer c.Close()
			for _, _, err := c.ReadMessage(); err == nil; _, _, err = c.ReadMessage() {
			}
		}()
		for chunk := make([]byte, 64<<10); c.WriteMessage(websocket.BinaryMessage, chunk) == nil; {
		}
	})}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}

// TestShutdownDeadline: who does not take his Close is cut at the deadline, and it is no
// failure of the edge.
func TestShutdownDeadline(t *testing.T) {
	const deadline = 2 * time.Second
	e := start(t, shutdownConfig("200ms", deadline.String(), floodApp(t)))
	plain := e.addr("plain")
	stuck(t, plain)
	e.eventually("the backend cannot send more", func() bool {
		page, err := e.api.Sessions(context.Background(), admin.SessionQuery{})
		return err == nil && len(page.Sessions) == 1 && page.Sessions[0].Downstream.Messages > 0
	})
	e.signal(syscall.SIGTERM)
	begun := time.Now()
	e.waitExit(deadline + 10*time.Second)
	took := time.Since(begun)
	t.Logf("exit after %v", took.Round(time.Millisecond))
	if e.err != nil {
		t.Errorf("exit: %v", e.err)
	}
	if took < deadline-50*time.Millisecond || took > deadline+3*time.Second {
		t.Errorf("the exit came after %v, the deadline was %v", took, deadline)
	}
	if l := e.ended()["/stuck"]; l == nil || l["initiator"] != "edge" {
		t.Errorf("the end line is %v", l)
	}
	e.waitLogAfterExit("not all ended in time")
	e.waitLogAfterExit("stopped")
}

// TestSecondSignal: a second SIGTERM ends it at once, whatever the window says.
func TestSecondSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			a := newApp(t, "a")
			e := start(t, shutdownConfig("10m", "20m", a.addr))
			url := "ws://" + e.addr("plain") + "/"
			for range 20 {
				c, _, err := dialer.Dial(url, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			e.signal(sig)
			e.waitLog("shutting down", nil)
			e.signal(syscall.SIGHUP) // is no second one
			if status, _ := e.get("/livez"); status != http.StatusOK {
				t.Errorf("/livez answers %d", status)
			}
			e.signal(sig)
			begun := time.Now()
			e.waitExit(10 * time.Second)
			if took := time.Since(begun); e.err != nil || took > 5*time.Second {
				t.Errorf("exit after %v: %v", took, e.err)
			}
			if n := len(e.ended()); e.countLog("session ended") != 20 || n == 0 {
				t.Errorf("%d sessions have an end line, want 20", e.countLog("session ended"))
			}
		})
	}
}

// slowApp answers a handshake when it is told to.
func slowApp(t *testing.T) (addr string, asked <-chan struct{}, answer chan<- struct{}) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in, out := make(chan struct{}, 8), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		select {
		case <-out:
		case <-r.Context().Done():
			return
		}
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for _, _, err := c.ReadMessage(); err == nil; _, _, err = c.ReadMessage() {
		}
	})}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln.Addr().String(), in, out
}

// TestHandshakeDuringShutdown: a request that was under way is answered: one whose head
// comes late with 503, one that waits for its backend becomes a session, which is then
// closed like the others. Neither holds up the exit any longer than it has to.
func TestHandshakeDuringShutdown(t *testing.T) {
	addr, asked, answer := slowApp(t)
	e := start(t, shutdownConfig("0s", "30s", addr))
	plain := e.addr("plain")

	late, err := net.Dial("tcp", plain)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	io.WriteString(late, "GET / HTTP/1.1\r\nHost: x\r\n")

	type outcome struct {
		c   *websocket.Conn
		err error
	}
	opened := make(chan outcome, 1)
	go func() {
		c, _, err := dialer.Dial("ws://"+plain+"/waiting", nil)
		opened <- outcome{c, err}
	}()
	<-asked
	e.signal(syscall.SIGTERM)
	e.waitLog("shutting down", nil)

	late.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(late, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(late), nil)
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || !res.Close {
		t.Errorf("the late request got %v, %v; want 503", res, err)
	}
	select {
	case <-e.exited:
		t.Fatal("the edge left a handshake behind")
	default:
	}
	answer <- struct{}{}
	begun := time.Now()
	o := <-opened
	if o.err != nil {
		t.Fatalf("the handshake that was under way: %v", o.err)
	}
	defer o.c.Close()
	if _, _, err := o.c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("its session got %v, want Close 1001", err)
	}
	o.c.Close()
	e.waitExit(10 * time.Second)
	if took := time.Since(begun); e.err != nil || took > 5*time.Second {
		t.Errorf("exit after %v: %v", took, e.err)
	}
	if l := e.ended()["/waiting"]; l == nil || l["code"] != 1001.0 {
		t.Errorf("the end line is %v", l)
	}
}
