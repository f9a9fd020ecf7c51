package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// violation is bytes that a peer must not send, and the code that it gets for them.
type violation struct {
	name  string
	bytes func(from *rawEnd) []byte
	code  int
}

// patched is a frame with other first bytes than it should have.
func patched(op ws.OpCode, payload []byte, first, second byte) func(*rawEnd) []byte {
	return func(r *rawEnd) []byte {
		p := r.frame(true, op, payload)
		p[0] ^= first
		p[1] ^= second
		return p
	}
}

// declared is a header of a binary frame with a length as it stands.
func declared(length ...byte) func(*rawEnd) []byte {
	return func(r *rawEnd) []byte {
		p := append([]byte{0x82}, length...)
		if r.client {
			p[1] |= 0x80
			p = append(p, 1, 2, 3, 4)
		}
		return p
	}
}

func frames(list ...func(*rawEnd) []byte) func(*rawEnd) []byte {
	return func(r *rawEnd) (p []byte) {
		for _, f := range list {
			p = append(p, f(r)...)
		}
		return p
	}
}

func part(fin bool, op ws.OpCode, n int) func(*rawEnd) []byte {
	return func(r *rawEnd) []byte { return r.frame(fin, op, make([]byte, n)) }
}

func closing(body string) func(*rawEnd) []byte {
	return func(r *rawEnd) []byte { return r.frame(true, ws.OpClose, []byte(body)) }
}

// violations are the framing rules of RFC 6455, one by one. They hold for both ends.
func violations() []violation {
	list := []violation{
		{"RSV1", patched(ws.OpText, []byte("x"), 0x40, 0), 1002},
		{"RSV2", patched(ws.OpText, []byte("x"), 0x20, 0), 1002},
		{"RSV3", patched(ws.OpText, []byte("x"), 0x10, 0), 1002},
		{"RSV1 on a Ping", patched(ws.OpPing, []byte("x"), 0x40, 0), 1002},
		{"mask of the other side", patched(ws.OpText, []byte("xxxx"), 0, 0x80), 1002},
		{"fragmented Ping", patched(ws.OpPing, nil, 0x80, 0), 1002},
		{"fragmented Pong", patched(ws.OpPong, nil, 0x80, 0), 1002},
		{"fragmented Close", patched(ws.OpClose, nil, 0x80, 0), 1002},
		{"Ping of 126 bytes", part(true, ws.OpPing, 126), 1002},
		{"Pong of 65536 bytes", part(true, ws.OpPong, 65536), 1002},
		{"Close of 126 bytes", closing("\x03\xe8" + strings.Repeat("x", 124)), 1002},
		{"16-bit length of 125", declared(126, 0, 125), 1002},
		{"64-bit length of 65535", declared(127, 0, 0, 0, 0, 0, 0, 0xff, 0xff), 1002},
		{"64-bit length of 0", declared(127, 0, 0, 0, 0, 0, 0, 0, 0), 1002},
		{"length with the top bit", declared(127, 0x80, 0, 0, 0, 0, 0, 0, 0), 1002},
		{"continuation without a start", part(true, ws.OpContinuation, 1), 1002},
		{"continuation behind the end", frames(part(false, ws.OpText, 1), part(true, ws.OpContinuation, 1), part(true, ws.OpContinuation, 1)), 1002},
		{"text inside a message", frames(part(false, ws.OpText, 1), part(true, ws.OpText, 1)), 1002},
		{"binary inside a message", frames(part(false, ws.OpText, 1), part(false, ws.OpBinary, 1)), 1002},
		{"Close of one byte", closing("\x03"), 1002},
		{"reason that is not UTF-8", closing("\x03\xe8\xff\xfe"), 1007},
		{"reason with half a character", closing("\x03\xe8\xc3"), 1007},
		{"frame over max_frame_size", part(true, ws.OpBinary, 1025), 1009},
		{"frame of 2^62 bytes", declared(127, 0x40, 0, 0, 0, 0, 0, 0, 0), 1009},
		{"message over max_message_size", frames(part(false, ws.OpBinary, 1024), part(false, ws.OpContinuation, 1024),
			part(false, ws.OpContinuation, 1024), part(false, ws.OpContinuation, 1024), part(true, ws.OpContinuation, 1)), 1009},
	}
	for op := byte(3); op < 16; op++ {
		if op < 8 || op > 10 {
			list = append(list, violation{fmt.Sprintf("opcode %#x", op), part(true, ws.OpCode(op), 1), 1002})
		}
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535} {
		list = append(list, violation{fmt.Sprintf("Close %d", code), func(r *rawEnd) []byte { return closeBytes(code, "", r.client) }, 1002})
	}
	return list
}

// TestClientViolations has a client break each rule: it gets the code of the rule, and
// the backend 1001, behind everything that was sent before.
func TestClientViolations(t *testing.T) {
	e := startRaw(t)
	closes := map[int]float64{}
	for _, w := range e.limited() {
		for _, v := range violations() {
			t.Run(w.name+"/"+v.name, func(t *testing.T) {
				c, b := w.connect(t)
				hello := c.frame(true, ws.OpText, []byte("hello"))
				c.write(append(slices.Clone(hello), v.bytes(c)...))
				b.want(hello)
				skipData(b)
				b.wantClose(1001, "")
				b.write(closeBytes(1001, "", false))
				b.Close()
				c.wantClose(v.code, "*")
				c.wantEnd()
				c.write(closeBytes(v.code, "", true))
				c.Close()
				e.ended(t, b, v.code, "client_violation")
				closes[v.code]++
			})
		}
	}
	e.countedCloses(t, closes)
}

// TestBackendViolations has a backend break each rule: it gets the code of the rule, and
// the client 1011, behind everything that was sent before.
func TestBackendViolations(t *testing.T) {
	e := startRaw(t)
	closes := map[int]float64{}
	for _, w := range e.limited() {
		for _, v := range violations() {
			t.Run(w.name+"/"+v.name, func(t *testing.T) {
				c, b := w.connect(t)
				hello := b.frame(true, ws.OpText, []byte("hello"))
				b.write(append(slices.Clone(hello), v.bytes(b)...))
				c.want(hello)
				skipData(c)
				c.wantClose(1011, "")
				c.write(closeBytes(1011, "", true))
				b.wantClose(v.code, "*")
				b.wantEnd()
				b.Close()
				c.wantEnd()
				c.Close()
				e.ended(t, b, 1011, "backend_violation")
				closes[1011]++
			})
		}
	}
	e.countedCloses(t, closes)
}

// limited are the ways to the route with limits.
func (e *rawEdge) limited() []way {
	ways := slices.Clone(e.ways[:2])
	for i := range ways {
		ways[i].path = "/limits"
	}
	return ways
}

// skipData reads the frames of a message that has begun before the rule was broken.
func skipData(r *rawEnd) {
	for {
		first, err := r.r.Peek(1)
		if err != nil || ws.OpCode(first[0]&0x0f).IsControl() {
			return // whoever reads next finds out
		}
		if _, _, err := r.readFrame(); err != nil {
			r.t.Fatalf("%s: %v", r.who(), err)
		}
	}
}

// ended checks the log line at the end of a session that a violation ended.
func (e *rawEdge) ended(t *testing.T, b *rawEnd, code int, cause string) {
	t.Helper()
	end := e.endOf(b)
	if end["code"] != float64(code) || end["cause"] != cause || end["initiator"] != "edge" || end["violation"] == nil {
		t.Errorf("logged %v", end)
	}
}

// countedCloses compares the metric of the route with limits with what it should be.
func (e *rawEdge) countedCloses(t *testing.T, closes map[int]float64) {
	t.Helper()
	for code, want := range closes {
		series := fmt.Sprintf(`tidegate_closes_total{code="%d",initiator="edge",route="limits"}`, code)
		if got := e.scrape(series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}
