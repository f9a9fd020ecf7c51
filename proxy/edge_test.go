package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/discovery/static"
)

// loops is the Server.Loops of this round.
var loops = 0

// TestMain runs all tests twice: sessions on goroutines, then on event loops.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8") // they wait more than they work
	if flag.Lookup("test.fuzz").Value.String() == "" {
		if code := m.Run(); code != 0 {
			os.Exit(code)
		}
	}
	loops = 2
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of these tests. Nothing waits that long unless it fails.
const patience = 20 * time.Second

// testEdge is a running server and what it logged.
type testEdge struct {
	*Server
	t    *testing.T
	logs *observer.ObservedLogs
}

// defaults are the settings of a plain listener on a free port, one route for all and
// one pool.
func defaults(addrs ...string) Settings {
	return Settings{
		Listeners: []ListenerSettings{{Name: "edge", Address: "127.0.0.1:0", Limits: ListenerLimits{
			HandshakeTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10, KeepaliveTimeout: 30 * time.Second}}},
		Routes: []RouteSettings{{Name: "all", Path: "/", Pool: "apps", WebSocket: WebSocketSettings{
			MaxMessageBytes: 16 << 20, CloseTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxBufferedBytes: 256 << 10}}},
		Pools: []PoolSettings{pool1("apps", addrs...)},
	}
}

// pool1 are the settings of one pool with static backends.
func pool1(name string, addrs ...string) PoolSettings {
	return PoolSettings{Name: name, Sources: []SourceSettings{staticSource(addrs...)},
		Balance: balance.Options{Policy: "round_robin"}, Upstream: UpstreamSettings{ConnectTimeout: 5 * time.Second,
			HandshakeTimeout: 10 * time.Second, TotalTimeout: 15 * time.Second, Retries: 2, Host: HostPreserve}}
}

func staticSource(addrs ...string) SourceSettings {
	var list []discovery.Instance
	for _, a := range addrs {
		list = append(list, discovery.Instance{ID: a, Addr: a, Weight: 1})
	}
	return SourceSettings{Slot: "static", Key: strings.Join(addrs, " "), Source: static.New(list)}
}

// startEdge runs a server with settings and waits until its pools have backends.
func startEdge(t *testing.T, settings Settings) *testEdge {
	t.Helper()
	return startEdgeWith(t, settings, func(*Server) {})
}

// startEdgeWith is startEdge of a server that prepare has changed.
func startEdgeWith(t *testing.T, settings Settings, prepare func(*Server)) *testEdge {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	e := &testEdge{Server: NewServer(zap.New(core)), t: t, logs: logs}
	e.Loops = loops
	prepare(e.Server)
	t.Cleanup(func() { e.Shutdown(context.Background(), 0, 0) })
	e.apply(settings)
	return e
}

// apply applies settings and waits until the static sources have spoken.
func (e *testEdge) apply(settings Settings) *Generation {
	e.t.Helper()
	next, err := e.Prepare(settings)
	if err != nil {
		e.t.Fatal(err)
	}
	gen := next.Commit()
	e.eventually("every pool has its backends", func() bool {
		for i, p := range e.Pools() {
			if i == len(settings.Pools) {
				break // former ones
			}
			if slots := settings.Pools[i].Sources; len(slots) == 1 && slots[0].Slot == "static" &&
				len(present(p)) != len(strings.Fields(slots[0].Key)) {
				return false
			}
		}
		return true
	})
	return gen
}

// present are the backends of a pool that discovery knows.
func present(p PoolView) (list []*balance.Backend) {
	for _, b := range p.Backends {
		if b.Live.State() != balance.StateRemoved {
			list = append(list, b)
		}
	}
	return list
}

// eventually polls cond; what it waits for happens on goroutines of the server.
func (e *testEdge) eventually(what string, cond func() bool) {
	e.t.Helper()
	eventually(e.t, what, cond)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so within %v: %s", patience, what)
		}
	}
}

func (e *testEdge) addr() string { return e.Current().Listeners()[0].Address }

func (e *testEdge) url(path string) string { return "ws://" + e.addr() + path }

// backend returns the one backend of the first pool.
func (e *testEdge) backend() *balance.Backend {
	e.t.Helper()
	all := e.Pools()[0].Backends
	if len(all) != 1 {
		e.t.Fatalf("the pool has %d backends, want one", len(all))
	}
	return all[0]
}

// route returns the counters of a route.
func (e *testEdge) route(name string) RouteView {
	e.t.Helper()
	for _, r := range e.Routes() {
		if r.Name == name {
			return r
		}
	}
	e.t.Fatalf("no route %q", name)
	return RouteView{}
}

// load is all backends' sessions and dials in flight.
func (e *testEdge) load() (n int64) {
	for _, p := range e.Pools() {
		for _, b := range p.Backends {
			n += b.Live.Load()
		}
	}
	return n
}

// idle waits until nothing is left of what was under way: sessions, handshakes,
// reservations and places.
func (e *testEdge) idle() {
	e.t.Helper()
	e.eventually("the edge is idle", func() bool {
		for _, l := range e.Current().Listeners() {
			if l.Sessions != 0 {
				return false
			}
		}
		return e.load() == 0 && e.Totals().Live == 0 && e.Totals().Handshaking == 0
	})
}

// echoBackend is an app server that echoes, with the subprotocols chat.v2 and chat.v1.
func echoBackend(t *testing.T) (addr string) {
	t.Helper()
	srv := httptest.NewServer(echoHandler())
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func echoHandler() http.Handler {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat.v2", "chat.v1"}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, http.Header{"X-Path": {r.RequestURI}})
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, p, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, p) != nil {
				return
			}
		}
	})
}

// rawConn is either far end of the edge, byte by byte.
type rawConn struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func newRawConn(t *testing.T, c net.Conn) *rawConn {
	c.SetDeadline(time.Now().Add(patience))
	return &rawConn{c, t, bufio.NewReader(c)}
}

// dialRaw connects to the edge.
func dialRaw(t *testing.T, addr string) *rawConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newRawConn(t, c)
}

func (c *rawConn) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

// response reads the head of an answer.
func (c *rawConn) response() *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, &http.Request{Method: http.MethodGet})
	if err != nil {
		c.t.Fatalf("reading the answer: %v", err)
	}
	return res
}

// upgraded reads an answer that must be a 101 for testKey.
func (c *rawConn) upgraded() *http.Response {
	c.t.Helper()
	res := c.response()
	if res.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(res.Body)
		c.t.Fatalf("got %s: %s", res.Status, b)
	}
	if got := res.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		c.t.Fatalf("got Sec-WebSocket-Accept %q", got)
	}
	return res
}

// clientFrame is a masked frame.
func clientFrame(op ws.OpCode, payload string) string {
	return string(ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, true, []byte(payload)))))
}

// serverFrame is a frame without a mask.
func serverFrame(op ws.OpCode, payload string) string {
	return string(ws.MustCompileFrame(ws.NewFrame(op, true, []byte(payload))))
}

// frame reads a frame and unmasks it.
func (c *rawConn) frame() (ws.OpCode, string) {
	c.t.Helper()
	h, err := ws.ReadHeader(c.in)
	if err != nil {
		c.t.Fatalf("reading a frame: %v", err)
	}
	p := make([]byte, h.Length)
	if _, err := io.ReadFull(c.in, p); err != nil {
		c.t.Fatalf("reading a frame: %v", err)
	}
	if h.Masked {
		ws.Cipher(p, h.Mask, 0)
	}
	return h.OpCode, string(p)
}

// wantText reads a text frame.
func (c *rawConn) wantText(want string) {
	c.t.Helper()
	if op, got := c.frame(); op != ws.OpText || got != want {
		c.t.Fatalf("got opcode %d %.80q, want text %.80q", op, got, want)
	}
}

// wantClose reads frames up to the Close, which must have this code.
func (c *rawConn) wantClose(want ws.StatusCode) (reason string) {
	c.t.Helper()
	for {
		op, p := c.frame()
		if op != ws.OpClose {
			continue
		}
		code, reason := ws.ParseCloseFrameData([]byte(p))
		if code != want {
			c.t.Fatalf("got Close %d %q, want %d", code, reason, want)
		}
		return reason
	}
}

// wantEnd reads to the end of the stream, reset or not, and returns what came.
func (c *rawConn) wantEnd() string {
	c.t.Helper()
	b, err := io.ReadAll(c.in)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection was not ended; got %.200q", b)
	}
	return string(b)
}

// testKey is the key of RFC 6455 §1.3.
const testKey = "dGhlIHNhbXBsZSBub25jZQ=="

// upgradeRequest is a sound opening handshake with more header lines. A line such as
// "Connection:" takes that header out, and "Connection: x" replaces it.
func upgradeRequest(path string, lines ...string) string {
	head := []string{"Host: edge.test", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Key: " + testKey, "Sec-WebSocket-Version: 13"}
	var more []string
	replaced := map[string]bool{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		replaced[strings.ToLower(name)] = true
		if value != "" {
			more = append(more, line)
		}
	}
	var b strings.Builder
	b.WriteString("GET " + path + " HTTP/1.1\r\n")
	for _, line := range head {
		if name, _, _ := strings.Cut(line, ":"); !replaced[strings.ToLower(name)] {
			b.WriteString(line + "\r\n")
		}
	}
	for _, line := range more {
		b.WriteString(line + "\r\n")
	}
	return b.String() + "\r\n"
}

// open opens a session with raw bytes.
func (e *testEdge) open(path string, lines ...string) *rawConn {
	e.t.Helper()
	c := dialRaw(e.t, e.addr())
	c.send(upgradeRequest(path, lines...))
	c.upgraded()
	e.session(c)
	return c
}

// session returns the session of a client; it begins behind the 101.
func (e *testEdge) session(c *rawConn) (s *Session) {
	e.t.Helper()
	local := c.LocalAddr().String()
	e.eventually("the session is open", func() bool {
		for _, x := range e.Sessions(func(x *Session) bool { return x.Info().Client.String() == local }) {
			s = x
		}
		return s != nil
	})
	return s
}

// ask sends a request and returns the answer with its body.
func (e *testEdge) ask(request string) (*http.Response, string) {
	e.t.Helper()
	c := dialRaw(e.t, e.addr())
	defer c.Close()
	c.send(request)
	res := c.response()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return res, ""
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatalf("reading the body of %s: %v", res.Status, err)
	}
	return res, string(b)
}

// rawBackend is a backend whose every byte the test decides.
type rawBackend struct {
	addr string
	t    *testing.T
	// heads are the request heads as they came.
	heads chan string
	ln    net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
	ended bool
}

// startRaw runs a backend that calls handle for each connection that has sent a request
// head, and closes the connection afterwards.
func startRaw(t *testing.T, handle func(c *rawConn, r *http.Request)) *rawBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveRaw(t, ln, handle)
}

func serveRaw(t *testing.T, ln net.Listener, handle func(c *rawConn, r *http.Request)) *rawBackend {
	b := &rawBackend{addr: ln.Addr().String(), t: t, heads: make(chan string, 1000), ln: ln}
	b.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.serve(c, handle) })
		}
	})
	t.Cleanup(b.stop)
	return b
}

// stop closes the backend and all its connections.
func (b *rawBackend) stop() {
	b.ln.Close()
	b.mu.Lock()
	b.ended = true
	for _, c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *rawBackend) serve(conn net.Conn, handle func(c *rawConn, r *http.Request)) {
	defer conn.Close()
	b.mu.Lock()
	if b.ended {
		b.mu.Unlock()
		return
	}
	b.conns = append(b.conns, conn)
	b.mu.Unlock()
	c := newRawConn(b.t, conn)
	var head bytes.Buffer
	for !bytes.HasSuffix(head.Bytes(), []byte("\r\n\r\n")) {
		line, err := c.in.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			return
		}
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head.Bytes())))
	if err != nil {
		b.t.Errorf("the backend got a request that cannot be read: %v\n%s", err, head.String())
		return
	}
	b.heads <- head.String()
	handle(c, r)
}

// switching is a sound 101 for r with more header lines; they replace as those of
// upgradeRequest do.
func switching(r *http.Request, lines ...string) string {
	request := upgradeRequest("/", append([]string{"Host:", "Sec-WebSocket-Key:", "Sec-WebSocket-Version:"}, lines...)...)
	_, head, _ := strings.Cut(request, "\r\n")
	accept := "Sec-WebSocket-Accept: " + acceptKey(r.Header.Get("Sec-WebSocket-Key")) + "\r\n"
	for _, line := range lines {
		if strings.HasPrefix(line, "Sec-WebSocket-Accept:") {
			accept = ""
		}
	}
	return "HTTP/1.1 101 Switching Protocols\r\n" + accept + head
}

// untilClose is a backend that reads up to the Close, answers it and leaves. It returns
// the code, 0 when the connection ended without a Close.
func (c *rawConn) untilClose() ws.StatusCode {
	for {
		h, err := ws.ReadHeader(c.in)
		if err != nil {
			return 0
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c.in, p); err != nil {
			return 0
		}
		ws.Cipher(p, h.Mask, 0)
		if h.OpCode == ws.OpClose {
			io.WriteString(c, serverFrame(ws.OpClose, string(p)))
			code, _ := ws.ParseCloseFrameData(p)
			return code
		}
	}
}

// rest keeps a backend's connection until the edge ends it.
func (c *rawConn) rest() { io.Copy(io.Discard, c.in) }

// deadAddr is an address that refuses connections until the test is over: a socket has
// it and does not listen, so that nobody else gets the port.
func deadAddr(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
}

func TestEcho(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(echoBackend(t), echoBackend(t)))
	c, _, err := websocket.DefaultDialer.Dial(e.url("/ws"), nil)
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
	e.eventually("the session is listed", func() bool {
		got := e.Sessions(nil)
		return len(got) == 1 && got[0].Backend().Live.Sessions() == 1
	})
	c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 1000) {
		t.Fatalf("got %v, want Close 1000", err)
	}
	c.Close()
	e.idle()
}
