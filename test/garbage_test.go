package test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// hasty is an edge that waits a second for a request.
const hasty = `
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0", limits: {handshake_timeout: 1s}}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}, limits: {handshake_timeout: 1s}}
routes:
  - {name: all, match: {path: /}, pool: apps}
pools:
  - {name: apps, backends: [BACKENDS]}
`

// witness is a session that goes on all the while and must not be disturbed.
type witness struct {
	echoes atomic.Int64
	stop   chan struct{}
	done   chan error
}

func newWitness(t *testing.T, url string) *witness {
	t.Helper()
	d := gorilla.Dialer{TLSClientConfig: insecure()}
	c, _, err := d.Dial(url, nil)
	must(t, err)
	w := &witness{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		defer c.Close()
		for {
			select {
			case <-w.stop:
				w.done <- nil
				return
			default:
			}
			want := fmt.Sprint("echo ", w.echoes.Load())
			err := c.WriteMessage(gorilla.TextMessage, []byte(want))
			_, p, readErr := c.ReadMessage()
			if err != nil || readErr != nil || string(p) != want {
				w.done <- fmt.Errorf("sent %q (%v), got %q (%v)", want, err, p, readErr)
				return
			}
			w.echoes.Add(1)
		}
	}()
	return w
}

// moves fails the test unless the session still exchanges messages.
func (w *witness) moves(e *edge) {
	e.t.Helper()
	before := w.echoes.Load()
	e.eventually("a session goes on", func() bool {
		select {
		case err := <-w.done:
			e.t.Fatalf("the session that went on ended: %v", err)
		default:
		}
		return w.echoes.Load() > before+2
	})
}

func (w *witness) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	if err := <-w.done; err != nil {
		t.Errorf("the session that went on: %v", err)
	}
}

// rubbish is something to say to an edge that is no request.
type rubbish struct {
	name string
	say  func(c net.Conn) // returns when it is said, or when the edge has hung up
}

func bytesOf(p []byte) func(net.Conn) { return func(c net.Conn) { c.Write(p) } }

// endless repeats p until the edge hangs up, at most 256 MiB of it.
func endless(begin string, p string) func(net.Conn) {
	chunk := []byte(strings.Repeat(p, 1+(32<<10)/len(p)))
	return func(c net.Conn) {
		if _, err := c.Write([]byte(begin)); err != nil {
			return
		}
		for n := 0; n < 256<<20; n += len(chunk) {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}
}

// dribble says p over and over, a byte at a time, until the edge hangs up.
func dribble(p string) func(net.Conn) {
	return func(c net.Conn) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			if _, err := c.Write([]byte{p[i%len(p)]}); err != nil {
				return
			}
			<-tick.C
		}
	}
}

// noRequests are no requests, above TCP or TLS. What the edge answers is HTTP, or nothing.
func noRequests() []rubbish {
	return []rubbish{
		{"random bytes", bytesOf(noise(64 << 10))},
		{"nulls", bytesOf(make([]byte, 64<<10))},
		{"line ends", bytesOf(bytes.Repeat([]byte("\r\n"), 32<<10))},
		{"HTTP/2 preface", bytesOf([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))},
		{"TLS ClientHello", bytesOf(clientHello())},
		{"half a request", bytesOf([]byte("GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgr"))},
		{"half a method", bytesOf([]byte("GE"))},
		{"huge head", bytesOf([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"))},
		{"GET for ever", endless("GET /", "a")},
		{"a header for ever", endless("GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: ", "a")},
		{"headers for ever", endless("GET / HTTP/1.1\r\nHost: localhost\r\n", "X-Small: 1\r\n")},
		{"a method for ever", endless("", "GET")},
		{"GET, a byte at a time", dribble("GET ")},
		{"a version that is none", bytesOf([]byte("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n"))},
		{"no Host", bytesOf([]byte("GET / HTTP/1.1\r\n\r\n"))},
		{"two lengths", bytesOf([]byte("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"))},
		{"a header without a name", bytesOf([]byte("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"))},
		{"a target that is none", bytesOf([]byte("GET \x01\xff HTTP/1.1\r\nHost: a\r\n\r\n"))},
	}
}

// noHandshakes are no TLS handshakes. What the edge answers is an alert, or nothing.
func noHandshakes() []rubbish {
	hello := clientHello()
	return []rubbish{
		{"random bytes", bytesOf(noise(64 << 10))},
		{"nulls", bytesOf(make([]byte, 64<<10))},
		{"a plain request", bytesOf([]byte(opening("/")))},
		{"SSH", bytesOf([]byte("SSH-2.0-OpenSSH_9.2\r\n"))},
		{"one byte of a record", bytesOf(hello[:1])},
		{"the header of a record", bytesOf(hello[:5])},
		{"half a ClientHello", bytesOf(hello[:len(hello)/2])},
		{"a ClientHello but for its end", bytesOf(hello[:len(hello)-1])},
		{"a ClientHello, then nothing", bytesOf(hello)},
		{"a ClientHello, then random bytes", bytesOf(append(bytes.Clone(hello), noise(64<<10)...))},
		{"a ClientHello with random content", bytesOf(append(bytes.Clone(hello[:9]), noise(len(hello)-9)...))},
		{"a record of 65535 bytes", bytesOf(append([]byte{22, 3, 1, 0xff, 0xff}, noise(65535)...))},
		{"an alert", bytesOf([]byte{21, 3, 3, 0, 2, 2, 40})},
		{"application data", bytesOf(append([]byte{23, 3, 3, 0, 100}, noise(100)...))},
		{"a byte at a time", dribble(string(hello))},
		{"a version that is too old", func(c net.Conn) {
			tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake()
		}},
	}
}

// clientHello is the first record of a handshake.
func clientHello() []byte {
	here, there := net.Pipe()
	defer here.Close()
	go func() { tls.Client(there, insecure()).Handshake(); there.Close() }()
	p := make([]byte, 4096)
	n, _ := here.Read(p)
	return p[:n]
}

// TestGarbage says what is no request to each port of an edge: it answers or hangs up,
// logs one clear line, and goes on serving.
func TestGarbage(t *testing.T) {
	app := newApp(t, "app")
	e := start(t, withBackends(hasty, app.addr))
	plain, secure := e.addr("ws"), e.addr("wss")
	witnesses := []*witness{newWitness(t, "ws://"+plain), newWitness(t, "wss://"+secure)}
	goroutines, files := e.scrape("go_goroutines"), e.scrape("process_open_fds")

	httpAnswer := regexp.MustCompile(`^(HTTP/1\.[01] [45]\d\d |$)`)
	tlsAnswer := regexp.MustCompile(`(?s)^(\x15\x03|\x16\x03|HTTP/1\.0 400 |$)`)
	for _, port := range []struct {
		name    string
		addr    string
		secure  bool // the rubbish goes through TLS
		rubbish []rubbish
		answer  *regexp.Regexp
	}{{"ws", plain, false, noRequests(), httpAnswer}, {"wss", secure, true, noRequests(), httpAnswer}, {"TLS", secure, false, noHandshakes(), tlsAnswer}} {
		t.Run(port.name, func(t *testing.T) {
			for _, r := range port.rubbish {
				t.Run(r.name, func(t *testing.T) {
					t.Parallel() // most of it waits
					logged := e.logged()
					c := dialRaw(t, port.addr, port.secure)
					said := make(chan struct{})
					go func() { r.say(c); close(said) }()
					answer, err := io.ReadAll(c.r)
					c.Close()
					<-said
					if timedOut(err) {
						t.Fatalf("the edge neither answered nor hung up")
					}
					if r.name != "a version that is too old" && !port.answer.Match(answer) {
						t.Errorf("answered %.100q", answer)
					}
					e.oneLine(t, logged, c.LocalAddr().String())
				})
			}
		})
		for _, w := range witnesses {
			w.moves(e)
		}
	}
	for _, w := range witnesses {
		w.moves(e)
		w.end(t)
	}
	e.eventually("what the garbage had taken is free again", func() bool {
		return e.scrape("go_goroutines") <= goroutines+5 && e.scrape("process_open_fds") <= files+5
	})
}

func timedOut(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// logged is the number of log lines so far.
func (e *edge) logged() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.logs)
}

// oneLine waits for the log line about a client behind the first lines, which may be
// about another one with that address, and wants it to be one that says why.
func (e *edge) oneLine(t *testing.T, first int, client string) {
	t.Helper()
	var lines []map[string]any
	e.eventually("a log line about "+client, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		lines = nil
		for _, l := range e.logs[first:] {
			if l["client"] == client {
				lines = append(lines, l)
			}
		}
		return len(lines) > 0
	})
	l := lines[0]
	switch {
	case len(lines) > 1:
		t.Errorf("%d lines: %v", len(lines), lines)
	case l["msg"] == "TLS handshake failed" && l["error"] != nil:
	case l["msg"] == "connection ended before a request was complete" && l["bytes"] != nil:
	case l["msg"] == "refused" && l["reason"] != nil:
	default:
		t.Errorf("not clear: %v", l)
	}
}

// TestConnectFlood opens and closes thousands of connections that say nothing or next to
// nothing: a session goes on, the log is sampled, and nothing is left behind.
func TestConnectFlood(t *testing.T) {
	app := newApp(t, "app")
	e := start(t, withBackends(hasty, app.addr))
	plain, secure := e.addr("ws"), e.addr("wss")
	witnesses := []*witness{newWitness(t, "ws://"+plain), newWitness(t, "wss://"+secure)}
	goroutines, files := e.scrape("go_goroutines"), e.scrape("process_open_fds")
	const each = 400
	var wg sync.WaitGroup
	for _, addr := range []string{plain, secure} {
		for _, end := range []func(*net.TCPConn){
			func(c *net.TCPConn) {},
			func(c *net.TCPConn) { c.SetLinger(0) },
			func(c *net.TCPConn) { c.Write([]byte{0}) },
			func(c *net.TCPConn) { c.Write([]byte("GET")); c.CloseWrite() },
			func(c *net.TCPConn) { c.Write(clientHello()); c.SetLinger(0) },
		} {
			wg.Go(func() {
				for range each {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Error(err)
						return
					}
					end(c.(*net.TCPConn))
					c.Close()
				}
			})
		}
	}
	wg.Wait()
	for _, w := range witnesses {
		w.moves(e)
		w.end(t)
	}
	e.eventually("nothing is left behind", func() bool {
		return e.scrape("go_goroutines") <= goroutines+5 && e.scrape("process_open_fds") <= files+5
	})
	if lines := strings.Count(e.log(), "\n"); lines > 10*each/5 {
		t.Errorf("%d connections made %d log lines", 10*each, lines)
	}
	newWitness(t, "wss://"+secure).end(t)
}
