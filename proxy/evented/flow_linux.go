package evented

import (
	"errors"

	"github.com/tidegate/tidegate/proxy/loop"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Data is what came from a side: loop.Handler.
func (s *Session) Data(c *loop.Conn, p []byte) int {
	from := s.sideOf(c)
	if s.legs[from].codec == nil {
		s.feed(from, p)
		return len(p)
	}
	return s.open(from, c, p)
}

// open decrypts and feeds. An error ends what comes from the side.
func (s *Session) open(from relay.Side, c *loop.Conn, p []byte) (used int) {
	codec := s.legs[from].codec
	for {
		plain, n, reply, again, err := codec.Open(p[used:], s.shared.plain, s.shared.reply[:0])
		s.shared.reply = reply[:0]
		used += n
		if len(reply) > 0 {
			c.Write(reply)
			if s.watchQueue(from); c.Queued() > s.replies() {
				c.Pause() // who makes us answer takes the answers first
			}
		}
		if len(plain) > 0 {
			s.feed(from, plain)
		}
		if s.done {
			return len(p)
		}
		if _, held := s.relay.Held(from); held {
			return used // the codec is asked again when the relay takes more, and tells an end again
		}
		if err != nil {
			s.end(from, err)
			return len(p)
		}
		if !again {
			return used
		}
	}
}

// replies is how much may wait for a side while it is still read.
func (s *Session) replies() int { return max(s.opt.BufferBytes, loop.ScratchBytes) }

// feed gives plaintext to the relay and writes what comes of it. What the relay does not
// take yet waits, and the side is not read.
func (s *Session) feed(from relay.Side, p []byte) {
	if s.late != nil && len(s.late.sides[from].rest) > 0 {
		// What was read before the session came here is in two parts: this is the second.
		rest := &s.late.sides[from].rest
		*rest = append(*rest, p...)
		s.account()
		return
	}
	n, _ := s.relay.Feed(from, p, s.now(), &s.shared.out, &s.shared.back) // the error is in the verdict
	s.deliver(from)
	until, held := s.relay.Held(from)
	if !held || s.done {
		return
	}
	rest := &s.becomeLate().sides[from].rest
	*rest = append(*rest, p[n:]...)
	s.account()
	s.legs[from].conn.Pause()
	if until == 0 && !s.stuck(other(from)) {
		s.resume(from) // in its turn
	}
}

// resume reads on from a side. Called anywhere on the loop.
func (s *Session) resume(from relay.Side) {
	if _, held := s.relay.Held(from); held {
		s.loop().Post(func() { s.goOn(from) })
		return
	}
	s.legs[from].conn.Resume()
}

// goOn feeds what waits, if its time has come, and then reads on.
func (s *Session) goOn(from relay.Side) {
	until, held := s.relay.Held(from)
	switch {
	case s.done || s.stuck(other(from)) || held && until > s.now():
		return
	case held:
		if !s.feedRest(from) {
			return
		}
		if _, held := s.relay.Held(from); held || s.done {
			return
		}
		s.legs[from].conn.Retry()
		if _, held := s.relay.Held(from); held || s.done || s.stuck(other(from)) {
			return
		}
	}
	s.legs[from].conn.Resume()
}

// feedRest feeds what waits, and keeps what is still to wait, in its place. It reports
// whether the session goes on.
func (s *Session) feedRest(from relay.Side) bool {
	l := &s.late.sides[from]
	n, _ := s.relay.Feed(from, l.rest, s.now(), &s.shared.out, &s.shared.back)
	s.deliver(from)
	if s.done {
		return false
	}
	if l.rest = append(l.rest[:0], l.rest[n:]...); len(l.rest) == 0 {
		l.rest = nil
	}
	s.account()
	if until, held := s.relay.Held(from); held && until == 0 && !s.stuck(other(from)) {
		s.resume(from) // in its turn
	}
	return true
}

// deliver writes what a relay call about a side has handed out.
func (s *Session) deliver(from relay.Side) {
	to := other(from)
	s.send(to, s.shared.out.Segments())
	if segs := s.shared.back.Segments(); len(segs) > 0 {
		s.send(from, segs)
	}
	s.resetBuffers()
	if s.relay.Closing() {
		s.followClosing()
	} else if s.relay.Rearm() {
		s.arm()
		s.followMove()
		if rtt := s.relay.BackendRTT(); rtt > 0 {
			s.obs.Ponged(rtt)
		}
	}
	if s.stuck(to) && !s.ended[from] {
		s.legs[from].conn.Pause()
	}
	s.account()
}

// account tells Options.Memory what is held beside the connections' own buffers.
func (s *Session) account() {
	now := s.relay.Buffered()
	if s.late == nil && now == 0 {
		return
	}
	l := s.becomeLate()
	if now += cap(l.sides[relay.Client].rest) + cap(l.sides[relay.Backend].rest); s.done {
		now = 0
	}
	s.opt.Memory.Add(now - l.told)
	l.told = now
}

// held is how many bytes the session holds.
func (s *Session) held() int {
	n := s.legs[relay.Client].conn.Held() + s.legs[relay.Backend].conn.Held()
	if s.late != nil {
		n += s.late.told
	}
	return n
}

// send hands bytes to a side: to its socket at once as far as that takes it, or behind
// what waits for it.
func (s *Session) send(to relay.Side, segs [][]byte) {
	switch {
	case len(segs) == 0 || s.over[to] || s.gone(to):
	case s.relay.Blocked(to):
		s.relay.Queue(to, segs, s.now())
	default:
		if s.write(to, segs); s.waiting(to) {
			s.relay.Block(to)
		}
	}
}

// takeBytes is how much of what waits in the relay is sealed and written at a time.
const takeBytes = 16 << 10

// refill writes what waits in the relay for a side whose socket takes bytes again.
func (s *Session) refill(to relay.Side) {
	for s.relay.Blocked(to) && !s.waiting(to) && !s.gone(to) {
		s.relay.Take(to, takeBytes, &s.shared.out)
		s.write(to, s.shared.out.Segments())
		s.shared.out.Reset()
		if s.waiting(to) {
			s.relay.Block(to)
		}
	}
}

// stuck reports whether so much waits for a side that nothing more is read for it.
func (s *Session) stuck(side relay.Side) bool {
	if s.relay.Blocked(side) {
		return s.relay.Full(side)
	}
	return s.waiting(side)
}

// write writes to a side's socket, or behind what waits for that.
func (s *Session) write(to relay.Side, segs [][]byte) {
	l := &s.legs[to]
	if l.codec != nil {
		sealed, err := l.codec.Seal(s.shared.wire[:0], segs)
		s.shared.wire = sealed[:0]
		if err != nil {
			s.broke(to, err)
			return
		}
		l.conn.Write(sealed)
	} else {
		for _, seg := range segs {
			l.conn.Write(seg)
		}
	}
	s.watchQueue(to)
	if s.closing && !s.waiting(to) {
		s.relay.Progress(to, s.now())
	}
}

// watchQueue starts or ends the clock of a side whose queue has or has no more bytes.
func (s *Session) watchQueue(side relay.Side) {
	switch queued := s.legs[side].conn.Queued(); {
	case queued == 0:
		if s.late != nil {
			s.late.sides[side].moved = 0
		}
	case !s.waiting(side):
		s.becomeLate().sides[side].moved = s.now()
		s.arm()
	}
}

// Wrote is progress of a side's queue, or its end: loop.Handler.
func (s *Session) Wrote(c *loop.Conn, err error) {
	side := s.sideOf(c)
	switch {
	case errors.Is(err, loop.ErrClosed):
		s.abort(side, err)
		return
	case err != nil:
		s.broke(side, err)
		return
	}
	l := &s.becomeLate().sides[side]
	if l.moved = s.now(); c.Queued() == 0 {
		l.moved = 0
		if s.refill(side); !s.stuck(side) {
			s.resume(other(side))
		}
		if !s.stuck(other(side)) {
			s.resume(side) // see open
		}
	}
	s.relay.Progress(side, s.now())
	s.account()
	if s.closing {
		s.followClosing()
	}
}
