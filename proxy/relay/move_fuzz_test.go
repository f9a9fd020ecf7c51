package relay

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// FuzzMove has a client and its backends number their messages while the session changes
// its backend again and again, at any point and for any reason. No message may come twice
// or out of order, and none may be missing but those that are in doubt; nor may the relay
// want a time that has passed. The first byte of a script chooses the options.
func FuzzMove(f *testing.F) {
	f.Add([]byte("acmacpcsacb"))
	f.Add([]byte("aAmApBsCcDeamps"))
	f.Add([]byte("ffmfFpsqcegmaa"))
	f.Add([]byte("aamtctpkaxmzam"))
	f.Add([]byte("ccLmcamLcm"))
	f.Add([]byte("acfEamcE"))
	f.Add([]byte("2aamacfpsefaABEamaB"))
	f.Add([]byte("1zmzpsezzEzmz"))
	f.Add([]byte("7zzX0"))
	f.Add([]byte("7mp0zFz"))
	f.Add([]byte("7e00000000zz000"))
	f.Add([]byte("7zz0saL"))
	f.Add([]byte("0acEcq"))
	f.Add([]byte("0amcpsQ"))
	f.Add([]byte("0aLcXq"))
	f.Add([]byte("4acaafmpsaetttttEacfat"))
	f.Add([]byte("1ambABuFpsFBeaABu"))
	f.Add([]byte("7acmFfbpsBCtaeeFfmuEm"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 100 || len(script) == 0 { // with more, a message is compressed in parts
			return
		}
		g := newFuzzedMove(t, script[0])
		for _, b := range script[1:] {
			if g.Closing() || g.Done() {
				break
			}
			g.slowly(func() { g.step(b) })
			if g.blocks {
				g.Block(Client)
			}
			if g.unblocks {
				g.unblock()
			}
			g.blocks, g.unblocks = false, false
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
	gone    bool     // the backend has ended
	doubted uint64   // in all
	told    []int    // by the last replay
	olds    [][]byte // what each backend before the present one was sent

	blocks, unblocks bool // the client stops taking bytes, or takes them, behind this step
}

func newFuzzedMove(t *testing.T, options byte) *fuzzedMove {
	g := &fuzzedMove{moveRig: newMoveRig(t, func(o *Options) {
		o.SlowConsumer, o.MaxBuffered = DropOldest, 1<<20
		if o.CloseTimeout = closeTimeout; options&1 != 0 {
			o.Compression = Compression{Mode: Terminate, MinBytes: 1000, Level: 1}
		}
		if options&2 != 0 {
			o.Migrate.ReplayMessages, o.Migrate.DiscardReplies = 2, 1
		}
		if options&4 != 0 {
			o.Messages, o.Bytes, o.Delay = Rate{1, 2}, Rate{5, 10}, true
		}
	})}
	g.switched = g.replay
	return g
}

// replay holds what a next backend is told first against the last time.
func (g *fuzzedMove) replay(n int) {
	told := numbers(g.t, g.sent[Backend][:n])
	if len(told) < len(g.told) || !slices.Equal(told[:len(g.told)], g.told) || !slices.IsSorted(told) {
		g.t.Fatalf("%v is replayed, and was %v", told, g.told)
	}
	g.told = told
	g.olds, g.old = append(g.olds, g.old), nil // apart: the last frame may be cut
	g.sent[Backend] = g.sent[Backend][n:]
}

// slowly runs a step of a session whose client may not take what it is sent.
func (g *fuzzedMove) slowly(step func()) {
	before := len(g.sent[Client])
	step()
	if more := g.sent[Client][before:]; g.Blocked(Client) {
		g.Queue(Client, [][]byte{more}, g.now)
		g.sent[Client] = g.sent[Client][:before]
	}
}

// unblock has the client take what waits for it.
func (g *fuzzedMove) unblock() {
	if g.Blocked(Client) {
		var out Buffers
		g.Take(Client, 1<<30, &out)
		g.bufs[Client].add(bytes.Join(out.Segments(), nil))
		g.take()
	}
}

// wait lets time pass, and feeds what had to wait for it.
func (g *fuzzedMove) wait(d time.Duration) {
	g.tick(d)
	g.refeed()
	g.follow()
	if due := g.Deadline(); due != 0 && due <= g.now && !g.Closing() {
		g.tick(0) // what was fed just now may want it
		if due := g.Deadline(); due != 0 && due <= g.now && !g.Closing() {
			g.t.Fatalf("due at %v, it is %v", due, g.now)
		}
	}
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
	passedBy := from == Backend && g.pol.opening != nil && g.pol.opening.discard > 0
	if whole && !passedBy {
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

func (g *fuzzedMove) step(b byte) {
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
		g.wait(settle)
	case 't':
		g.wait(moveTimeout / 2)
	case 'q':
		g.feed(Client, closing(Client, 1000, "bye"))
	case 'Q':
		g.end(Client)
	case 'X':
		g.close(Ending{Client: 1001, Backend: 1001, Reason: "over", Why: "api"})
		g.follow()
	case 'z':
		if g.opt.Compression.Mode == Terminate && !g.open[Client] {
			g.said[Client]++
			p := compressed(fr(Client, ws.OpText, true, deflated(g.t, []byte(strconv.Itoa(g.said[Client])+";"))))
			g.feed(Client, p[:7])
			g.feed(Client, p[7:])
		}
	case 'b':
		if !g.Blocked(Client) {
			g.blocks = true
		}
	case 'u':
		g.unblocks = true
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
		g.wait(closeTimeout / 5)
	}
	g.arrived(before)
}

// settleAll lets a session that is open come to rest, with a backend.
func (g *fuzzedMove) settleAll() {
	g.unblock()
	for range 5 {
		if g.Closing() {
			g.settleEnd()
			return
		}
		before := len(g.results)
		if g.moving() != nil && g.moving().phase == orphaned {
			g.move()
		}
		g.wait(moveTimeout)
		g.arrived(before)
	}
	if g.Moving() {
		g.t.Error("the session does not come to rest")
	}
	if g.open[Client] {
		g.piece(Client, true)
	}
	g.piece(Client, true)
	for range 300 {
		if _, held := g.Held(Client); !held {
			return
		}
		g.wait(time.Second)
	}
	g.t.Error("what the client has said does not go on")
}

// settleEnd lets a session that is closing come to its end, by itself.
func (g *fuzzedMove) settleEnd() {
	for range 20 {
		if g.Done() {
			break
		}
		due := g.Deadline()
		if due == 0 {
			break
		}
		g.tick(max(due-g.now, 0))
		g.refeed()
		g.follow()
		g.unblock()
	}
	if !g.Done() {
		g.t.Errorf("the session does not end: due at %v, moving %v", g.Deadline(), g.moving())
	}
	for _, p := range [][]byte{g.sent[Client], g.sent[Backend]} {
		closed := false
		for _, f := range frames(p) {
			if closed {
				g.t.Errorf("a frame %v behind a Close", f.Header)
			}
			closed = f.Header.OpCode == ws.OpClose
		}
	}
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
	up := numbers(g.t, append(slices.Clone(g.olds), g.sent[Backend])...)
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
	if g.Closing() || g.Moving() || g.open[Client] || len(g.rest[Client]) > 0 || g.in[Client].held != nil {
		return
	}
	if missing := g.said[Client] - len(up); uint64(missing) > g.doubted {
		g.t.Fatalf("of %d messages of the client the backends got %v: %d are missing, %d in doubt", g.said[Client], up, missing, g.doubted)
	}
	if !g.open[Backend] && !g.Blocked(Client) && len(down) != g.said[Backend] {
		g.t.Fatalf("of %d messages of the backends the client got %v", g.said[Backend], down)
	}
}
