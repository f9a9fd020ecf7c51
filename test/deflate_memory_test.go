package test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

const deflateMemoryConfig = `
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0"}
routes:
  - {name: all, pool: apps, websocket: {compression: %s}}
pools:
  - {name: apps, backends: [{address: %q}]}
`

// TestDeflateMemory: a session that ends compression at the edge keeps nothing of it
// between its messages. With -v it prints what a session costs in each mode.
func TestDeflateMemory(t *testing.T) {
	t.Parallel()
	// What an edge that compresses knows of a session is some 100 bytes: whom it has agreed
	// with on what, and that no message is under way. By another 500 two measurements of
	// the same differ. The least that could have stayed is a message as it came, which is
	// three quarters of its size and twice the bound; a compressor has 800 KiB.
	compareResting(t, binary, 2000, 4<<10, 1536)
}

// TestDeflateMemoryOnGoroutines is the same where sessions run on goroutines. Their readers
// hold a large buffer until little comes, compression or not, so that messages are below
// 1 KiB here. The bound is one step of two stacks, which grow by doubling; one frame of
// what inflates is 16 KiB.
func TestDeflateMemoryOnGoroutines(t *testing.T) {
	t.Parallel()
	compareResting(t, programOf(t, "goroutines"), 500, 1000, 8<<10)
}

// compareResting compares what a silent session costs in each mode; with terminate it may
// be some bytes more than with passthrough.
func compareResting(t *testing.T, program string, sessions, size int, most int64) {
	t.Helper()
	if raceEnabled {
		sessions = min(sessions, 200)
	}
	live := map[string]int64{}
	for _, mode := range zipModes {
		live[mode] = restingHeap(t, program, mode, sessions, size)
	}
	if more := live["terminate"] - live["passthrough"]; more > most {
		t.Errorf("a session has %d bytes of the live heap where the edge compresses, %d where it does not: %d more, want %d at most",
			live["terminate"], live["passthrough"], more, most)
	}
}

// restingHeap is how much of an edge's live heap a session has that has exchanged three
// messages and is silent. Some have done so before, so that what the edge needs for all of
// them together is there.
func restingHeap(t *testing.T, program, mode string, sessions, size int) int64 {
	t.Helper()
	e := startProgram(t, program, []string{"GOGC=100"}, fmt.Sprintf(deflateMemoryConfig, mode, serveZipEcho(t)))
	weigh := func() footprint {
		if raceEnabled {
			return footprint{} // what the detector holds says nothing
		}
		return e.footprint()
	}
	for _, c := range e.exchange(t, mode, sessions/4, size) {
		defer c.Close()
	}
	before := weigh()
	for _, c := range e.exchange(t, mode, sessions, size) {
		defer c.Close()
	}
	after := weigh()
	n := int64(sessions)
	t.Logf("%s: a session has %d bytes of the live heap, %d resident", mode, (after.heap-before.heap)/n, (after.rss-before.rss)/n)
	return (after.heap - before.heap) / n
}

// exchange opens sessions that then exchange three messages each, many of them at once.
func (e *edge) exchange(t *testing.T, mode string, sessions, size int) []*gorilla.Conn {
	t.Helper()
	dial := gorilla.Dialer{EnableCompression: true, ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10, HandshakeTimeout: soon}
	url, clients := "ws://"+e.addr("ws")+"/", make([]*gorilla.Conn, sessions)
	var workers []func() error
	for first := range maxDials {
		workers = append(workers, func() error {
			for i := first; i < sessions; i += maxDials {
				c, res, err := dial.Dial(url, nil)
				if err != nil {
					return err
				}
				clients[i] = c
				if answer := res.Header.Get("Sec-WebSocket-Extensions"); strings.HasPrefix(answer, "permessage-deflate") == (mode == "strip") {
					return fmt.Errorf("answered %q", answer)
				}
				for range scaled(100, 3) {
					if err := echoOnce(c, stiff(size)); err != nil {
						return fmt.Errorf("session %d: %w", i, err)
					}
				}
			}
			return nil
		})
	}
	atOnce(t, workers...)
	return clients
}

// stiff is text of n bytes that gets smaller by a quarter only.
func stiff(n int) []byte { return []byte(base64.StdEncoding.EncodeToString(noise(n))[:n]) }

// echoOnce says a message and wants it back.
func echoOnce(c *gorilla.Conn, want []byte) error {
	c.SetReadDeadline(time.Now().Add(soon))
	if err := c.WriteMessage(gorilla.TextMessage, want); err != nil {
		return err
	}
	_, got, err := c.ReadMessage()
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("came back as %.40q", got)
	}
	return err
}

// serveZipEcho is an app server that echoes, compressed where it may.
func serveZipEcho(t *testing.T) (addr string) {
	t.Helper()
	up := gorilla.Upgrader{EnableCompression: true, ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
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
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}
