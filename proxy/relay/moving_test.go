package relay

import (
	"bytes"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// What has come due is dealt with: an engine that is told of a time that has passed would
// call Tick for ever.
func TestMoveDue(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*moveRig)
	}{
		{"a lost backend was to be asked", func(g *moveRig) {
			g.say(Client, "a")
			g.end(Backend)
			g.tick(2 * proofPause)
		}},
		{"a backend was to be asked, and the client does not end its message", func(g *moveRig) {
			g.say(Client, "a")
			g.feed(Client, fr(Client, ws.OpText, false, []byte("b")))
			g.move()
			g.tick(2 * proofPause)
		}},
		{"a backend that settles does not end its message", func(g *moveRig) {
			g.move()
			g.pong()
			g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x")))
			g.tick(settle)
		}},
		{"the client has closed, and another backend is looked for", func(g *moveRig) {
			g.feed(Backend, closing(Backend, 1012, "restart"))
			g.feed(Client, join(text(Client, "a"), closing(Client, 1000, "bye")))
			g.tick(closeTimeout)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newMoveRig(t, nil)
			c.run(g)
			if d := g.Deadline(); d <= g.now {
				t.Errorf("due at %v, it is %v", d, g.now)
			}
			if !g.Moving() {
				t.Error("the move is over")
			}
		})
	}
}

// A backend that ends its message late is left once it has been quiet.
func TestMoveSettlesAfterMessage(t *testing.T) {
	g := newMoveRig(t, nil)
	g.move()
	g.pong()
	g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x")))
	g.tick(2 * settle)
	g.feed(Backend, fr(Backend, ws.OpContinuation, true, nil))
	if d := g.Deadline(); d != g.now+settle {
		t.Errorf("due in %v", d-g.now)
	}
	g.settleDown()
	g.want("text+:x continuation:", "", "close 1001 session moved")
}

// A question to the backend that a move has put off is asked when that is given up.
func TestProofAfterMove(t *testing.T) {
	g := newMoveRig(t, nil)
	g.say(Client, "a")
	g.feed(Client, fr(Client, ws.OpText, false, []byte("b")))
	g.move()
	g.tick(2 * proofPause)
	g.CancelMove("cancelled", g.now, &g.bufs[Client], &g.bufs[Backend])
	g.follow()
	if d := g.Deadline(); d == 0 || d > g.now {
		t.Errorf("due at %v, it is %v", d, g.now)
	}
	if g.tick(time.Millisecond); !g.pol.proof.open {
		t.Error("the backend is not asked")
	}
}

// A backend that has led and does not end its connection is given up, when no other is
// found for the session.
func TestLedAndStays(t *testing.T) {
	for _, timeout := range []time.Duration{closeTimeout, 0} {
		g := newMoveRig(t, nil)
		g.opt.CloseTimeout = timeout
		g.feed(Backend, closing(Backend, 1012, "restart"))
		g.CancelMove("refused", g.now, &g.bufs[Client], &g.bufs[Backend])
		g.take()
		g.follow()
		g.say(Backend, "more")
		g.feed(Client, closing(Client, 1012, ""))
		g.end(Client)
		g.want("close 1012 session cannot be resumed", "", "close 1012", "refused")
		if d := g.Deadline(); g.Done() || d == 0 {
			t.Fatalf("done %v, due at %v", g.Done(), d)
		}
		if g.now = g.Deadline(); !g.Tick(g.now, g.stuck, &g.bufs[Client], &g.bufs[Backend]).Abort[Backend] {
			t.Error("it is not given up")
		}
		if !g.Done() {
			t.Error("the session is not over")
		}
	}
}

// The next backend is left to end its connection first, as after any closing handshake: how
// the old one has ended says nothing about it.
func TestMoveThenShut(t *testing.T) {
	g := newMoveRig(t, nil)
	g.end(Backend)
	g.feed(Client, closing(Client, 1000, "bye"))
	g.move()
	if g.Shut(Backend) {
		t.Error("its stream has ended before it has answered")
	}
	g.feed(Backend, closing(Backend, 1000, "bye"))
	g.end(Backend)
	g.end(Client)
	g.want("close 1000 bye", "", "close 1000 bye", MoveDone)
	if !g.Done() {
		t.Error("the session is not over")
	}
}

// A message that waits for its rate has not begun: nothing of it is dropped with the
// backend, and none of it is in doubt.
func TestMoveWhileDelayed(t *testing.T) {
	delayed := func(o *Options) { o.Messages, o.Delay = Rate{1, 1}, true }
	message := join(fr(Client, ws.OpText, false, []byte("b")), fr(Client, ws.OpContinuation, true, []byte("c")))
	g := newMoveRig(t, delayed)
	g.say(Client, "a")
	g.feed(Client, message)
	g.end(Backend)
	g.move()
	g.tick(time.Second)
	g.refeed()
	g.want("", "text:a", "text+:b continuation:c", MoveDone)
	if g.doubt != 1 {
		t.Errorf("%d messages in doubt, want 1", g.doubt)
	}

	g = newMoveRig(t, delayed)
	g.say(Client, "a")
	g.feed(Client, message)
	g.moved()
	g.tick(time.Second)
	g.refeed()
	g.want("", "text:a close 1001 session moved", "text+:b continuation:c", MoveDone)
}

// A session that is shed while it moves goes on with the old backend, which gets what was
// kept: what waits for the client is dropped, not what it has said.
func TestShedWhileMoving(t *testing.T) {
	shed := Ending{Client: 1013, Backend: 1001, Reason: "memory", Why: "memory"}
	g := newMoveRig(t, nil)
	g.move()
	g.say(Client, "a")
	g.Shed(shed, g.now, &g.bufs[Client])
	g.take()
	g.follow()
	if d := g.Deadline(); d == 0 || d > g.now {
		t.Fatalf("due at %v, it is %v", d, g.now)
	}
	g.tick(0)
	g.feed(Client, closing(Client, 1013, ""))
	g.want("close 1013 memory", "", "text:a close 1001 memory", MoveClosed)

	// The same of a slow client, whose answer comes before the next Tick.
	g = newMoveRig(t, func(o *Options) { o.SlowConsumer, o.SlowConsumerCode, o.MaxBuffered = CloseSlow, 1013, 100 })
	g.move()
	g.say(Client, "a")
	g.Block(Client)
	g.Queue(Client, [][]byte{text(Backend, string(make([]byte, 200)))}, g.now)
	g.feed(Client, closing(Client, 1013, ""))
	g.Take(Client, 1000, &g.bufs[Client])
	g.take()
	g.want("close 1013 slow consumer", "", "text:a close 1001 slow consumer", MoveClosed)
}

// A session that cannot be kept, since its backend was inside a message, ends for what the
// backend was lost for.
func TestLostInsideMessage(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*moveRig)
	}{
		{"ends", func(g *moveRig) { g.end(Backend) }},
		{"closes", func(g *moveRig) { g.feed(Backend, closing(Backend, 1000, "")) }},
		{"does neither", func(g *moveRig) { g.tick(closeTimeout) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newMoveRig(t, nil)
			g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x")))
			g.Lost(Backend, WhyPongTimeout, g.now)
			c.end(g)
			g.want("text+:x close 1012 backend went away", "", g.frames(g.sent[Backend]), MoveUnfinished)
			if v := g.Verdict(); v.Why != WhyPongTimeout || v.Cause != BackendGone || v.Code != StatusServiceRestart {
				t.Errorf("%+v", v)
			}
		})
	}
}

// Nothing goes behind the Close that a backend got which did not end its message.
func TestUnfinishedInsideFrame(t *testing.T) {
	g := newMoveRig(t, nil)
	g.move()
	g.pong()
	g.settleDown()
	g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x")))
	p := text(Client, "abcdef")
	g.feed(Client, p[:9])
	g.feed(Backend, closing(Backend, 1001, ""))
	g.feed(Client, p[9:])
	g.want("text+:x close 1012 backend went away", "", "close 1001 session moved", MoveUnfinished)
}

// Nor does anything that was kept for another backend, if none is found.
func TestGivenUpInsideFrame(t *testing.T) {
	g := newMoveRig(t, nil)
	g.feed(Backend, closing(Backend, 1012, "restart"))
	p := text(Client, "abcdef")
	g.feed(Client, p[:9])
	g.tick(moveTimeout)
	g.feed(Client, p[9:])
	g.want("close 1012 restart", "", "close 1012", MoveTimeout)
}

// The Close of a backend that leads is not answered inside a frame.
func TestLedInsideFrame(t *testing.T) {
	for _, fades := range []bool{false, true} {
		g := newMoveRig(t, nil)
		p := text(Client, "abcdef")
		g.feed(Client, p[:9])
		if fades {
			g.Fading(g.now)
		}
		g.feed(Backend, closing(Backend, 1012, "restart"))
		g.feed(Client, p[9:])
		if !bytes.Equal(g.sent[Backend], p[:9]) {
			t.Errorf("the backend got % x", g.sent[Backend])
		}
	}
}
