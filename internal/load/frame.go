package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gobwas/ws"
)

// ErrProtocol is what the error of a connection wraps whose peer broke RFC 6455.
var ErrProtocol = errors.New("protocol error")

// frameSink is told what a frameReader finds.
type frameSink interface {
	// frameBegins has the header of a data frame.
	frameBegins(h ws.Header)
	// framePayload has the next piece of it, unmasked; it may be changed in place.
	framePayload(p []byte)
	// frameEnds is the end of the data frame.
	frameEnds(h ws.Header)
	// control has a whole control frame, its payload unmasked.
	control(op ws.OpCode, payload []byte)
}

// frameReader finds frames in a stream that is cut anywhere. It keeps no payload except
// that of a control frame. It is strict where a broken proxy would show, RFC 6455 §5.
type frameReader struct {
	masked bool // what the peer's frames must be

	head    [ws.MaxHeaderSize]byte
	nhead   int
	open    bool // within a frame
	h       ws.Header
	left    int64
	pos     int // of the payload, for its mask
	message bool
	small   [ws.MaxControlFramePayloadSize]byte
	nsmall  int
}

// feed takes the next bytes of the stream, which it may change in place.
func (r *frameReader) feed(p []byte, to frameSink) error {
	for len(p) > 0 {
		if !r.open {
			var err error
			if p, err = r.header(p); err != nil || !r.open {
				return err
			}
			if !r.h.OpCode.IsControl() {
				to.frameBegins(r.h)
			}
		}
		k := int(min(int64(len(p)), r.left))
		piece := p[:k]
		p = p[k:]
		if r.h.Masked && k > 0 {
			ws.Cipher(piece, r.h.Mask, r.pos)
		}
		r.pos += k
		r.left -= int64(k)
		if r.h.OpCode.IsControl() {
			r.nsmall += copy(r.small[r.nsmall:], piece)
		} else if k > 0 {
			to.framePayload(piece)
		}
		if r.left == 0 {
			r.finish(to)
		}
	}
	return nil
}

func (r *frameReader) finish(to frameSink) {
	r.open = false
	if r.h.OpCode.IsControl() {
		to.control(r.h.OpCode, r.small[:r.nsmall])
		return
	}
	to.frameEnds(r.h)
}

// header takes bytes of a header from p and returns the rest; r.open tells whether the
// header is complete.
func (r *frameReader) header(p []byte) ([]byte, error) {
	for {
		need := 2
		if r.nhead >= 2 {
			need = headerSize(r.head[1])
		}
		k := copy(r.head[r.nhead:need], p)
		r.nhead += k
		p = p[k:]
		if r.nhead < need {
			return p, nil
		}
		if need > 2 || headerSize(r.head[1]) == 2 {
			break
		}
	}
	if err := r.parse(); err != nil {
		return p, err
	}
	r.nhead, r.open, r.left, r.pos, r.nsmall = 0, true, r.h.Length, 0, 0
	return p, nil
}

func headerSize(second byte) int {
	n := 2
	switch second & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if second&0x80 != 0 {
		n += 4
	}
	return n
}

// parse reads the complete header in r.head.
func (r *frameReader) parse() error {
	b := r.head[:r.nhead]
	h := ws.Header{Fin: b[0]&0x80 != 0, Rsv: b[0] >> 4 & 7, OpCode: ws.OpCode(b[0] & 0xf), Masked: b[1]&0x80 != 0}
	rest := b[2:]
	switch n := b[1] & 0x7f; n {
	case 126:
		h.Length = int64(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; h.Length < 126 {
			return fmt.Errorf("%w: length %d in 16 bits", ErrProtocol, h.Length)
		}
	case 127:
		h.Length = int64(binary.BigEndian.Uint64(rest))
		if rest = rest[8:]; h.Length < 1<<16 { // or the top bit is set
			return fmt.Errorf("%w: length %d in 64 bits", ErrProtocol, uint64(h.Length))
		}
	default:
		h.Length = int64(n)
	}
	copy(h.Mask[:], rest)
	control := h.OpCode.IsControl()
	switch {
	case h.Rsv != 0:
		return fmt.Errorf("%w: reserved bits %03b", ErrProtocol, h.Rsv)
	case h.Masked != r.masked:
		return fmt.Errorf("%w: masked is %t", ErrProtocol, h.Masked)
	case h.OpCode.IsReserved():
		return fmt.Errorf("%w: opcode %d", ErrProtocol, h.OpCode)
	case control && (!h.Fin || h.Length > ws.MaxControlFramePayloadSize):
		return fmt.Errorf("%w: control frame of %d bytes, final %t", ErrProtocol, h.Length, h.Fin)
	case !control && (h.OpCode == ws.OpContinuation) != r.message:
		return fmt.Errorf("%w: opcode %d within a message is %t", ErrProtocol, h.OpCode, r.message)
	}
	if !control {
		r.message = !h.Fin
	}
	r.h = h
	return nil
}

// frameHead returns the header of a final frame without mask bytes, which follow it if
// masked is true.
func frameHead(op ws.OpCode, length int, masked bool) []byte {
	var b bytes.Buffer
	// A bytes.Buffer takes everything, and the lengths here are never negative.
	ws.WriteHeader(&b, ws.Header{Fin: true, OpCode: op, Masked: masked, Length: int64(length)})
	if masked {
		b.Truncate(b.Len() - 4)
	}
	return b.Bytes()
}

// appendHeader appends the header of an unmasked frame like h.
func appendHeader(b []byte, h ws.Header) []byte {
	first := h.Rsv<<4 | byte(h.OpCode)
	if h.Fin {
		first |= 0x80
	}
	switch {
	case h.Length < 126:
		return append(b, first, byte(h.Length))
	case h.Length < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, first, 126), uint16(h.Length))
	}
	return binary.BigEndian.AppendUint64(append(b, first, 127), uint64(h.Length))
}

// appendControl appends a control frame, masked if mask is not nil.
func appendControl(b []byte, op ws.OpCode, payload []byte, mask *[4]byte) []byte {
	second := byte(len(payload))
	if mask != nil {
		second |= 0x80
	}
	b = append(b, 0x80|byte(op), second)
	if mask != nil {
		b = append(b, mask[:]...)
	}
	at := len(b)
	if b = append(b, payload...); mask != nil {
		ws.Cipher(b[at:], *mask, 0)
	}
	return b
}

// closeCode is the code in the payload of a Close frame; 1005 if it has none.
func closeCode(payload []byte) int {
	if len(payload) < 2 {
		return int(ws.StatusNoStatusRcvd)
	}
	return int(binary.BigEndian.Uint16(payload))
}
