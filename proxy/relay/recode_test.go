package relay

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

func terminating() Options {
	return Options{Compression: Compression{Mode: Terminate, Level: 1, MinBytes: 64, MaxInflatedBytes: 1 << 20}, ValidateUTF8: true}
}

// deflated is a message's payload as a peer with compress/flate makes it.
func deflated(t testing.TB, payload []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(payload)
	w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func inflated(t testing.TB, payload []byte) []byte {
	t.Helper()
	r := flate.NewReader(io.MultiReader(bytes.NewReader(payload), bytes.NewReader([]byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff})))
	p, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("the message does not inflate: %v", err)
	}
	return p
}

// compressed sets RSV1 of a frame.
func compressed(f []byte) []byte {
	f[0] |= rsv1 << 4
	return f
}

// gather puts the messages of a stream together again, inflated.
func gather(t testing.TB, stream []byte) (out []ws.Frame) {
	t.Helper()
	var message *ws.Frame
	for _, f := range frames(stream) {
		f := f
		switch {
		case f.Header.OpCode.IsControl():
			out = append(out, f)
			continue
		case f.Header.OpCode == ws.OpContinuation:
			if f.Header.Rsv != 0 {
				t.Fatal("RSV1 in a continuation")
			}
			message.Payload = append(message.Payload, f.Payload...)
		default:
			message = &f
		}
		if f.Header.Fin {
			if message.Header.Rsv != 0 {
				message.Payload = inflated(t, message.Payload)
			}
			out = append(out, *message)
		}
	}
	return out
}

func json(n int) []byte {
	return []byte(strings.Repeat(`{"k":"värde"},`, n/15+1))[:n]
}

// feedAll feeds a stream in pieces of n bytes, and what is held after each.
func (g *rig) feedAll(from Side, stream []byte, n int) {
	for len(stream) > 0 {
		k := min(n, len(stream))
		g.feed(from, stream[:k])
		stream = stream[k:]
		for {
			if _, held := g.Held(from); !held {
				break
			}
			g.feed(from, nil)
		}
	}
}

func TestTerminateFromBackend(t *testing.T) {
	for _, size := range []int{0, 1, 63, 64, 125, 126, 1000, 65535, 65536, 200_000} {
		for _, piece := range []int{7, 1000, 32 << 10, 1 << 20} {
			for _, fragments := range []int{1, 3} {
				t.Run(fmt.Sprint(size, " bytes in pieces of ", piece, ", ", fragments, " fragments"), func(t *testing.T) {
					piece := max(piece, min(1000, size/100)) // each is compressed by itself
					opt := terminating()
					opt.ValidateUTF8 = false
					g := newRig(opt)
					payload := json(size)
					var stream []byte
					for i := range fragments {
						op := ws.OpContinuation
						if i == 0 {
							op = ws.OpText
						}
						part := payload[i*size/fragments : (i+1)*size/fragments]
						stream = append(stream, fr(Backend, op, i == fragments-1, part)...)
						stream = append(stream, fr(Backend, ws.OpPing, true, []byte("between"))...)
					}
					g.feedAll(Backend, stream, piece)
					checkCompressed(t, g)
					got := gather(t, g.sent[Client])
					var messages []ws.Frame
					for _, f := range got {
						if f.Header.OpCode == ws.OpPing {
							continue
						}
						messages = append(messages, f)
					}
					if len(messages) != 1 || messages[0].Header.OpCode != ws.OpText || !bytes.Equal(messages[0].Payload, payload) {
						t.Fatalf("client got %d messages of %s", len(messages), g.said(Client))
					}
					if piece > size && fragments == 1 && size >= 1000 && len(g.sent[Client]) > size/5 {
						t.Errorf("%d bytes for %d", len(g.sent[Client]), size)
					}
					if first := frames(g.sent[Client])[0]; size < 64 && fragments == 1 && first.Header.Rsv != 0 {
						t.Error("a short message is compressed")
					}
				})
			}
		}
	}
}

// checkCompressed is checkOutput for a client that has agreed to compression.
func checkCompressed(t *testing.T, g *rig) {
	t.Helper()
	d := frame.Decoder{RSV: rsv1}
	for rest := g.sent[Client]; len(rest) > 0; {
		h, raw, n, err := d.Next(rest)
		if err != nil || raw == nil || int64(len(rest)-n) < h.Length {
			t.Fatalf("broken frame: %v", err)
		}
		rest = rest[n+int(h.Length):]
	}
}

func TestIncompressibleStaysPlain(t *testing.T) {
	g := newRig(terminating())
	noise := make([]byte, 1000)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(noise)
	g.feed(Backend, fr(Backend, ws.OpBinary, true, noise))
	if got := frames(g.sent[Client]); len(got) != 1 || got[0].Header.Rsv != 0 || !bytes.Equal(got[0].Payload, noise) {
		t.Errorf("client got %s", g.said(Client))
	}
}

func TestTerminateFromClient(t *testing.T) {
	for _, size := range []int{0, 1, 63, 1000, 16 << 10, 16<<10 + 1, 300_000} {
		for _, piece := range []int{1, 100, 1 << 20} {
			for _, fragments := range []int{1, 3} {
				g := newRig(terminating())
				payload := bytes.ToValidUTF8(json(size), []byte("."))
				small := deflated(t, payload)
				var stream []byte
				for i := range fragments {
					part := small[i*len(small)/fragments : (i+1)*len(small)/fragments]
					f := fr(Client, ws.OpContinuation, i == fragments-1, part)
					if i == 0 {
						f = compressed(fr(Client, ws.OpText, fragments == 1, part))
					}
					stream = append(append(stream, f...), fr(Client, ws.OpPing, true, []byte("p"))...)
				}
				stream = append(stream, text(Client, "plain")...)
				g.feedAll(Client, stream, piece)
				checkOutput(t, g, Backend)
				var data []ws.Frame
				for _, f := range gather(t, g.sent[Backend]) {
					if f.Header.OpCode != ws.OpPing {
						data = append(data, f)
					}
				}
				if len(data) != 2 || data[0].Header.OpCode != ws.OpText || !bytes.Equal(data[0].Payload, payload) || string(data[1].Payload) != "plain" {
					t.Fatalf("%d bytes, pieces of %d, %d fragments: backend got %d messages, verdict %+v", size, piece, fragments, len(data), g.Verdict())
				}
				if g.Buffered() != 0 {
					t.Errorf("%d bytes are still held", g.Buffered())
				}
			}
		}
	}
}

// TestInflatingTakesTurns: what inflates to a lot does so in several calls, and an end
// waits for the end of the message.
func TestInflatingTakesTurns(t *testing.T) {
	g := newRig(terminating())
	payload := make([]byte, 1<<20)
	g.feed(Client, compressed(fr(Client, ws.OpBinary, true, deflated(t, payload))))
	if n := len(g.sent[Backend]); n < recodeTurn || n > recodeTurn+recodeBytes {
		t.Errorf("%d bytes in one call", n)
	}
	if g.Buffered() == 0 {
		t.Error("nothing is held")
	}
	g.close(Ending{Client: 1001, Backend: 1001, Reason: "drain"})
	turns := 0
	for _, held := g.Held(Client); held; _, held = g.Held(Client) {
		g.feed(Client, nil)
		turns++
	}
	g.feed(Client, closing(Client, 1001, ""))
	got := gather(t, g.sent[Backend])
	if len(got) != 2 || len(got[0].Payload) != len(payload) || got[1].Header.OpCode != ws.OpClose || turns < 10 {
		t.Errorf("backend got %d frames after %d turns: %s", len(got), turns, g.said(Backend))
	}
}

func TestTerminateRefuses(t *testing.T) {
	bomb := deflated(t, make([]byte, 1<<20+1))
	for _, tt := range []struct {
		name            string
		from            Side
		frame           []byte
		client, backend string
		why             string
	}{
		{name: "too much inflated", frame: compressed(fr(Client, ws.OpBinary, true, bomb)), client: "close 1009 message inflates to too much", why: "inflated_size"},
		{name: "corrupt", frame: compressed(fr(Client, ws.OpBinary, true, []byte{7, 7, 7})), client: "close 1007 compressed message is corrupt", backend: "close 1001", why: "deflate"},
		{name: "cut short", frame: compressed(fr(Client, ws.OpBinary, true, deflated(t, json(500))[:20])), client: "close 1007 compressed message is corrupt", why: "deflate"},
		{name: "text that is not UTF-8", frame: compressed(fr(Client, ws.OpText, true, deflated(t, []byte("a\xff")))), client: "close 1007 text is not UTF-8", backend: "close 1001", why: "utf8"},
		{name: "text that ends in a character", frame: compressed(fr(Client, ws.OpText, true, deflated(t, []byte("a\xe2\x82")))), client: "close 1007 text is not UTF-8", backend: "close 1001", why: "utf8"},
		{name: "the backend compresses", from: Backend, frame: compressed(text(Backend, "x")), client: "close 1011", backend: "close 1002 reserved bits set without an extension", why: "protocol"},
		{name: "a compressed continuation", frame: join(fr(Client, ws.OpText, false, []byte("a")), compressed(fr(Client, ws.OpContinuation, true, nil))),
			client: "close 1002 reserved bits set without an extension", backend: "text+:a close 1001", why: "protocol"},
		{name: "a compressed ping", frame: compressed(fr(Client, ws.OpPing, true, nil)), client: "close 1002 reserved bits set without an extension", backend: "close 1001", why: "protocol"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(terminating())
			g.feedAll(tt.from, tt.frame, 1<<20)
			if got := g.said(Client); got != tt.client {
				t.Errorf("client got %q", got)
			}
			if got := g.said(Backend); tt.backend != "" && got != tt.backend || !strings.Contains(got, "close 100") {
				t.Errorf("backend got %.200q", got)
			}
			if g.Verdict().Why != tt.why || g.Buffered() != 0 {
				t.Errorf("verdict %+v, %d bytes held", g.Verdict(), g.Buffered())
			}
		})
	}
}

func TestPassthrough(t *testing.T) {
	g := newRig(Options{Compression: Compression{Mode: Passthrough}, ValidateUTF8: true})
	for _, from := range []Side{Client, Backend} {
		f := compressed(fr(from, ws.OpText, true, []byte("\xff not text")))
		g.feed(from, f)
		if !bytes.Equal(g.sent[peer(from)], f) {
			t.Errorf("from %v: % x became % x", from, f, g.sent[peer(from)])
		}
	}
	g.feed(Client, text(Client, "\xff"))
	if g.Verdict().Why != "utf8" {
		t.Errorf("text that is not compressed is not looked at: %+v", g.Verdict())
	}
}

// FuzzTerminate: whatever both sides say, in whatever pieces, arrives as it was.
func FuzzTerminate(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint16(100*seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, size uint16) {
		rng := rand.New(rand.NewPCG(seed, 2))
		opt := terminating()
		opt.ValidateUTF8 = false
		g := newRig(opt)
		var want [numSides][]string
		for range 10 {
			from := Side(rng.IntN(2))
			payload := json(rng.IntN(int(size) + 1))
			wire := payload
			zip := from == Client && rng.IntN(2) == 0
			if zip {
				wire = deflated(t, payload)
			}
			var stream []byte
			n := 1 + rng.IntN(4)
			for i := range n {
				op := ws.OpContinuation
				if i == 0 {
					op = ws.OpBinary
				}
				x := fr(from, op, i == n-1, wire[i*len(wire)/n:(i+1)*len(wire)/n])
				if i == 0 && zip {
					x = compressed(x)
				}
				stream = append(stream, x...)
			}
			want[peer(from)] = append(want[peer(from)], string(payload))
			g.feedAll(from, stream, 1+rng.IntN(2000))
		}
		checkCompressed(t, g)
		checkOutput(t, g, Backend)
		for _, to := range []Side{Client, Backend} {
			var got []string
			for _, f := range gather(t, g.sent[to]) {
				got = append(got, string(f.Payload))
			}
			if fmt.Sprint(got) != fmt.Sprint(want[to]) {
				t.Fatalf("%v got other messages than were sent", to)
			}
		}
	})
}

// A client that ends inside a compressed message, of which nothing has gone on, does not
// keep the backend from its Close.
func TestRecodeClientEndsInside(t *testing.T) {
	p := compressed(text(Client, string(deflated(t, []byte("hello hello hello")))))
	g := newRig(terminating())
	g.feed(Client, p[:len(p)-3])
	g.close(Ending{Client: 1001, Backend: 1001, Reason: "over", Why: "api"})
	g.end(Client)
	g.expect(t, "close 1001 over", "close 1001 over", EdgeClosed)
	g.end(Backend)
	if !g.Done() {
		t.Error("the session is not over")
	}
}
