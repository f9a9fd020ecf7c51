package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
)

// plainClient is a client as its library's first example has it: it reads messages, and
// has nothing of its own for Pings.
type plainClient struct {
	name string
	dial func(t *testing.T, url string) (send func(string) error, received <-chan string)
}

// reading reads messages until there are none.
func reading(t *testing.T, read func() (string, error)) <-chan string {
	received, done := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(done)
		for {
			s, err := read()
			if err != nil {
				received <- "error: " + err.Error()
				return
			}
			received <- s
		}
	}()
	t.Cleanup(func() { <-done })
	return received
}

var plainClients = []plainClient{
	{"gorilla", func(t *testing.T, url string) (func(string) error, <-chan string) {
		d := gorilla.Dialer{TLSClientConfig: insecure()}
		c, _, err := d.Dial(url, nil)
		must(t, err)
		received := reading(t, func() (string, error) { _, p, err := c.ReadMessage(); return string(p), err })
		t.Cleanup(func() { c.Close() })
		return func(s string) error { return c.WriteMessage(gorilla.TextMessage, []byte(s)) }, received
	}},
	{"coder", func(t *testing.T, url string) (func(string) error, <-chan string) {
		ctx := context.Background()
		c, _, err := coder.Dial(ctx, url, &coder.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: insecure()}}})
		must(t, err)
		received := reading(t, func() (string, error) { _, p, err := c.Read(ctx); return string(p), err })
		t.Cleanup(func() { c.CloseNow() })
		return func(s string) error { return c.Write(ctx, coder.MessageText, []byte(s)) }, received
	}},
	{"gobwas", func(t *testing.T, url string) (func(string) error, <-chan string) {
		d := ws.Dialer{TLSConfig: insecure()}
		c, behind, _, err := d.Dial(context.Background(), url)
		must(t, err)
		end := buffered{c, behind}
		received := reading(t, func() (string, error) { p, err := wsutil.ReadServerText(end); return string(p), err })
		t.Cleanup(func() { c.Close() })
		return func(s string) error { return wsutil.WriteClientText(c, []byte(s)) }, received
	}},
}

// buffered is a connection of which the first bytes may have been read.
type buffered struct {
	net.Conn
	r *bufio.Reader // may be nil
}

func (b buffered) Read(p []byte) (int, error) {
	if b.r != nil && b.r.Buffered() > 0 {
		return b.r.Read(p)
	}
	return b.Conn.Read(p)
}

// testHeartbeatsOfClients: clients that do nothing but read live through Pings.
func testHeartbeatsOfClients(t *testing.T) { testHeartbeats(t, plainClients) }

// testHeartbeatsOfNPM is the same for the package ws.
func testHeartbeatsOfNPM(t *testing.T) {
	npm := npmLibrary(t)
	testHeartbeats(t, []plainClient{{"npm", func(t *testing.T, url string) (func(string) error, <-chan string) {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		p, err := npm.dial(ctx, url, nil)
		must(t, err)
		received := reading(t, func() (string, error) {
			for e := range p.events() {
				switch e.kind {
				case "text":
					return string(e.data), nil
				case "close", "end":
					return "", fmt.Errorf("%v", e)
				}
			}
			return "", io.EOF
		})
		t.Cleanup(p.cut)
		return func(s string) error { return p.send("text", []byte(s)) }, received
	}}})
}

func testHeartbeats(t *testing.T, clients []plainClient) {
	const pings = 10
	app := newApp(t, "app")
	var sets []policySet
	for _, l := range clients {
		sets = append(sets, policySet{name: l.name, policies: "ping_interval: 400ms, pong_timeout: 5s"})
	}
	var all []trial
	for _, engine := range policyEngines {
		all = append(all, trial{engine.name, func(t *testing.T) {
			e := startProgram(t, engine.binary(t), []string{"GOGC=100"}, policyYAML(sets, func(string) string { return app.addr }))
			type idler struct {
				send     func(string) error
				received <-chan string
			}
			idlers := map[string]idler{}
			for _, l := range clients {
				for _, scheme := range schemes {
					route := l.name + "-" + scheme
					send, received := l.dial(t, scheme+"://"+e.addr(scheme)+"/"+route)
					idlers[route] = idler{send, received}
				}
			}
			var counted map[string]float64
			e.eventually("Pings are answered", func() bool {
				counted = e.metrics()
				for route, x := range idlers {
					if len(x.received) > 0 {
						t.Fatalf("%s got %q", route, <-x.received)
					}
					if counted[fmt.Sprintf("tidegate_ping_rtt_seconds_count{route=%q}", route)] < pings {
						return false
					}
				}
				return true
			})
			for route, x := range idlers {
				must(t, x.send("still here"))
				select {
				case got := <-x.received:
					if got != "still here" {
						t.Errorf("%s got %q", route, got)
					}
				case <-time.After(soon):
					t.Errorf("%s got nothing", route)
				}
				for _, direction := range []string{"upstream", "downstream"} {
					for _, opcode := range []string{"ping", "pong"} {
						if n := counted[fmt.Sprintf("tidegate_frames_total{direction=%q,opcode=%q,route=%q}", direction, opcode, route)]; n != 0 {
							t.Errorf("%v frames %s went %s on %s", n, opcode, direction, route)
						}
					}
				}
			}
		}})
	}
	together(t, all)
}
