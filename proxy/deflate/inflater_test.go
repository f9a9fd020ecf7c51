package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// examples are those of RFC 7692 §7.2.3, and what is near them.
var examples = []struct {
	name    string
	message []byte
	want    string
	err     error
}{
	{"7.2.3.1: one compressed block", unhex("f2 48 cd c9 c9 07 00"), "Hello", nil},
	{"7.2.3.2: a second message, which needs the window of the first", unhex("f2 00 11 00 00"), "", ErrCorrupt},
	{"7.2.3.3: a stored block", unhex("00 05 00 fa ff 48 65 6c 6c 6f 00"), "Hello", nil},
	{"7.2.3.4: BFINAL", unhex("f3 48 cd c9 c9 07 00 00"), "Hello", nil},
	{"7.2.3.5: two blocks", unhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00"), "Hello", nil},
	{"7.2.3.6: empty", unhex("00"), "", nil},
	{"BFINAL without an empty block behind it", unhex("f3 48 cd c9 c9 07 00"), "Hello", nil},
	{"two streams with BFINAL", unhex("f3 48 cd c9 c9 07 00 f3 48 cd c9 c9 07 00"), "HelloHello", nil},
	{"a stream with BFINAL, and one without", unhex("f3 48 cd c9 c9 07 00 f2 48 cd c9 c9 07 00"), "HelloHello", nil},
	{"a stream that refers to one before it", unhex("f3 48 cd c9 c9 07 00 f2 00 11 00 00"), "", ErrCorrupt},
	{"a stored block with BFINAL", unhex("01 05 00 fa ff 48 65 6c 6c 6f"), "Hello", nil},
	{"an empty stored block with BFINAL, its length left out", unhex("01"), "", nil},
	{"an empty fixed block with BFINAL", unhex("03 00"), "", nil},
	{"nothing but empty blocks", unhex("00 00 00 ff ff 00 00 00 ff ff 00"), "", nil},

	{"no byte, not even the empty block", nil, "", ErrTruncated},
	{"the tail left in", unhex("f2 48 cd c9 c9 07 00 00 00 ff ff"), "", ErrTruncated},
	{"the reserved kind of block", unhex("06 00"), "", ErrCorrupt},
	{"a length that is not its complement", unhex("00 05 00 fa fe 48 65 6c 6c 6f 00"), "", ErrCorrupt},
	{"a distance before the beginning", unhex("02 07 00 00"), "", ErrCorrupt},
	{"a stored block that the tail fills up", unhex("00 05 00 fa ff 48"), "", ErrTruncated},
	{"the same with BFINAL", unhex("01 05 00 fa ff 48"), "", ErrTruncated},
	{"a stored block that goes on behind the tail", unhex("00 05 00 fa ff"), "", ErrTruncated},
	{"BFINAL, and then no DEFLATE", unhex("f3 48 cd c9 c9 07 00 ff"), "", ErrCorrupt},
}

func TestExamples(t *testing.T) {
	for _, tt := range examples {
		t.Run(tt.name, func(t *testing.T) {
			for _, room := range []int{1, 2, 3, 4096} {
				got, err := inflate(tt.message, room)
				if !errors.Is(err, tt.err) || err == nil && string(got) != tt.want {
					t.Errorf("room %d: got %q, %v; want %q, %v", room, got, err, tt.want, tt.err)
				}
			}
			got, _, err := walk(tt.message)
			if (err == nil) != (tt.err == nil) || err == nil && string(got) != tt.want {
				t.Errorf("the walker got %q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// messages are compressed ones that end with one flush, so that no part of one is whole.
func messages(t testing.TB) map[string][]byte {
	list := map[string][]byte{
		"fixed":  unhex("f2 48 cd c9 c9 07 00"),
		"stored": unhex("00 05 00 fa ff 48 65 6c 6c 6f 00"),
		// Its data looks like a tail, and like the end of a message.
		"stored zeros": unhex("00 08 00 f7 ff 00 00 00 00 00 00 ff ff 00"),
		"final":        unhex("f3 48 cd c9 c9 07 00"),
	}
	for level := range 10 {
		list[fmt.Sprintf("level %d", level)] = deflateStd(t, level, quotes(1500))
		list[fmt.Sprintf("noise at level %d", level)] = deflateStd(t, level, noise(600))
	}
	return list
}

// TestTruncated cuts messages at every byte.
func TestTruncated(t *testing.T) {
	for name, message := range messages(t) {
		if _, err := inflate(message, 100); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for n := range message {
			if got, err := inflate(message[:n], 100); err == nil && (n != 1 || message[0] != 0) { // 0 alone is whole
				t.Errorf("%s cut at %d of %d: no error, %d bytes", name, n, len(message), len(got))
			}
		}
	}
}

// TestNextSplits fills buffers of every size.
func TestNextSplits(t *testing.T) {
	want := quotes(700)
	message := deflateStd(t, 6, want)
	for room := 1; room <= len(want)+1; room++ {
		got, err := inflate(message, room)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("room %d: %d bytes, %v", room, len(got), err)
		}
	}
}

// TestNextEnd shows that done may come alone, and that no room is no end.
func TestNextEnd(t *testing.T) {
	var i Inflater
	i.Start(unhex("f2 48 cd c9 c9 07 00"))
	if n, done, err := i.Next(nil); n != 0 || done || err != nil {
		t.Fatal(n, done, err)
	}
	dst := make([]byte, 5)
	n, done, err := i.Next(dst)
	if n != 5 || err != nil {
		t.Fatal(n, done, err)
	}
	if !done {
		if n, done, err = i.Next(dst); n != 0 || !done || err != nil {
			t.Fatal(n, done, err)
		}
	}
	if i != (Inflater{}) {
		t.Fatal("something is held between messages")
	}
}

// TestWindowIsOneMessages shows that a message sees nothing of what a reader of the pool
// has inflated before, be it ended, broken off or wrong.
func TestWindowIsOneMessages(t *testing.T) {
	secret := deflateStd(t, 6, quotes(40000))
	ends := map[string]func(*Inflater){
		"done":      func(i *Inflater) { readAll(t, i) },
		"abandoned": func(i *Inflater) { i.Next(make([]byte, 1000)); i.Abandon() },
		"restarted": func(i *Inflater) { i.Next(make([]byte, 1000)) },
	}
	for name, end := range ends {
		var i Inflater
		i.Start(secret)
		end(&i)
		i.Start(unhex("f2 00 11 00 00")) // refers five bytes back
		if n, _, err := i.Next(make([]byte, 100)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		i.Start(unhex("f2 48 cd c9 c9 07 00"))
		if got := readAll(t, &i); got != 5 {
			t.Errorf("%s: %d bytes of Hello", name, got)
		}
	}
}

func readAll(t *testing.T, i *Inflater) (total int) {
	t.Helper()
	dst := make([]byte, 4096)
	for {
		n, done, err := i.Next(dst)
		if total += n; err != nil {
			t.Fatal(err)
		}
		if done {
			return total
		}
	}
}

// TestBomb inflates a message of 1 MiB to 1 GiB, as far as the caller wants it.
func TestBomb(t *testing.T) {
	const size = 1 << 30
	bomb := bytes.Repeat(append(deflateStd(t, 9, make([]byte, 1<<20)), tail...), size>>20)
	bomb = bomb[:len(bomb)-tailBytes]
	if len(bomb) > 2<<20 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	dst := make([]byte, 32<<10)
	var before, after runtime.MemStats
	for _, limit := range []int{16 << 20, 64 << 20, size} {
		if testing.Short() && limit == size {
			continue
		}
		var i Inflater
		runtime.ReadMemStats(&before)
		total := 0
		for i.Start(bomb); total < limit; {
			n, done, err := i.Next(dst)
			if total += n; err != nil || done || n < len(dst) && total < size {
				t.Fatal(total, done, err)
			}
		}
		i.Abandon()
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 128<<10 {
			t.Errorf("%d bytes were allocated for the first %d", grown, limit)
		}
	}
}

// TestYields sends blocks that hold nothing. They keep the edge busy and yield no byte at
// which it could stop, so a call of Next ends by itself.
func TestYields(t *testing.T) {
	var dynamic bitWriter
	for range 8 {
		dynamic.emptyDynamic()
	}
	for name, unit := range map[string][]byte{
		"stored":       unhex("00 00 00 ff ff"),
		"fixed":        unhex("02 08 20 80 00"), // four of them
		"dynamic":      dynamic.out,
		"final stored": unhex("01 00 00 ff ff"),
		"final fixed":  unhex("03 00"),
	} {
		t.Run(name, func(t *testing.T) {
			message := append(bytes.Repeat(unit, 1000), 0)
			var i Inflater
			calls := 0
			for i.Start(message); ; calls++ {
				if n, done, err := i.Next(make([]byte, 10)); n > 0 || err != nil {
					t.Fatal(n, err)
				} else if done {
					break
				}
			}
			if calls < 1000/maxBlocks {
				t.Errorf("%d bytes were read in %d calls", len(message), calls+1)
			}
		})
	}
}

// bitWriter writes what no compressor does.
type bitWriter struct {
	out []byte
	bit int
}

func (b *bitWriter) bits(v, n int) {
	for i := range n {
		if b.bit%8 == 0 {
			b.out = append(b.out, 0)
		}
		b.out[b.bit/8] |= byte(v>>i&1) << (b.bit % 8)
		b.bit++
	}
}

// dynamic begins a block whose code lengths are written with a code of their own, which
// has one bit for 18 (many zeros), and two each for 0 and 1.
func (b *bitWriter) dynamic(numLiterals, numDistances int) {
	b.bits(0b100, 3)
	b.bits(numLiterals-257, 5)
	b.bits(numDistances-1, 5)
	b.bits(18-4, 4)
	for _, symbol := range lengthOrder[:18] {
		b.bits(map[uint8]int{18: 1, 0: 2, 1: 2}[symbol], 3)
	}
}

func (b *bitWriter) zeros(n int) { // 11 to 138 code lengths
	b.bits(0b0, 1)
	b.bits(n-11, 7)
}
func (b *bitWriter) zero() { b.bits(0b01, 2) } // a code length; the first bit is the lowest
func (b *bitWriter) one()  { b.bits(0b11, 2) }

// emptyDynamic is a block with codes of its own that holds nothing but its end.
func (b *bitWriter) emptyDynamic() {
	b.dynamic(257, 1)
	b.zeros(138)
	b.zeros(117)
	b.one() // 255
	b.one() // 256
	b.one() // the one distance
	b.bits(1, 1)
}

// TestTablesAreOneBlocks sends blocks with empty codes, which have nothing to say about the
// bits that follow. No other code may be asked: neither one of the message, nor one of what
// was inflated before.
func TestTablesAreOneBlocks(t *testing.T) {
	var noLiterals, noDistances, noLengths bitWriter
	noLiterals.dynamic(257, 1)
	noLiterals.zeros(138)
	noLiterals.zeros(120)

	for _, c := range []byte("\x00\x05\x00\xfa\xffHello") {
		noDistances.bits(int(c), 8)
	}
	noDistances.dynamic(258, 1)
	noDistances.zeros(138)
	noDistances.zeros(118)
	noDistances.one()      // 256, the end
	noDistances.one()      // 257, a match
	noDistances.zero()     // no distance
	noDistances.bits(1, 1) // the match

	noLengths.bits(0b100, 3)
	noLengths.bits(0, 5+5+4)
	noLengths.bits(0, 4*3)

	for name, b := range map[string]bitWriter{"literals": noLiterals, "distances": noDistances, "lengths": noLengths} {
		for rest, r := range map[string][]byte{"zeros": make([]byte, 300), "ones": bytes.Repeat([]byte{0xff}, 300), "noise": noise(300)} {
			var i Inflater
			i.Start(deflateStd(t, 6, quotes(5000)))
			readAll(t, &i)
			message := append(bytes.Clone(b.out), r...)
			if got, err := inflate(message, 1000); !errors.Is(err, ErrCorrupt) || len(got) > 5 {
				t.Errorf("no %s, then %s: got %d bytes, %v", name, rest, len(got), err)
			}
			if got, _, err := walk(message); err == nil {
				t.Errorf("no %s, then %s: the walker got %q", name, rest, got)
			}
		}
	}
}

// FuzzInflate holds the Inflater against the walker, and against compress/flate as far as
// that goes.
func FuzzInflate(f *testing.F) {
	for _, tt := range examples {
		f.Add(tt.message, uint16(3))
	}
	for _, message := range messages(f) {
		f.Add(message, uint16(1000))
	}
	f.Fuzz(func(t *testing.T, message []byte, room uint16) {
		if len(message) > 4096 {
			return // might inflate to more than there is time for
		}
		before := bytes.Clone(message)
		got, err := inflate(message, int(room)+1)
		if !bytes.Equal(message, before) {
			t.Fatal("the message was changed")
		}
		want, _, wantErr := walk(message)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("got %d bytes, %v; the walker %d bytes, %v", len(got), err, len(want), wantErr)
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTruncated) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %q, the walker %q", got, want)
		}
		std, _ := inflateStd(message)
		if !bytes.HasPrefix(got, std) { // it stops at a block with BFINAL
			t.Fatalf("got %q, compress/flate %q", got, std)
		}
	})
}

// inflateStd is what compress/flate makes of a message, up to a block with BFINAL.
func inflateStd(message []byte) ([]byte, error) {
	var out bytes.Buffer
	r := flate.NewReader(bytes.NewReader(append(message[:len(message):len(message)], tail+"\x01\x00\x00\xff\xff"...)))
	_, err := out.ReadFrom(r)
	return out.Bytes(), err
}

// deflateStd is a message as compress/flate makes it.
func deflateStd(t testing.TB, level int, p []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, level)
	if err == nil {
		_, err = w.Write(p)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()[:out.Len()-tailBytes]
}

func unhex(s string) (p []byte) {
	if _, err := fmt.Sscanf(strings.ReplaceAll(s, " ", ""), "%x", &p); err != nil {
		panic(err)
	}
	return p
}

// quotes is n bytes of JSON, as a market sends it.
func quotes(n int) (p []byte) {
	for i := 0; len(p) < n; i++ {
		p = fmt.Appendf(p, `{"id":%d,"user":"u%d","price":%d.%02d,"side":"buy","ts":%d},`, i, i*7919%1000, i*31%977, i%100, 1700000000+i*37)
	}
	return p[:n]
}

// noise is n bytes that no one can compress.
func noise(n int) []byte {
	p := make([]byte, n)
	var seed [32]byte
	rand.NewChaCha8(seed).Read(p)
	return p
}

func BenchmarkInflate(b *testing.B) {
	dst := make([]byte, 16<<10)
	for _, size := range []int{64, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := NewCompressor(1, 0)
			message := c.Finish(c.Write(nil, quotes(size)))
			var i Inflater
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				i.Start(message)
				for done := false; !done; {
					var err error
					if _, done, err = i.Next(dst); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkNextOfNothing is the longest that a call of Next takes that yields nothing.
func BenchmarkNextOfNothing(b *testing.B) {
	var w bitWriter
	for range 2 * maxBlocks {
		w.emptyDynamic()
	}
	dst := make([]byte, 16<<10)
	for b.Loop() {
		var i Inflater
		i.Start(w.out)
		if n, done, err := i.Next(dst); n > 0 || done || err != nil {
			b.Fatal(n, done, err)
		}
		i.Abandon()
	}
}
