package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// consumer is a rig whose client takes bytes only when it is told to.
type consumer struct {
	*rig
	got []byte
}

func newConsumer(opt Options) *consumer {
	c := &consumer{rig: newRig(opt)}
	c.Block(Client)
	return c
}

// push feeds what the backend sends, as an engine does.
func (c *consumer) push(p []byte) {
	c.Feed(Backend, bytes.Clone(p), c.now, &c.bufs[Client], &c.bufs[Backend])
	c.settle()
}

func (c *consumer) settle() {
	if c.Blocked(Client) {
		c.Queue(Client, c.bufs[Client].Segments(), c.now)
	} else {
		for _, s := range c.bufs[Client].Segments() {
			c.got = append(c.got, s...)
		}
	}
	c.bufs[Client].Reset()
	c.take()
}

// accept has the client take n bytes, and then be slow again if block says so.
func (c *consumer) accept(n int, block bool) {
	for n > 0 && c.Blocked(Client) {
		before := len(c.got)
		c.Take(Client, n, &c.bufs[Client])
		for _, s := range c.bufs[Client].Segments() {
			c.got = append(c.got, s...)
		}
		c.bufs[Client].Reset()
		n -= max(1, len(c.got)-before)
	}
	if block {
		c.Block(Client)
	}
}

func (c *consumer) saw() string {
	c.sent[Client] = c.got
	return c.said(Client)
}

func TestDropOldest(t *testing.T) {
	c := newConsumer(Options{SlowConsumer: DropOldest, MaxBuffered: 10 * (entryCost + 2 + 3)})
	for i := range 100 {
		c.push(text(Backend, fmt.Sprintf("%03d", i)))
		if i == 50 {
			c.push(fr(Backend, ws.OpPing, true, []byte("p")))
		}
	}
	if c.Queued(Client) > c.opt.MaxBuffered || c.Full(Client) {
		t.Errorf("%d bytes wait, full %v", c.Queued(Client), c.Full(Client))
	}
	c.accept(1<<20, false)
	var want []string
	for i := 91; i < 100; i++ {
		want = append(want, fmt.Sprintf("text:%03d", i))
	}
	if got := c.saw(); got != "ping:p "+strings.Join(want, " ") {
		t.Errorf("client got %s", got)
	}
	if n := c.counts[Backend].Dropped; n != 91 {
		t.Errorf("%d dropped", n)
	}
	c.push(text(Backend, "direct"))
	if !strings.HasSuffix(c.saw(), " text:direct") || c.Blocked(Client) {
		t.Errorf("still blocked: %s", c.saw())
	}
}

// TestDropOldestKeepsTheRest: fragments, what was begun and Closes stay, and when that is
// too much the backend is not read.
func TestDropOldestKeepsTheRest(t *testing.T) {
	c := newConsumer(Options{SlowConsumer: DropOldest, MaxBuffered: 300})
	c.push(text(Backend, strings.Repeat("a", 100)))
	c.accept(10, true)
	c.push(fr(Backend, ws.OpText, false, make([]byte, 150)))
	c.push(fr(Backend, ws.OpPong, true, []byte("x")))
	c.push(fr(Backend, ws.OpContinuation, true, make([]byte, 150)))
	c.push(text(Backend, "dropped"))
	if !c.Full(Client) || c.counts[Backend].Dropped != 1 {
		t.Errorf("full %v, %d dropped, %d bytes wait", c.Full(Client), c.counts[Backend].Dropped, c.Queued(Client))
	}
	c.push(closing(Backend, 1000, "bye"))
	c.accept(1<<20, false)
	if got := c.saw(); got != "text(100) pong:x text+(150) continuation(150) close 1000 bye" {
		t.Errorf("client got %s", got)
	}
}

func TestCloseSlow(t *testing.T) {
	opt := Options{SlowConsumer: CloseSlow, SlowConsumerCode: 4001, MaxBuffered: 1000}
	t.Run("between frames", func(t *testing.T) {
		c := newConsumer(opt)
		c.push(text(Backend, "one"))
		c.accept(3, true)
		for range 20 {
			c.push(text(Backend, strings.Repeat("x", 100)))
		}
		if v := c.Verdict(); v.Cause != EdgeClosed || v.Code != 4001 || v.Why != "slow_consumer" {
			t.Fatalf("verdict %+v", v)
		}
		if n := c.Queued(Client); n > 200 {
			t.Errorf("%d bytes wait after everything was dropped", n)
		}
		c.accept(1<<20, false)
		if got := c.saw(); got != "text:one close 4001 slow consumer" {
			t.Errorf("client got %s", got)
		}
		c.feed(Client, closing(Client, 4001, ""))
		if got := c.said(Backend); got != "close 1001 slow consumer" {
			t.Errorf("backend got %s", got)
		}
	})
	t.Run("inside a frame that the client has not seen", func(t *testing.T) {
		c := newConsumer(opt)
		big := fr(Backend, ws.OpBinary, true, make([]byte, 5000))
		c.push(text(Backend, "one"))
		c.accept(1, true)
		c.push(big[:1500])
		c.push(big[1500:])
		c.accept(1<<20, false)
		if got := c.saw(); got != "text:one close 4001 slow consumer" {
			t.Errorf("client got %s", got)
		}
	})
	t.Run("inside a frame that the client has in part", func(t *testing.T) {
		c := newConsumer(opt)
		big := fr(Backend, ws.OpBinary, true, make([]byte, 5000))
		c.push(big[:500])
		c.accept(100, true)
		c.push(big[500:1500])
		if !c.Closing() {
			t.Fatal("goes on")
		}
		c.push(big[1500:])
		c.push(text(Backend, "more"))
		c.accept(1<<20, false)
		if got := c.saw(); got != "binary(5000) close 4001 slow consumer" {
			t.Errorf("client got %s", got)
		}
	})
	t.Run("a client that keeps up", func(t *testing.T) {
		c := newConsumer(opt)
		for range 100 {
			c.push(text(Backend, strings.Repeat("x", 500)))
			c.accept(1<<20, true)
		}
		if c.Closing() {
			t.Errorf("closed: %+v", c.Verdict())
		}
	})
}

// TestShedWithoutQueue: nothing waits in the relay.
func TestShedWithoutQueue(t *testing.T) {
	g := newRig(Options{})
	g.feed(Backend, fr(Backend, ws.OpText, false, []byte("part")))
	g.Shed(Ending{Client: 1013, Backend: 1001, Reason: "out of memory", Why: "memory"}, g.now, &g.bufs[Client])
	g.take()
	g.expect(t, "text+:part close 1013 out of memory", "", EdgeClosed)
}

// FuzzOutbox: whatever comes and is taken in whatever pieces, the client gets whole legal
// frames, and of the backend's stream nothing is missing but messages of one frame.
func FuzzOutbox(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint16(200*seed), seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, most uint16, drop bool) {
		rng := rand.New(rand.NewPCG(seed, 1))
		opt := Options{SlowConsumer: DropOldest, MaxBuffered: int(most)}
		if !drop {
			opt.MaxBuffered = 1 << 30
		}
		c := &consumer{rig: newRig(opt)}
		var stream []byte
		fragmented := false
		for i := range 60 {
			payload := []byte(fmt.Sprintf("%d:%s", i, strings.Repeat("x", rng.IntN(1+int(most)/4))))
			switch rng.IntN(6) {
			case 0:
				stream = append(stream, fr(Backend, ws.OpPing, true, payload[:min(len(payload), 125)])...)
			case 1:
				op := ws.OpBinary
				if fragmented {
					op = ws.OpContinuation
				}
				fragmented = rng.IntN(2) == 0
				stream = append(stream, fr(Backend, op, !fragmented, payload)...)
			default:
				if !fragmented {
					stream = append(stream, fr(Backend, ws.OpBinary, true, payload)...)
				}
			}
		}
		all := frames(stream)
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(300))
			if rng.IntN(3) == 0 {
				c.Block(Client)
			}
			c.push(rest[:n])
			rest = rest[n:]
			if rng.IntN(3) == 0 {
				c.accept(rng.IntN(400), rng.IntN(2) == 0)
			}
		}
		c.accept(1<<30, false)
		c.sent[Client] = c.got
		checkOutput(t, c.rig, Client)
		split := func(fs []ws.Frame) (data, control []string) {
			for _, x := range fs {
				line := fmt.Sprintf("%v %v %s", x.Header.OpCode, x.Header.Fin, x.Payload)
				if x.Header.OpCode.IsControl() {
					control = append(control, line)
				} else {
					data = append(data, line)
				}
			}
			return data, control
		}
		gotFrames := frames(c.got)
		gotData, gotControl := split(gotFrames)
		wantData, wantControl := split(all)
		if !slices.Equal(gotControl, wantControl) {
			t.Fatalf("control frames %q, want %q", gotControl, wantControl)
		}
		missing := 0
		for _, want := range wantData {
			if len(gotData) > 0 && gotData[0] == want {
				gotData = gotData[1:]
				continue
			}
			if missing++; !strings.HasPrefix(want, fmt.Sprintf("%v true ", ws.OpBinary)) {
				t.Fatalf("%s is missing", want)
			}
		}
		if len(gotData) > 0 || uint64(missing) != c.counts[Backend].Dropped || !drop && missing > 0 {
			t.Fatalf("%d frames too many, %d are missing, %d counted", len(gotData), missing, c.counts[Backend].Dropped)
		}
	})
}

// TestDropOldestMemory: what is dropped is given back, also when what may not be dropped
// came between. What waits takes no more memory than it counts for, but for a few chunks
// and what lists and the allocator round up.
func TestDropOldestMemory(t *testing.T) {
	const most = 64 << 10
	message := fr(Backend, ws.OpBinary, true, make([]byte, 800))
	fragments := append(fr(Backend, ws.OpBinary, false, []byte("begin")), fr(Backend, ws.OpContinuation, true, []byte("end"))...)
	for _, tt := range []struct {
		name  string
		stays []byte // comes between messages
	}{
		{"fragments", fragments},
		{"pings", fr(Backend, ws.OpPing, true, []byte("ping"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newConsumer(Options{SlowConsumer: DropOldest, MaxBuffered: most})
			before := liveHeap()
			for !c.Full(Client) {
				for range 5 {
					c.push(message)
				}
				c.push(tt.stays)
			}
			if grown := liveHeap() - before; grown > 2*most+3*chunkBytes {
				t.Errorf("%d bytes wait and take %d of memory", c.Queued(Client), grown)
			}
			runtime.KeepAlive(c)
		})
	}
}

// liveHeap is what is alive.
func liveHeap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
