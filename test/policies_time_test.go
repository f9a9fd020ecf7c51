package test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// timeCase is a policy that goes by time, and what happens under it.
type timeCase struct {
	name, policies string
	small          bool
	play           func(t *testing.T, c, b *rawEnd, opening time.Time)
	outcome
}

// cuts are an end of the given kind by the edge, which the client answers after it has
// said something more: that reaches the backend first.
func cuts(t *testing.T, c, b *rawEnd, code int, reason string) {
	t.Helper()
	c.wantClose(code, reason)
	last := c.frame(true, ws.OpText, []byte("under way"))
	c.write(slices.Concat(last, closeBytes(code, "", true)))
	b.want(last)
	b.wantClose(code, reason)
	b.hangUp(code, "")
	c.wantEOF()
	c.Close()
}

// talkBothWays sends a message each way.
func talkBothWays(c, b *rawEnd) {
	c.t.Helper()
	for _, ends := range [][2]*rawEnd{{c, b}, {b, c}} {
		ends[0].write(ends[0].frame(true, ws.OpText, []byte("something")))
		must(c.t, ends[1].until(ws.OpText, "something"))
	}
}

// unfinished has a side begin a message of which the rest does not come, and returns what
// of it went on.
func unfinished(from, to *rawEnd, wholeFrames bool) {
	from.t.Helper()
	p := from.frame(!wholeFrames, ws.OpText, []byte("to be continued"))
	if !wholeFrames {
		p = p[:len(p)-1]
	}
	from.write(p)
	to.want(p)
}

// stuffed sends to a side that does not read, until its peer is told that it is gone, and
// returns what came of it.
func stuffed(from *rawEnd) <-chan error {
	done := make(chan error, 1)
	go func() {
		p := from.frame(true, ws.OpBinary, make([]byte, 64<<10))
		for {
			if _, err := from.Write(p); err != nil {
				done <- err
				return
			}
		}
	}()
	return done
}

func timeCases() []timeCase {
	return []timeCase{
		{"idle", "idle_timeout: 3s, ping_interval: 500ms, pong_timeout: 10s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			must(t, c.answer(3)) // is no data
			ping, pong := c.frame(true, ws.OpPing, []byte("nor is that")), b.frame(true, ws.OpPong, []byte("nor is that"))
			c.write(ping)
			b.want(ping)
			b.write(pong)
			must(t, c.until(ws.OpPong, "nor is that"))
			must(t, c.answerUntilClose())
			cuts(t, c, b, 1001, "idle")
			since(t, begun, 3*time.Second)
		}, outcome{"edge", "idle_timeout", "1001", "edge"}},
		{"idle-silent-client", "idle_timeout: 300ms, close_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			c.wantClose(1001, "idle")
			b.wantClose(1001, "idle")
			since(t, begun, 1300*time.Millisecond)
			b.hangUp(1001, "")
			c.wantEnd()
		}, outcome{"edge", "idle_timeout", "1001", "edge"}},
		{"max-age", "max_age: 1s, max_age_jitter: 0%", false, func(t *testing.T, c, b *rawEnd, opening time.Time) {
			talkBothWays(c, b)
			cuts(t, c, b, 1001, "maximum age reached")
			since(t, opening, time.Second)
		}, outcome{"edge", "max_age", "1001", "edge"}},
		{"max-age-in-a-message", "max_age: 1500ms, close_timeout: 10s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			first, last := b.frame(false, ws.OpText, []byte("one ")), b.frame(true, ws.OpContinuation, []byte("message"))
			b.write(first)
			c.want(first)
			up := c.frame(false, ws.OpBinary, []byte("and "))
			c.write(up)
			b.want(up)
			<-time.After(1600 * time.Millisecond) // its age comes inside the message
			b.write(last)
			c.want(last)
			c.wantClose(1001, "maximum age reached")
			more := c.frame(true, ws.OpContinuation, []byte("another"))
			c.write(slices.Concat(more, closeBytes(1001, "", true)))
			b.want(more)
			b.wantClose(1001, "maximum age reached")
			b.hangUp(1001, "")
			c.wantEOF()
		}, outcome{"edge", "max_age", "1001", "edge"}},
		{"message-timeout-client-fragments", "message_timeout: 500ms", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			unfinished(c, b, true)
			c.wantClose(1008, "message not finished in time")
			since(t, begun, 500*time.Millisecond)
			c.wantEOF()
			b.wantClose(1001, "")
			b.hangUp(1001, "")
		}, outcome{"client", "message_timeout", "1008", "edge"}},
		{"message-timeout-client-frame", "message_timeout: 500ms", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			unfinished(c, b, false)
			c.wantClose(1008, "message not finished in time")
			since(t, begun, 500*time.Millisecond)
			c.wantEOF()
			b.wantEOF()
		}, outcome{"client", "message_timeout", "1008", "edge"}},
		{"message-timeout-backend-fragments", "message_timeout: 500ms", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			unfinished(b, c, true)
			b.wantClose(1008, "message not finished in time")
			since(t, begun, 500*time.Millisecond)
			b.wantEOF()
			c.wantClose(1011, "")
			c.hangUp(1011, "")
		}, outcome{"backend", "message_timeout", "1011", "edge"}},
		{"message-timeout-backend-frame", "message_timeout: 500ms", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			unfinished(b, c, false)
			b.wantClose(1008, "message not finished in time")
			since(t, begun, 500*time.Millisecond)
			b.wantEOF()
			c.wantEOF()
		}, outcome{"backend", "message_timeout", "none", "edge"}},
		{"message-timeout-header", "message_timeout: 500ms, ping_interval: 200ms, pong_timeout: 0s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			// Half a header is no message yet.
			p := c.frame(true, ws.OpText, []byte("begun"))
			c.write(p[:1])
			for range 5 {
				must(t, c.pinged())
			}
			c.write(p[1:])
			b.want(p)
			orderly(c, b)
		}, outcome{"client", "closed", "1000", "client"}},
		{"close-timeout-of-backend", "close_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			c.write(closeBytes(1000, "bye", true))
			b.wantClose(1000, "bye")
			c.wantClose(1000, "")
			since(t, begun, time.Second)
			c.wantEOF()
			b.wantEnd()
		}, outcome{"client", "closed", "1000", "client"}},
		{"close-timeout-of-client", "close_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			b.write(closeBytes(4000, "gone", false))
			c.wantClose(4000, "gone")
			b.wantEOF()
			since(t, begun, time.Second)
			c.wantEnd()
		}, outcome{"backend", "closed", "4xxx", "backend"}},
		{"close-timeout-of-violator", "close_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			c.write(c.frame(true, ws.OpText, []byte("\xff")))
			c.wantClose(1007, "text is not UTF-8") // and neither of them does anything more
			b.wantClose(1001, "")
			c.wantEnd()
			b.wantEnd()
		}, outcome{"client", "utf8", "1007", "edge"}},
		{"write-timeout-of-client", "write_timeout: 700ms, ping: none", true, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			sent := stuffed(b)
			b.wantEnd() // without a Close
			since(t, begun, 700*time.Millisecond)
			b.Close()
			<-sent
		}, outcome{"client", "write_timeout", "none", "client"}},
		{"write-timeout-of-backend", "write_timeout: 700ms, ping: none", true, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			sent := stuffed(c)
			c.wantClose(1012, "backend went away")
			since(t, begun, 700*time.Millisecond)
			c.Close()
			<-sent
		}, outcome{"backend", "write_timeout", "1012", "backend"}},
		{"pong-timeout-of-client", "ping_interval: 1s, pong_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			b.wantEOF() // without a Close
			since(t, begun, 1800*time.Millisecond)
			must(t, c.pingedUntilEnd())
		}, outcome{"client", "pong_timeout", "none", "client"}},
		{"pong-timeout-of-client-in-a-message", "ping_interval: 1s, pong_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			unfinished(c, b, false)
			b.wantEOF()
			since(t, begun, 1800*time.Millisecond)
		}, outcome{"client", "pong_timeout", "none", "client"}},
		{"pong-timeout-of-backend", "ping: backend, ping_interval: 1s, pong_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			begun := time.Now()
			talkBothWays(c, b)
			c.wantClose(1012, "backend went away")
			since(t, begun, 1800*time.Millisecond)
			c.hangUp(1012, "")
			must(t, b.pingedUntilEnd())
		}, outcome{"backend", "pong_timeout", "1012", "backend"}},
		{"pong-timeout-of-backend-in-a-message", "ping: backend, ping_interval: 1s, pong_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			unfinished(b, c, true)
			c.wantClose(1012, "backend went away")
			c.hangUp(1012, "")
		}, outcome{"backend", "pong_timeout", "1012", "backend"}},
		{"pong-timeout-of-backend-in-a-frame", "ping: backend, ping_interval: 1s, pong_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			unfinished(b, c, false)
			c.wantEOF()
		}, outcome{"backend", "pong_timeout", "none", "backend"}},
		{"pong-timeout-of-both", "ping: both, ping_interval: 1s, pong_timeout: 1s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			// The client answers, so it is the backend that is dead.
			answered := make(chan error, 1)
			go func() { answered <- c.answerUntilClose() }()
			must(t, <-answered)
			c.wantClose(1012, "backend went away")
			c.hangUp(1012, "")
		}, outcome{"backend", "pong_timeout", "1012", "backend"}},
		{"stopped-reader-is-write-timeouts", "ping_interval: 500ms, pong_timeout: 500ms, write_timeout: 30s", true, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			// More than the client's system takes, and less than the edge's does.
			p := b.frame(true, ws.OpBinary, noise(80_000))
			b.write(p)
			<-time.After(4 * time.Second)
			c.want(p)
			must(t, c.answer(1))
			orderly(c, b)
		}, outcome{"client", "closed", "1000", "client"}},
		{"stopped-for-good-is-write-timeouts", "ping_interval: 500ms, pong_timeout: 500ms, write_timeout: 2s", true, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			b.SetDeadline(time.Now().Add(soon))
			b.write(b.frame(true, ws.OpBinary, noise(80_000)))
			b.wantEOF()
		}, outcome{"client", "write_timeout", "none", "client"}},
		{"pong-timeout-0", "ping_interval: 100ms, pong_timeout: 0s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			for range 10 {
				must(t, c.pinged())
			}
			p := c.frame(true, ws.OpText, []byte("here I am"))
			c.write(p)
			b.want(p)
			orderly(c, b)
		}, outcome{"client", "closed", "1000", "client"}},
		{"any-byte-is-life", "ping_interval: 400ms, pong_timeout: 5s", false, func(t *testing.T, c, b *rawEnd, _ time.Time) {
			p := c.frame(true, ws.OpText, []byte("byte by byte"))
			last := len(p) - 5
			c.write(p[:last])
			for _, x := range p[last:] {
				must(t, c.pinged()) // without a Pong
				c.write([]byte{x})
			}
			b.want(p)
			orderly(c, b)
		}, outcome{"client", "closed", "1000", "client"}},
	}
}

// testPolicyTimes holds everything that goes by time against what each side sees of it.
func testPolicyTimes(t *testing.T) {
	cases := timeCases()
	var sets []policySet
	for _, x := range cases {
		sets = append(sets, policySet{x.name, x.policies, x.small})
	}
	onEngines(t, sets, func(t *testing.T, e *policyEdge) {
		var all []trial
		for _, x := range cases {
			all = append(all, onSchemes(x.name, func(t *testing.T, scheme string) {
				open := e.open
				if x.small {
					open = func(t *testing.T, name, scheme string) (c, b *rawEnd) { return e.openSmall(t, name, scheme, nil) }
				}
				opening := time.Now()
				c, b := open(t, x.name, scheme)
				x.play(t, c, b, opening)
				c.Close()
				b.Close()
				e.ended(t, b, x.outcome)
			})...)
		}
		together(t, all)
	})
}

// orderly is an end that the client begins; it reads Pings on the way.
func orderly(c, b *rawEnd) {
	c.t.Helper()
	c.write(closeBytes(1000, "bye", true))
	must(c.t, b.until(ws.OpClose, "\x03\xe8bye"))
	b.hangUp(1000, "bye")
	must(c.t, c.until(ws.OpClose, "\x03\xe8bye"))
	c.wantEOF()
	c.Close()
}

// farewell is bye for ends that are pinged.
func (e *policyEdge) farewell(t *testing.T, c, b *rawEnd) {
	t.Helper()
	orderly(c, b)
	e.ended(t, b, outcome{"client", "closed", "1000", "client"})
}

// ping reads a Ping of the edge's own.
func (r *rawEnd) ping() (payload []byte, err error) {
	h, payload, err := r.readFrame()
	if err == nil && !ownPing(h) {
		err = fmt.Errorf("%s: got frame %+v %.40q, want a Ping", r.who(), h, payload)
	}
	return payload, err
}

// ownPing reports whether a frame may be a Ping of the edge's own.
func ownPing(h ws.Header) bool { return h.OpCode == ws.OpPing && h.Fin && h.Rsv == 0 && h.Length == 8 }

// answer reads and answers n Pings of the edge's own.
func (r *rawEnd) answer(n int) error {
	for range n {
		payload, err := r.ping()
		if err == nil {
			err = r.pong(payload)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *rawEnd) pong(payload []byte) error {
	r.pings++
	_, err := r.Write(r.frame(true, ws.OpPong, payload))
	return err
}

// pinged reads a Ping of the edge's own and leaves it unanswered.
func (r *rawEnd) pinged() error {
	_, err := r.ping()
	return err
}

// pingedUntilEnd reads Pings, one at least, up to the end of the stream.
func (r *rawEnd) pingedUntilEnd() error {
	for n := 0; ; n++ {
		if _, err := r.r.Peek(1); err != nil && n > 0 {
			return nil
		}
		if err := r.pinged(); err != nil {
			return err
		}
	}
}

// until answers Pings of the edge's own up to another frame, which must be the given one.
func (r *rawEnd) until(op ws.OpCode, want string) error {
	for {
		h, payload, err := r.readFrame()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w instead of %.40q", r.who(), err, want)
		case h.OpCode == op && h.Fin && h.Rsv == 0 && string(payload) == want:
			return nil
		case !ownPing(h):
			return fmt.Errorf("%s: got frame %+v %.40q, want %.40q", r.who(), h, payload, want)
		}
		if err := r.pong(payload); err != nil {
			return err
		}
	}
}

// answerUntilClose answers Pings of the edge's own until something else comes.
func (r *rawEnd) answerUntilClose() error {
	for {
		first, err := r.r.Peek(1)
		if err != nil {
			return err
		}
		if ws.OpCode(first[0]&0x0f) != ws.OpPing {
			return nil
		}
		if err := r.answer(1); err != nil {
			return err
		}
	}
}
