package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/gobwas/ws"
)

// seen is what a decoder made of a stream.
type seen struct {
	headers []ws.Header
	raw     []byte // all header bytes, in order
	err     error
}

// walk decodes stream given in pieces and skips the payloads.
func walk(d *Decoder, pieces ...[]byte) (s seen) {
	var skip int64
	for _, p := range pieces {
		for len(p) > 0 {
			if skip > 0 {
				n := min(skip, int64(len(p)))
				skip -= n
				p = p[n:]
				continue
			}
			h, raw, n, err := d.Next(p)
			if err != nil {
				s.err = err
				return s
			}
			if raw != nil {
				s.headers = append(s.headers, h)
				s.raw = append(s.raw, raw...)
				skip = h.Length
			}
			p = p[n:]
		}
	}
	return s
}

func (a seen) equal(b seen) bool {
	if !errors.Is(a.err, b.err) || len(a.headers) != len(b.headers) || !bytes.Equal(a.raw, b.raw) {
		return false
	}
	for i := range a.headers {
		if a.headers[i] != b.headers[i] {
			return false
		}
	}
	return true
}

func bytewise(p []byte) (pieces [][]byte) {
	for i := range p {
		pieces = append(pieces, p[i:i+1])
	}
	return pieces
}

func header(first byte, mask bool, length uint64, form int) []byte {
	b := []byte{first, 0}
	switch form {
	case 7:
		b[1] = byte(length)
	case 16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(length))
	case 64:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, length)
	}
	if mask {
		b[1] |= 0x80
		b = append(b, 1, 2, 3, 4)
	}
	return b
}

func TestDecoderRules(t *testing.T) {
	long := make([]byte, 125)
	for _, tt := range []struct {
		name   string
		masked bool
		rsv    byte
		stream []byte
		frames int
		err    error
	}{
		{"empty text", false, 0, header(0x81, false, 0, 7), 1, nil},
		{"masked text", true, 0, append(header(0x81, true, 3, 7), 'a', 'b', 'c'), 1, nil},
		{"125 bytes", false, 0, append(header(0x82, false, 125, 7), long...), 1, nil},
		{"126 bytes", false, 0, header(0x82, false, 126, 16), 1, nil},
		{"65535 bytes", true, 0, header(0x82, true, 65535, 16), 1, nil},
		{"65536 bytes", true, 0, header(0x82, true, 65536, 64), 1, nil},
		{"largest length", false, 0, header(0x82, false, 1<<63-1, 64), 1, nil},
		{"length top bit", false, 0, header(0x82, false, 1<<63, 64), 0, ErrLengthTopBit},
		{"125 in 16 bits", false, 0, header(0x82, false, 125, 16), 0, ErrLengthNotMinimal},
		{"0 in 16 bits", true, 0, header(0x82, true, 0, 16), 0, ErrLengthNotMinimal},
		{"65535 in 64 bits", false, 0, header(0x82, false, 65535, 64), 0, ErrLengthNotMinimal},
		{"rsv1", false, 0, header(0xc1, false, 0, 7), 0, ErrReservedBits},
		{"rsv2", false, 0, header(0xa1, false, 0, 7), 0, ErrReservedBits},
		{"rsv3", true, 0, header(0x91, true, 0, 7), 0, ErrReservedBits},
		{"rsv1 negotiated", false, ws.Rsv(true, false, false), header(0xc1, false, 0, 7), 1, nil},
		{"rsv2 beside a negotiated rsv1", false, ws.Rsv(true, false, false), header(0xe1, false, 0, 7), 0, ErrReservedBits},
		{"rsv1 on a control frame", false, ws.Rsv(true, false, false), header(0xc9, false, 0, 7), 0, ErrReservedBits},
		{"unmasked client", true, 0, header(0x81, false, 0, 7), 0, ErrUnmasked},
		{"masked server", false, 0, header(0x81, true, 0, 7), 0, ErrMasked},
		{"ping of 125", false, 0, append(header(0x89, false, 125, 7), long...), 1, nil},
		{"ping of 126", false, 0, header(0x89, false, 126, 16), 0, ErrControlTooLong},
		{"close of 65536", true, 0, header(0x88, true, 65536, 64), 0, ErrControlTooLong},
		{"fragmented ping", false, 0, header(0x09, false, 0, 7), 0, ErrControlFragment},
		{"continuation first", false, 0, header(0x80, false, 0, 7), 0, ErrContinuation},
		{"continuation after a whole message", false, 0, append(header(0x81, false, 0, 7), header(0x80, false, 0, 7)...), 1, ErrContinuation},
		{"fragments", false, 0, bytes.Join([][]byte{header(0x01, false, 0, 7), header(0x00, false, 0, 7), header(0x80, false, 0, 7)}, nil), 3, nil},
		{"ping between fragments", false, 0, bytes.Join([][]byte{header(0x01, false, 0, 7), header(0x89, false, 0, 7), header(0x80, false, 0, 7)}, nil), 3, nil},
		{"text between fragments", false, 0, append(header(0x01, false, 0, 7), header(0x81, false, 0, 7)...), 1, ErrInterleaved},
		{"binary between fragments", true, 0, append(header(0x01, true, 0, 7), header(0x02, true, 0, 7)...), 1, ErrInterleaved},
	} {
		t.Run(tt.name, func(t *testing.T) {
			whole := walk(&Decoder{Masked: tt.masked, RSV: tt.rsv}, tt.stream)
			if !errors.Is(whole.err, tt.err) || len(whole.headers) != tt.frames {
				t.Fatalf("got %d frames, error %v; want %d, %v", len(whole.headers), whole.err, tt.frames, tt.err)
			}
			for cut := range len(tt.stream) + 1 {
				got := walk(&Decoder{Masked: tt.masked, RSV: tt.rsv}, tt.stream[:cut], tt.stream[cut:])
				if !got.equal(whole) {
					t.Fatalf("cut at %d: got %+v, want %+v", cut, got, whole)
				}
			}
			if got := walk(&Decoder{Masked: tt.masked, RSV: tt.rsv}, bytewise(tt.stream)...); !got.equal(whole) {
				t.Fatalf("byte by byte: got %+v, want %+v", got, whole)
			}
		})
	}
}

func TestDecoderReservedOpCodes(t *testing.T) {
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		if got := walk(&Decoder{}, header(0x80|op, false, 0, 7)); !errors.Is(got.err, ErrReservedOpCode) {
			t.Errorf("opcode %d: got %v, want %v", op, got.err, ErrReservedOpCode)
		}
	}
}

// A breach shows with the first byte that makes it one.
func TestDecoderFailsEarly(t *testing.T) {
	for first, want := range map[byte]error{0x83: ErrReservedOpCode, 0x09: ErrControlFragment, 0xc1: ErrReservedBits, 0x80: ErrContinuation} {
		if _, _, _, err := (&Decoder{}).Next([]byte{first}); !errors.Is(err, want) {
			t.Errorf("first byte %#x alone: got %v, want %v", first, err, want)
		}
	}
	if _, _, _, err := (&Decoder{Masked: true}).Next([]byte{0x82, 127}); !errors.Is(err, ErrUnmasked) {
		t.Errorf("two bytes of ten: got %v, want %v", err, ErrUnmasked)
	}
}

func TestDecoderDoesNotAllocate(t *testing.T) {
	stream := append(header(0x81, true, 5, 7), "hello"...)
	d := Decoder{Masked: true}
	if n := testing.AllocsPerRun(100, func() {
		if _, raw, _, err := d.Next(stream); err != nil || raw == nil {
			t.Fatal("no header", err)
		}
		d.Next(stream[:3])
		d.Next(stream[3:])
	}); n != 0 {
		t.Errorf("%v allocations per frame, want 0", n)
	}
}

// FuzzDecoder holds the decoder against gobwas/ws, where that is strict, and against
// itself with the stream cut elsewhere.
func FuzzDecoder(f *testing.F) {
	for _, length := range []uint64{0, 1, 125, 126, 65535, 65536} {
		for _, form := range []int{7, 16, 64} {
			for _, first := range []byte{0x81, 0x01, 0x00, 0x80, 0x88, 0x89, 0xc2} {
				f.Add(header(first, length%2 == 0, length, form), true, uint8(3))
			}
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, masked bool, cut uint8) {
		whole := walk(&Decoder{Masked: masked}, stream)
		if got := walk(&Decoder{Masked: masked}, bytewise(stream)...); !got.equal(whole) {
			t.Fatalf("byte by byte: got %+v, want %+v", got, whole)
		}
		k := int(cut) % (len(stream) + 1)
		if got := walk(&Decoder{Masked: masked}, stream[:k], stream[k:]); !got.equal(whole) {
			t.Fatalf("cut at %d: got %+v, want %+v", k, got, whole)
		}
		if err := compare(stream, masked, whole); err != nil {
			t.Fatal(err)
		}
	})
}

// compare reads stream with gobwas/ws and says where it disagrees.
func compare(stream []byte, masked bool, got seen) error {
	state := ws.StateClientSide
	if masked {
		state = ws.StateServerSide
	}
	r := bytes.NewReader(stream)
	for i := 0; ; i++ {
		h, err := ws.ReadHeader(r)
		if errors.Is(err, ws.ErrHeaderLengthMSB) {
			if !errors.Is(got.err, ErrLengthTopBit) && got.err == nil {
				return errors.New("top bit accepted")
			}
			return nil
		}
		if err != nil { // the stream ends inside a header
			return nil
		}
		if err := ws.CheckHeader(h, state); err != nil {
			if got.err == nil || len(got.headers) != i {
				return fmt.Errorf("frame %d: accepted what gobwas/ws refuses: %w", i, err)
			}
			return nil
		}
		if len(got.headers) <= i {
			if errors.Is(got.err, ErrLengthNotMinimal) || errors.Is(got.err, ErrControlTooLong) && h.Length <= MaxControlBytes {
				return nil // gobwas/ws accepts lengths that are not in their shortest form
			}
			return fmt.Errorf("frame %d: refused what gobwas/ws accepts: %w", i, got.err)
		}
		if got.headers[i] != h {
			return fmt.Errorf("frame %d: got %+v, gobwas/ws has %+v", i, got.headers[i], h)
		}
		if h.OpCode.IsData() || h.OpCode == ws.OpContinuation {
			state = state.Clear(ws.StateFragmented)
			if !h.Fin {
				state = state.Set(ws.StateFragmented)
			}
		}
		if h.Length > int64(r.Len()) {
			return nil
		}
		r.Seek(h.Length, 1)
	}
}

func BenchmarkDecoder(b *testing.B) {
	stream := append(header(0x82, true, 64, 7), make([]byte, 64)...)
	d := Decoder{Masked: true}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := d.Next(stream); err != nil {
			b.Fatal(err)
		}
	}
}
