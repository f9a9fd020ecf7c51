package test

import (
	"bytes"
	wire "encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gobwas/ws"
)

// fr is a frame of a script: what stands in its header, and its payload without a mask.
type fr struct {
	fin  bool
	rsv  byte
	op   ws.OpCode
	body []byte
}

func textFr(s string) fr   { return fr{fin: true, op: ws.OpText, body: []byte(s)} }
func binaryFr(s string) fr { return fr{fin: true, op: ws.OpBinary, body: []byte(s)} }
func pingFr(s string) fr   { return fr{fin: true, op: ws.OpPing, body: []byte(s)} }
func pongFr(s string) fr   { return fr{fin: true, op: ws.OpPong, body: []byte(s)} }

// moreFr continues a message and lastFr ends it.
func moreFr(s string) fr { return fr{op: ws.OpContinuation, body: []byte(s)} }
func lastFr(s string) fr { return fr{fin: true, op: ws.OpContinuation, body: []byte(s)} }

func closeFr(code int, reason string) fr {
	return closeBodyFr(string(wire.BigEndian.AppendUint16(nil, uint16(code))) + reason)
}

func closeBodyFr(body string) fr { return fr{fin: true, op: ws.OpClose, body: []byte(body)} }

// reserved is the frame with reserved bits, of which 4 is RSV1.
func (f fr) reserved(bits byte) fr { f.rsv = bits; return f }

// begun is the frame as the first of several.
func (f fr) begun() fr { f.fin = false; return f }

// opcode is the frame with another opcode.
func (f fr) opcode(op byte) fr { f.op = ws.OpCode(op); return f }

// fragments is the message in fragments of n bytes; an empty message is one of them.
func (f fr) fragments(n int) (list []fr) {
	for body := f.body; ; f.op = ws.OpContinuation {
		n := min(n, len(body))
		list = append(list, fr{fin: n == len(body), op: f.op, body: body[:n]})
		if body = body[n:]; len(body) == 0 {
			return list
		}
	}
}

// bytes is the frame on the wire.
func (f fr) bytes(masked bool) []byte {
	p := frameBytes(f.fin, f.op, f.body, masked)
	p[0] |= f.rsv << 4
	return p
}

func (f fr) equal(o fr) bool {
	return f.fin == o.fin && f.rsv == o.rsv && f.op == o.op && bytes.Equal(f.body, o.body)
}

// String describes the frame; where the payload is long, by its length.
func (f fr) String() string {
	name := fmt.Sprintf("opcode %d", f.op)
	if known, ok := map[ws.OpCode]string{0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}[f.op]; ok {
		name = known
	}
	if !f.fin {
		name += "+"
	}
	if f.rsv != 0 {
		name += fmt.Sprintf(" RSV %d", f.rsv)
	}
	if f.op == ws.OpClose && len(f.body) > 1 {
		return fmt.Sprintf("%s %d %.60q", name, wire.BigEndian.Uint16(f.body), f.body[2:])
	}
	return fmt.Sprintf("%s %.40q of %d bytes", name, f.body, len(f.body))
}

// answer is what an end that echoes says to a frame; ok is false for nothing.
func (f fr) answer() (answer fr, ok bool) {
	switch f.op {
	case ws.OpPing:
		return pongFr(string(f.body)), true
	case ws.OpPong:
		return fr{}, false
	}
	return f, true
}

func answersTo(frames []fr) (answers []fr) {
	for _, f := range frames {
		if a, ok := f.answer(); ok {
			answers = append(answers, a)
		}
	}
	return answers
}

// take reads a frame and holds its header to RFC 6455 §5.2. With an error, begun says that
// it is inside the payload, of which f has what came.
func (r *rawEnd) take() (f fr, begun bool, err error) {
	two, err := r.r.Peek(2)
	if err != nil {
		if len(two) > 0 {
			err = fmt.Errorf("inside a header: %v", err)
		}
		return f, false, err
	}
	form := two[1] & 0x7f
	h, err := ws.ReadHeader(r.r)
	switch {
	case err != nil:
		return f, false, fmt.Errorf("inside a header: %v", err)
	case h.Masked == r.client:
		return f, false, fmt.Errorf("masked: %v", h.Masked)
	case form == 126 && h.Length < 126, form == 127 && h.Length < 1<<16:
		return f, false, fmt.Errorf("length %d in form %d", h.Length, form)
	case h.Length > 64<<20:
		return f, false, fmt.Errorf("length %d", h.Length)
	}
	f = fr{fin: h.Fin, rsv: h.Rsv, op: h.OpCode, body: make([]byte, h.Length)}
	n, err := io.ReadFull(r.r, f.body)
	if f.body = f.body[:n]; h.Masked {
		ws.Cipher(f.body, h.Mask, 0)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return f, true, err
}

// prose is valid UTF-8 of n bytes whose characters have one to four bytes.
func prose(n int) string {
	const phrase = "aé€𐍈"
	s := strings.Repeat(phrase, n/len(phrase))
	return s + strings.Repeat("z", n-len(s))
}

// blob is n bytes that are not UTF-8.
func blob(n int) string { return strings.Repeat("\xfe\x00\xff", n/3+1)[:n] }
