package relay

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// FuzzMove has a client and its backends number their messages while the session changes
// its backend again and again, at any point and for any reason. No message may come twice
// or out of order, and none may be missing but those that are in doubt.
func FuzzMove(f *testing.F) {
	f.Add([]byte("acmacpcsacb"))
	f.Add([]byte("aAmApBsCcDeamps"))
	f.Add([]byte("ffmfFpsqcegmaa"))
	f.Add([]byte("aamtctpkaxmzam"))
	f.Add([]byte("ccLmcamLcm"))
	f.Add([]byte("acfEamcE"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		g := newFuzzedMove(t, len(script)%2 == 0)
		for i, b := range script {
			if g.Closing() || g.Done() {
				break
			}
			g.step(b, i)
			g.check()
		}
		g.settleAll()
		g.check()
		if t.Failed() {
			t.Logf("script %q, steps %v, results %v", script, g.steps, g.results)
		}
	})
}

// fuzzedMove is a session with what its ends have said.
type fuzzedMove struct {
	*moveRig
	said    [numSides]int // messages that have ended
	open    [numSides]bool
	gone    bool   // the backend has ended
	doubted uint64 // in all
}

func newFuzzedMove(t *testing.T, compressed bool) *fuzzedMove {
	return &fuzzedMove{moveRig: newMoveRig(t, func(o *Options) {
		if o.CloseTimeout = closeTimeout; compressed {
			o.Compression = Compression{Mode: Terminate, MinBytes: 1000, Level: 1}
		}
	})}
}

// piece says a whole message, or a part of one.
func (g *fuzzedMove) piece(from Side, whole bool) {
	if from == Backend && (g.gone || g.in[Backend].closed) {
		return
	}
	op := ws.OpText
	if g.open[from] {
		op = ws.OpContinuation
	}
	body := ""
	if whole {
		g.said[from]++
		body = strconv.Itoa(g.said[from]) + ";"
	}
	g.open[from] = !whole
	p := fr(from, op, whole, []byte(body))
	g.feed(from, p[:len(p)/2])
	g.feed(from, p[len(p)/2:])
}

// leave is the end of the present backend's stream.
func (g *fuzzedMove) leave(code ws.StatusCode) {
	if g.gone || g.in[Backend].closed {
		return
	}
	switches := len(g.results)
	if g.open[Backend] && code != 0 {
		return // it ends its message first
	}
	g.gone = true
	if code != 0 {
		g.feed(Backend, closing(Backend, code, ""))
	} else {
		g.end(Backend)
	}
	g.arrived(switches)
}

// arrived is called when another backend may be there.
func (g *fuzzedMove) arrived(before int) {
	for _, r := range g.results[before:] {
		if r == MoveDone {
			g.gone, g.open[Backend] = false, false
			g.doubted += g.doubt
		}
	}
}

func (g *fuzzedMove) step(b byte, i int) {
	before := len(g.results)
	switch b {
	case 'a', 'c':
		g.piece(Client, true)
	case 'f':
		g.piece(Client, false)
	case 'A', 'B', 'C':
		g.piece(Backend, true)
	case 'F':
		g.piece(Backend, false)
	case 'm':
		g.move()
	case 'p':
		if m := g.moving(); m != nil && m.phase == asked || g.pol.proof.open {
			g.pong()
		}
	case 's':
		g.tick(settle)
	case 't':
		g.tick(moveTimeout / 2)
	case 'e':
		g.leave(1001)
	case 'L':
		g.leave(1012)
	case 'E':
		g.leave(0)
	case 'k':
		g.CancelMove("cancelled", g.now, &g.bufs[Client], &g.bufs[Backend])
		g.take()
		g.follow()
	case 'P':
		g.feed(Client, fr(Client, ws.OpPing, true, []byte("p")))
	case 'x':
		g.dead = !g.dead
	default:
		g.tick(closeTimeout / 5)
	}
	g.arrived(before)
}

// settleAll lets a session that is open come to rest, with a backend.
func (g *fuzzedMove) settleAll() {
	for range 5 {
		if g.Closing() {
			return
		}
		before := len(g.results)
		if g.moving() != nil && g.moving().phase == orphaned {
			g.move()
		}
		g.tick(moveTimeout)
		g.arrived(before)
	}
	if g.Moving() {
		g.t.Error("the session does not come to rest")
	}
	if g.open[Client] {
		g.piece(Client, true)
	}
	g.piece(Client, true)
}

// numbers returns the numbers of the messages in a stream.
func numbers(t *testing.T, streams ...[]byte) (out []int) {
	for _, p := range streams {
		for r := bytes.NewReader(p); r.Len() > 0; {
			h, err := ws.ReadHeader(r)
			if err != nil || int64(r.Len()) < h.Length {
				break // cut by a crash
			}
			body := make([]byte, h.Length)
			r.Read(body)
			if ws.Cipher(body, h.Mask, 0); h.OpCode.IsControl() || len(body) == 0 {
				continue
			}
			n, err := strconv.Atoi(strings.TrimSuffix(string(body), ";"))
			if err != nil {
				t.Fatalf("%q is no message", body)
			}
			out = append(out, n)
		}
	}
	return out
}

// check holds what has arrived against what was said.
func (g *fuzzedMove) check() {
	g.t.Helper()
	up := numbers(g.t, g.old, g.sent[Backend])
	for i := 1; i < len(up); i++ {
		if up[i] <= up[i-1] {
			g.t.Fatalf("the backends got %v", up)
		}
	}
	down := numbers(g.t, g.sent[Client])
	for i, n := range down {
		if n != i+1 {
			g.t.Fatalf("the client got %v", down)
		}
	}
	if g.Closing() || g.Moving() || g.open[Client] {
		return
	}
	if missing := g.said[Client] - len(up); uint64(missing) > g.doubted {
		g.t.Fatalf("of %d messages of the client the backends got %v: %d are missing, %d in doubt", g.said[Client], up, missing, g.doubted)
	}
	if !g.open[Backend] && len(down) != g.said[Backend] {
		g.t.Fatalf("of %d messages of the backends the client got %v", g.said[Backend], down)
	}
}
