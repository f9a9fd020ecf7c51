package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// soon bounds every wait for something that is about to happen. Nothing waits that long
// unless the test fails.
const soon = 20 * time.Second

// event is what one end of a WebSocket has noticed.
type event struct {
	kind   string // text, binary, ping, pong, close, or end: of the connection, without a Close
	data   []byte
	code   int // of a Close; 1005 is one without a code
	reason string
	err    error // behind an end
}

func (e event) String() string {
	switch e.kind {
	case "close":
		return fmt.Sprintf("close %d %q", e.code, e.reason)
	case "end":
		return fmt.Sprintf("end (%v)", e.err)
	}
	return fmt.Sprintf("%s of %d bytes %.40q", e.kind, len(e.data), e.data)
}

// peer is one end of a WebSocket in the hands of somebody's library. Its events come in
// order; the last one is a close or an end.
type peer interface {
	// send writes one message of the kind text or binary. With several parts the library
	// makes several frames.
	send(kind string, parts ...[]byte) error
	// ping sends a Ping; some libraries choose its payload themselves.
	ping(payload string) error
	// close begins the closing handshake; 1005 sends a Close without a code.
	close(code int, reason string) error
	// cut ends the TCP connection as it stands.
	cut()
	// protocol is the subprotocol that was agreed on.
	protocol() string
	// extensions are, at a client, those of the 101, and at a server those of the request.
	extensions() string
	events() <-chan event
}

// library is a WebSocket implementation of other people.
type library struct {
	name string
	// dial opens a WebSocket as a client that offers compression.
	dial func(ctx context.Context, url string, protocols []string) (peer, error)
	// serve starts an app server that accepts compression and the subprotocols of
	// serverProtocols, and returns its address and what connects to it.
	serve func(t *testing.T) (addr string, accepted <-chan peer)
}

// serverProtocols are what the app servers speak, best first.
var serverProtocols = []string{"chat.v2", "chat.v1"}

// link is what every peer has: its connection and its inbox.
type link struct {
	raw        net.Conn // below TLS
	inbox      chan event
	subproto   string
	extensionz string
}

func newLink(raw net.Conn, protocol, extensions string) link {
	return link{raw, make(chan event, 256), protocol, extensions}
}

func (l *link) cut()                 { l.raw.Close() }
func (l *link) protocol() string     { return l.subproto }
func (l *link) extensions() string   { return l.extensionz }
func (l *link) events() <-chan event { return l.inbox }

// next is what a peer notices next.
func next(t *testing.T, p peer) event {
	t.Helper()
	select {
	case e := <-p.events():
		return e
	case <-time.After(soon):
		t.Fatalf("nothing came within %v", soon)
		return event{}
	}
}

// expect fails the test unless a peer's next event is want; of an end, the error does
// not matter.
func expect(t *testing.T, who string, p peer, want event) {
	t.Helper()
	got := next(t, p)
	if got.kind != want.kind || string(got.data) != string(want.data) || got.code != want.code || got.reason != want.reason {
		t.Fatalf("%s: got %v, want %v", who, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tap dials and remembers the connection below TLS.
type tap struct{ conn net.Conn }

func (d *tap) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	d.conn = conn
	return conn, err
}

type rawConnKey struct{}

// serveHTTP serves WebSockets that accept makes of requests, until the test ends. accept
// may be called by several goroutines and gets the raw connection too.
func serveHTTP(t *testing.T, accept func(w http.ResponseWriter, r *http.Request, raw net.Conn) (peer, error)) (addr string, accepted <-chan peer) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	peers := make(chan peer, 16)
	var mu sync.Mutex
	var open []peer
	srv := &http.Server{
		ReadHeaderTimeout: soon,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, rawConnKey{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, err := accept(w, r, r.Context().Value(rawConnKey{}).(net.Conn))
			if err != nil {
				t.Errorf("accepting: %v", err)
				return
			}
			mu.Lock()
			open = append(open, p)
			mu.Unlock()
			peers <- p
		}),
	}
	served := make(chan struct{})
	go func() { srv.Serve(ln); close(served) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
		mu.Lock()
		defer mu.Unlock()
		for _, p := range open {
			p.cut()
		}
	})
	return ln.Addr().String(), peers
}
