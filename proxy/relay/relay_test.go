package relay

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// Every stream here is fed whole, cut in two at every byte, and byte by byte; what
// comes out must be the same.
var streams = []struct {
	name   string
	from   Side
	opt    Options
	stream []byte
	peer   string // what the other side got; "same": the same bytes
	back   string // what the sender got
	err    error
}{
	{name: "text from client", from: Client, stream: text(Client, "hello"), peer: "same"},
	{name: "text from backend", from: Backend, stream: text(Backend, "hello"), peer: "same"},
	{name: "empty messages", from: Client, stream: join(text(Client, ""), text(Client, "")), peer: "same"},
	{name: "126 bytes", from: Backend, stream: fr(Backend, ws.OpBinary, true, make([]byte, 126)), peer: "same"},
	{name: "fragments with a ping between", from: Client, stream: join(fr(Client, ws.OpText, false, []byte("a")),
		fr(Client, ws.OpPing, true, []byte("p")), fr(Client, ws.OpContinuation, true, []byte("b"))), peer: "same"},
	{name: "ping and pong of 125", from: Backend, stream: join(fr(Backend, ws.OpPing, true, make([]byte, 125)),
		fr(Backend, ws.OpPong, true, make([]byte, 125))), peer: "same"},
	{name: "close with reason", from: Client, stream: closing(Client, 4000, "bye"), peer: "same"},
	{name: "close without body", from: Backend, stream: closing(Backend, 0, ""), peer: "same"},
	{name: "bytes behind a close go nowhere", from: Client, stream: join(text(Client, "a"), closing(Client, 1000, ""), []byte("junk")),
		peer: "text:a close 1000"},
	{name: "unmasked from client", from: Client, stream: join(text(Client, "a"), text(Backend, "b")),
		peer: "text:a close 1001", back: "close 1002 unmasked frame from a client", err: frame.ErrUnmasked},
	{name: "masked from backend", from: Backend, stream: text(Client, "a"),
		peer: "close 1011", back: "close 1002 masked frame from a server", err: frame.ErrMasked},
	{name: "reserved bit from client", from: Client, stream: func() []byte { b := text(Client, "a"); b[0] |= 0x40; return b }(),
		peer: "close 1001", back: "close 1002 reserved bits set without an extension", err: frame.ErrReservedBits},
	{name: "close code 1005 on the wire", from: Client, stream: closing(Client, 1005, ""),
		peer: "close 1001", back: "close 1002 close code that must not be sent", err: frame.ErrCloseCode},
	{name: "close of one byte", from: Client, stream: fr(Client, ws.OpClose, true, []byte{3}),
		peer: "close 1001", back: "close 1002 close frame with a body of one byte", err: frame.ErrCloseLength},
	{name: "close reason not UTF-8", from: Backend, stream: fr(Backend, ws.OpClose, true, []byte{3, 0xe8, 0xff}),
		peer: "close 1011", back: "close 1007 close reason is not UTF-8", err: frame.ErrCloseReason},
	{name: "frame at the limit", from: Client, opt: Options{MaxFrameBytes: 5}, stream: text(Client, "12345"), peer: "same"},
	{name: "frame over the limit", from: Client, opt: Options{MaxFrameBytes: 5}, stream: text(Client, "123456"),
		peer: "close 1001", back: "close 1009 frame too big", err: ErrFrameTooBig},
	{name: "message at the limit", from: Backend, opt: Options{MaxMessageBytes: 4}, stream: join(fr(Backend, ws.OpText, false, []byte("ab")),
		fr(Backend, ws.OpContinuation, true, []byte("cd")), text(Backend, "abcd")), peer: "same"},
	{name: "message over the limit by fragments", from: Backend, opt: Options{MaxMessageBytes: 4}, stream: join(
		fr(Backend, ws.OpText, false, []byte("abc")), fr(Backend, ws.OpContinuation, true, []byte("de"))),
		peer: "text+:abc close 1011", back: "close 1009 message too big", err: ErrMessageTooBig},
}

func TestStreams(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			run := func(pieces ...[]byte) *rig {
				g := newRig(tt.opt)
				for _, p := range pieces {
					g.feed(tt.from, p)
				}
				return g
			}
			whole := run(tt.stream)
			if tt.peer == "same" {
				if got := whole.sent[peer(tt.from)]; !bytes.Equal(got, tt.stream) {
					t.Errorf("peer got % x, want % x", got, tt.stream)
				}
			} else if got := whole.said(peer(tt.from)); got != tt.peer {
				t.Errorf("peer got %q, want %q", got, tt.peer)
			}
			if got := whole.said(tt.from); got != tt.back {
				t.Errorf("sender got %q, want %q", got, tt.back)
			}
			if len(whole.errs) > 1 || !errors.Is(errors.Join(whole.errs...), tt.err) {
				t.Errorf("errors %v, want %v", whole.errs, tt.err)
			}
			want := normal(whole)
			var bytewise [][]byte
			for i := range tt.stream {
				if got := normal(run(tt.stream[:i], tt.stream[i:])); got != want {
					t.Fatalf("cut at %d:\n%s\nwant:\n%s", i, got, want)
				}
				bytewise = append(bytewise, tt.stream[i:i+1])
			}
			if got := normal(run(bytewise...)); got != want {
				t.Fatalf("byte by byte:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// normal is state without the random masks of our own frames.
func normal(g *rig) string {
	sent := g.sent
	g.sent = [numSides][]byte{Client: []byte(g.said(Client)), Backend: []byte(g.said(Backend))}
	defer func() { g.sent = sent }()
	return g.state()
}

func TestBulkStaysOnePiece(t *testing.T) {
	r := New(&Options{}, new(Traffic))
	p := bytes.Repeat(text(Client, "message"), 100)
	var out, back Buffers
	if _, err := r.Feed(Client, p, 0, &out, &back); err != nil {
		t.Fatal(err)
	}
	if len(out.Segments()) != 1 || &out.Segments()[0][0] != &p[0] || out.Len() != len(p) {
		t.Errorf("%d segments of %d bytes, want the fed bytes in one", len(out.Segments()), out.Len())
	}
}

func TestCounters(t *testing.T) {
	g := newRig(Options{})
	g.feed(Client, join(text(Client, "abc"), fr(Client, ws.OpBinary, false, []byte("12")), fr(Client, ws.OpPing, true, nil),
		fr(Client, ws.OpContinuation, true, []byte("345")), fr(Client, ws.OpPong, true, nil), closing(Client, 1000, "")))
	want := Counters{Frames: [NumOpCodes]uint64{1, 1, 1, 1, 1, 1}, Messages: [2]uint64{1, 1}, Bytes: 8}
	if got := g.counts[Client]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := g.counts[Backend]; got != (Counters{}) {
		t.Errorf("backend said nothing, counted %+v", got)
	}
}

// A message counts when it is whole, not when it begins.
func TestCountersOfAnUnfinishedMessage(t *testing.T) {
	g := newRig(Options{})
	stream := text(Client, "hello")
	g.feed(Client, stream[:len(stream)-1])
	if got := g.counts[Client].Messages[0]; got != 0 {
		t.Errorf("%d messages before the last byte", got)
	}
	g.feed(Client, stream[len(stream)-1:])
	if got := g.counts[Client].Messages[0]; got != 1 {
		t.Errorf("%d messages after the last byte, want 1", got)
	}
}

func TestFeedDoesNotAllocate(t *testing.T) {
	r := New(&Options{MaxMessageBytes: 1 << 20}, new(Traffic))
	stream := join(text(Client, "hello"), fr(Client, ws.OpPing, true, []byte("x")), fr(Client, ws.OpBinary, true, make([]byte, 300)))
	var out, back Buffers
	feed := func() {
		for _, p := range [][]byte{stream[:3], stream[3:20], stream[20:]} {
			if _, err := r.Feed(Client, p, 0, &out, &back); err != nil {
				t.Fatal(err)
			}
			out.Reset()
		}
	}
	feed()
	if n := testing.AllocsPerRun(100, feed); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkFeed(b *testing.B) {
	for _, bb := range []struct {
		name string
		size int
	}{{"64B", 64}, {"1KiB", 1 << 10}, {"16KiB", 16 << 10}} {
		b.Run(bb.name, func(b *testing.B) {
			r := New(&Options{MaxMessageBytes: 16 << 20}, new(Traffic))
			stream := fr(Client, ws.OpBinary, true, make([]byte, bb.size))
			var out, back Buffers
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Feed(Client, stream, 0, &out, &back); err != nil {
					b.Fatal(err)
				}
				out.Reset()
			}
		})
	}
}
