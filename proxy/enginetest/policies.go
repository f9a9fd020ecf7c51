package enginetest

import (
	"bytes"
	"compress/flate"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// numbered are messages of size bytes that say which one they are.
func (p *peer) numbered(from, to, size int) []byte {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		b.Write(p.frame(ws.OpBinary, true, fmt.Appendf(nil, "%0*d", size, i)))
	}
	return b.Bytes()
}

// smallBuffers keeps the system from holding much for a peer that does not read.
func (p *peer) smallBuffers() {
	if c, ok := p.Conn.(*net.TCPConn); ok {
		c.SetReadBuffer(64 << 10)
	}
}

const slowBuffer = 64 << 10

// slowest is what may be held for one client beyond slowBuffer: what was written to the
// socket and not taken, sealed or not, and what of it was read at once.
const slowest = 160 << 10

func (su suite) dropOldest(t *testing.T) {
	const size, count = 1000, 30_000
	memory := new(engine.Memory)
	tally := new(engine.Tally)
	b := su.open(t, setup{opt: engine.Options{Memory: memory, Tally: tally,
		Relay: relay.Options{SlowConsumer: relay.DropOldest, MaxBuffered: slowBuffer}}})
	b.client.smallBuffers()
	most := int64(0)
	for i := 0; i < count; i += 100 {
		b.backend.send(b.backend.numbered(i, i+100, size))
		most = max(most, memory.Held())
	}
	b.backend.send(b.backend.frame(ws.OpPing, true, []byte("passes")), b.backend.frame(ws.OpText, true, []byte("last")))
	for end := time.Now().Add(patience); su.sum(tally)[relay.Backend].Messages[0] == 0; {
		if time.Now().After(end) {
			t.Fatal("the backend's last message does not arrive")
		}
	}
	next, got, pinged := 0, 0, -1
	for {
		f, err := b.client.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header.OpCode == ws.OpPing {
			pinged = got
			continue
		}
		if string(f.Payload) == "last" {
			break
		}
		n, err := strconv.Atoi(string(f.Payload))
		if err != nil || len(f.Payload) != size || n < next {
			t.Fatalf("message %.20q of %d bytes after number %d: %v", f.Payload, len(f.Payload), next-1, err)
		}
		next, got = n+1, got+1
	}
	if next != count || got == count {
		t.Errorf("%d of %d messages came, the last one was %d", got, count, next-1)
	}
	if pinged < 0 || pinged == got {
		t.Errorf("the Ping came behind %d of %d messages", pinged, got)
	}
	if dropped := su.sum(tally)[relay.Backend].Dropped; dropped != uint64(count-got) {
		t.Errorf("%d counted as dropped, %d are missing", dropped, count-got)
	}
	if most > slowBuffer+slowest {
		t.Errorf("%d bytes were held for a buffer of %d", most, slowBuffer)
	}
	// Nothing is blocked any more.
	b.backend.send(b.backend.frame(ws.OpText, true, []byte("again")))
	b.client.expect(ws.OpText, []byte("again"))
	b.Kill()
	b.result(t)
	su.returned(t, memory)
}

// returned waits until everything that was held is given back.
func (su suite) returned(t *testing.T, memory *engine.Memory) {
	t.Helper()
	for end := time.Now().Add(patience); memory.Held() != 0; su.sum(new(engine.Tally)) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are still held", memory.Held())
		}
	}
}

func (su suite) closeSlow(t *testing.T) {
	memory := new(engine.Memory)
	b := su.open(t, setup{opt: engine.Options{Memory: memory,
		Relay: relay.Options{SlowConsumer: relay.CloseSlow, SlowConsumerCode: 4008, MaxBuffered: slowBuffer}}})
	b.client.smallBuffers()
	go func() {
		for i := 0; ; i += 100 {
			if _, err := b.backend.Write(b.backend.numbered(i, i+100, 1000)); err != nil {
				return
			}
			select {
			case <-b.closing:
				return
			default:
			}
		}
	}()
	select {
	case <-b.closing:
	case <-time.After(patience):
		t.Fatal("the session goes on")
	}
	for i := 0; ; i++ {
		f, err := b.client.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header.OpCode == ws.OpClose {
			if !bytes.Equal(f.Payload, body(4008, "slow consumer")) {
				t.Errorf("closed with % x", f.Payload)
			}
			break
		}
		if want := fmt.Sprintf("%01000d", i); string(f.Payload) != want {
			t.Fatalf("message %d is %.20q", i, f.Payload)
		}
	}
	b.client.send(b.client.frame(ws.OpClose, true, body(4008, "")))
	b.backend.expect(ws.OpClose, body(1001, "slow consumer"))
	b.client.Close()
	b.backend.Close()
	if r := b.result(t); r.Cause != relay.EdgeClosed || r.Why != "slow_consumer" || r.Code != 4008 {
		t.Errorf("got %+v", r)
	}
	su.returned(t, memory)
}

// keepsUp: a client that reads loses nothing to a policy for slow ones.
func (su suite) keepsUp(t *testing.T) {
	for _, policy := range []relay.SlowConsumer{relay.CloseSlow, relay.DropOldest} {
		b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{SlowConsumer: policy, SlowConsumerCode: 1008, MaxBuffered: 64 << 20}}})
		const count, size = 2000, 10_000
		go b.backend.Write(append(b.backend.numbered(0, count, size), b.backend.frame(ws.OpClose, true, body(1000, "bye"))...))
		for i := range count {
			b.client.expect(ws.OpBinary, fmt.Appendf(nil, "%0*d", size, i))
		}
		b.client.expect(ws.OpClose, body(1000, "bye"))
		b.client.send(b.client.frame(ws.OpClose, true, body(1000, "")))
	}
}

// shed: what a session holds is given back, and its client is told.
func (su suite) shed(t *testing.T) {
	for _, policy := range []relay.SlowConsumer{relay.Backpressure, relay.DropOldest} {
		memory := new(engine.Memory)
		b := su.open(t, setup{opt: engine.Options{Memory: memory, Relay: relay.Options{SlowConsumer: policy, MaxBuffered: 1 << 20}}})
		b.client.smallBuffers()
		go func() {
			for i := 0; ; i += 100 {
				if _, err := b.backend.Write(b.backend.numbered(i, i+100, 1000)); err != nil {
					return
				}
			}
		}()
		for end := time.Now().Add(patience); b.Held() < 4<<10; {
			if time.Now().After(end) {
				t.Fatalf("only %d bytes are held", b.Held())
			}
		}
		b.Shed(relay.Ending{Client: 1013, Backend: 1001, Reason: "out of memory", Why: "memory"})
		for {
			f, err := b.client.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.Header.OpCode == ws.OpClose {
				if !bytes.Equal(f.Payload, body(1013, "out of memory")) {
					t.Errorf("closed with % x", f.Payload)
				}
				break
			}
		}
		b.client.Close()
		b.backend.Close()
		if r := b.result(t); r.Cause != relay.EdgeClosed || r.Why != "memory" {
			t.Errorf("got %+v", r)
		}
		su.returned(t, memory)
	}
}

func (su suite) delay(t *testing.T) {
	for name, rates := range map[string]relay.Options{
		"messages": {Delay: true, Messages: relay.Rate{PerSecond: 400, Burst: 20}},
		"bytes":    {Delay: true, Bytes: relay.Rate{PerSecond: 400_000, Burst: 20_000}},
	} {
		t.Run(name, func(t *testing.T) {
			b := su.open(t, setup{opt: engine.Options{Relay: rates}})
			began := time.Now()
			go b.client.Write(append(b.client.numbered(0, 220, 1000), b.client.frame(ws.OpClose, true, body(1000, "bye"))...))
			for i := range 220 {
				b.backend.expect(ws.OpBinary, fmt.Appendf(nil, "%01000d", i))
			}
			if took := time.Since(began); took < 490*time.Millisecond {
				t.Errorf("took %v, want half a second", took)
			}
			b.backend.expect(ws.OpClose, body(1000, "bye"))
		})
	}
	t.Run("until the edge closes", func(t *testing.T) {
		b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{Delay: true, Messages: relay.Rate{PerSecond: 0.001, Burst: 1}}}})
		b.client.send(b.client.numbered(0, 10, 10))
		b.backend.expect(ws.OpBinary, []byte("0000000000"))
		b.Close(relay.Ending{Client: 1001, Backend: 1001, Reason: "drain"})
		b.client.expect(ws.OpClose, body(1001, "drain"))
		for i := 1; i < 10; i++ {
			b.backend.expect(ws.OpBinary, fmt.Appendf(nil, "%010d", i))
		}
		b.client.send(b.client.frame(ws.OpClose, true, body(1001, "")))
		b.backend.expect(ws.OpClose, body(1001, "drain"))
	})
	t.Run("until it is killed", func(t *testing.T) {
		b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{Delay: true, Messages: relay.Rate{PerSecond: 0.001, Burst: 1}}}})
		b.client.send(b.client.numbered(0, 10, 10))
		b.backend.expect(ws.OpBinary, []byte("0000000000"))
		b.Kill()
		b.result(t)
	})
}

func (su suite) heartbeat(t *testing.T) {
	opt := relay.Options{Ping: [2]bool{true, true}, PingInterval: 100 * time.Millisecond, PongTimeout: 10 * time.Second}
	t.Run("both sides answer", func(t *testing.T) {
		rtts := make(chan time.Duration, 100)
		o := opt
		o.RTT = func(d time.Duration) { rtts <- d }
		b := su.open(t, setup{opt: engine.Options{Relay: o}})
		for range 5 {
			for _, p := range []*peer{b.client, b.backend} {
				f, err := p.next()
				if err != nil || f.Header.OpCode != ws.OpPing {
					t.Fatalf("%v %v", f.Header.OpCode, err)
				}
				p.send(p.frame(ws.OpPong, true, f.Payload))
			}
		}
		b.client.send(b.client.frame(ws.OpText, true, []byte("through")))
		b.backend.expect(ws.OpText, []byte("through"))
		for range 9 {
			if d := <-rtts; d < 0 || d > patience {
				t.Errorf("%v from Ping to Pong", d)
			}
		}
		for range 4 {
			if d := <-b.pongs; d <= 0 || d > patience {
				t.Errorf("%v from Ping to Pong of the backend", d)
			}
		}
		if n := len(b.pongs); n > 1 {
			t.Errorf("%d more Pongs of the backend than it sent", n)
		}
	})
	for side, cause := range map[relay.Side]relay.Cause{relay.Client: relay.ClientGone, relay.Backend: relay.BackendGone} {
		t.Run(side.String()+" does not", func(t *testing.T) {
			o := opt
			o.Ping, o.PongTimeout = [2]bool{}, 100*time.Millisecond
			o.Ping[side] = true
			b := su.open(t, setup{opt: engine.Options{Relay: o}})
			if side == relay.Client {
				b.backend.expectEnd()
				b.backend.Close()
			} else {
				b.client.expect(ws.OpClose, body(1012, "backend went away"))
				b.client.Close()
			}
			if r := b.result(t); r.Cause != cause || r.Why != relay.WhyPongTimeout {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func deflated(p []byte) []byte {
	var z bytes.Buffer
	w, _ := flate.NewWriter(&z, 1)
	w.Write(p)
	w.Flush()
	return z.Bytes()[:z.Len()-4]
}

func (p *peer) compressed(msg []byte) []byte {
	f := ws.NewFrame(ws.OpBinary, true, deflated(msg))
	f.Header.Rsv = ws.Rsv(true, false, false)
	return ws.MustCompileFrame(ws.MaskFrameInPlace(f))
}

// The client sends and ends its stream at once; its messages are over the rate.
func (su suite) heldThenEnd(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{Delay: true, Messages: relay.Rate{PerSecond: 200, Burst: 1}}}})
	b.client.send(b.client.numbered(0, 100, 1000), b.client.frame(ws.OpClose, true, body(1000, "bye")))
	b.client.closeWrite()
	for i := range 100 {
		f, err := b.backend.next()
		if err != nil {
			t.Fatalf("message %d of 100: %v (%+v)", i, err, b.result(t))
		}
		if want := fmt.Sprintf("%01000d", i); string(f.Payload) != want {
			t.Fatalf("message %d is %.20q", i, f.Payload)
		}
	}
	b.backend.expect(ws.OpClose, body(1000, "bye"))
}

func (su suite) inflatingThenEnd(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{Compression: relay.Compression{Mode: relay.Terminate, Level: 1}}}})
	msg := bytes.Repeat([]byte("hello world "), 100_000)
	b.client.send(b.client.compressed(msg), b.client.frame(ws.OpText, true, []byte("last")), b.client.frame(ws.OpClose, true, body(1000, "bye")))
	b.client.closeWrite()
	var got []byte
	for len(got) < len(msg) {
		f, err := b.backend.next()
		if err != nil {
			t.Fatalf("after %d of %d: %v (%+v)", len(got), len(msg), err, b.result(t))
		}
		got = append(got, f.Payload...)
	}
	b.backend.expect(ws.OpText, []byte("last"))
	b.backend.expect(ws.OpClose, body(1000, "bye"))
}

// A client says goodbye and reads no more; its backend goes on for a while.
func (su suite) slowAfterClose(t *testing.T) {
	for _, policy := range []relay.SlowConsumer{relay.Backpressure, relay.CloseSlow, relay.DropOldest} {
		memory := new(engine.Memory)
		b := su.open(t, setup{opt: engine.Options{Memory: memory, Relay: relay.Options{CloseTimeout: 2 * time.Second, SlowConsumer: policy, SlowConsumerCode: 1008, MaxBuffered: slowBuffer}}})
		b.client.smallBuffers()
		b.client.send(b.client.frame(ws.OpClose, true, body(1000, "bye")))
		b.backend.expect(ws.OpClose, body(1000, "bye"))
		most, stop := int64(0), time.Now().Add(1500*time.Millisecond)
		b.backend.SetWriteDeadline(stop)
		for time.Now().Before(stop) {
			_, err := b.backend.Write(b.backend.numbered(0, 100, 10000))
			if err != nil {
				break
			}
			most = max(most, memory.Held())
			if most > 256<<20 {
				break
			}
		}
		if most > slowBuffer+slowest {
			t.Errorf("policy %d: %d KiB held for a buffer of %d KiB", policy, most>>10, slowBuffer>>10)
		}
		b.Kill()
		b.result(t)
	}
}

func (su suite) slowInAFrame(t *testing.T) {
	memory := new(engine.Memory)
	b := su.open(t, setup{opt: engine.Options{Memory: memory, Relay: relay.Options{CloseTimeout: 2 * time.Second, SlowConsumer: relay.CloseSlow, SlowConsumerCode: 1008, MaxBuffered: slowBuffer}}})
	b.client.smallBuffers()
	f := b.backend.frame(ws.OpBinary, true, make([]byte, 200<<20))
	most := int64(0)
	b.backend.SetWriteDeadline(time.Now().Add(600 * time.Millisecond))
	for len(f) > 0 {
		n, err := b.backend.Write(f[:min(len(f), 1<<20)])
		f = f[n:]
		most = max(most, memory.Held())
		if err != nil {
			break
		}
	}
	if most > slowBuffer+slowest {
		t.Errorf("%d KiB held for a buffer of %d KiB", most>>10, slowBuffer>>10)
	}
	b.Kill()
	b.result(t)
}

func (su suite) idleWhileHeld(t *testing.T) {
	b := su.open(t, setup{opt: engine.Options{Relay: relay.Options{IdleTimeout: 500 * time.Millisecond, Delay: true, Messages: relay.Rate{PerSecond: 1, Burst: 1}}}})
	b.client.send(b.client.numbered(0, 3, 100))
	for i := range 3 {
		f, err := b.backend.next()
		if err != nil || string(f.Payload) != fmt.Sprintf("%0100d", i) {
			t.Fatalf("message %d: %v", i, err)
		}
		select {
		case <-b.closing:
			t.Fatalf("closed as idle behind message %d while two wait for their rate", i)
		default:
		}
	}
}
