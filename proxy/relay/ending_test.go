package relay

import (
	"testing"

	"github.com/gobwas/ws"
)

func TestClosingHandshakes(t *testing.T) {
	shutdown := Ending{Client: 1001, Backend: 1001, Reason: "shutdown"}
	half := text(Backend, "0123456789")[:5] // a frame toward the client that is under way
	halfUp := text(Client, "0123456789")[:9]
	for _, tt := range []struct {
		name            string
		steps           func(g *rig)
		client, backend string
		cause           Cause
		code            ws.StatusCode
		shutC, shutB    bool
		done            bool
	}{
		{name: "client closes, backend answers and ends", steps: func(g *rig) {
			g.feed(Client, closing(Client, 1000, "bye"))
			g.feed(Backend, closing(Backend, 1000, "bye"))
			g.end(Backend)
			g.end(Client)
		}, client: "close 1000 bye", backend: "close 1000 bye", cause: ClientClosed, code: 1000, shutC: true, shutB: true, done: true},
		{name: "the backend may end first after the handshake", steps: func(g *rig) {
			g.feed(Client, closing(Client, 1000, ""))
			g.feed(Backend, closing(Backend, 1000, ""))
		}, client: "close 1000", backend: "close 1000", cause: ClientClosed, code: 1000, shutC: true, shutB: false},
		{name: "backend closes, client answers", steps: func(g *rig) {
			g.feed(Backend, closing(Backend, 4001, "go"))
			g.feed(Client, closing(Client, 4001, ""))
		}, client: "close 4001 go", backend: "close 4001", cause: BackendClosed, code: 4001, shutC: true},
		{name: "both close at once", steps: func(g *rig) {
			g.feed(Client, closing(Client, 1000, "c"))
			g.feed(Backend, closing(Backend, 1001, "b"))
		}, client: "close 1001 b", backend: "close 1000 c", cause: ClientClosed, code: 1000, shutC: true},
		{name: "client closes and ends its stream at once", steps: func(g *rig) {
			g.feed(Client, closing(Client, 1000, ""))
			g.end(Client)
			g.feed(Backend, text(Backend, "last words"))
			g.feed(Backend, closing(Backend, 1000, ""))
			g.end(Backend)
		}, client: "text:last words close 1000", backend: "close 1000", cause: ClientClosed, code: 1000, shutC: true, shutB: true, done: true},
		{name: "client closes, backend ends without an answer", steps: func(g *rig) {
			g.feed(Client, closing(Client, 4002, "x"))
			g.end(Backend)
		}, client: "close 4002", backend: "close 4002 x", cause: ClientClosed, code: 4002, shutC: true, shutB: true},
		{name: "client closes without a code, backend ends", steps: func(g *rig) {
			g.feed(Client, closing(Client, 0, ""))
			g.end(Backend)
		}, client: "close 1005", backend: "close 1005", cause: ClientClosed, code: 1005, shutC: true, shutB: true},
		{name: "backend closes, client ends without an answer", steps: func(g *rig) {
			g.feed(Backend, closing(Backend, 1000, ""))
			g.end(Client)
		}, client: "close 1000", cause: BackendClosed, code: 1000, shutC: true, shutB: true},
		{name: "client vanishes", steps: func(g *rig) { g.end(Client) }, cause: ClientGone, code: 1006, shutC: true, shutB: true},
		{name: "client vanishes inside a frame", steps: func(g *rig) { g.feed(Client, halfUp); g.end(Client) },
			backend: "cut frame", cause: ClientGone, code: 1006, shutC: true, shutB: true},
		{name: "backend vanishes", steps: func(g *rig) { g.end(Backend) },
			client: "close 1012 backend went away", cause: BackendGone, code: 1012, shutB: true},
		{name: "backend vanishes between fragments", steps: func(g *rig) {
			g.feed(Backend, fr(Backend, ws.OpText, false, []byte("a")))
			g.end(Backend)
		}, client: "text+:a close 1012 backend went away", cause: BackendGone, code: 1012, shutB: true},
		{name: "backend vanishes inside a frame: no Close fits", steps: func(g *rig) { g.feed(Backend, half); g.end(Backend) },
			client: "cut frame", cause: BackendGone, code: 1006, shutC: true, shutB: true},
		{name: "backend vanishes inside a control frame", steps: func(g *rig) { g.feed(Backend, fr(Backend, ws.OpPing, true, []byte("ab"))[:3]); g.end(Backend) },
			client: "close 1012 backend went away", cause: BackendGone, code: 1012, shutB: true},
		{name: "edge closes, both answer", steps: func(g *rig) {
			g.close(shutdown)
			g.feed(Client, join(text(Client, "in flight"), closing(Client, 1001, "")))
			g.feed(Backend, closing(Backend, 1001, ""))
			g.end(Backend)
			g.end(Client)
		}, client: "close 1001 shutdown", backend: "text:in flight close 1001 shutdown", cause: EdgeClosed, code: 1001, shutC: true, shutB: true, done: true},
		{name: "edge closes: the backend hears of it after the client", steps: func(g *rig) { g.close(shutdown) },
			client: "close 1001 shutdown", cause: EdgeClosed, code: 1001},
		{name: "edge closes: what the backend says behind the Close is dropped", steps: func(g *rig) {
			g.close(shutdown)
			g.feed(Backend, join(text(Backend, "late"), fr(Backend, ws.OpPing, true, nil)))
		}, client: "close 1001 shutdown", cause: EdgeClosed, code: 1001},
		{name: "edge closes between messages", steps: func(g *rig) {
			g.feed(Backend, half)
			g.close(shutdown)
			g.feed(Backend, text(Backend, "0123456789")[5:])
			g.feed(Backend, text(Backend, "late"))
		}, client: "text:0123456789 close 1001 shutdown", cause: EdgeClosed, code: 1001},
		{name: "edge closes between messages, not fragments", steps: func(g *rig) {
			g.feed(Backend, fr(Backend, ws.OpText, false, []byte("a")))
			g.close(shutdown)
			g.feed(Backend, fr(Backend, ws.OpContinuation, true, []byte("b")))
		}, client: "text+:a continuation:b close 1001 shutdown", cause: EdgeClosed, code: 1001},
		{name: "edge closes, client ends without an answer", steps: func(g *rig) { g.close(shutdown); g.end(Client) },
			client: "close 1001 shutdown", backend: "close 1001 shutdown", cause: EdgeClosed, code: 1001, shutC: true},
		{name: "edge closes, backend closes meanwhile", steps: func(g *rig) {
			g.close(shutdown)
			g.feed(Backend, closing(Backend, 1000, ""))
			g.feed(Client, closing(Client, 1001, ""))
		}, client: "close 1001 shutdown", backend: "close 1001 shutdown", cause: EdgeClosed, code: 1001, shutC: true},
		{name: "edge closes twice", steps: func(g *rig) { g.close(shutdown); g.close(Ending{Client: 1008, Backend: 1001}) },
			client: "close 1001 shutdown", cause: EdgeClosed, code: 1001},
		{name: "edge closes a session that the client is closing", steps: func(g *rig) {
			g.feed(Client, closing(Client, 1000, ""))
			g.close(shutdown)
			g.feed(Backend, closing(Backend, 1000, ""))
		}, client: "close 1000", backend: "close 1000", cause: ClientClosed, code: 1000, shutC: true},
		{name: "client breaks a rule inside the backend's frame", steps: func(g *rig) {
			g.feed(Backend, half)
			g.feed(Client, text(Backend, "unmasked"))
			g.feed(Backend, text(Backend, "0123456789")[5:])
		}, client: "text:0123456789 close 1002 unmasked frame from a client", backend: "close 1001", cause: ClientViolation, code: 1002, shutC: true},
		{name: "client breaks a rule after the edge's Close", steps: func(g *rig) {
			g.close(shutdown)
			g.feed(Client, text(Backend, "unmasked"))
		}, client: "close 1001 shutdown", backend: "close 1001", cause: EdgeClosed, code: 1001, shutC: true},
		{name: "backend breaks a rule", steps: func(g *rig) { g.feed(Backend, text(Client, "masked")) },
			client: "close 1011", backend: "close 1002 masked frame from a server", cause: BackendViolation, code: 1011, shutB: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(Options{})
			tt.steps(g)
			g.expect(t, tt.client, tt.backend, tt.cause)
			if got := g.Verdict().Code; got != tt.code {
				t.Errorf("code %d, want %d", got, tt.code)
			}
			if g.Shut(Client) != tt.shutC || g.Shut(Backend) != tt.shutB {
				t.Errorf("shut client %v backend %v, want %v %v", g.Shut(Client), g.Shut(Backend), tt.shutC, tt.shutB)
			}
			if g.Done() != tt.done {
				t.Errorf("done %v, want %v", g.Done(), tt.done)
			}
		})
	}
}

func TestDeadlines(t *testing.T) {
	t.Run("an open session has none", func(t *testing.T) {
		g := newRig(Options{})
		g.feed(Client, text(Client, "x"))
		if d := g.Deadline(); d != 0 {
			t.Errorf("deadline %v", d)
		}
	})
	t.Run("a client that does not answer is given up, then the backend is told", func(t *testing.T) {
		g := newRig(Options{})
		g.close(Ending{Client: 1001, Backend: 1001})
		if got, want := g.Deadline(), g.now+closeTimeout; got != want {
			t.Fatalf("deadline %v, want %v", got, want)
		}
		if a := g.tick(closeTimeout - 1); a != (Action{}) {
			t.Fatalf("early: %+v", a)
		}
		if a := g.tick(1); !a.Abort[Client] || a.Abort[Backend] {
			t.Fatalf("got %+v, want the client aborted", a)
		}
		g.expect(t, "close 1001", "close 1001", EdgeClosed)
		if a := g.tick(closeTimeout); !a.Abort[Backend] || !g.Done() {
			t.Fatalf("got %+v, done %v", a, g.Done())
		}
	})
	t.Run("a backend that does not answer: the client gets its answer from us", func(t *testing.T) {
		g := newRig(Options{})
		g.feed(Client, closing(Client, 1000, ""))
		if a := g.tick(closeTimeout); !a.Abort[Backend] || a.Abort[Client] {
			t.Fatalf("got %+v, want the backend aborted", a)
		}
		g.expect(t, "close 1000", "close 1000", ClientClosed)
	})
	t.Run("a message that does not end: Close goes between its frames", func(t *testing.T) {
		g := newRig(Options{})
		g.feed(Backend, fr(Backend, ws.OpText, false, []byte("a")))
		g.close(Ending{Client: 1001, Backend: 1001})
		if a := g.tick(closeTimeout); a != (Action{}) {
			t.Fatalf("got %+v", a)
		}
		g.expect(t, "text+:a close 1001", "", EdgeClosed)
		if got, want := g.Deadline(), g.now+closeTimeout; got != want {
			t.Errorf("deadline %v, want %v", got, want)
		}
	})
	t.Run("a frame that does not end: the client is given up", func(t *testing.T) {
		g := newRig(Options{})
		g.feed(Backend, text(Backend, "0123456789")[:4])
		g.close(Ending{Client: 1001, Backend: 1001})
		if a := g.tick(closeTimeout); !a.Abort[Client] {
			t.Fatalf("got %+v", a)
		}
		g.expect(t, "cut frame", "close 1001", EdgeClosed)
	})
	t.Run("progress defers", func(t *testing.T) {
		g := newRig(Options{})
		g.close(Ending{Client: 1001, Backend: 1001})
		g.now += closeTimeout - 1
		g.Progress(Client, g.now)
		if a := g.tick(1); a != (Action{}) {
			t.Fatalf("got %+v", a)
		}
		if a := g.tick(closeTimeout); !a.Abort[Client] {
			t.Fatalf("got %+v", a)
		}
	})
	t.Run("a finished client that keeps its stream open is given up", func(t *testing.T) {
		g := newRig(Options{})
		g.feed(Client, closing(Client, 1000, ""))
		g.feed(Backend, closing(Backend, 1000, ""))
		g.end(Backend)
		if a := g.tick(closeTimeout); !a.Abort[Client] || !g.Done() {
			t.Fatalf("got %+v, done %v", a, g.Done())
		}
		if d := g.Deadline(); d != 0 {
			t.Errorf("deadline %v after the end", d)
		}
	})
	t.Run("no timeout, no deadline", func(t *testing.T) {
		g := rigOf(Options{})
		g.close(Ending{Client: 1001, Backend: 1001})
		if d := g.Deadline(); d != 0 {
			t.Errorf("deadline %v", d)
		}
	})
}
