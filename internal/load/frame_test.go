package load

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/gobwas/ws"
)

// collector writes down what a frameReader finds.
type collector struct {
	found []string
	open  []byte
}

func (c *collector) frameBegins(ws.Header) { c.open = c.open[:0] }
func (c *collector) framePayload(p []byte) { c.open = append(c.open, p...) }
func (c *collector) frameEnds(h ws.Header) {
	c.found = append(c.found, fmt.Sprintf("%d %t %q", h.OpCode, h.Fin, c.open))
}
func (c *collector) control(op ws.OpCode, p []byte) {
	c.found = append(c.found, fmt.Sprintf("%d %q", op, p))
}

// other reads a stream with gobwas/ws, as long as it is right.
func other(stream []byte, isMasked bool) (found []string) {
	in := bytes.NewReader(stream)
	for {
		h, err := ws.ReadHeader(in)
		if err != nil || h.Masked != isMasked || h.Length > int64(in.Len()) {
			return found
		}
		p := make([]byte, h.Length)
		io.ReadFull(in, p)
		if h.Masked {
			ws.Cipher(p, h.Mask, 0)
		}
		if h.OpCode.IsControl() {
			found = append(found, fmt.Sprintf("%d %q", h.OpCode, p))
		} else {
			found = append(found, fmt.Sprintf("%d %t %q", h.OpCode, h.Fin, p))
		}
	}
}

// FuzzFrames: however a stream is cut, the same frames are found, and they are those
// that gobwas/ws finds.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 1, 'x', 0x89, 0, 0x88, 2, 3, 0xe8}, false, uint8(1))
	f.Add(append(masked(ws.OpBinary, false, "abc"), masked(ws.OpContinuation, true, "")...), true, uint8(3))
	f.Add(masked(ws.OpBinary, true, string(make([]byte, 70000))), true, uint8(200))
	f.Add([]byte{0x82, 126, 0, 126}, false, uint8(2))
	f.Add([]byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, false, uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, isMasked bool, step uint8) {
		read := func(step int) (*collector, error) {
			c, r := &collector{}, frameReader{masked: isMasked}
			for rest := bytes.Clone(stream); len(rest) > 0; {
				n := min(step, len(rest))
				if err := r.feed(rest[:n], c); err != nil {
					return c, err
				}
				rest = rest[n:]
			}
			return c, nil
		}
		whole, wholeErr := read(len(stream) + 1)
		cut, cutErr := read(int(step) + 1)
		if fmt.Sprint(whole.found) != fmt.Sprint(cut.found) || (wholeErr == nil) != (cutErr == nil) {
			t.Fatalf("whole %v %v\ncut %v %v", whole.found, wholeErr, cut.found, cutErr)
		}
		theirs := other(stream, isMasked)
		if len(whole.found) > len(theirs) {
			t.Fatalf("found %v, theirs %v", whole.found, theirs)
		}
		for i, one := range whole.found {
			if one != theirs[i] {
				t.Fatalf("found %v, theirs %v", whole.found, theirs)
			}
		}
		if wholeErr == nil && len(whole.found) != len(theirs) {
			t.Fatalf("found %v, theirs %v", whole.found, theirs)
		}
	})
}

// FuzzSubscription: a query that is accepted is written and read as the same again.
func FuzzSubscription(f *testing.F) {
	for _, uri := range []string{"/", "/?mode=push&size=64&rate=500&text=1&id=7", "/?mode=idle", "*", "/?mode=push&size=1e3", "/?%zz", ""} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		s, err := parseSubscription(uri)
		if err != nil {
			return
		}
		again, err := parseSubscription("/?" + s.query())
		if err != nil || again != s {
			t.Fatalf("%+v, then %+v %v", s, again, err)
		}
	})
}

// FuzzMessage: whatever a message holds, only one that is whole is one of the run's.
func FuzzMessage(f *testing.F) {
	plan := newLayout(Echo, 40, true)
	good := make([]byte, 40)
	plan.put(good, stamp{connection: 3, sequence: 9, due: -1})
	f.Add(good, uint8(7))
	f.Add(append(bytes.Clone(good), 'a'), uint8(1))
	f.Add(bytes.Repeat([]byte("z"), 40), uint8(33))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var m messageReader
		for rest := b; len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			m.add(plan, rest[:n])
			rest = rest[n:]
		}
		s, ok := m.end(plan)
		if !ok {
			return
		}
		again := make([]byte, 40)
		plan.put(again, s)
		if !bytes.Equal(bytes.ToLower(b), again) {
			t.Fatalf("%q is taken for %+v, which is %q", b, s, again)
		}
	})
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name                     string
		seen                     []uint64
		sent                     uint64
		lost, doubled, reordered uint64
	}{
		{"all", []uint64{0, 1, 2}, 3, 0, 0, 0},
		{"nothing", nil, 3, 3, 0, 0},
		{"the last", []uint64{0, 1}, 3, 1, 0, 0},
		{"the first", []uint64{1, 2}, 3, 1, 0, 0},
		{"turned", []uint64{2, 1, 0}, 3, 0, 0, 2},
		{"doubled at once", []uint64{0, 0, 1}, 2, 0, 1, 0},
		{"doubled later, and late", []uint64{0, 2, 1, 1, 0}, 3, 0, 2, 1},
		{"far ahead", []uint64{3 * maxMissing}, 3*maxMissing + 1, 3 * maxMissing, 0, 0},
		{"far ahead, then what was forgotten", []uint64{3 * maxMissing, 2 * maxMissing}, 3*maxMissing + 1, 3 * maxMissing, 1, 0},
	} {
		var o order
		for _, n := range c.seen {
			o.see(n)
		}
		if o.lost(c.sent) != c.lost || o.doubled != c.doubled || o.reordered != c.reordered {
			t.Errorf("%s: %d lost, %d doubled, %d reordered; want %d, %d, %d", c.name, o.lost(c.sent), o.doubled, o.reordered,
				c.lost, c.doubled, c.reordered)
		}
	}
}

// deaf is a carrier that takes everything.
type deaf struct{ last []byte }

func (d *deaf) write(p []byte) error { d.last = append(d.last[:0], p...); return nil }
func (d *deaf) blocked() bool        { return false }
func (d *deaf) hold(bool)            {}
func (d *deaf) close()               {}

// TestNothingAllocated: a round trip costs neither end an allocation.
func TestNothingAllocated(t *testing.T) {
	for _, size := range []int{64, 16 << 10} {
		for _, text := range []bool{false, true} {
			o := &Options{Mode: Echo, Connections: 1, Size: size, Text: text}
			cw := &clientWorker{worker: &worker{}, o: o, layout: newLayout(Echo, size, text), head: frameHead(ws.OpBinary, size, true),
				op: ws.OpBinary, tally: newTally(), random: newTestPCG(), scratch: make([]byte, 0, 2*batch), begun: true, until: never}
			client := &client{w: cw}
			up := &deaf{}
			client.link = &link{w: cw.worker, s: client, c: up, dueSlot: -1}
			sw := &serverWorker{worker: &worker{}, echo: make([]byte, 0, 2*readSize)}
			server := newPeer(sw, subscription{mode: Echo})
			down := &deaf{}
			server.link = &link{w: sw.worker, s: server, c: down, dueSlot: -1}

			client.sendNow(now(), now())
			roundTrip := func() {
				if err := server.received(up.last); err != nil {
					t.Fatal(err)
				}
				if err := client.received(down.last); err != nil {
					t.Fatal(err)
				}
			}
			roundTrip()
			if n := testing.AllocsPerRun(1000, roundTrip); n != 0 {
				t.Errorf("%d bytes, text %t: %v allocations", size, text, n)
			}
			if cw.tally.received < 1000 || cw.tally.unexpected != 0 {
				t.Errorf("%d received, %d unexpected", cw.tally.received, cw.tally.unexpected)
			}
		}
	}
	t.Run("at a fixed rate", func(t *testing.T) {
		o := &Options{Mode: Echo, Connections: 1, Size: 64, Rate: 1000}
		w := &clientWorker{worker: &worker{}, o: o, layout: newLayout(Echo, 64, false), head: frameHead(ws.OpBinary, 64, true),
			tally: newTally(), random: newTestPCG(), begun: true, until: never}
		c := &client{w: w, schedule: newSchedule(0, 1000, 0, 1)}
		c.link = &link{w: w.worker, s: c, c: &deaf{}, dueSlot: -1}
		at := int64(0)
		n := testing.AllocsPerRun(1000, func() {
			at += 3e6
			c.fire(at)
		})
		if n != 0 || c.sent < 3000 {
			t.Errorf("%v allocations, %d sent", n, c.sent)
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, size := range []int{64, 1024, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			o := &Options{Mode: Echo, Connections: 1, Size: size}
			cw := &clientWorker{worker: &worker{}, o: o, layout: newLayout(Echo, size, false), head: frameHead(ws.OpBinary, size, true),
				op: ws.OpBinary, tally: newTally(), random: newTestPCG(), scratch: make([]byte, 0, 2*batch), begun: true, until: never}
			client := &client{w: cw}
			up, down := &deaf{}, &deaf{}
			client.link = &link{w: cw.worker, s: client, c: up, dueSlot: -1}
			sw := &serverWorker{worker: &worker{}, echo: make([]byte, 0, 2*readSize)}
			server := newPeer(sw, subscription{mode: Echo})
			server.link = &link{w: sw.worker, s: server, c: down, dueSlot: -1}
			client.sendNow(now(), now())
			b.ReportAllocs()
			for b.Loop() {
				server.received(up.last)
				client.received(down.last)
			}
		})
	}
}
