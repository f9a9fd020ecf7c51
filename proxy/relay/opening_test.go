package relay

import (
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// Opening messages that come while the session moves go to the next backend once: they are
// kept for it, and no part of what the old one was sent.
func TestReplayWhileMoving(t *testing.T) {
	g := newMoveRig(t, func(o *Options) { o.Migrate.ReplayMessages, o.Migrate.DiscardReplies = 3, 3 })
	g.say(Client, "hello")
	g.move()
	g.say(Client, "b")
	g.feed(Client, fr(Client, ws.OpText, false, []byte("c")))
	g.pong()
	g.settleDown()
	g.feed(Backend, closing(Backend, 1001, ""))
	g.feed(Client, fr(Client, ws.OpContinuation, true, []byte("d")))
	g.say(Backend, "welcome")
	g.say(Backend, "B")
	g.want("text:B", "text:hello close 1001 session moved", "text:hello text:b text+:c continuation:d", MoveDone)
	g.old, g.results = nil, nil
	g.moved()
	g.want("text:B", "text:hello text:b text+:c continuation:d close 1001 session moved", "text:hello text:b text+:c continuation:d", MoveDone)
}

// A part of an opening message that went to a backend that is lost is not replayed.
func TestReplayOfPart(t *testing.T) {
	g := newMoveRig(t, func(o *Options) { o.Migrate.ReplayMessages = 3 })
	g.say(Client, "hello")
	g.feed(Client, fr(Client, ws.OpText, false, []byte("b")))
	g.end(Backend)
	g.feed(Client, join(fr(Client, ws.OpContinuation, true, []byte("b")), text(Client, "c")))
	g.move()
	g.want("", "text:hello text+:b", "text:hello text:c", MoveDone)
	g.old, g.results = nil, nil
	g.end(Backend)
	g.move()
	g.want("", "text:hello text:c", "text:hello text:c", MoveDone)
}

// Opening messages that become too much while the session moves do not keep it from that:
// what there was before is replayed.
func TestReplayTooBigWhileMoving(t *testing.T) {
	big := strings.Repeat("x", 1200)
	g := newMoveRig(t, func(o *Options) { o.Migrate.ReplayMessages = 2 })
	g.say(Client, "hello")
	g.move()
	g.say(Client, big)
	g.pong()
	g.settleDown()
	g.feed(Backend, closing(Backend, 1001, ""))
	g.want("", "text:hello close 1001 session moved", "text:hello text(1200)", MoveDone)
	if refused := g.move(); refused != MoveOpeningTooBig {
		t.Errorf("refused %q", refused)
	}
	if n := g.Buffered(); n != 0 {
		t.Errorf("%d bytes stay", n)
	}

	g = newMoveRig(t, func(o *Options) { o.Migrate.ReplayMessages = 2 })
	g.feed(Client, fr(Client, ws.OpText, false, []byte("a")))
	g.move()
	g.feed(Client, fr(Client, ws.OpContinuation, true, []byte(big)))
	g.say(Client, "b")
	g.want("", "", "text+:a continuation(1200) text:b", MoveOpeningTooBig)
}

// A client that stops taking bytes while an answer to a replay is passed by gets what comes
// behind that.
func TestDiscardForSlowClient(t *testing.T) {
	g := newMoveRig(t, func(o *Options) {
		o.Migrate.ReplayMessages, o.Migrate.DiscardReplies = 1, 1
		o.SlowConsumer, o.MaxBuffered = DropOldest, 1000
	})
	g.say(Client, "hello")
	g.moved()
	g.feed(Backend, fr(Backend, ws.OpText, false, []byte("wel")))
	g.Block(Client)
	g.feed(Backend, join(fr(Backend, ws.OpContinuation, true, []byte("come")), text(Backend, "A")))
	g.Queue(Client, [][]byte{g.sent[Client]}, g.now)
	g.sent[Client] = nil
	g.Take(Client, 1000, &g.bufs[Client])
	g.take()
	g.want("text:A", "text:hello close 1001 session moved", "text:hello", MoveDone)
}
