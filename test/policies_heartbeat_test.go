package test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// testHeartbeatModes: the sides that a route pings get Pings, the others none; neither
// those nor their Pongs go through, while those of client and backend do.
func testHeartbeatModes(t *testing.T) {
	const pings = 4
	type mode struct {
		name            string
		client, backend bool
	}
	modes := []mode{{"client", true, false}, {"backend", false, true}, {"both", true, true}, {"none", false, false}}
	var sets []policySet
	for _, m := range modes {
		sets = append(sets, policySet{name: m.name, policies: "ping: " + m.name + ", ping_interval: 500ms, pong_timeout: 5s"})
	}
	sets = append(sets, policySet{name: "pace", policies: "ping_interval: 500ms, pong_timeout: 0s"})
	onEngines(t, sets, func(t *testing.T, e *policyEdge) {
		var all []trial
		for _, m := range modes {
			all = append(all, onSchemes(m.name, func(t *testing.T, scheme string) {
				c, b := e.open(t, m.name, scheme)
				var waits []func() error
				if m.client {
					waits = append(waits, func() error { return c.answer(pings) })
				}
				if m.backend {
					waits = append(waits, func() error { return b.answer(pings) })
				}
				if waits == nil { // as long as it takes elsewhere
					other, _ := e.open(t, "pace", scheme)
					waits = append(waits, func() error { return other.answer(pings) })
				}
				atOnce(t, waits...)
				for _, ends := range [][2]*rawEnd{{c, b}, {b, c}} {
					for _, payload := range []string{"", "12345678", strings.Repeat("p", 125)} {
						pass(ends[0], ends[1], ws.OpPing, payload)
						pass(ends[1], ends[0], ws.OpPong, payload)
					}
					pass(ends[0], ends[1], ws.OpText, "and a message")
				}
				if m.client != (c.pings > 0) || m.backend != (b.pings > 0) {
					t.Errorf("the client got %d Pings, the backend %d", c.pings, b.pings)
				}
				e.farewell(t, c, b)
				counted := e.metrics()
				for series, want := range map[string]int{
					"tidegate_ping_rtt_seconds_count{":                          c.pings + b.pings,
					`tidegate_frames_total{direction="upstream",opcode="ping",`: 3, `tidegate_frames_total{direction="upstream",opcode="pong",`: 3,
					`tidegate_frames_total{direction="downstream",opcode="ping",`: 3, `tidegate_frames_total{direction="downstream",opcode="pong",`: 3,
					`tidegate_messages_total{direction="upstream",`: 1, `tidegate_messages_total{direction="downstream",`: 1,
				} {
					series += fmt.Sprintf("route=%q", b.route()) + map[bool]string{true: `,type="text"}`, false: "}"}[strings.HasPrefix(series, "tidegate_messages")]
					if got := counted[series]; got != float64(want) {
						t.Errorf("%s is %v, want %d", series, got, want)
					}
				}
			})...)
		}
		together(t, all)
	})
}

// pass sends a frame from one end to the other.
func pass(from, to *rawEnd, op ws.OpCode, payload string) {
	from.t.Helper()
	from.write(from.frame(true, op, []byte(payload)))
	must(from.t, to.until(op, payload))
}

// testBusySessionsAreNotPinged: bytes from a side put its Ping off.
func testBusySessionsAreNotPinged(t *testing.T) {
	const interval, earliest, lasts = 3 * time.Second, 2 * time.Second, 7 * time.Second
	onEngines(t, []policySet{{name: "busy", policies: fmt.Sprintf("ping: both, ping_interval: %v", interval)}}, func(t *testing.T, e *policyEdge) {
		together(t, onSchemes("busy", func(t *testing.T, scheme string) {
			c, b := e.open(t, "busy", scheme)
			pace := time.NewTicker(300 * time.Millisecond)
			defer pace.Stop()
			begun := time.Now()
			// The edge read the last bytes of each side no longer ago than this.
			silent, last := time.Duration(0), begun
			for time.Since(begun) < lasts {
				<-pace.C
				sent := time.Now()
				pass(c, b, ws.OpText, "busy")
				pass(b, c, ws.OpText, "as well")
				silent, last = max(silent, time.Since(last)), sent
			}
			if c.pings+b.pings > 0 && silent < earliest {
				t.Errorf("%d and %d Pings though nobody was silent for more than %v", c.pings, b.pings, silent)
			}
			e.farewell(t, c, b)
		}))
	})
}

// slowConn is read at a pace, n bytes at most at a time.
type slowConn struct {
	net.Conn
	pace *time.Ticker
	n    int
}

func slowed(t *testing.T, conn net.Conn, n int, every time.Duration) net.Conn {
	pace := time.NewTicker(every)
	t.Cleanup(pace.Stop)
	return &slowConn{conn, pace, n}
}

func (c *slowConn) Read(p []byte) (int, error) {
	<-c.pace.C
	return c.Conn.Read(p[:min(len(p), c.n)])
}

// TestSlowReaders: a message that takes many ping intervals over a slow link comes whole,
// and who reads it, and answers what it finds behind it, is not taken for dead.
func TestSlowReaders(t *testing.T) {
	const large, small = 16 << 20, 1 << 20
	cases := []struct {
		name            string
		bytes, fragment int
		read            int // at a time
		every           time.Duration
		upstream        bool
	}{
		{"a-frame", large, large, 16 << 10, 5 * time.Millisecond, false},
		{"fragments", large, 200_000, 16 << 10, 5 * time.Millisecond, false},
		{"frame-to-backend", large, large, 16 << 10, 5 * time.Millisecond, true},
		{"fragments-to-backend", large, 200_000, 16 << 10, 5 * time.Millisecond, true},
		// All of it is in the edge's system soon, and the Ping behind it.
		{"trickle", small, small, 10 << 10, 50 * time.Millisecond, false},
		{"trickled-fragments", small, 20_000, 10 << 10, 50 * time.Millisecond, false},
		{"trickle-to-backend", small, small, 10 << 10, 50 * time.Millisecond, true},
	}
	var sets []policySet
	for _, x := range cases {
		sets = append(sets, policySet{x.name, fmt.Sprintf("ping: %s, ping_interval: 400ms, pong_timeout: 1500ms", pickOf(x.upstream, "client", "backend")), true})
	}
	data := noise(16 << 20)
	onEngines(t, sets, func(t *testing.T, e *policyEdge) {
		var all []trial
		for _, x := range cases {
			all = append(all, onSchemes(x.name, func(t *testing.T, scheme string) {
				var c, b *rawEnd
				if x.upstream {
					c, b = e.open(t, x.name, scheme)
					b.r = bufio.NewReaderSize(slowed(t, b.Conn, x.read, x.every), 64<<10)
				} else {
					c, b = e.openSmall(t, x.name, scheme, func(conn net.Conn) net.Conn { return slowed(t, conn, x.read, x.every) })
				}
				from, to := pickOf(x.upstream, b, c), pickOf(x.upstream, c, b)
				begun := time.Now()
				atOnce(t, func() error { return from.fragments(data[:x.bytes], x.fragment) }, func() error { return to.message(data[:x.bytes]) })
				took := time.Since(begun)
				since(t, begun, time.Duration(x.bytes/x.read-8)*x.every) // what the reader holds came sooner
				inside := to.pings
				must(t, to.answer(2))
				t.Logf("%d bytes in %v, %d Pings before the end of the message", x.bytes, took, inside)
				e.farewell(t, c, b)
			})...)
		}
		together(t, all)
	})
}

// fragments writes a message of frames of a size.
func (r *rawEnd) fragments(p []byte, size int) error {
	op := ws.OpBinary
	for len(p) > 0 {
		n := min(len(p), size)
		if _, err := r.Write(r.frame(n == len(p), op, p[:n])); err != nil {
			return err
		}
		op, p = ws.OpContinuation, p[n:]
	}
	return nil
}

// message reads a message in fragments that must be p, and answers Pings of the edge's own.
func (r *rawEnd) message(p []byte) error {
	for op := ws.OpBinary; ; {
		h, payload, err := r.readFrame()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w with %d bytes to come", r.who(), err, len(p))
		case ownPing(h):
			if err := r.pong(payload); err != nil {
				return err
			}
			continue
		case h.OpCode != op || !bytes.HasPrefix(p, payload) || h.Fin != (len(payload) == len(p)):
			return fmt.Errorf("%s: got frame %+v with %d bytes to come", r.who(), h, len(p))
		}
		if op, p = ws.OpContinuation, p[len(payload):]; h.Fin {
			return nil
		}
	}
}
