package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// limitCase is what may pass under a policy, and what breaks it.
type limitCase struct {
	name, policies string
	pass, bad      func(*rawEnd) []byte // without bad, all is well
	code           int                  // for who sent it
	reason, cause  string
	// cut is how much of the payload of bad passes before the rest is sent.
	cut  int
	only string // the side that it is about; both if empty
}

// times is a frame n times over.
func times(n int, f func(*rawEnd) []byte) func(*rawEnd) []byte {
	return frames(slices.Repeat([]func(*rawEnd) []byte{f}, n)...)
}

func limitCases() []limitCase {
	const cont, txt, bin, ping, pong = ws.OpContinuation, ws.OpText, ws.OpBinary, ws.OpPing, ws.OpPong
	// One of each, of 8 bytes together.
	few := frames(words(true, txt, "ab"), words(false, bin, "c"), words(true, ping, "beside it"), words(true, cont, "def"), words(true, pong, ""), words(true, txt, "gh"))
	return []limitCase{
		{name: "frame-at-limit", policies: "max_frame_size: 1KiB", pass: frames(part(true, bin, 1024), part(false, txt, 1024), part(true, cont, 1024))},
		{name: "frame-size", policies: "max_frame_size: 1KiB", pass: part(true, bin, 1024), bad: part(true, bin, 1025), code: 1009, reason: "frame too big", cause: "frame_size"},
		{name: "frame-size-fragment", policies: "max_frame_size: 1KiB", pass: part(false, bin, 1024), bad: part(true, cont, 1025), code: 1009, reason: "frame too big", cause: "frame_size"},
		{name: "frame-size-declared", policies: "max_frame_size: 1KiB", pass: few, bad: declared(126, 4, 1), code: 1009, reason: "frame too big", cause: "frame_size"},
		{name: "message-at-limit", policies: "max_message_size: 2KiB", pass: frames(part(true, bin, 2048), part(false, txt, 1024), part(false, cont, 0), part(true, cont, 1024))},
		{name: "message-size", policies: "max_message_size: 2KiB", pass: part(true, bin, 2048), bad: part(true, txt, 2049), code: 1009, reason: "message too big", cause: "message_size"},
		{name: "message-size-fragments", policies: "max_message_size: 2KiB", pass: part(false, bin, 1024), bad: part(false, cont, 1025), code: 1009, reason: "message too big", cause: "message_size"},
		{name: "message-size-by-default", pass: few, bad: declared(127, 0, 0, 0, 0, 1, 0, 0, 1), code: 1009, reason: "message too big", cause: "message_size"},
		{name: "message-size-unlimited", policies: "max_message_size: 0", pass: part(true, bin, 16<<20+1)},
		{name: "fragments-at-limit", policies: "max_fragments: 3", pass: times(3, frames(part(false, bin, 1), words(true, ping, ""), part(false, cont, 0), part(true, cont, 1)))},
		{name: "fragments", policies: "max_fragments: 3", pass: frames(words(true, txt, "whole"), part(false, bin, 1), part(false, cont, 0), part(false, cont, 1)),
			bad: part(true, cont, 1), code: 1008, reason: "too many fragments", cause: "fragments"},
		{name: "control-at-limit", policies: "control_frames_per_second: 5", pass: frames(few, words(true, ping, "3"), times(2, words(true, pong, "x")))},
		{name: "control-rate-pings", policies: "control_frames_per_second: 5", pass: frames(few, times(3, words(true, ping, "x"))), bad: words(true, ping, "6"), code: 1008, reason: "too many control frames", cause: "control_rate"},
		{name: "control-rate-pongs", policies: "control_frames_per_second: 5", pass: frames(few, times(3, words(true, pong, "x"))), bad: words(true, pong, "6"), code: 1008, reason: "too many control frames", cause: "control_rate"},
		{name: "control-rate-in-a-message", policies: "control_frames_per_second: 2", pass: frames(words(false, txt, "beg"), times(2, words(true, ping, "x"))), bad: words(true, ping, "3"), code: 1008, reason: "too many control frames", cause: "control_rate"},
		{name: "control-rate-delay", policies: "control_frames_per_second: 2, messages_per_second: 1000, rate_action: delay", pass: times(2, words(true, ping, "x")), bad: words(true, ping, "3"),
			code: 1008, reason: "too many control frames", cause: "control_rate"},
		{name: "control-rate-by-default", pass: times(100, words(true, pong, "x")), bad: times(20, words(true, ping, "x")), code: 1008, reason: "too many control frames", cause: "control_rate"},
		{name: "control-rate-off", policies: "control_frames_per_second: 0", pass: times(500, words(true, ping, "x"))},
		{name: "utf8", pass: words(true, txt, "gr\u00fc\u00dfe"), bad: words(true, txt, "a\xffb"), code: 1007, reason: "text is not UTF-8", cause: "utf8"},
		{name: "utf8-overlong", pass: few, bad: words(true, txt, "\xc0\xaf"), code: 1007, reason: "text is not UTF-8", cause: "utf8"},
		{name: "utf8-surrogate", pass: few, bad: words(true, txt, "\xed\xa0\x80"), code: 1007, reason: "text is not UTF-8", cause: "utf8"},
		{name: "utf8-half-a-character", pass: few, bad: words(true, txt, "a\xe2\x82"), code: 1007, reason: "text is not UTF-8", cause: "utf8"},
		{name: "utf8-over-fragments", pass: frames(words(false, txt, "\xe2"), words(true, ping, "\xff"), words(false, cont, "\x82"), words(true, cont, "\xac"))},
		{name: "utf8-in-a-fragment", pass: words(false, txt, "\xe2\x82"), bad: words(false, cont, "\x41"), code: 1007, reason: "text is not UTF-8", cause: "utf8"},
		{name: "utf8-empty-last-fragment", pass: words(false, txt, "\xe2\x82"), bad: words(true, cont, ""), code: 1007, reason: "text is not UTF-8", cause: "utf8"},
		{name: "utf8-in-half-a-frame", pass: few, bad: words(true, txt, "good\xffbad"), cut: 4, code: 1007, reason: "text is not UTF-8", cause: "utf8"},
		{name: "utf8-of-binary", pass: frames(words(false, bin, "\xff"), words(true, cont, "\xfe"))},
		{name: "utf8-off", policies: "validate_utf8: false", pass: frames(words(true, txt, "\xff"), words(false, txt, "\xe2"), words(true, cont, ""))},
		{name: "messages-at-limit", policies: "messages_per_second: 1, message_burst: 3", pass: few, only: "client"},
		{name: "message-rate", policies: "messages_per_second: 1, message_burst: 3", pass: few, bad: words(true, txt, "4"), code: 1008, reason: "too many messages", cause: "message_rate", only: "client"},
		{name: "message-rate-second", policies: "messages_per_second: 3", pass: few, bad: words(false, bin, "4"), code: 1008, reason: "too many messages", cause: "message_rate", only: "client"},
		{name: "messages-of-backend", policies: "messages_per_second: 1, message_burst: 3", pass: times(50, few), only: "backend"},
		{name: "bytes-at-limit", policies: "bytes_per_second: 1, byte_burst: 8", pass: few, only: "client"},
		{name: "byte-rate", policies: "bytes_per_second: 1, byte_burst: 8", pass: few, bad: words(true, txt, strings.Repeat("x", 60)), code: 1008, reason: "too many bytes", cause: "byte_rate", only: "client"},
		{name: "byte-rate-second", policies: "bytes_per_second: 700", pass: part(true, bin, 700), bad: part(true, bin, 8<<10), code: 1008, reason: "too many bytes", cause: "byte_rate", only: "client"},
		{name: "byte-rate-in-half-a-frame", policies: "bytes_per_second: 700", // less than is ever read at once of what follows
			pass: few, bad: part(true, bin, 100<<10), cut: 500, code: 1008, reason: "too many bytes", cause: "byte_rate", only: "client"},
		{name: "bytes-of-backend", policies: "bytes_per_second: 1KiB, rate_action: close", pass: times(50, part(true, bin, 1024)), only: "backend"},
	}
}

// TestPolicyLimits holds each limit against what just passes and what does not, from
// either side. What was sent before arrives, who went too far is told so, and the other
// side that it is over.
func TestPolicyLimits(t *testing.T) {
	cases := limitCases()
	var sets []policySet
	for _, x := range cases {
		for _, from := range x.sides() {
			sets = append(sets, policySet{name: x.name + "-" + from, policies: x.policies})
		}
	}
	onEngines(t, sets, func(t *testing.T, e *policyEdge) {
		var all []trial
		for _, x := range cases {
			for _, from := range x.sides() {
				all = append(all, onSchemes(from+"/"+x.name, func(t *testing.T, scheme string) {
					c, b := e.open(t, x.name+"-"+from, scheme)
					if from == "client" {
						x.byClient(t, e, c, b)
					} else {
						x.byBackend(t, e, c, b)
					}
				})...)
			}
		}
		together(t, all)
	})
}

func (x limitCase) sides() []string {
	if x.only != "" {
		return []string{x.only}
	}
	return []string{"client", "backend"}
}

// send sends what passes and what does not from one side, and wants at the other side
// the very bytes of what passes.
func (x limitCase) send(t *testing.T, from, to *rawEnd) {
	t.Helper()
	hello := to.frame(true, ws.OpText, []byte("hello"))
	to.write(hello)
	from.want(hello)
	pass, bad := x.pass(from), []byte(nil)
	if x.bad != nil {
		bad = x.bad(from)
	}
	first := 0
	if x.cut > 0 {
		h, err := ws.ReadHeader(strings.NewReader(string(bad)))
		must(t, err)
		first = ws.HeaderSize(h) + x.cut
	}
	through, stream := slices.Concat(pass, bad[:first]), slices.Concat(pass, bad[:first])
	if first == 0 {
		stream = append(stream, bad...)
	}
	atOnce(t, func() error { _, err := from.Write(stream); return err }, func() error { return to.match(through) })
	if first > 0 {
		from.write(bad[first:])
	}
}

func (x limitCase) byClient(t *testing.T, e *policyEdge, c, b *rawEnd) {
	x.send(t, c, b)
	if x.bad == nil {
		e.bye(t, c, b)
		return
	}
	c.wantClose(x.code, x.reason)
	c.wantEOF()
	if x.cut > 0 {
		b.wantEOF() // no Close fits into a frame
		b.Close()
	} else {
		b.wantClose(1001, "")
		b.hangUp(1001, "")
	}
	c.hangUp(x.code, "")
	e.ended(t, b, outcome{"client", x.cause, fmt.Sprint(x.code), "edge"})
}

func (x limitCase) byBackend(t *testing.T, e *policyEdge, c, b *rawEnd) {
	x.send(t, b, c)
	code := "1011"
	switch {
	case x.bad == nil:
		e.bye(t, c, b)
		return
	case x.cut > 0:
		c.wantEOF()
		c.Close()
		code = "none"
	default:
		c.wantClose(1011, "")
		c.write(closeBytes(1011, "", true))
	}
	b.wantClose(x.code, x.reason)
	b.wantEOF()
	b.hangUp(x.code, "")
	if x.cut == 0 {
		c.wantEOF()
		c.Close()
	}
	e.ended(t, b, outcome{"backend", x.cause, code, "edge"})
}
