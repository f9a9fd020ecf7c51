//go:build !race

package relay

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
)

// TestTerminateDoesNotAllocate: in steady state, with messages in one piece. The race
// detector has pools forget what they hold.
func TestTerminateDoesNotAllocate(t *testing.T) {
	opt := terminating()
	var counts Traffic
	r := New(&opt, &counts)
	r.Begin(1)
	var out, back Buffers
	down := fr(Backend, ws.OpText, true, json(2000))
	up := compressed(fr(Client, ws.OpText, true, deflated(t, bytes.ToValidUTF8(json(2000), []byte(".")))))
	once := func() {
		for from, p := range map[Side][]byte{Backend: down, Client: up} {
			if n, err := r.Feed(from, p, 1, &out, &back); err != nil || n != len(p) {
				t.Fatal(n, err)
			}
			out.Reset()
			back.Reset()
		}
	}
	once()
	if n := testing.AllocsPerRun(200, once); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
