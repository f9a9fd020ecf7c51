package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// FuzzDifferential composes frames, in order and out of it, feeds them in pieces, and asks
// gobwas/wsutil twice: what it makes of the stream itself, and what a peer makes of what
// went on. Both say the same messages and control frames, and the relay refuses what
// wsutil refuses, with the same kind of code. Where wsutil is more lenient or later than
// RFC 6455 has it:
//
//   - it takes lengths that are not in their shortest form: firstPadded;
//   - it judges a header when that is whole, the relay at the first wrong octet: inHeader;
//   - it knows no close codes that were registered later, and takes those above 4999:
//     checkClose.
//
// It would take reserved bits in a state with extensions; there are none here.
func FuzzDifferential(f *testing.F) {
	f.Add([]byte("\x00\x05hello\x80\x02\x01\x02\x07\x03bye\x87\x00\x09\x02\x03\xe8"), []byte{3}, true)
	f.Add([]byte("\x02\x04caf\xc3\x07\x01p\x05\x01\xa9\x09\x05\x0f\xa0bye"), []byte{1}, false)
	f.Add([]byte("\x00\x04caf\xc3\x00\x01x"), []byte{0, 7}, true)
	f.Add([]byte("\x0e\x5e\x82\x01x\x04\x00\x7e\x05\x00\x09\x00"), []byte{200}, false)
	f.Add([]byte("\x0a\x40\x00\x01x"), []byte{}, true)
	f.Add([]byte("\x0c\x02\x00\x01x"), []byte{}, true)
	f.Add([]byte("\x0b\x00\x01x"), []byte{0}, false)
	f.Add([]byte("\x0d\x04\x00\x02xy\x0f\x03\x81\x7e\x00"), []byte{2, 1}, false)
	f.Add([]byte("\x00\x00\x09\x02\x03\xf4"), []byte{4}, true)
	f.Fuzz(diff)
}

// diff is one run of FuzzDifferential.
func diff(t *testing.T, script, cuts []byte, client bool) {
	from := Backend
	if client {
		from = Client
	}
	stream := compose(script, from)
	g := newRig(Options{ValidateUTF8: true})
	for i, rest := 0, stream; len(rest) > 0; i++ {
		n := len(rest)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		g.feed(from, rest[:n])
		rest = rest[n:]
	}
	checkOutput(t, g, Client)
	checkOutput(t, g, Backend)

	padded := firstPadded(stream)
	want := ask(stream[:padded], from)
	if want.open() && padded < len(stream) {
		want.refused, want.code = true, ws.StatusProtocolError
	}
	got := ask(g.sent[peer(from)], from)
	back := ask(g.sent[from], peer(from))
	refused := len(g.errs) > 0
	switch {
	case refused && want.open() && want.inHeader:
		want.refused, want.code = true, ws.StatusProtocolError
	case refused != want.refused:
		t.Fatalf("refused: %v (%v), wsutil says %v (%v)\n% x", refused, g.errs, want.refused, want.err, stream)
	}
	if want.refused {
		ours := ws.StatusGoingAway
		if from == Backend {
			ours = ws.StatusInternalServerError
		}
		if back.code != want.code || !got.open() && got.code != ours {
			t.Fatalf("Close %d and %d, want %d and %d\n% x", back.code, got.code, want.code, ours, stream)
		}
		if got.open() && !got.inFrame {
			t.Fatalf("between frames the peer got no Close\n% x", stream)
		}
	} else if got.code != want.code || got.reason != want.reason || len(g.sent[from]) > 0 {
		t.Fatalf("Close %d %q went on as %d %q, and % x back\n% x", want.code, want.reason, got.code, got.reason, g.sent[from], stream)
	}
	if got.refused || !slices.Equal(got.said, want.said) {
		t.Fatalf("went on:\n%s (%v)\nwas sent:\n%s\n% x", strings.Join(got.said, "\n"), got.err, strings.Join(want.said, "\n"), stream)
	}
}

// compose makes frames as the script has them. What a step changes in the frame behind it
// may well leave it legal.
func compose(script []byte, from Side) (stream []byte) {
	take := func(n int) []byte {
		n = min(n, len(script))
		p := script[:n:n]
		script = script[n:]
		return p
	}
	one := func() byte { return append(take(1), 0)[0] }
	var d disorder
	for len(script) > 0 {
		step := one()
		fin, op := true, ws.OpText+ws.OpCode(step>>7)
		switch step % 16 {
		case 0, 1, 14:
		case 2, 3:
			fin = false
		case 4:
			fin, op = false, ws.OpContinuation
		case 5, 6:
			op = ws.OpContinuation
		case 7, 8:
			op = ws.OpPing + ws.OpCode(step>>7)
		case 9:
			op = ws.OpClose
		case 10:
			d.first = one()
			continue
		case 11:
			d.second = 0x80
			continue
		case 12:
			d.form = one() % 3
			continue
		case 13:
			d.more = int(one())
			continue
		case 15:
			stream = append(stream, take(int(one()))...)
			continue
		}
		body := []byte(strings.Repeat("aé€𐍈", 1+int(step>>4&7)))
		if step%16 != 14 {
			body = bytes.Clone(take(int(one())))
		}
		if step&0x70 == 0x70 {
			body = bytes.Repeat(append(body, 'x'), 1000)
		}
		stream = append(stream, d.header(from, fin, op, len(body))...)
		if from == Client {
			ws.Cipher(body, diffMask, 0)
		}
		stream, d = append(stream, body...), disorder{}
	}
	return stream
}

var diffMask = [4]byte{0x5a, 0xa5, 0x0f, 0xf0}

// disorder is what is changed in a header: bits that are flipped, the least form of the
// length, and what it is too large by.
type disorder struct {
	first, second, form byte
	more                int
}

func (d disorder) header(from Side, fin bool, op ws.OpCode, n int) []byte {
	n += d.more
	p := []byte{byte(op), byte(n)}
	switch {
	case d.form == 2 || n > 0xffff:
		p[1] = 127
		p = binary.BigEndian.AppendUint64(p, uint64(n))
	case d.form == 1 || n > 125:
		p[1] = 126
		p = binary.BigEndian.AppendUint16(p, uint16(n))
	}
	if fin {
		p[0] |= 0x80
	}
	if from == Client {
		p[1] |= 0x80
		p = append(p, diffMask[:]...)
	}
	p[0] ^= d.first
	p[1] ^= d.second
	return p
}

// firstPadded is where the first frame begins whose length is not in its shortest form,
// or the length of the stream.
func firstPadded(stream []byte) int {
	r := bytes.NewReader(stream)
	for {
		at := len(stream) - r.Len()
		h, err := ws.ReadHeader(r)
		if err != nil {
			return len(stream)
		}
		switch form := stream[at+1] & 0x7f; {
		case form == 126 && h.Length < 126, form == 127 && h.Length <= 0xffff:
			return at
		case h.Length > int64(r.Len()):
			return len(stream)
		}
		r.Seek(h.Length, io.SeekCurrent)
	}
}

// opinion is what wsutil makes of a stream.
type opinion struct {
	said    []string // whole messages, Pings and Pongs in the order of their ends
	refused bool
	err     error
	code    ws.StatusCode // for what is refused, or of the Close; 0 without either
	reason  string

	inHeader, inFrame bool // where the stream ends
}

// open reports whether the stream is neither refused nor closed.
func (o *opinion) open() bool { return o.code == 0 }

// ask has wsutil read what a side sends.
func ask(stream []byte, from Side) (o opinion) {
	state := ws.StateClientSide
	if from == Client {
		state = ws.StateServerSide
	}
	src := bytes.NewReader(stream)
	take := func(h ws.Header, body io.Reader) error {
		p, err := io.ReadAll(body)
		switch {
		case err != nil:
			return err
		case int64(len(p)) < h.Length && h.OpCode.IsControl():
			return io.ErrUnexpectedEOF
		case h.OpCode == ws.OpClose:
			return o.close(p)
		}
		o.said = append(o.said, fmt.Sprintf("%d %x", h.OpCode, p))
		return nil
	}
	r := &wsutil.Reader{Source: src, State: state, CheckUTF8: true, OnIntermediate: take}
	for o.err == nil {
		var h ws.Header
		if h, o.err = r.NextFrame(); o.err == nil {
			o.err = take(h, r)
		}
	}
	switch {
	case errors.Is(o.err, errClosed):
	case errors.Is(o.err, io.EOF), errors.Is(o.err, io.ErrUnexpectedEOF):
		o.inHeader, o.inFrame = cutAt(stream)
	case errors.Is(o.err, wsutil.ErrInvalidUTF8), errors.Is(o.err, ws.ErrProtocolInvalidUTF8):
		o.refused, o.code = true, ws.StatusInvalidFramePayloadData
	default:
		o.refused, o.code = true, ws.StatusProtocolError
	}
	return o
}

// close takes the body of a Close. The error of a good one is errClosed.
func (o *opinion) close(body []byte) error {
	o.code = ws.StatusNoStatusRcvd
	if len(body) > 0 {
		code, reason := ws.ParseCloseFrameData(body)
		if err := checkClose(code, reason); err != nil {
			return err
		}
		o.code, o.reason = code, reason
	}
	return errClosed
}

// checkClose is ws.CheckCloseFrameData with what has been registered since (1012 to 1014,
// IANA) and without what RFC 6455 §7.4.2 leaves no room for.
func checkClose(code ws.StatusCode, reason string) error {
	switch {
	case code >= 1012 && code <= 1014:
		code = ws.StatusNormalClosure
	case code > 4999:
		return ws.ErrProtocolStatusCodeUnknown
	}
	return ws.CheckCloseFrameData(code, reason)
}

// cutAt says where in a frame the stream ends.
func cutAt(stream []byte) (inHeader, inFrame bool) {
	r := bytes.NewReader(stream)
	for r.Len() > 0 {
		h, err := ws.ReadHeader(r)
		if err != nil {
			return true, true
		}
		if h.Length > int64(r.Len()) {
			return false, true
		}
		r.Seek(h.Length, io.SeekCurrent)
	}
	return false, false
}
