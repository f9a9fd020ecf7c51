package deflate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"unsafe"

	"github.com/klauspost/compress/flate"
)

// kinds are all levels and windows.
func kinds(each func(name string, windowBits uint8, c Compressor)) {
	for level := 1; level <= maxLevel; level++ {
		each(fmt.Sprintf("level %d", level), maxWindowBits, NewCompressor(level, 0))
	}
	for bits := uint8(minWindowBits); bits <= maxWindowBits; bits++ {
		each(fmt.Sprintf("window %d", bits), bits, NewCompressor(1, bits))
	}
}

// check inflates a message in every way there is and returns how far its matches reach.
func check(t testing.TB, message, want []byte) (farthest int) {
	t.Helper()
	got, err := inflate(message, 4096)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the Inflater got %d bytes of %d, %v", len(got), len(want), err)
	}
	if got, err = inflateStd(message); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("compress/flate got %d bytes of %d, %v", len(got), len(want), err)
	}
	got, farthest, err = walk(message)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the walker got %d bytes of %d, %v", len(got), len(want), err)
	}
	return farthest
}

// TestCompressor sends messages of many sizes one after another.
func TestCompressor(t *testing.T) {
	kinds(func(name string, windowBits uint8, c Compressor) {
		for _, data := range [][]byte{quotes(150000), noise(150000), make([]byte, 150000)} {
			for _, size := range []int{0, 1, 2, 5, 31, 32, 33, 64, 127, 128, 300, 4096, 65535, 65536, 150000} {
				prefix := []byte("before")
				message := c.Finish(c.Write(prefix, data[:size]))
				if c.w != nil {
					t.Fatalf("%s: a writer is held between messages", name)
				}
				if !bytes.HasPrefix(message, prefix) {
					t.Fatalf("%s: dst was overwritten", name)
				}
				message = message[len(prefix):]
				if size == 0 && !bytes.Equal(message, []byte{0}) {
					t.Fatalf("%s: an empty message is % x", name, message)
				}
				if len(message) > size+size/1000+16 {
					t.Errorf("%s: %d bytes became %d", name, size, len(message))
				}
				if farthest := check(t, message, data[:size]); farthest > 1<<windowBits {
					t.Errorf("%s: a match reaches %d bytes back", name, farthest)
				}
			}
		}
	})
}

// TestWindows shows that no match leaves a window, with repetitions just inside and just
// outside of it, and that the test would see one.
func TestWindows(t *testing.T) {
	kinds(func(name string, windowBits uint8, c Compressor) {
		reached := 0
		for _, off := range []int{-20, -4, -1, 0, 1, 2} {
			// A text without repetition, of a period near the size of the window.
			period := noise(1<<windowBits + off)
			data := bytes.Repeat(period, 3+4096/len(period))
			var message []byte
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1000)
				message = c.Write(message, rest[:n])
				rest = rest[n:]
			}
			farthest := check(t, c.Finish(message), data)
			reached = max(reached, farthest)
			if farthest > 1<<windowBits {
				t.Errorf("%s, period %d: a match reaches %d bytes back", name, len(period), farthest)
			}
		}
		if reached < 1<<windowBits-20 {
			t.Errorf("%s: no match reaches farther than %d", name, reached)
		}
	})
}

// TestWriteSplits cuts a message at every byte, and into bytes.
func TestWriteSplits(t *testing.T) {
	data, step := append(quotes(400), noise(100)...), 1
	if raceEnabled {
		step = 23
	}
	kinds(func(name string, _ uint8, c Compressor) {
		for n := 0; n <= len(data); n += step {
			var message []byte
			message = c.Write(message, data[:n])
			message = c.Write(message, data[n:])
			check(t, c.Finish(message), data)
		}
		var message []byte
		for i := range data {
			message = c.Write(message, data[i:i+1])
		}
		check(t, c.Finish(message), data)
	})
}

// TestCompressorAbandon gives a message up; the next one knows nothing of it.
func TestCompressorAbandon(t *testing.T) {
	kinds(func(name string, _ uint8, c Compressor) {
		c.Abandon()
		for _, n := range []int{10, 1000, 200000} {
			c.Write(nil, quotes(n))
			c.Abandon()
			if c.w != nil {
				t.Fatalf("%s: a writer is held", name)
			}
			check(t, c.Finish(c.Write(nil, quotes(1000))), quotes(1000))
		}
	})
}

func TestNewCompressorRefuses(t *testing.T) {
	for _, tt := range []struct {
		level int
		bits  uint8
	}{{0, 0}, {10, 0}, {-2, 15}, {1, 7}, {1, 16}, {1, 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("level %d, %d bits: no panic", tt.level, tt.bits)
				}
			}()
			NewCompressor(tt.level, tt.bits)
		}()
	}
	if (NewCompressor(1, 15) != Compressor{}) {
		t.Error("the zero value is not level 1 with the full window")
	}
}

// TestMemory measures what the pools are made of. The figures are in the package comment.
func TestMemory(t *testing.T) {
	if a, b := unsafe.Sizeof(Compressor{}), unsafe.Sizeof(Inflater{}); a > 16 || b > 8 {
		t.Errorf("a session holds %d and %d bytes", a, b)
	}
	const count = 8
	measure := func(name string, limit uint64, make func() any) {
		var before, after runtime.MemStats
		var kept [count]any
		for range 3 { // empties the pools too
			runtime.GC()
		}
		runtime.ReadMemStats(&before)
		for i := range kept {
			kept[i] = make()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		size := (after.HeapAlloc - before.HeapAlloc) / count
		if t.Logf("%s: %d KiB", name, size>>10); size > limit {
			t.Errorf("%s: %d bytes", name, size)
		}
		runtime.KeepAlive(kept)
	}
	data := quotes(100000)
	kinds(func(name string, _ uint8, c Compressor) {
		measure(name, 1600<<10, func() any {
			w := newWriter(c.kind)
			w.fl.Write(data)
			w.fl.Flush()
			w.take()
			return w
		})
	})
	measure("stream", 72<<10, func() any { return new(stream) })
}

// FuzzRoundTrip compresses three messages in pieces and inflates each by itself.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("Hello"), uint8(0), uint16(2), uint16(1))
	f.Add([]byte(""), uint8(9), uint16(0), uint16(0))
	f.Add(quotes(2000), uint8(8), uint16(700), uint16(99))
	f.Add(noise(1500), uint8(10), uint16(1), uint16(5000))
	f.Add([]byte("abc"), uint8(15), uint16(1), uint16(3000))
	f.Fuzz(func(t *testing.T, data []byte, which uint8, cut, times uint16) {
		bits, c := uint8(maxWindowBits), Compressor{kind: kind(which) % kind(len(writers))}
		if c.kind >= maxLevel {
			bits = uint8(c.kind) - maxLevel + minWindowBits
		}
		if len(data) > 4096 {
			return
		}
		n := int(cut) % (len(data) + 1)
		long := bytes.Repeat(data, min(int(times), 10000/(len(data)+1)))
		for _, pieces := range [][][]byte{{data[:n], data[n:]}, {long, data[n:], data[:n]}, {data}} {
			var message, want []byte
			for _, p := range pieces {
				message = c.Write(message, p)
				want = append(want, p...)
			}
			if farthest := check(t, c.Finish(message), want); farthest > 1<<bits {
				t.Fatalf("a match reaches %d bytes back in a window of %d bits", farthest, bits)
			}
		}
	})
}

// TestInflatesKlauspost inflates what the library makes in ways that a Compressor does not:
// all levels, several flushes, BFINAL.
func TestInflatesKlauspost(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for level := -2; level <= maxLevel; level++ {
		var out, want bytes.Buffer
		w, err := flate.NewWriter(&out, level)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			p := quotes(random.IntN(5000))
			want.Write(p)
			w.Write(p)
			switch random.IntN(5) {
			case 0:
				w.Flush()
			case 1: // the end of a stream; the next begins at a byte
				w.Close()
				w.Reset(&out)
			}
		}
		w.Flush()
		got, err := inflate(out.Bytes()[:out.Len()-tailBytes], 999)
		if err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("level %d: got %d bytes of %d, %v", level, len(got), want.Len(), err)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	for _, kind := range []struct {
		name string
		c    Compressor
	}{{"level=1", NewCompressor(1, 0)}, {"level=6", NewCompressor(6, 0)}, {"level=9", NewCompressor(9, 0)}, {"window=10", NewCompressor(1, 10)}} {
		for _, size := range []int{64, 1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, size), func(b *testing.B) {
				c, data := kind.c, quotes(size)
				dst := make([]byte, 0, 32<<10)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					dst = c.Finish(c.Write(dst[:0], data))
				}
				b.ReportMetric(float64(len(dst)), "B/message")
			})
		}
	}
}
