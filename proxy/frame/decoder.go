package frame

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

// MaxHeaderBytes is the length of the longest frame header: two bytes, a 64-bit
// length and a mask (RFC 6455 §5.2).
const MaxHeaderBytes = 14

// MaxControlBytes is the longest payload of a control frame (RFC 6455 §5.5).
const MaxControlBytes = 125

// Decoder reads the frame headers of one direction. The zero value expects a server's
// frames: unmasked, no extension.
type Decoder struct {
	// Masked says whose frames these are: true for a client's, which must be masked,
	// false for a server's, which must not be (RFC 6455 §5.1).
	Masked bool
	// RSV holds the reserved bits that a negotiated extension may set, as in
	// ws.Header.Rsv.
	RSV byte

	fragmented bool
	held       uint8
	buf        [MaxHeaderBytes]byte
}

// Fragmented reports whether a message has begun and its last frame has not come.
func (d *Decoder) Fragmented() bool { return d.fragmented }

// SetFragmented says whether a message has begun before what is decoded first.
func (d *Decoder) SetFragmented(on bool) { d.fragmented = on }

// Next reads the header at the start of p. It returns the header, the bytes that it
// is made of, and how many bytes of p it took. The bytes alias p or the decoder and
// hold until the next call. When p ends inside the header, Next keeps what there is
// and returns raw == nil and n == len(p).
//
// An error is an *[Error]. It comes with the first byte that shows the breach, even if
// the header is not complete.
func (d *Decoder) Next(p []byte) (h ws.Header, raw []byte, n int, err error) {
	raw = p
	if d.held > 0 {
		n = copy(d.buf[d.held:], p)
		raw = d.buf[:int(d.held)+n]
	}
	size, err := d.check(raw)
	if err != nil {
		return h, nil, 0, err
	}
	if len(raw) < size {
		if d.held == 0 {
			copy(d.buf[:], p)
		}
		d.held += uint8(len(p))
		return h, nil, len(p), nil
	}
	raw = raw[:size]
	if h, err = parse(raw); err != nil {
		return h, nil, 0, err
	}
	n = size - int(d.held)
	d.held = 0
	if h.OpCode.IsData() || h.OpCode == ws.OpContinuation {
		d.fragmented = !h.Fin
	}
	return h, raw, n, nil
}

// check applies the rules that the first two bytes can break, as far as they are
// there, and returns the length of the header: at least len(raw)+1 when too little is
// there to know.
func (d *Decoder) check(raw []byte) (size int, err error) {
	if len(raw) == 0 {
		return 1, nil
	}
	if err := d.checkFirst(raw[0]); err != nil {
		return 0, err
	}
	if len(raw) == 1 {
		return 2, nil
	}
	masked, length := raw[1]&0x80 != 0, raw[1]&0x7f
	switch {
	case d.Masked && !masked:
		return 0, ErrUnmasked
	case !d.Masked && masked:
		return 0, ErrMasked
	case raw[0]&0x08 != 0 && length > MaxControlBytes:
		return 0, ErrControlTooLong
	}
	size = 2
	switch length {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	if masked {
		size += 4
	}
	return size, nil
}

// checkFirst applies the rules of the first byte: FIN, RSV and opcode.
func (d *Decoder) checkFirst(b byte) error {
	if rsv := b >> 4 & 0x07; rsv&^d.RSV != 0 {
		return ErrReservedBits
	}
	fin, op := b&0x80 != 0, ws.OpCode(b&0x0f)
	switch {
	case op.IsReserved():
		return ErrReservedOpCode
	case op.IsControl():
		if !fin {
			return ErrControlFragment
		}
		// Extensions that claim RSV bits claim them for data (RFC 7692 §6).
		if b&0x70 != 0 {
			return ErrReservedBits
		}
	case op == ws.OpContinuation:
		if !d.fragmented {
			return ErrContinuation
		}
		// A message says so in its first frame (RFC 7692 §6.1).
		if b&0x70 != 0 {
			return ErrReservedBits
		}
	case d.fragmented:
		return ErrInterleaved
	}
	return nil
}

// parse reads a whole header whose first two bytes have been checked.
func parse(raw []byte) (h ws.Header, err error) {
	h.Fin = raw[0]&0x80 != 0
	h.Rsv = raw[0] >> 4 & 0x07
	h.OpCode = ws.OpCode(raw[0] & 0x0f)
	h.Masked = raw[1]&0x80 != 0
	switch length := raw[1] & 0x7f; length {
	case 126:
		h.Length = int64(binary.BigEndian.Uint16(raw[2:]))
		if h.Length < 126 {
			return h, ErrLengthNotMinimal
		}
	case 127:
		v := binary.BigEndian.Uint64(raw[2:])
		if v>>63 != 0 {
			return h, ErrLengthTopBit
		}
		if v <= 0xffff {
			return h, ErrLengthNotMinimal
		}
		h.Length = int64(v)
	default:
		h.Length = int64(length)
	}
	if h.Masked {
		copy(h.Mask[:], raw[len(raw)-4:])
	}
	return h, nil
}
