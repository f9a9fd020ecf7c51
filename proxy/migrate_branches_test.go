package proxy

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/relay"
)

// stage is an edge with a client, the backend that it has and another one, all of whose
// bytes the test decides.
type stage struct {
	*testEdge
	client, old *rawConn
	came        chan *rawConn
	result      chan string
}

func newStage(t *testing.T, change func(*MigrateSettings)) *stage {
	t.Helper()
	over := make(chan struct{})
	st := &stage{came: make(chan *rawConn, 4), result: make(chan string, 1)}
	var addrs []string
	for range 2 {
		addrs = append(addrs, startRaw(t, func(c *rawConn, r *http.Request) {
			c.send(switching(r))
			st.came <- c
			<-over
		}).addr)
	}
	settings := moving()
	settings.Pools[0].Sources = []SourceSettings{staticSource(addrs...)}
	if change != nil {
		change(settings.Pools[0].Migrate)
	}
	st.testEdge = startEdge(t, settings)
	t.Cleanup(func() { close(over) })
	st.client = st.open("/ws")
	st.old = <-st.came
	return st
}

// move begins to move the session.
func (st *stage) move() {
	s := st.onlySession()
	go func() { st.result <- s.Move(st.t.Context(), "test") }()
}

// asked waits until the old backend is asked whether it has read everything: from then on
// what the client says is kept. It returns the answer.
func (st *stage) asked() (pong string) {
	st.t.Helper()
	op, payload := st.old.frame()
	if op != ws.OpPing {
		st.t.Fatalf("the old backend got opcode %d %.40q, want a Ping", op, payload)
	}
	return serverFrame(ws.OpPong, payload)
}

// next is the connection to the other backend.
func (st *stage) next() *rawConn { return <-st.came }

// leave is the end of the old backend, which is told to go.
func (st *stage) leave() {
	st.t.Helper()
	st.old.wantClose(1001)
	st.old.send(serverFrame(ws.OpClose, string(ws.NewCloseFrameBody(1001, ""))))
}

func (st *stage) want(result string) {
	st.t.Helper()
	if got := <-st.result; got != result {
		st.t.Fatalf("moved: %q, want %q", got, result)
	}
}

// piece is a frame of a message that has several.
func piece(from relay.Side, op ws.OpCode, fin bool, payload string) string {
	f := ws.NewFrame(op, fin, []byte(payload))
	if from == relay.Client {
		f = ws.MaskFrame(f)
	}
	return string(ws.MustCompileFrame(f))
}

// TestMoveBranches: what a move can meet, through the whole edge.
func TestMoveBranches(t *testing.T) {
	hasty := func(m *MigrateSettings) { m.Timeout = 300 * time.Millisecond }
	for _, c := range []struct {
		name   string
		change func(*MigrateSettings)
		run    func(*stage)
	}{
		{"no boundary in time", hasty, func(st *stage) {
			st.client.send(piece(relay.Client, ws.OpText, false, "a"))
			st.old.wantText("a")
			st.move()
			st.want(relay.MoveNoBoundary)
			st.client.send(piece(relay.Client, ws.OpContinuation, true, "b"))
			if op, p := st.old.frame(); op != ws.OpContinuation || p != "b" {
				st.t.Errorf("got opcode %d %q", op, p)
			}
			if rest := st.next().wantEnd(); rest != "" {
				st.t.Errorf("the other backend got %q", rest)
			}
		}},
		{"no Pong", hasty, func(st *stage) {
			st.move()
			st.asked()
			st.client.send(clientFrame(ws.OpText, "kept"))
			st.want(relay.MoveNoPong)
			st.old.wantText("kept")
		}},
		{"full buffer", func(m *MigrateSettings) { m.MaxBufferedBytes = 4 << 10 }, func(st *stage) {
			const messages, most = 1 << 10, 4<<10 + 2*(64<<10)
			st.move()
			pong := st.asked()
			next := st.next()
			filler := strings.Repeat("x", 2<<10)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for i := range messages {
					io.WriteString(st.client, clientFrame(ws.OpText, strconv.Itoa(i)+filler))
				}
			}()
			st.eventually("much is kept", func() bool { return st.Totals().Buffered > 4<<10 })
			st.old.send(serverFrame(ws.OpText, "a word"))
			st.client.wantText("a word")
			if held := st.Totals().Buffered; held > most {
				st.t.Errorf("%d bytes are kept", held)
			}
			st.old.send(pong)
			st.leave()
			st.want(relay.MoveDone)
			for i := range messages {
				next.wantText(strconv.Itoa(i) + filler)
			}
			<-sent
		}},
		{"the next backend dies", nil, func(st *stage) {
			st.move()
			pong := st.asked()
			st.next().Close()
			st.client.send(clientFrame(ws.OpText, "kept"))
			st.old.send(pong)
			st.want(relay.MoveNextGone)
			st.old.wantText("kept")
		}},
		{"the client closes first", nil, func(st *stage) {
			st.move()
			st.asked()
			st.client.send(clientFrame(ws.OpText, "last") + clientFrame(ws.OpClose, string(ws.NewCloseFrameBody(1000, "bye"))))
			st.old.wantText("last")
			st.old.wantClose(1000)
			st.old.send(serverFrame(ws.OpClose, string(ws.NewCloseFrameBody(1000, "bye"))))
			st.client.wantClose(1000)
			st.want(relay.MoveClientClosed)
		}},
		{"the client closes behind the old backend", nil, func(st *stage) {
			st.move()
			pong := st.asked()
			next := st.next()
			st.old.send(pong)
			st.old.wantClose(1001)
			st.client.send(clientFrame(ws.OpText, "last") + clientFrame(ws.OpClose, string(ws.NewCloseFrameBody(1000, "bye"))))
			next.wantText("last")
			next.wantClose(1000)
			next.send(serverFrame(ws.OpClose, string(ws.NewCloseFrameBody(1000, "bye"))))
			st.client.wantClose(1000)
			st.want(relay.MoveDone)
		}},
		{"fragmented messages both ways", nil, func(st *stage) {
			st.client.send(piece(relay.Client, ws.OpText, false, "a"))
			st.old.wantText("a")
			st.move()
			next := st.next()
			st.client.send(piece(relay.Client, ws.OpContinuation, true, "b"))
			if op, p := st.old.frame(); op != ws.OpContinuation || p != "b" {
				st.t.Errorf("got opcode %d %q", op, p)
			}
			pong := st.asked()
			st.client.send(piece(relay.Client, ws.OpText, false, "c"))
			st.old.send(piece(relay.Backend, ws.OpText, false, "x") + pong)
			st.client.wantText("x")
			st.old.send(piece(relay.Backend, ws.OpContinuation, true, "y"))
			if op, p := st.client.frame(); op != ws.OpContinuation || p != "y" {
				st.t.Errorf("got opcode %d %q", op, p)
			}
			st.leave()
			st.want(relay.MoveDone)
			next.wantText("c")
			st.client.send(piece(relay.Client, ws.OpContinuation, true, "d"))
			if op, p := next.frame(); op != ws.OpContinuation || p != "d" {
				st.t.Errorf("got opcode %d %q", op, p)
			}
		}},
		{"a backend that never stops talking", func(m *MigrateSettings) { m.Settle, m.Timeout = 200*time.Millisecond, time.Second }, func(st *stage) {
			st.move()
			st.old.send(st.asked())
			next := st.next()
			said := make(chan int)
			go func() {
				told := make(chan struct{})
				go func() {
					defer close(told)
					for {
						h, err := ws.ReadHeader(st.old.in)
						if err != nil || h.OpCode == ws.OpClose {
							return
						}
						io.CopyN(io.Discard, st.old.in, h.Length)
					}
				}()
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for n := 0; ; n++ {
					select {
					case <-tick.C:
						io.WriteString(st.old, serverFrame(ws.OpText, strconv.Itoa(n)))
					case <-told:
						io.WriteString(st.old, serverFrame(ws.OpClose, string(ws.NewCloseFrameBody(1001, ""))))
						said <- n
						return
					}
				}
			}()
			n := <-said
			st.want(relay.MoveDone)
			next.send(serverFrame(ws.OpText, "next"))
			for i := range n {
				st.client.wantText(strconv.Itoa(i))
			}
			st.client.wantText("next")
		}},
		{"opening messages", func(m *MigrateSettings) { m.ReplayMessages, m.DiscardReplies = 1, 1 }, func(st *stage) {
			st.client.send(clientFrame(ws.OpText, "login"))
			st.old.wantText("login")
			st.old.send(serverFrame(ws.OpText, "hello"))
			st.client.wantText("hello")
			st.move()
			st.old.send(st.asked())
			next := st.next()
			st.leave()
			st.want(relay.MoveDone)
			next.wantText("login")
			next.send(serverFrame(ws.OpText, "hello") + serverFrame(ws.OpText, "news"))
			st.client.wantText("news")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStage(t, c.change)
			c.run(st)
			st.client.Close()
		})
	}
}
