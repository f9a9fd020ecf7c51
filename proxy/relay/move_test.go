package relay

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// moveRig drives a relay whose session changes its backend, as an engine does.
type moveRig struct {
	*rig
	t       *testing.T
	old     []byte // what the backends before the present one were sent
	steps   []MoveStep
	results []string
	doubt   uint64
	dead    bool // the connection to the next backend

	switched func(replayed int) // is called at the end of each Switch, unless it is nil
}

const settle, moveTimeout = 500 * time.Millisecond, 10 * time.Second

func newMoveRig(t *testing.T, change func(*Options)) *moveRig {
	opt := Options{Migrate: &MoveOptions{MaxBuffered: 1000, Settle: settle, Timeout: moveTimeout,
		CloseCodes: []ws.StatusCode{1001, 1012, 1013}, OnFailure: true}, ValidateUTF8: true}
	if change != nil {
		change(&opt)
	}
	return &moveRig{rig: newRig(opt), t: t}
}

// follow does what the relay asks its engine for.
func (g *moveRig) follow() {
	for {
		step := g.MoveStep()
		if step == MoveNothing {
			return
		}
		g.steps = append(g.steps, step)
		switch step {
		case MoveAsks:
			g.doubt = g.Doubt()
		case MoveLeaves:
			if g.dead {
				g.CancelMove("next_gone", g.now, &g.bufs[Client], &g.bufs[Backend])
			} else {
				g.Leave(g.now, &g.bufs[Backend])
			}
		case MoveSwitches:
			g.doubt = g.Doubt()
			g.old = append(g.old, g.sent[Backend]...)
			g.sent[Backend] = nil
			replayed := 0
			if o := g.pol.opening; o != nil {
				replayed = o.replay
			}
			g.Switch(g.now, &g.bufs[Backend])
			g.results = append(g.results, g.MoveResult())
			if g.take(); g.switched != nil {
				g.switched(replayed)
			}
		case MoveOver:
			g.results = append(g.results, g.MoveResult())
		}
		g.take()
		g.refeed()
	}
}

// refeed feeds what was left, if its time has come.
func (g *moveRig) refeed() {
	for _, s := range []Side{Client, Backend} {
		if until, held := g.Held(s); held && until <= g.now {
			g.rig.feed(s, nil)
		}
	}
}

func (g *moveRig) feed(from Side, p []byte) {
	g.rig.feed(from, p)
	g.refeed()
	g.follow()
}

func (g *moveRig) say(from Side, what string) { g.feed(from, text(from, what)) }

func (g *moveRig) end(from Side) { g.rig.end(from); g.follow() }

func (g *moveRig) tick(after time.Duration) {
	a := g.rig.tick(after)
	for _, s := range []Side{Client, Backend} {
		if a.Abort[s] {
			g.rig.end(s)
		}
	}
	g.follow()
}

func (g *moveRig) move() string {
	refused := g.Move(g.now, &g.bufs[Backend])
	g.take()
	g.follow()
	return refused
}

// pong answers the last Ping that went to the present backend.
func (g *moveRig) pong() {
	g.t.Helper()
	r := bytes.NewReader(g.sent[Backend])
	var last []byte
	for r.Len() > 0 {
		h, err := ws.ReadHeader(r)
		if err != nil {
			break
		}
		body := make([]byte, h.Length)
		r.Read(body)
		if ws.Cipher(body, h.Mask, 0); h.OpCode == ws.OpPing && len(body) == pingBytes {
			last = body
		}
	}
	if last == nil {
		g.t.Fatal("the backend was not asked")
	}
	g.feed(Backend, fr(Backend, ws.OpPong, true, last))
}

// frames renders whole frames, leaving out Pings of the edge's own.
func (g *moveRig) frames(p []byte) string {
	var out []string
	for r := bytes.NewReader(p); r.Len() > 0; {
		h, err := ws.ReadHeader(r)
		if err != nil {
			out = append(out, "cut header")
			break
		}
		body := make([]byte, min(h.Length, int64(r.Len())))
		r.Read(body)
		if int64(len(body)) < h.Length {
			out = append(out, "cut frame")
			break
		}
		if ws.Cipher(body, h.Mask, 0); h.OpCode == ws.OpPing && len(body) == pingBytes {
			continue
		}
		out = append(out, describe(h, body))
	}
	return strings.Join(out, " ")
}

func (g *moveRig) want(client, old, next string, results ...string) {
	g.t.Helper()
	for _, c := range []struct{ who, got, want string }{
		{"the client", g.said(Client), client}, {"the old backend", g.frames(g.old), old}, {"the present backend", g.frames(g.sent[Backend]), next},
		{"results", strings.Join(g.results, " "), strings.Join(results, " ")},
	} {
		if c.got != c.want {
			g.t.Errorf("%s: %q, want %q", c.who, c.got, c.want)
		}
	}
}

// settleDown is the time after which a backend that said nothing is left.
func (g *moveRig) settleDown() { g.tick(settle) }

// moved brings a session to another backend.
func (g *moveRig) moved() {
	g.t.Helper()
	if refused := g.move(); refused != "" {
		g.t.Fatal(refused)
	}
	g.pong()
	g.settleDown()
	g.feed(Backend, closing(Backend, 1001, ""))
	if len(g.results) == 0 || g.results[len(g.results)-1] != MoveDone {
		g.t.Fatalf("results %v", g.results)
	}
}

func TestMove(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		run    func(*moveRig)
		client string
		old    string
		next   string
		result string
		doubt  uint64
	}{
		{
			name: "planned",
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.move()
				g.say(Client, "b")
				g.say(Backend, "A")
				g.pong()
				g.say(Client, "c")
				g.say(Backend, "B")
				g.settleDown()
				g.say(Backend, "C")
				g.say(Client, "d")
				g.feed(Backend, closing(Backend, 1001, ""))
				g.say(Client, "e")
				g.say(Backend, "E")
			},
			client: "text:A text:B text:C text:E", old: "text:a close 1001 session moved", next: "text:b text:c text:d text:e", result: MoveDone,
		},
		{
			name: "a backend that ends without a Close",
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.move()
				g.pong()
				g.settleDown()
				g.say(Client, "b")
				g.end(Backend)
			},
			old: "text:a close 1001 session moved", next: "text:b", result: MoveDone,
		},
		{
			name: "a backend that does not end",
			run: func(g *moveRig) {
				g.move()
				g.pong()
				g.settleDown()
				g.say(Client, "b")
				g.tick(closeTimeout)
				g.say(Backend, "B")
			},
			client: "text:B", old: "close 1001 session moved", next: "text:b", result: MoveDone,
		},
		{
			name: "inside a message of the client",
			run: func(g *moveRig) {
				g.feed(Client, fr(Client, ws.OpText, false, []byte("a")))
				g.move()
				g.feed(Client, join(fr(Client, ws.OpContinuation, false, []byte("b")), fr(Client, ws.OpPing, true, []byte("p")),
					fr(Client, ws.OpContinuation, true, []byte("c")), text(Client, "d"), fr(Client, ws.OpText, false, []byte("e"))))
				g.pong()
				g.settleDown()
				g.feed(Client, fr(Client, ws.OpContinuation, true, []byte("f")))
				g.feed(Backend, closing(Backend, 1001, ""))
			},
			old: "text+:a continuation+:b ping:p continuation:c close 1001 session moved", next: "text:d text+:e continuation:f", result: MoveDone,
		},
		{
			name: "no end of the client's message in time",
			run: func(g *moveRig) {
				g.feed(Client, fr(Client, ws.OpText, false, []byte("a")))
				g.move()
				g.tick(moveTimeout)
				g.feed(Client, fr(Client, ws.OpContinuation, true, []byte("b")))
				g.say(Backend, "A")
			},
			client: "text:A", next: "text+:a continuation:b", result: MoveNoBoundary,
		},
		{
			name: "no Pong",
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "a")
				g.say(Backend, "A")
				g.tick(moveTimeout)
				g.say(Client, "b")
			},
			client: "text:A", next: "text:a text:b", result: MoveNoPong,
		},
		{
			name: "a late Pong goes no further",
			run: func(g *moveRig) {
				g.move()
				g.tick(moveTimeout)
				g.pong()
			},
			result: MoveNoPong,
		},
		{
			name: "a backend that never stops talking",
			run: func(g *moveRig) {
				g.move()
				g.pong()
				for range moveTimeout / settle * 2 {
					g.say(Backend, "x")
					g.tick(settle / 2)
				}
				g.feed(Backend, join(text(Backend, "y"), closing(Backend, 1001, "")))
			},
			client: strings.Repeat("text:x ", int(moveTimeout/settle*2)) + "text:y", old: "close 1001 session moved", result: MoveDone,
		},
		{
			name: "a backend that never ends its message",
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "a")
				g.pong()
				g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x")))
				g.tick(moveTimeout)
				g.feed(Backend, fr(Backend, ws.OpContinuation, true, []byte("y")))
			},
			client: "text+:x continuation:y", next: "text:a", result: MoveUnfinished,
		},
		{
			name: "a backend that closes inside its message",
			run: func(g *moveRig) {
				g.move()
				g.pong()
				g.settleDown()
				g.feed(Backend, join(fr(Backend, ws.OpText, false, []byte("x")), closing(Backend, 1001, "")))
			},
			client: "text+:x close 1012 backend went away", next: "close 1001 session moved", result: MoveUnfinished,
		},
		{
			name: "the client closes before anybody was told",
			run: func(g *moveRig) {
				g.move()
				g.feed(Client, join(text(Client, "a"), closing(Client, 1000, "bye")))
			},
			next: "text:a close 1000 bye", result: MoveClientClosed,
		},
		{
			name: "the client closes after the old backend was told",
			run: func(g *moveRig) {
				g.move()
				g.pong()
				g.settleDown()
				g.feed(Client, join(text(Client, "a"), closing(Client, 1000, "bye")))
				g.feed(Backend, closing(Backend, 1000, "bye"))
			},
			client: "close 1000 bye", old: "close 1001 session moved", next: "text:a close 1000 bye", result: MoveDone,
		},
		{
			name: "the client vanishes after the old backend was told",
			run: func(g *moveRig) {
				g.move()
				g.pong()
				g.settleDown()
				g.say(Client, "last")
				g.end(Client)
				if !g.Shut(Backend) || g.Done() {
					g.t.Error("the next backend does not get the end of the stream")
				}
			},
			old: "close 1001 session moved", next: "text:last", result: MoveDone,
		},
		{
			name: "the client vanishes before",
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "last")
				g.end(Client)
				if !g.Shut(Backend) {
					g.t.Error("the backend does not get the end of the stream")
				}
			},
			next: "text:last", result: MoveClientClosed,
		},
		{
			name: "the edge closes",
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "a")
				g.close(Ending{Client: 1008, Backend: 1001, Reason: "no", Why: "api"})
				g.follow()
				g.feed(Client, closing(Client, 1008, "no"))
			},
			client: "close 1008 no", next: "text:a close 1001 no", result: MoveClosed,
		},
		{
			name: "the client breaks a rule",
			run: func(g *moveRig) {
				g.move()
				g.feed(Client, join(text(Client, "a"), text(Client, "\xff")))
			},
			client: "close 1007 text is not UTF-8", next: "text:a close 1001", result: MoveClientClosed,
		},
		{
			name: "the backend breaks a rule",
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "a")
				g.feed(Backend, text(Backend, "\xff"))
			},
			client: "close 1011", next: "text:a close 1007 text is not UTF-8", result: MoveBackendClosed,
		},
		{
			name: "the backend closes for good",
			run: func(g *moveRig) {
				g.move()
				g.pong()
				g.feed(Backend, closing(Backend, 1000, "done"))
				g.feed(Client, closing(Client, 1000, "done"))
			},
			client: "close 1000 done", next: "close 1000 done", result: MoveBackendClosed,
		},
		{
			name: "the next backend dies meanwhile",
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "a")
				g.pong()
				g.dead = true
				g.settleDown()
				g.say(Client, "b")
				g.say(Backend, "B")
			},
			client: "text:B", next: "text:a text:b", result: "next_gone",
		},
		{
			name: "called off",
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "a")
				if !g.CancelMove("cancelled", g.now, &g.bufs[Client], &g.bufs[Backend]) {
					g.t.Error("not called off")
				}
				g.take()
				g.follow()
				g.say(Client, "b")
			},
			next: "text:a text:b", result: "cancelled",
		},
		{
			name: "called off too late",
			run: func(g *moveRig) {
				g.move()
				g.pong()
				g.settleDown()
				if g.CancelMove("cancelled", g.now, &g.bufs[Client], &g.bufs[Backend]) {
					g.t.Error("called off")
				}
				g.feed(Backend, closing(Backend, 1001, ""))
			},
			old: "close 1001 session moved", result: MoveDone,
		},
		{
			name: "the client's Pings are answered",
			run: func(g *moveRig) {
				g.move()
				g.feed(Client, fr(Client, ws.OpPing, true, []byte("1")))
				g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x"))[:2])
				g.feed(Client, fr(Client, ws.OpPing, true, []byte("2")))
				g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x"))[2:])
				g.feed(Backend, fr(Backend, ws.OpContinuation, true, []byte("y")))
				g.feed(Client, fr(Client, ws.OpPong, true, []byte("z"))) // its answer to the old backend
				g.pong()
				g.settleDown()
				g.feed(Client, fr(Client, ws.OpPing, true, []byte("3")))
				g.feed(Backend, closing(Backend, 1001, ""))
				g.feed(Client, fr(Client, ws.OpPing, true, []byte("4")))
			},
			client: "pong:1 text+:x pong:2 continuation:y pong:3", old: "pong:z close 1001 session moved", next: "ping:4", result: MoveDone,
		},
		{
			name: "led by the backend",
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.feed(Backend, join(text(Backend, "A"), closing(Backend, 1012, "restart")))
				g.say(Client, "b")
				g.move()
				g.say(Backend, "B")
			},
			client: "text:A text:B", old: "text:a close 1012", next: "text:b", result: MoveDone, doubt: 1,
		},
		{
			name: "led by the backend, and no other",
			run: func(g *moveRig) {
				g.feed(Backend, closing(Backend, 1012, "restart"))
				g.say(Client, "b")
				g.tick(moveTimeout)
			},
			client: "close 1012 restart", next: "close 1012", result: MoveTimeout,
		},
		{
			name:   "a code that is not listed",
			change: func(o *Options) { o.Migrate.CloseCodes = nil },
			run:    func(g *moveRig) { g.feed(Backend, closing(Backend, 1012, "restart")) },
			client: "close 1012 restart",
		},
		{
			name: "a crash",
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.end(Backend)
				g.say(Client, "b")
				g.move()
				g.say(Backend, "B")
			},
			client: "text:B", old: "text:a", next: "text:b", result: MoveDone, doubt: 1,
		},
		{
			name: "a crash inside a message of the client",
			run: func(g *moveRig) {
				g.feed(Client, fr(Client, ws.OpText, false, []byte("a")))
				g.end(Backend)
				g.feed(Client, join(fr(Client, ws.OpContinuation, false, []byte("b")), fr(Client, ws.OpContinuation, true, []byte("c")), text(Client, "d")))
				g.move()
				g.say(Client, "e")
			},
			old: "text+:a", next: "text:d text:e", result: MoveDone, doubt: 1,
		},
		{
			name: "a crash inside a frame of the client",
			run: func(g *moveRig) {
				g.feed(Client, text(Client, "abcdef")[:9])
				g.end(Backend)
				g.move()
				g.feed(Client, text(Client, "abcdef")[9:])
				g.say(Client, "e")
			},
			old: "cut frame", next: "text:e", result: MoveDone, doubt: 1,
		},
		{
			name: "a crash inside a message of the backend",
			run: func(g *moveRig) {
				g.feed(Backend, fr(Backend, ws.OpText, false, []byte("x")))
				g.end(Backend)
			},
			client: "text+:x close 1012 backend went away",
		},
		{
			name:   "a crash that closes",
			change: func(o *Options) { o.Migrate.OnFailure = false },
			run:    func(g *moveRig) { g.end(Backend) },
			client: "close 1012 backend went away",
		},
		{
			name:   "a crash while it was asked, that closes",
			change: func(o *Options) { o.Migrate.OnFailure = false },
			run: func(g *moveRig) {
				g.move()
				g.say(Client, "a")
				g.end(Backend)
			},
			client: "close 1012 backend went away", next: "text:a", result: MoveBackendClosed,
		},
		{
			name:   "a crash once it has read everything",
			change: func(o *Options) { o.Migrate.OnFailure = false },
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.move()
				g.pong()
				g.say(Client, "b")
				g.end(Backend)
			},
			old: "text:a", next: "text:b", result: MoveDone, doubt: 1,
		},
		{
			name: "a crash and no other backend",
			run: func(g *moveRig) {
				g.end(Backend)
				g.say(Client, "a")
				g.tick(moveTimeout)
			},
			client: "close 1012 backend went away", result: MoveTimeout,
		},
		{
			name: "a crash, and no other backend can be found",
			run: func(g *moveRig) {
				g.end(Backend)
				g.CancelMove("refused", g.now, &g.bufs[Client], &g.bufs[Backend])
				g.take()
				g.follow()
			},
			client: "close 1012 session cannot be resumed", result: "refused",
		},
		{
			name: "a crash and a client that closes",
			run: func(g *moveRig) {
				g.end(Backend)
				g.feed(Client, join(text(Client, "a"), closing(Client, 1000, "bye")))
				g.move()
				g.feed(Backend, closing(Backend, 1000, "bye"))
			},
			client: "close 1000 bye", next: "text:a close 1000 bye", result: MoveDone,
		},
		{
			name: "a crash and a client that closes with nothing kept",
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.end(Backend)
				g.feed(Client, closing(Client, 1000, "bye"))
				g.tick(0)
			},
			client: "close 1000", next: "text:a", result: MoveClientClosed, doubt: 1,
		},
		{
			name: "a crash and a client that vanishes",
			run: func(g *moveRig) {
				g.end(Backend)
				g.end(Client)
				g.tick(0)
				if !g.Done() {
					g.t.Error("the session goes on")
				}
			},
			result: MoveClientClosed,
		},
		{
			name: "a crash and the edge closes",
			run: func(g *moveRig) {
				g.end(Backend)
				g.close(Ending{Client: 1008, Backend: 1001, Reason: "no", Why: "api"})
				g.follow()
				g.tick(0)
			},
			client: "close 1008 no", result: MoveClosed,
		},
		{
			name: "a backend that takes nothing more",
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.Fading(g.now)
				g.follow()
				g.say(Client, "b")
				g.say(Backend, "A")
				g.end(Backend)
				g.move()
			},
			client: "text:A", old: "text:a", next: "text:b", result: MoveDone, doubt: 1,
		},
		{
			name:   "replay",
			change: func(o *Options) { o.Migrate.ReplayMessages, o.Migrate.DiscardReplies = 2, 1 },
			run: func(g *moveRig) {
				g.feed(Client, join(fr(Client, ws.OpText, false, []byte("hel")), fr(Client, ws.OpPing, true, []byte("p")), fr(Client, ws.OpContinuation, true, []byte("lo"))))
				g.say(Backend, "welcome")
				g.say(Client, "join")
				g.say(Client, "a")
				g.moved()
				g.feed(Backend, join(fr(Backend, ws.OpText, false, []byte("wel")), fr(Backend, ws.OpContinuation, true, []byte("come"))))
				g.say(Backend, "A")
			},
			client: "text:welcome text:A", old: "text+:hel ping:p continuation:lo text:join text:a close 1001 session moved",
			next: "text+:hel continuation:lo text:join", result: MoveDone,
		},
		{
			name:   "replay of fewer",
			change: func(o *Options) { o.Migrate.ReplayMessages, o.Migrate.DiscardReplies = 3, 3 },
			run: func(g *moveRig) {
				g.say(Client, "hello")
				g.moved()
				g.say(Backend, "welcome")
				g.say(Backend, "A")
				g.say(Client, "b")
			},
			client: "text:A", old: "text:hello close 1001 session moved", next: "text:hello text:b", result: MoveDone,
		},
		{
			name:   "opening messages that are too much to keep",
			change: func(o *Options) { o.Migrate.ReplayMessages = 1 },
			run: func(g *moveRig) {
				g.say(Client, strings.Repeat("x", 2000))
				if got := g.move(); got != MoveOpeningTooBig {
					g.t.Errorf("refused %q", got)
				}
				g.end(Backend)
			},
			client: "close 1012 backend went away", next: "text(2000)",
		},
		{
			name: "twice",
			run: func(g *moveRig) {
				g.say(Client, "a")
				g.moved()
				g.say(Client, "b")
				if g.move(); g.move() != MoveNotPossible {
					g.t.Error("a second move began")
				}
				g.say(Client, "c")
				g.pong()
				g.settleDown()
				g.feed(Backend, closing(Backend, 1001, ""))
			},
			old: "text:a close 1001 session moved text:b close 1001 session moved", next: "text:c", result: MoveDone + " " + MoveDone,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newMoveRig(t, c.change)
			c.run(g)
			var results []string
			if c.result != "" {
				results = strings.Fields(c.result)
			}
			g.want(c.client, c.old, c.next, results...)
			if g.doubt != c.doubt {
				t.Errorf("%d messages in doubt, want %d", g.doubt, c.doubt)
			}
			if g.Moving() || len(g.rest[Client]) > 0 && !g.Closing() {
				t.Errorf("moving %v, %d bytes left", g.Moving(), len(g.rest[Client]))
			}
		})
	}
}

// A client that says more than may be kept is not read; all of it arrives.
func TestMoveBuffersNoMore(t *testing.T) {
	g := newMoveRig(t, nil)
	g.move()
	message := strings.Repeat("x", 400)
	for range 3 {
		g.say(Client, message)
	}
	g.say(Client, "later")
	if until, held := g.Held(Client); !held || until < g.now+time.Hour {
		t.Errorf("held %v until %v", held, until)
	}
	if n := g.Buffered(); n < 1200 || n > 4000 {
		t.Errorf("%d bytes are buffered", n)
	}
	g.pong()
	g.settleDown()
	g.feed(Backend, closing(Backend, 1001, ""))
	g.want("", "close 1001 session moved", "text(400) text(400) text(400) text:later", MoveDone)
	if g.Buffered() != 0 {
		t.Errorf("%d bytes stay", g.Buffered())
	}
}

// How many messages are in doubt is known from Pongs, once the backend had its time.
func TestDoubt(t *testing.T) {
	g := newMoveRig(t, nil)
	g.say(Client, "1")
	g.say(Client, "2")
	g.tick(proofPause)
	g.say(Client, "3")
	g.pong() // 1 and 2 are read
	g.tick(settle - 1)
	if n := g.Relay.doubt(&move{passed: 3}, g.now); n != 3 {
		t.Errorf("%d in doubt before it had its time", n)
	}
	g.tick(1)
	if n := g.Relay.doubt(&move{passed: 3}, g.now); n != 1 {
		t.Errorf("%d in doubt afterwards", n)
	}
	g.tick(proofPause)
	g.pong() // so is 3
	g.say(Client, "4")
	g.end(Backend)
	if g.doubt != 2 {
		t.Errorf("%d in doubt at the end, want 2: one read just now, one not", g.doubt)
	}
	if g.move(); g.frames(g.sent[Backend]) != "" {
		t.Errorf("the next one got %q", g.frames(g.sent[Backend]))
	}
	g.say(Client, "5")
	g.end(Backend)
	if g.doubt != 1 {
		t.Errorf("%d in doubt with the next one", g.doubt)
	}
}

// A quiet session asks nothing.
func TestQuietSessionsAreNotAsked(t *testing.T) {
	g := newMoveRig(t, nil)
	if d := g.Deadline(); d != 0 {
		t.Errorf("due at %v", d)
	}
	g.say(Client, "1")
	g.tick(proofPause)
	g.pong()
	if d := g.Deadline(); d != 0 {
		t.Errorf("due at %v after the answer", d)
	}
}

// TestMoveSplit: wherever the bytes are cut, the same goes to everybody.
func TestMoveSplit(t *testing.T) {
	for _, compression := range []CompressionMode{NoCompression, Terminate} {
		up := join(fr(Client, ws.OpText, false, []byte("a")), fr(Client, ws.OpPing, true, nil), fr(Client, ws.OpContinuation, true, []byte("b")), text(Client, "c"),
			fr(Client, ws.OpBinary, false, []byte("d")), fr(Client, ws.OpContinuation, true, bytes.Repeat([]byte("e"), 300)), closing(Client, 1000, ""))
		var first string
		for cut := range len(up) {
			g := newMoveRig(t, func(o *Options) {
				o.Compression = Compression{Mode: compression, MinBytes: 1, Level: 1}
			})
			g.feed(Client, fr(Client, ws.OpText, false, []byte("0")))
			g.move()
			g.feed(Client, fr(Client, ws.OpContinuation, true, []byte("1")))
			g.pong()
			g.feed(Client, up[:cut])
			g.settleDown()
			if g.Closing() {
				continue // it had come as far as the Close: cancelled
			}
			g.feed(Client, up[cut:])
			g.feed(Backend, closing(Backend, 1001, ""))
			got := g.frames(g.old) + " | " + g.frames(g.sent[Backend])
			if first == "" {
				first = got
			}
			// A Ping is answered or passed on, by the moment.
			if a, b := strings.ReplaceAll(first, "ping: ", ""), strings.ReplaceAll(got, "ping: ", ""); a != b {
				t.Fatalf("cut at %d: %q, want %q", cut, b, a)
			}
		}
		if want := "text+:0 continuation:1 close 1001 session moved | "; !strings.HasPrefix(first, want) || !strings.HasSuffix(first, "close 1000") {
			t.Errorf("%v: %q", compression, first)
		}
	}
}

// TestNextBackendIsPinged: that the backend before it had a heartbeat of its own does not make
// the edge wait for one of the next.
func TestNextBackendIsPinged(t *testing.T) {
	const interval = 30 * time.Second
	for _, beat := range []bool{false, true} {
		g := newMoveRig(t, func(o *Options) { o.PingInterval, o.Ping = interval, [2]bool{Backend: true} })
		ping := fr(Backend, ws.OpPing, true, nil)
		for range 3 {
			g.run(interval)
			g.feed(Backend, ping)
		}
		g.sent[Backend] = nil
		if g.run(interval + 5*time.Second); len(g.sent[Backend]) > 0 {
			t.Fatal("the first backend is pinged though it has a heartbeat")
		}
		g.feed(Backend, ping)
		if g.moved(); beat {
			g.run(interval * 2 / 3)
			g.feed(Backend, ping) // one is no heartbeat
		}
		if g.run(interval + 1); g.said(Backend) == "" {
			t.Errorf("is not pinged in an interval (after a Ping: %v)", beat)
		}
	}
}
