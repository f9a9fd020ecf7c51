package test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// testDelayedClients: a client that sends three times its burst gets everything through,
// in order and at the pace of its route. Meanwhile it answers no Ping, and is not taken
// for dead; and what its backend says comes at once.
func testDelayedClients(t *testing.T) {
	numbered := func(n int) func(c *rawEnd) (p []byte) {
		return func(c *rawEnd) (p []byte) {
			for i := range n {
				p = append(p, c.frame(true, ws.OpText, fmt.Append(nil, i))...)
			}
			return p
		}
	}
	cases := []struct {
		name, rate string
		sent       func(c *rawEnd) []byte
		least      time.Duration // (what is sent - burst) / rate
	}{
		{"messages", "messages_per_second: 10, message_burst: 10", numbered(30), 2 * time.Second},
		{"few-messages", "messages_per_second: 1, message_burst: 2", numbered(6), 4 * time.Second},
		{"messages-second", "messages_per_second: 5", numbered(15), 2 * time.Second},
		{"bytes", "bytes_per_second: 50KiB", times(150, frames(part(true, ws.OpBinary, 1000), words(true, ws.OpPing, "x"), part(false, ws.OpText, 24), words(true, ws.OpContinuation, ""))), 2 * time.Second},
		{"bytes-of-one-message", "bytes_per_second: 50KiB, byte_burst: 100KiB", func(c *rawEnd) []byte { return c.frame(true, ws.OpBinary, noise(300<<10)) }, 4 * time.Second},
		{"both", "messages_per_second: 100, message_burst: 10, bytes_per_second: 10KiB, byte_burst: 10KiB", times(30, part(true, ws.OpBinary, 1024)), 2 * time.Second},
	}
	var sets []policySet
	for _, x := range cases {
		sets = append(sets, policySet{name: x.name, policies: x.rate + ", rate_action: delay, ping_interval: 300ms, pong_timeout: 5s, control_frames_per_second: 0"})
	}
	onEngines(t, sets, func(t *testing.T, e *policyEdge) {
		var all []trial
		for _, x := range cases {
			all = append(all, onSchemes(x.name, func(t *testing.T, scheme string) {
				c, b := e.open(t, x.name, scheme)
				stream := x.sent(c)
				begun := time.Now()
				atOnce(t, func() error { _, err := c.Write(stream); return err }, func() error { return b.match(stream) }, func() error {
					_, err := b.Write(b.frame(true, ws.OpText, []byte("beside it")))
					return err
				})
				since(t, begun, x.least)
				must(t, c.until(ws.OpText, "beside it"))
				must(t, c.answer(1)) // it is pinged again
				pass(b, c, ws.OpText, "and behind it")
				e.farewell(t, c, b)
			})...)
		}
		together(t, all)
	})
}

// testDelayedClientsEnd: an end does not wait for the rate, and loses nothing of what
// waited for it.
func testDelayedClientsEnd(t *testing.T) {
	set := "messages_per_second: 1, message_burst: 2, rate_action: delay"
	onEngines(t, []policySet{{name: "backend", policies: set}, {name: "edge", policies: set + ", max_age: 1500ms, close_timeout: 20s"}}, func(t *testing.T, e *policyEdge) {
		held := func(c, b *rawEnd) (rest []byte) {
			for i := range 20 {
				rest = append(rest, c.frame(true, ws.OpText, []byte{'a' + byte(i)})...)
			}
			c.write(rest)
			b.want(rest[:2*7]) // the burst
			return rest[2*7:]
		}
		together(t, slices.Concat(
			onSchemes("by the backend", func(t *testing.T, scheme string) {
				c, b := e.open(t, "backend", scheme)
				rest := held(c, b)
				b.write(closeBytes(4000, "enough", false))
				c.wantClose(4000, "enough")
				c.write(closeBytes(4000, "", true))
				b.want(rest)
				b.wantClose(4000, "")
				b.wantEOF()
				b.Close()
				c.wantEOF()
				c.Close()
				e.ended(t, b, outcome{"backend", "closed", "4xxx", "backend"})
			}),
			onSchemes("by the edge", func(t *testing.T, scheme string) {
				c, b := e.open(t, "edge", scheme)
				rest := held(c, b)
				c.wantClose(1001, "maximum age reached")
				c.write(closeBytes(1001, "", true))
				b.want(rest)
				b.wantClose(1001, "maximum age reached")
				b.hangUp(1001, "")
				c.wantEOF()
				c.Close()
				e.ended(t, b, outcome{"edge", "max_age", "1001", "edge"})
			})))
	})
}
