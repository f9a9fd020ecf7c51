package frame

import (
	"crypto/rand"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// MaxReasonBytes is the longest reason of a Close frame: a control frame's payload
// less the code (RFC 6455 §5.5).
const MaxReasonBytes = MaxControlBytes - 2

// ParseClose reads the unmasked body of a Close frame (RFC 6455 §5.5.1). An empty body
// is code 1005, which stands for "no code" and is never sent. An error is an *[Error].
// The reason is a copy.
func ParseClose(body []byte) (code ws.StatusCode, reason string, err error) {
	switch len(body) {
	case 0:
		return ws.StatusNoStatusRcvd, "", nil
	case 1:
		return 0, "", ErrCloseLength
	}
	code = ws.StatusCode(binary.BigEndian.Uint16(body))
	if !Sendable(code) {
		return code, "", ErrCloseCode
	}
	if !utf8.Valid(body[2:]) {
		return code, "", ErrCloseReason
	}
	return code, string(body[2:]), nil
}

// Sendable reports whether code may stand in a Close frame: 1000–1003 and 1007–1014 of
// the IANA registry, 3000–3999 and 4000–4999 (RFC 6455 §7.4). 1004, 1005, 1006 and 1015
// never go over the wire.
func Sendable(code ws.StatusCode) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}

// AppendClose appends a Close frame with code and reason to dst. A code that may not
// be sent leaves the body empty; a reason that is too long is cut between characters.
// masked is true for frames toward a server.
func AppendClose(dst []byte, code ws.StatusCode, reason string, masked bool) []byte {
	var body [MaxControlBytes]byte
	n := 0
	if Sendable(code) {
		binary.BigEndian.PutUint16(body[:], uint16(code))
		n = 2 + copy(body[2:], cut(reason))
	}
	return Append(dst, ws.OpClose, body[:n], masked)
}

// Append appends a control frame with payload to dst. payload is at most
// [MaxControlBytes] long and is not kept. A masked frame gets a fresh mask from
// crypto/rand, which RFC 6455 §5.3 asks to be unpredictable.
func Append(dst []byte, op ws.OpCode, payload []byte, masked bool) []byte {
	if len(payload) > MaxControlBytes {
		panic("frame: control frame over 125 bytes")
	}
	dst = append(dst, 0x80|byte(op))
	if !masked {
		dst = append(dst, byte(len(payload)))
		return append(dst, payload...)
	}
	var mask [4]byte
	rand.Read(mask[:])
	dst = append(dst, 0x80|byte(len(payload)))
	dst = append(dst, mask[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	ws.Cipher(dst[start:], mask, 0)
	return dst
}

func cut(reason string) string {
	reason = strings.ToValidUTF8(reason, "")
	if len(reason) <= MaxReasonBytes {
		return reason
	}
	end := MaxReasonBytes
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}
