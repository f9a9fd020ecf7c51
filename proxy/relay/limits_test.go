package relay

import (
	"bytes"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestNothingInflatedBehindClose: a backend that broke the protocol while a message was being
// inflated for it gets its Close, and no more of the message.
func TestNothingInflatedBehindClose(t *testing.T) {
	g := newRig(Options{Compression: Compression{Mode: Terminate, Level: 1}})
	g.feed(Client, compressed(fr(Client, ws.OpBinary, true, deflated(t, bytes.Repeat([]byte("hello world "), 20_000)))))
	g.feed(Backend, []byte{0xff, 0xff}) // breaks the protocol
	before := len(g.sent[Backend])
	g.feed(Client, nil)
	if after := len(g.sent[Backend]); after != before {
		t.Errorf("%d bytes for the backend behind its Close: %s", after-before, g.said(Backend))
	}
}

// TestMessageTimeoutOfAnUnreadClient: the time in which the client was not read does not
// count, whenever it was.
func TestMessageTimeoutOfAnUnreadClient(t *testing.T) {
	// The backend is slow: the client is not read nine tenths of the time.
	g := newRig(Options{MessageTimeout: 10 * time.Second})
	f := fr(Client, ws.OpBinary, true, make([]byte, 100_000))
	g.feed(Client, f[:1000])
	for i := 0; i < 11; i++ {
		g.stuck = [2]bool{Backend: true}
		g.now += 900 * time.Millisecond
		g.stuck = [2]bool{}
		g.Progress(Backend, g.now)
		g.feed(Client, f[1000+1000*i:2000+1000*i])
		g.now += 100 * time.Millisecond
	}
	g.tick(0)
	if g.Closing() {
		t.Errorf("closed: %+v, the client was not read for 9.9 of 11 s", g.Verdict())
	}
}

// TestShedGivesBackCollected: a compressed message that has not come whole is let go of, and
// so is the rest of it.
func TestShedGivesBackCollected(t *testing.T) {
	g := newRig(Options{Compression: Compression{Mode: Terminate, Level: 1}})
	f := fr(Client, ws.OpBinary, true, make([]byte, 8<<20))
	f[0] |= 0x40
	g.feed(Client, f[:4<<20])
	g.Shed(Ending{Client: 1013, Backend: 1001, Why: "memory"}, g.now, &g.bufs[Client])
	g.take()
	g.feed(Client, f[4<<20:7<<20])
	if n := g.Buffered(); n > 0 {
		t.Errorf("%d are held behind Shed", n)
	}
	g.feed(Client, join(f[7<<20:], text(Client, "next"), closing(Client, 1013, "")))
	g.expect(t, "close 1013", "text:next close 1001", EdgeClosed)
}

// TestFullWhileEnding: what waits is bounded in a session that is ending, too.
func TestFullWhileEnding(t *testing.T) {
	for _, policy := range []SlowConsumer{CloseSlow, DropOldest} {
		g := newRig(Options{SlowConsumer: policy, SlowConsumerCode: 1008, MaxBuffered: 64 << 10})
		g.feed(Client, closing(Client, 1000, ""))
		g.Block(Client)
		var out, back Buffers
		for i := 0; i < 1000 && !g.Full(Client); i++ {
			g.Feed(Backend, fr(Backend, ws.OpBinary, true, make([]byte, 10_000)), g.now, &out, &back)
			g.Queue(Client, out.Segments(), g.now)
			out.Reset()
		}
		if n := g.Queued(Client); n > 100<<10 {
			t.Errorf("%d queued of at most %d", n, 64<<10)
		}
	}
}
