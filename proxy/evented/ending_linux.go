package evented

import (
	"errors"
	"io"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/loop"
	"github.com/tidegate/tidegate/proxy/relay"
)

// broke notes that a side takes nothing more. It is still read for its last words, but
// not for ever.
func (s *Session) broke(side relay.Side, err error) {
	l := &s.becomeLate().sides[side]
	l.moved = 0
	s.relay.Discard(side)
	if side == relay.Backend {
		s.relay.Fading(s.now())
	}
	if l.until == 0 {
		l.until = s.now() + max(s.opt.Relay.CloseTimeout, 1)
		s.failed(side, err)
		s.arm()
	}
	s.resume(other(side))
	s.account()
	if s.closing {
		s.loop().Post(s.followClosing) // nothing waits for the side any more: that may have been all
	}
}

// Ended is the end of a side's stream: loop.Handler.
func (s *Session) Ended(c *loop.Conn, err error) {
	if errors.Is(err, loop.ErrClosed) {
		s.abort(s.sideOf(c), err) // what waits will not be written
		return
	}
	s.end(s.sideOf(c), err)
}

func (s *Session) end(side relay.Side, err error) {
	if s.ended[side] || s.done {
		return
	}
	if !errors.Is(err, io.EOF) {
		s.failed(side, err)
	}
	s.ended[side] = true
	s.relay.End(side, s.now(), &s.shared.out, &s.shared.back)
	s.deliver(side)
	s.followClosing()
}

// followClosing carries out what the relay has decided about the end.
func (s *Session) followClosing() {
	if s.done {
		return
	}
	if s.relay.Moving() {
		s.followMove()
	}
	if !s.closing && s.relay.Closing() {
		s.closing = true
		s.obs.Closing()
		for side := range s.legs {
			s.resume(relay.Side(side)) // nothing is held up any more
		}
	}
	for side := range s.legs {
		if !s.over[side] && s.relay.Shut(relay.Side(side)) && !s.relay.Blocked(relay.Side(side)) {
			s.shut(relay.Side(side))
		}
	}
	if s.relay.Done() && s.flushed() {
		s.finish()
		return
	}
	s.arm()
}

// shut ends our direction of a side behind what was written.
func (s *Session) shut(side relay.Side) {
	l := &s.legs[side]
	if l.codec != nil && !s.gone(side) {
		s.shared.wire = l.codec.CloseNotify(s.shared.wire[:0])
		l.conn.Write(s.shared.wire)
		s.watchQueue(side)
	}
	s.over[side] = true
	l.conn.CloseWrite()
}

// flushed reports whether nothing waits for a side that still takes bytes.
func (s *Session) flushed() bool {
	return !s.waiting(relay.Client) && !s.waiting(relay.Backend) && !s.relay.Blocked(relay.Client)
}

// finish ends the session.
func (s *Session) finish() {
	if s.done {
		return
	}
	s.done = true
	res := engine.Result{Verdict: s.relay.Verdict(), Counts: s.counted()}
	s.stopTimer()
	if s.late != nil {
		res.ClientErr, res.BackendErr = s.late.sides[relay.Client].err, s.late.sides[relay.Backend].err
	}
	for side := range s.legs {
		s.legs[side].conn.Close()
	}
	if s.late != nil && s.late.next != nil {
		s.dropNext()
		s.obs.Moved(engine.Moved{Result: relay.MoveClosed})
	}
	s.account()
	s.loop().Reserve(-2)
	go s.obs.Done(res)
}

// abort gives a side up as it stands.
func (s *Session) abort(side relay.Side, err error) {
	if s.done {
		return
	}
	l, given := &s.legs[side], &s.becomeLate().sides[side]
	given.until, given.moved = s.now(), 0
	s.relay.Discard(side)
	s.failed(side, err)
	l.conn.Close()
	s.resume(other(side))
	if s.ended[side] {
		s.followClosing()
		return
	}
	s.end(side, err)
}
