package relay

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

const closeTimeout = 5 * time.Second

// rig drives one relay and keeps what went to each side.
type rig struct {
	Relay
	counts Traffic
	now    time.Duration
	sent   [numSides][]byte
	bufs   [numSides]Buffers
	errs   []error
	rest   [numSides][]byte // what Feed left
	stuck  [2]bool          // sides for which bytes wait
}

func newRig(opt Options) *rig {
	if opt.CloseTimeout == 0 {
		opt.CloseTimeout = closeTimeout
	}
	return rigOf(opt)
}

// rigOf takes the options as they are.
func rigOf(opt Options) *rig {
	g := &rig{now: time.Second}
	g.Relay = New(&opt, &g.counts)
	g.Begin(g.now)
	return g
}

// take moves what the relay handed out to sent.
func (g *rig) take() {
	for s := range g.bufs {
		for _, seg := range g.bufs[s].Segments() {
			g.sent[s] = append(g.sent[s], seg...)
		}
		g.bufs[s].Reset()
	}
}

func (g *rig) feed(from Side, p []byte) {
	// A copy of its own, overwritten afterwards, as an engine's read buffer is.
	p = append(bytes.Clone(g.rest[from]), p...)
	n, err := g.Feed(from, p, g.now, &g.bufs[peer(from)], &g.bufs[from])
	if err != nil {
		g.errs = append(g.errs, err)
	}
	g.take()
	g.rest[from] = bytes.Clone(p[n:])
	for i := range p {
		p[i] = 0xee
	}
}

func (g *rig) end(from Side) {
	g.End(from, g.now, &g.bufs[peer(from)], &g.bufs[from])
	g.take()
}

func (g *rig) close(e Ending) {
	g.Close(e, g.now, &g.bufs[Client], &g.bufs[Backend])
	g.take()
}

func (g *rig) tick(after time.Duration) Action {
	g.now += after
	a := g.Tick(g.now, g.stuck, &g.bufs[Client], &g.bufs[Backend])
	g.take()
	return a
}

// state renders everything that a peer or an operator could see.
func (g *rig) state() string {
	return fmt.Sprintf("client got % x\nbackend got % x\nerrors %v\nshut %v %v\ndone %v\nverdict %+v\ncounters %+v %+v",
		g.sent[Client], g.sent[Backend], g.errs, g.Shut(Client), g.Shut(Backend), g.Done(), g.Verdict(),
		g.counts[Client], g.counts[Backend])
}

// said renders the frames that went to a side: "text(5) close(1000 bye)".
func (g *rig) said(to Side) string {
	var out []string
	r := bytes.NewReader(g.sent[to])
	for r.Len() > 0 {
		h, err := ws.ReadHeader(r)
		if err != nil {
			out = append(out, "cut header")
			break
		}
		if want := to == Backend; h.Masked != want {
			out = append(out, fmt.Sprintf("masked=%v", h.Masked))
		}
		body := make([]byte, min(h.Length, int64(r.Len())))
		r.Read(body)
		if int64(len(body)) < h.Length {
			out = append(out, "cut frame")
			break
		}
		if h.Masked {
			ws.Cipher(body, h.Mask, 0)
		}
		out = append(out, describe(h, body))
	}
	return strings.Join(out, " ")
}

func describe(h ws.Header, body []byte) string {
	name := OpCodeNames[opIndex(h.OpCode)]
	if !h.Fin {
		name += "+"
	}
	if h.OpCode == ws.OpClose {
		code, reason, err := frame.ParseClose(body)
		if err != nil {
			return "bad close"
		}
		return strings.TrimSpace(fmt.Sprintf("close %d %s", code, reason))
	}
	if len(body) > 20 {
		return fmt.Sprintf("%s(%d)", name, len(body))
	}
	return fmt.Sprintf("%s:%s", name, body)
}

// expect compares what both sides were told, and the verdict's cause.
func (g *rig) expect(t *testing.T, client, backend string, cause Cause) {
	t.Helper()
	if got := g.said(Client); got != client {
		t.Errorf("client got %q, want %q", got, client)
	}
	if got := g.said(Backend); got != backend {
		t.Errorf("backend got %q, want %q", got, backend)
	}
	if got := g.Verdict().Cause; got != cause {
		t.Errorf("cause %v, want %v", got, cause)
	}
}

// fr makes one frame as a side sends it. "+" before FIN=0 is op|0 with fin false.
func fr(from Side, op ws.OpCode, fin bool, payload []byte) []byte {
	h := ws.Header{Fin: fin, OpCode: op, Length: int64(len(payload))}
	body := bytes.Clone(payload)
	if from == Client {
		h.Masked, h.Mask = true, [4]byte{0x11, 0x22, 0x33, 0x44}
		ws.Cipher(body, h.Mask, 0)
	}
	var b bytes.Buffer
	if err := ws.WriteHeader(&b, h); err != nil {
		panic(err)
	}
	b.Write(body)
	return b.Bytes()
}

func text(from Side, s string) []byte { return fr(from, ws.OpText, true, []byte(s)) }

func closing(from Side, code ws.StatusCode, reason string) []byte {
	if code == 0 {
		return fr(from, ws.OpClose, true, nil)
	}
	return fr(from, ws.OpClose, true, ws.NewCloseFrameBody(code, reason))
}

func join(pieces ...[]byte) []byte { return bytes.Join(pieces, nil) }
