package evented

import (
	"errors"
	"os"
	"time"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/loop"
	"github.com/tidegate/tidegate/proxy/relay"
)

// arm sets the timer to what comes first: a deadline of the relay, a queue without
// progress, a side that takes nothing more and does not end.
func (s *Session) arm() {
	at := s.relay.Deadline()
	sooner := func(t time.Duration) {
		if t > 0 && (at == 0 || t < at) {
			at = t
		}
	}
	if s.late != nil {
		for side := range s.legs {
			l := &s.late.sides[side]
			if l.moved != 0 && s.opt.WriteTimeout > 0 {
				sooner(s.writeDue(relay.Side(side)))
			}
			if !s.ended[side] {
				sooner(l.until)
			}
		}
	}
	if at == 0 {
		s.stopTimer()
		return
	}
	if s.timer == nil {
		s.timer = &loop.Timer{To: s}
	}
	s.loop().Set(s.timer, at)
}

// errNoPong is what ended a side that did not answer the edge's Ping.
var errNoPong = errors.New("no answer to a ping")

func (s *Session) stopTimer() {
	if s.timer != nil {
		s.loop().Stop(s.timer)
	}
}

// Expired acts on what has come due: loop.Expirer.
func (s *Session) Expired() {
	now := s.now()
	a := s.relay.Tick(now, [2]bool{s.waiting(relay.Client), s.waiting(relay.Backend)}, &s.shared.out, &s.shared.back)
	s.send(relay.Client, s.shared.out.Segments())
	s.send(relay.Backend, s.shared.back.Segments())
	s.resetBuffers()
	for side := range s.legs {
		side := relay.Side(side)
		switch {
		case a.Abort[side]:
			s.abort(side, nil)
		case a.Suspect[side]:
			s.judge(side)
		}
		s.expire(side)
	}
	for side := range s.legs {
		if _, held := s.relay.Held(relay.Side(side)); held {
			s.resume(relay.Side(side))
		}
	}
	s.followClosing()
}

// expire gives up a side whose time is over.
func (s *Session) expire(side relay.Side) {
	if s.late == nil {
		return
	}
	switch l := &s.late.sides[side]; {
	case !s.ended[side] && l.until != 0 && s.now() >= l.until:
		s.abort(side, nil)
	case l.moved != 0 && s.opt.WriteTimeout > 0 && s.now() >= s.writeDue(side):
		taken := engine.ReadDelivery(s.legs[side].conn.FD()).Taken
		switch {
		case l.looked != l.moved:
			l.looked, l.taken = l.moved, taken
		case l.taken != taken:
			l.moved = s.now() // the socket has not told so yet
		default:
			s.relay.Lost(side, relay.WhyWriteTimeout, s.now())
			s.abort(side, os.ErrDeadlineExceeded)
		}
	}
}

// writeDue is when to look at a side for which bytes wait: at half of the time, to know what
// its system has taken until then, and at the end of it.
func (s *Session) writeDue(side relay.Side) time.Duration {
	l := &s.late.sides[side]
	if l.looked == l.moved {
		return l.moved + s.opt.WriteTimeout
	}
	return l.moved + s.opt.WriteTimeout/2
}

// judge decides about a side that has not answered a Ping in time.
func (s *Session) judge(side relay.Side) {
	d := engine.ReadDelivery(s.legs[side].conn.FD())
	switch alive, stopped := d.Silent(s.opt.Relay.PongTimeout, s.opt.WriteTimeout); {
	case alive:
		s.relay.Progress(side, s.now())
	case stopped:
		s.relay.Lost(side, relay.WhyWriteTimeout, s.now())
		s.abort(side, os.ErrDeadlineExceeded)
	default:
		s.relay.Lost(side, relay.WhyPongTimeout, s.now())
		s.abort(side, errNoPong)
	}
}
