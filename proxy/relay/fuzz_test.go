package relay

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/tidegate/tidegate/proxy/frame"
)

// FuzzStream feeds one side's stream and holds what the other side got against what
// gobwas/wsutil reads in the same stream.
func FuzzStream(f *testing.F) {
	for _, tt := range streams {
		f.Add(tt.stream, tt.from == Client, uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, client bool, cut uint8) {
		from := Backend
		if client {
			from = Client
		}
		k := int(cut) % (len(stream) + 1)
		whole, split := newRig(Options{}), newRig(Options{})
		whole.feed(from, stream)
		split.feed(from, stream[:k])
		split.feed(from, stream[k:])
		if a, b := normal(whole), normal(split); a != b {
			t.Fatalf("cut at %d:\n%s\nwhole:\n%s", k, b, a)
		}
		checkOutput(t, whole, Client)
		checkOutput(t, whole, Backend)

		want, _ := messages(stream, from)
		got, _ := messages(whole.sent[peer(from)], from)
		if len(whole.errs) == 0 && !whole.in[from].closed && len(got) != len(want) {
			t.Fatalf("no rule broken, %d messages of %d came through", len(got), len(want))
		}
		for i := range got {
			if i >= len(want) || got[i].OpCode != want[i].OpCode || !bytes.Equal(got[i].Payload, want[i].Payload) {
				t.Fatalf("message %d came through changed", i)
			}
		}
	})
}

var errClosed = errors.New("closed")

// messages reads whole data messages of a side as gobwas/wsutil understands them, up to
// the first error or Close.
func messages(stream []byte, from Side) (got []wsutil.Message, err error) {
	state := ws.StateClientSide
	if from == Client {
		state = ws.StateServerSide
	}
	r := &wsutil.Reader{Source: bytes.NewReader(stream), State: state, OnIntermediate: func(h ws.Header, src io.Reader) error {
		if h.OpCode == ws.OpClose {
			return errClosed
		}
		_, err := io.Copy(io.Discard, src)
		return err
	}}
	for {
		h, err := r.NextFrame()
		if err != nil {
			return got, err
		}
		if h.OpCode == ws.OpClose {
			return got, nil
		}
		payload, err := io.ReadAll(r)
		if err != nil {
			return got, err
		}
		if h.OpCode.IsData() {
			got = append(got, wsutil.Message{OpCode: h.OpCode, Payload: payload})
		}
	}
}

// checkOutput holds what went to a side against the promises in doc.go: whole legal
// frames but for a last one, one Close at most, nothing behind it.
func checkOutput(t *testing.T, g *rig, to Side) {
	t.Helper()
	rest := g.sent[to]
	d := frame.Decoder{Masked: to == Backend}
	for len(rest) > 0 {
		h, raw, n, err := d.Next(rest)
		if err != nil {
			t.Fatalf("%v got a broken frame: %v in % x", to, err, g.sent[to])
		}
		if raw == nil {
			t.Fatalf("%v got part of a header: % x", to, g.sent[to])
		}
		rest = rest[n:]
		if h.Length > int64(len(rest)) {
			if h.OpCode.IsControl() {
				t.Fatalf("%v got part of a control frame: % x", to, g.sent[to])
			}
			return
		}
		rest = rest[h.Length:]
		if h.OpCode == ws.OpClose && len(rest) > 0 {
			t.Fatalf("%v got bytes behind its Close: % x", to, rest)
		}
	}
}

// FuzzSession runs arbitrary events of both sides and the edge in arbitrary order.
func FuzzSession(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{10, 0, 12, 3, 20, 5, 21, 30, 31})
	f.Add([]byte{2, 40, 6, 3, 41, 7, 6, 6})
	f.Fuzz(func(t *testing.T, script []byte) {
		g := newRig(Options{MaxMessageBytes: 64})
		var queued [numSides][]byte
		for _, b := range script {
			side := Side(b & 1)
			switch b >> 1 % 10 {
			case 0:
				queued[side] = append(queued[side], text(side, "message")...)
			case 1:
				queued[side] = append(queued[side], fr(side, ws.OpBinary, false, []byte("frag"))...)
			case 2:
				queued[side] = append(queued[side], fr(side, ws.OpContinuation, true, []byte("ment"))...)
			case 3:
				queued[side] = append(queued[side], fr(side, ws.OpPing, true, []byte("ping"))...)
			case 4:
				queued[side] = append(queued[side], closing(side, 1000, "bye")...)
			case 5:
				queued[side] = append(queued[side], b)
			case 6: // some of what is queued arrives
				n := min(len(queued[side]), int(b>>4)+1)
				g.feed(side, queued[side][:n])
				queued[side] = queued[side][n:]
			case 7:
				g.end(side)
			case 8:
				g.close(Ending{Client: 1001, Backend: 1001, Reason: "drain"})
			case 9:
				g.tick(closeTimeout / 2)
			}
		}
		for _, side := range []Side{Client, Backend} {
			g.feed(side, queued[side])
		}
		checkOutput(t, g, Client)
		checkOutput(t, g, Backend)
		if !g.Closing() {
			return
		}
		// Whatever happened, the session ends by the deadlines alone, or waits for
		// nothing but the ends of streams that are shut.
		for range 8 {
			if d := g.Deadline(); d != 0 {
				g.tick(max(0, d-g.now))
			}
		}
		if !g.Done() && g.Deadline() == 0 && !g.Shut(Client) && !g.Shut(Backend) {
			t.Fatalf("the session hangs: %s", g.state())
		}
		if !g.Done() {
			t.Fatalf("not over after all deadlines: %s", g.state())
		}
		if v := g.Verdict(); v.Err != nil && !errors.Is(errors.Join(g.errs...), v.Err) {
			t.Fatalf("verdict %v was never returned", v.Err)
		}
	})
}
