package relay

import (
	"fmt"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

const (
	second = time.Second
	minute = time.Minute
)

// TestPolicyStreams are streams that break a policy; like those of TestStreams, but the
// outcome may depend on where they are cut.
func TestPolicyStreams(t *testing.T) {
	rate := func(n float64) Rate { return Rate{n, n} }
	for _, tt := range []struct {
		name            string
		opt             Options
		from            Side
		pieces          [][]byte
		client, backend string
		cause           Cause
		why             string
	}{
		{name: "text of the client is not UTF-8", opt: Options{ValidateUTF8: true}, pieces: [][]byte{text(Client, "a\xffb")},
			client: "close 1007 text is not UTF-8", backend: "close 1001", cause: ClientViolation, why: "utf8"},
		{name: "text of the backend is not UTF-8", opt: Options{ValidateUTF8: true}, from: Backend, pieces: [][]byte{text(Backend, "\xc0\xaf")},
			client: "close 1011", backend: "close 1007 text is not UTF-8", cause: BackendViolation, why: "utf8"},
		{name: "a character that is cut by the end", opt: Options{ValidateUTF8: true}, pieces: [][]byte{text(Client, "a\xe2\x82")},
			client: "close 1007 text is not UTF-8", backend: "close 1001", cause: ClientViolation, why: "utf8"},
		{name: "a character over two fragments", opt: Options{ValidateUTF8: true}, pieces: [][]byte{fr(Client, ws.OpText, false, []byte("\xe2\x82")),
			fr(Client, ws.OpContinuation, true, []byte("\xac"))}, backend: "text+:\xe2\x82 continuation:\xac"},
		{name: "an empty last fragment inside a character", opt: Options{ValidateUTF8: true}, pieces: [][]byte{fr(Client, ws.OpText, false, []byte("\xe2\x82")),
			fr(Client, ws.OpContinuation, true, nil)}, client: "close 1007 text is not UTF-8", backend: "text+:\xe2\x82 close 1001", cause: ClientViolation, why: "utf8"},
		{name: "bad bytes behind part of a frame", opt: Options{ValidateUTF8: true}, pieces: [][]byte{text(Client, "good\xffbad")[:9], text(Client, "good\xffbad")[9:]},
			client: "close 1007 text is not UTF-8", backend: "cut frame", cause: ClientViolation, why: "utf8"},
		{name: "bad bytes behind part of a backend's frame", opt: Options{ValidateUTF8: true}, from: Backend, pieces: [][]byte{text(Backend, "good\xffbad")[:5], text(Backend, "good\xffbad")[5:]},
			client: "cut frame", backend: "close 1007 text is not UTF-8", cause: BackendViolation, why: "utf8"},
		{name: "binary need not be UTF-8", opt: Options{ValidateUTF8: true}, pieces: [][]byte{fr(Client, ws.OpBinary, false, []byte("\xff")), fr(Client, ws.OpContinuation, true, []byte("\xff"))},
			backend: "binary+:\xff continuation:\xff"},
		{name: "text is not looked at", pieces: [][]byte{text(Client, "\xff")}, backend: "text:\xff"},
		{name: "fragments at the limit", opt: Options{MaxFragments: 2}, pieces: [][]byte{fr(Client, ws.OpText, false, nil), fr(Client, ws.OpContinuation, true, nil), text(Client, "")},
			backend: "text+: continuation: text:"},
		{name: "fragments over the limit", opt: Options{MaxFragments: 1}, pieces: [][]byte{fr(Client, ws.OpText, false, nil), fr(Client, ws.OpContinuation, true, nil)},
			client: "close 1008 too many fragments", backend: "text+: close 1001", cause: ClientViolation, why: "fragments"},
		{name: "control frames at the limit", opt: Options{ControlFrames: rate(2)}, pieces: [][]byte{fr(Client, ws.OpPing, true, nil), fr(Client, ws.OpPong, true, nil)},
			backend: "ping: pong:"},
		{name: "control frames over the limit", opt: Options{ControlFrames: rate(2), Delay: true}, from: Backend, pieces: [][]byte{fr(Backend, ws.OpPing, true, nil), fr(Backend, ws.OpPong, true, nil), fr(Backend, ws.OpPing, true, nil)},
			client: "ping: pong: close 1011", backend: "close 1008 too many control frames", cause: BackendViolation, why: "control_rate"},
		{name: "a Close is not counted", opt: Options{ControlFrames: rate(1)}, pieces: [][]byte{fr(Client, ws.OpPing, true, nil), closing(Client, 1000, "")},
			backend: "ping: close 1000", cause: ClientClosed, why: "closed"},
		{name: "messages over the rate", opt: Options{Messages: rate(2)}, pieces: [][]byte{text(Client, "1"), text(Client, "2"), text(Client, "3")},
			client: "close 1008 too many messages", backend: "text:1 text:2 close 1001", cause: ClientViolation, why: "message_rate"},
		{name: "a fragmented message is one", opt: Options{Messages: rate(1)}, pieces: [][]byte{fr(Client, ws.OpText, false, nil), fr(Client, ws.OpContinuation, true, nil)},
			backend: "text+: continuation:"},
		{name: "the backend has no rate", opt: Options{Messages: rate(1), Bytes: rate(1)}, from: Backend, pieces: [][]byte{text(Backend, "1"), text(Backend, "2")},
			client: "text:1 text:2"},
		{name: "bytes over the rate", opt: Options{Bytes: rate(4)}, pieces: [][]byte{text(Client, "123"), text(Client, "45")},
			client: "close 1008 too many bytes", backend: "text:123 close 1001", cause: ClientViolation, why: "byte_rate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(tt.opt)
			for _, p := range tt.pieces {
				g.feed(tt.from, p)
			}
			g.expect(t, tt.client, tt.backend, tt.cause)
			if got := g.Verdict().Why; got != tt.why {
				t.Errorf("why %q, want %q", got, tt.why)
			}
			if tt.cause != 0 && g.Verdict().Err != nil {
				// Whoever holds a cut frame gets an end of stream instead of a Close.
				for _, s := range []Side{Client, Backend} {
					if said := g.said(s); said == "cut frame" && !g.Shut(s) {
						t.Errorf("%v holds part of a frame and its stream goes on", s)
					}
				}
				if g.Deadline() == 0 {
					t.Error("nobody sees to the end")
				}
			}
		})
	}
}

// TestCutBackendFrameVerdict: the client of a frame that stays cut is not told anything.
func TestCutBackendFrameVerdict(t *testing.T) {
	g := newRig(Options{ValidateUTF8: true})
	bad := text(Backend, "good\xff")
	g.feed(Backend, bad[:4])
	g.feed(Backend, bad[4:])
	if v := g.Verdict(); v.Code != ws.StatusAbnormalClosure || v.Reason != "" || v.Err != frame.ErrText {
		t.Errorf("verdict %+v", v)
	}
}

// run lets time pass and calls Tick when it is due, as an engine does.
func (g *rig) run(d time.Duration) (suspects [2]int) {
	for end := g.now + d; ; {
		at := g.Deadline()
		if at == 0 || at > end {
			g.now = end
			return suspects
		}
		g.now = max(g.now, at)
		a := g.Tick(g.now, g.stuck, &g.bufs[Client], &g.bufs[Backend])
		for s, suspect := range a.Suspect {
			if suspect {
				suspects[s]++
			}
		}
		g.take()
		for _, s := range []Side{Client, Backend} {
			if until, held := g.Held(s); held && until <= g.now {
				g.feed(s, nil)
			}
		}
	}
}

// TestDelay: what comes too fast waits, whole and in order, and the average is kept.
func TestDelay(t *testing.T) {
	for _, cut := range []int{1, 7, 1000} {
		t.Run(fmt.Sprint("messages, pieces of ", cut), func(t *testing.T) {
			g := newRig(Options{Messages: Rate{10, 5}, Delay: true})
			var stream []byte
			for i := range 105 {
				stream = append(stream, text(Client, fmt.Sprint(i))...)
			}
			for len(stream) > 0 {
				n := min(cut, len(stream))
				g.feed(Client, stream[:n])
				stream = stream[n:]
			}
			if got := g.Count(Client).Messages; got != 5 {
				t.Errorf("%d messages at once, want 5", got)
			}
			for i := range 20 {
				g.run(second / 2)
				if got, want := g.Count(Client).Messages, uint64(5+(i+1)*5); got < want-1 || got > want {
					t.Fatalf("%d messages after %v, want %d", got, time.Duration(i+1)*second/2, want)
				}
			}
			want := ""
			for i := range 105 {
				want += fmt.Sprintf("text:%d ", i)
			}
			if got := g.said(Backend) + " "; got != want {
				t.Errorf("backend got %q", got)
			}
		})
	}
	t.Run("bytes", func(t *testing.T) {
		g := newRig(Options{Bytes: Rate{1000, 500}, Delay: true})
		g.feed(Client, fr(Client, ws.OpBinary, true, make([]byte, 10_500)))
		if got := g.Count(Client).Bytes; got != 500 {
			t.Errorf("%d bytes at once, want 500", got)
		}
		ticks := 0
		for i := range 100 {
			g.run(second / 10)
			if got, want := g.Count(Client).Bytes, uint64(500+(i+1)*100); got > want || got < want-20 {
				t.Fatalf("%d bytes after %v, want %d", got, time.Duration(i+1)*second/10, want)
			}
			ticks++
		}
		g.run(second)
		if got := g.said(Backend); got != "binary(10500)" {
			t.Errorf("backend got %s", got)
		}
	})
	t.Run("control frames pass a message that waits", func(t *testing.T) {
		g := newRig(Options{Messages: Rate{1, 1}, Delay: true})
		g.feed(Client, join(text(Client, "1"), text(Client, "2")))
		g.feed(Backend, fr(Backend, ws.OpPing, true, nil))
		g.close(Ending{Client: 1001, Backend: 1001, Reason: "drain"})
		if until, held := g.Held(Client); !held || until > g.now {
			t.Errorf("held until %v, %v: an ending is not held up", until, held)
		}
		g.feed(Client, closing(Client, 1001, ""))
		g.expect(t, "ping: close 1001 drain", "text:1 text:2 close 1001 drain", EdgeClosed)
	})
}

func TestHeartbeat(t *testing.T) {
	opt := Options{Ping: [2]bool{Client: true}, PingInterval: 30 * second, PongTimeout: 10 * second}
	pings := func(g *rig, side Side) (n int) {
		for _, f := range frames(g.sent[side]) {
			if f.Header.OpCode == ws.OpPing {
				n++
			}
		}
		return n
	}
	answer := func(g *rig, side Side) {
		fs := frames(g.sent[side])
		g.feed(side, fr(side, ws.OpPong, true, fs[len(fs)-1].Payload))
	}
	t.Run("a silent side is pinged, its pongs go no further", func(t *testing.T) {
		var rtts []time.Duration
		o := opt
		o.RTT = func(d time.Duration) { rtts = append(rtts, d) }
		g := newRig(o)
		for i := range 10 {
			if g.run(23 * second); pings(g, Client) != i {
				t.Fatalf("%d pings, want %d", pings(g, Client), i)
			}
			for pings(g, Client) == i {
				g.run(second)
			}
			g.run(second / 2)
			answer(g, Client)
		}
		if len(rtts) != 10 || rtts[0] < second/2 || rtts[0] > 2*second || len(g.sent[Backend]) > 0 || g.counts[Client].Frames != [NumOpCodes]uint64{} {
			t.Errorf("%v, backend got %q, counted %v", rtts, g.said(Backend), g.counts[Client].Frames)
		}
	})
	t.Run("the engine hears of the backend's pongs", func(t *testing.T) {
		for _, timeout := range []time.Duration{0, opt.PongTimeout} {
			for _, side := range []Side{Client, Backend} {
				o := opt
				o.PongTimeout = timeout
				o.Ping = [2]bool{true, true}
				g := newRig(o)
				g.Rearm()
				for pings(g, side) == 0 {
					if g.run(second); g.BackendRTT() != 0 {
						t.Fatal("a time without a Pong")
					}
				}
				sent := g.now
				g.run(second / 2)
				g.Rearm()
				answer(g, side)
				switch rearm, rtt := g.Rearm(), g.BackendRTT(); {
				case side == Client && rtt != 0:
					t.Errorf("a client's Pong is a backend's of %v", rtt)
				case side == Backend && (!rearm || rtt < g.now-sent || rtt > g.now-sent+second):
					t.Errorf("%v, %v after %v", rearm, rtt, g.now-sent)
				}
				if rtt := g.BackendRTT(); rtt != 0 {
					t.Errorf("once more: %v", rtt)
				}
				if answer(g, side); g.BackendRTT() != 0 {
					t.Error("the same Pong again counts")
				}
			}
		}
	})
	t.Run("a late Pong does not hold the next Ping up", func(t *testing.T) {
		for _, side := range []Side{Client, Backend} {
			o := opt
			o.PingInterval, o.PongTimeout = second, 20*second
			o.Ping = [2]bool{true, true}
			g := newRig(o)
			for pings(g, side) == 0 {
				g.run(second / 10)
			}
			g.run(5 * second)
			if n := pings(g, side); n != 1 {
				t.Fatalf("%d pings while one is not answered", n)
			}
			answer(g, side)
			if g.run(2 * second); pings(g, side) < 2 {
				t.Errorf("none in two seconds after it was")
			}
		}
	})
	t.Run("pings are spread", func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 50 {
			g := newRig(opt)
			seen[g.Deadline()] = true
			if d := g.Deadline() - g.now; d < 24*second || d > 30*second {
				t.Fatalf("first ping after %v", d)
			}
		}
		if len(seen) < 40 {
			t.Errorf("%d moments of 50 sessions", len(seen))
		}
	})
	t.Run("none while frames arrive", func(t *testing.T) {
		g := newRig(opt)
		for range 20 {
			g.run(20 * second)
			g.feed(Client, text(Client, "x"))
		}
		if n := pings(g, Client); n != 0 {
			t.Errorf("%d pings", n)
		}
		g.feed(Backend, text(Backend, "x")) // the other side's life is not its own
		if g.run(31 * second); pings(g, Client) != 1 {
			t.Errorf("%d pings after a silence", pings(g, Client))
		}
	})
	t.Run("a side with a heartbeat of its own is left alone until that is late", func(t *testing.T) {
		for _, beat := range []struct {
			op    ws.OpCode
			every time.Duration
			pings int // of ours, in ten of them
		}{
			{ws.OpPing, 30 * second, 1}, // before its second one
			{ws.OpPong, 30 * second, 1},
			{ws.OpPing, 36 * second, 1},
			{ws.OpPing, 10 * second, 0},
			{ws.OpPing, 45 * second, 10}, // too slow to rely on: within the interval
			{ws.OpText, 45 * second, 10},
		} {
			for _, side := range []Side{Client, Backend} {
				o := opt
				o.Ping = [2]bool{}
				o.Ping[side], o.PongTimeout = true, 0
				g := newRig(o)
				for range 10 {
					g.feed(side, fr(side, beat.op, true, nil))
					for last := g.now; g.now < last+beat.every; {
						before := pings(g, side)
						if g.run(second / 4); pings(g, side) == before {
							continue
						}
						if silent := g.now - last; silent > opt.PingInterval+second {
							t.Errorf("%v: op %x each %v: a ping after %v", side, beat.op, beat.every, silent)
						}
						answer(g, side)
					}
				}
				if n := pings(g, side); n != beat.pings {
					t.Errorf("%v: op %x each %v: %d pings, want %d", side, beat.op, beat.every, n, beat.pings)
				}
			}
		}
	})
	t.Run("a burst is no heartbeat", func(t *testing.T) {
		g := newRig(opt)
		for range 3 {
			g.feed(Client, fr(Client, ws.OpPing, true, nil))
			g.run(second)
		}
		if g.run(30 * second); pings(g, Client) != 1 {
			t.Errorf("%d pings after a silence of an interval", pings(g, Client))
		}
	})
	t.Run("the count of pings goes around", func(t *testing.T) {
		g := newRig(opt)
		g.pol.client.count = 1<<16 - 2
		for i := range 4 {
			for pings(g, Client) == i {
				g.run(second)
			}
			answer(g, Client)
			if got := g.run(12 * second); got != [2]int{} || len(g.sent[Backend]) > 0 {
				t.Fatalf("ping %d: %v suspicions, backend got %q", i, got, g.said(Backend))
			}
		}
	})
	t.Run("a heartbeat that stops", func(t *testing.T) {
		g := newRig(opt)
		for range 5 {
			g.feed(Client, fr(Client, ws.OpPing, true, nil))
			g.run(20 * second)
		}
		if g.run(17 * second); pings(g, Client) != 0 { // 37 since the last
			t.Fatalf("%d pings", pings(g, Client))
		}
		if g.run(second); pings(g, Client) != 1 {
			t.Fatalf("%d pings", pings(g, Client))
		}
		answer(g, Client)
		if g.run(31 * second); pings(g, Client) != 2 { // it is like any other
			t.Fatalf("%d pings", pings(g, Client))
		}
		if got := g.run(11 * second); got[Client] == 0 {
			t.Error("is not missed")
		}
	})
	t.Run("looks at those that beat by themselves fall together", func(t *testing.T) {
		due := map[time.Duration]bool{}
		for i := range 50 {
			g := newRig(opt)
			for range 2 {
				g.run(20*second + time.Duration(i)*second/1000)
				g.feed(Client, fr(Client, ws.OpPing, true, nil))
			}
			g.run(11 * second) // the look that was due before it was known to
			due[g.Deadline()] = true
		}
		if len(due) > 3 {
			t.Errorf("%d moments for 50 sessions within a tenth of a second", len(due))
		}
	})
	t.Run("no answer", func(t *testing.T) {
		g := newRig(opt)
		got := g.run(33 * second)
		if pings(g, Client) != 1 || got[Client] != 0 {
			t.Fatalf("%d pings, %v suspicions", pings(g, Client), got)
		}
		if got = g.run(8 * second); got[Client] != 1 || got[Backend] != 0 {
			t.Fatalf("%v suspicions", got)
		}
		g.Lost(Client, WhyPongTimeout, g.now)
		g.end(Client)
		if v := g.Verdict(); v.Cause != ClientGone || v.Why != WhyPongTimeout || !g.Shut(Backend) || len(g.sent[Backend]) > 0 {
			t.Errorf("%+v, backend got %q", v, g.said(Backend))
		}
	})
	t.Run("any byte is life", func(t *testing.T) {
		g := newRig(opt)
		g.run(32 * second)
		g.feed(Client, text(Client, "busy")[:3])
		if got := g.run(15 * second); got[Client] != 0 {
			t.Errorf("%v suspicions", got)
		}
	})
	t.Run("a stuck queue is not judged", func(t *testing.T) {
		for _, stuck := range []Side{Client, Backend} {
			g := newRig(opt)
			g.run(32 * second)
			g.stuck[stuck] = true
			if got := g.run(10 * minute); got != [2]int{} {
				t.Errorf("%v stuck: %v suspicions", stuck, got)
			}
			g.stuck[stuck] = false
			if got := g.run(minute); got[Client] == 0 {
				t.Errorf("%v not stuck any more: nobody suspects", stuck)
			}
		}
	})
	t.Run("bytes that leave are life", func(t *testing.T) {
		g := newRig(opt)
		g.run(32 * second)
		for range 10 {
			g.Progress(Client, g.now)
			if got := g.run(9 * second); got[Client] != 0 {
				t.Fatalf("%v suspicions", got)
			}
		}
	})
	t.Run("a ping waits for the end of a frame", func(t *testing.T) {
		g := newRig(opt)
		big := fr(Backend, ws.OpBinary, true, make([]byte, 1000))
		g.feed(Backend, big[:500])
		if got := g.run(5 * minute); got[Client] != 0 || pings(g, Client) != 0 {
			t.Fatalf("%d pings, %v suspicions inside a frame", pings(g, Client), got)
		}
		g.feed(Backend, join(big[500:], text(Backend, "next")))
		if fs := frames(g.sent[Client]); len(fs) != 3 || fs[1].Header.OpCode != ws.OpPing {
			t.Fatalf("client got %s", g.said(Client))
		}
		if got := g.run(11 * second); got[Client] != 1 {
			t.Errorf("%v suspicions after it was sent", got)
		}
	})
	t.Run("others' pongs pass", func(t *testing.T) {
		g := newRig(opt)
		g.run(32 * second)
		for _, payload := range []string{"", "12345678", "123456789"} {
			g.feed(Client, fr(Client, ws.OpPong, true, []byte(payload)))
		}
		if got := g.said(Backend); got != "pong: pong:12345678 pong:123456789" {
			t.Errorf("backend got %s", got)
		}
	})
	t.Run("a late pong of ours goes no further", func(t *testing.T) {
		g := newRig(opt)
		g.run(32 * second)
		first := frames(g.sent[Client])[0].Payload
		g.feed(Client, text(Client, "alive"))
		for pings(g, Client) < 2 {
			g.run(second)
		}
		g.feed(Client, fr(Client, ws.OpPong, true, first))
		if got := g.said(Backend); got != "text:alive" {
			t.Errorf("backend got %s", got)
		}
	})
	t.Run("backend", func(t *testing.T) {
		o := opt
		o.Ping = [2]bool{Backend: true}
		g := newRig(o)
		if got := g.run(43 * second); got[Backend] != 1 || pings(g, Backend) != 1 || len(g.sent[Client]) > 0 {
			t.Fatalf("%d pings, %v", pings(g, Backend), got)
		}
		g.Lost(Backend, WhyPongTimeout, g.now)
		g.end(Backend)
		g.expect(t, "close 1012 backend went away", g.said(Backend), BackendGone)
	})
	t.Run("without a pong timeout nobody is suspected", func(t *testing.T) {
		o := opt
		o.PongTimeout = 0
		g := newRig(o)
		if got := g.run(10 * minute); got[Client] != 0 || pings(g, Client) < 20 || pings(g, Client) > 25 {
			t.Errorf("%d pings, %v", pings(g, Client), got)
		}
	})
	t.Run("none once it ends", func(t *testing.T) {
		g := rigOf(opt)
		g.close(Ending{Client: 1001, Backend: 1001})
		if g.run(minute); pings(g, Client) != 0 {
			t.Error("a ping behind a Close")
		}
	})
}

// frames reads whole frames, unmasked.
func frames(b []byte) (out []ws.Frame) {
	d := frame.Decoder{RSV: 4}
	for len(b) > 0 {
		d.Masked = len(b) > 1 && b[1]&0x80 != 0
		h, raw, n, err := d.Next(b)
		if err != nil || raw == nil || int64(len(b[n:])) < h.Length {
			return out
		}
		p := append([]byte(nil), b[n:n+int(h.Length)]...)
		if h.Masked {
			ws.Cipher(p, h.Mask, 0)
		}
		out, b = append(out, ws.Frame{Header: h, Payload: p}), b[n+int(h.Length):]
	}
	return out
}

func TestIdleTimeout(t *testing.T) {
	g := newRig(Options{IdleTimeout: minute})
	for _, side := range []Side{Client, Backend, Backend} {
		g.run(59 * second)
		g.feed(side, text(side, "x"))
	}
	g.run(59 * second)
	g.feed(Client, fr(Client, ws.OpPing, true, nil)) // is no data
	if g.run(second / 2); g.Closing() {
		t.Fatal("closed too early")
	}
	g.run(second)
	g.expect(t, "text:x text:x close 1001 idle", "text:x ping:", EdgeClosed)
	if g.Verdict().Why != "idle_timeout" {
		t.Errorf("verdict %+v", g.Verdict())
	}
	g.feed(Client, closing(Client, 1001, ""))
	g.expect(t, "text:x text:x close 1001 idle", "text:x ping: close 1001 idle", EdgeClosed)
}

// TestIdleTimeoutOfASlowReader: while data waits to be written the session is not idle.
func TestIdleTimeoutOfASlowReader(t *testing.T) {
	g := newRig(Options{IdleTimeout: minute})
	g.stuck[Client] = true
	if g.run(10 * minute); g.Closing() {
		t.Fatal("closed with data under way")
	}
	g.stuck[Client] = false
	if g.run(61 * second); !g.Closing() {
		t.Error("open after a minute without data")
	}
}

func TestMaxAge(t *testing.T) {
	ages := map[time.Duration]bool{}
	for range 20 {
		g := newRig(Options{MaxAge: 10 * minute, MaxAgeJitter: 0.1})
		ages[g.Deadline()] = true
		for !g.Closing() {
			g.run(second)
			g.feed(Client, text(Client, "x"))
		}
		if age := g.now - second; age < 9*minute || age > 10*minute+second {
			t.Errorf("closed after %v", age)
		}
		if v := g.Verdict(); v.Cause != EdgeClosed || v.Why != "max_age" || v.Code != 1001 {
			t.Errorf("verdict %+v", v)
		}
	}
	if len(ages) < 15 {
		t.Errorf("%d ages of 20 sessions", len(ages))
	}
	g := newRig(Options{MaxAge: minute})
	if got := g.Deadline() - g.now; got != minute {
		t.Errorf("without jitter after %v", got)
	}
}

func TestMessageTimeout(t *testing.T) {
	for _, from := range []Side{Client, Backend} {
		whole := text(from, "hello")
		begun := map[string][]byte{"a frame": whole[:len(whole)-1], "fragments": fr(from, ws.OpText, false, []byte("a"))}
		for name, p := range begun {
			t.Run(fmt.Sprint(from, " ", name), func(t *testing.T) {
				g := newRig(Options{MessageTimeout: 10 * second})
				g.feed(from, text(from, "whole"))
				if g.run(minute); g.Closing() {
					t.Fatal("closed between messages")
				}
				g.feed(from, p)
				g.run(5 * second)
				g.feed(from, fr(from, ws.OpPing, true, nil)[:0])
				g.stuck[peer(from)] = true // not read meanwhile
				g.run(minute)
				g.stuck[peer(from)] = false
				if g.Closing() {
					t.Fatal("closed while nobody read")
				}
				g.run(10 * second)
				if v := g.Verdict(); v.Err != ErrMessageTimeout || v.Why != "message_timeout" {
					t.Fatalf("verdict %+v", v)
				}
				if from == Client {
					g.expect(t, "close 1008 message not finished in time", g.said(Backend), ClientViolation)
				}
			})
		}
	}
	g := newRig(Options{MessageTimeout: 10 * second})
	for range 10 {
		g.feed(Client, fr(Client, ws.OpText, false, []byte("a")))
		g.run(9 * second)
		g.feed(Client, fr(Client, ws.OpContinuation, true, []byte("b")))
	}
	if g.run(minute); g.Closing() {
		t.Error("closed though each message was in time")
	}
}
