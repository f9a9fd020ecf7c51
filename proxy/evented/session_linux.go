package evented

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/loop"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Session is one session on a loop. It is all that an idle session costs beside its
// sockets and codecs, which is why what only some need is in late.
type Session struct {
	shared  *shared
	opt     *engine.Options
	obs     engine.Observer
	relay   relay.Relay
	legs    [2]leg
	late    *late // nil until a side has not taken something at once, or the end begins
	closing bool
	done    bool
}

// leg is one side.
type leg struct {
	codec Codec
	conn  loop.Conn
	ended bool
	shut  bool
}

// late is what there is to know of a session once a side has not taken something at once,
// or the end has begun.
type late struct {
	timer loop.Timer
	sides [2]struct {
		err   error
		moved time.Duration // when the socket last took bytes while some were waiting; 0: none wait
		until time.Duration // it takes nothing more: how long it is still read; 0: it does
	}
}

func other(side relay.Side) relay.Side { return relay.Backend - side }

func (s *Session) sideOf(c *loop.Conn) relay.Side {
	if c == &s.legs[relay.Client].conn {
		return relay.Client
	}
	return relay.Backend
}

func (s *Session) loop() *loop.Loop { return s.shared.loop }

func (s *Session) now() time.Duration { return s.shared.loop.Now() }

func (s *Session) becomeLate() *late {
	if s.late == nil {
		s.late = &late{timer: loop.Timer{F: s.tick}}
	}
	return s.late
}

// waiting reports whether bytes wait for a side.
func (s *Session) waiting(side relay.Side) bool {
	return s.late != nil && s.late.sides[side].moved != 0
}

// gone reports whether a side takes nothing more.
func (s *Session) gone(side relay.Side) bool { return s.late != nil && s.late.sides[side].until != 0 }

// failed notes what ended a side, if nothing has before.
func (s *Session) failed(side relay.Side, err error) {
	if l := &s.becomeLate().sides[side]; l.err == nil && !s.legs[side].ended {
		l.err = err
	}
}

// begin brings the connections to the loop and feeds what was read before.
func (s *Session) begin(client, backend Leg) {
	for side, leg := range [2]Leg{relay.Client: client, relay.Backend: backend} {
		conn := &s.legs[side].conn
		if err := s.loop().Adopt(conn, leg.FD, s); err != nil {
			s.refuse(relay.Side(side), client, backend, err)
			return
		}
		conn.LimitReads(s.opt.BufferBytes)
	}
	for side, leg := range [2]Leg{relay.Client: client, relay.Backend: backend} {
		if len(leg.Plain) > 0 && !s.done {
			s.feed(relay.Side(side), leg.Plain)
		}
		switch {
		case s.done:
		case len(leg.Wire) > 0:
			s.legs[side].conn.Inject(leg.Wire)
		case leg.Codec != nil:
			// It may know of an end that no event of the socket will tell.
			s.open(relay.Side(side), &s.legs[side].conn, nil)
		}
	}
}

// refuse ends a session that could not begin, at the side that failed.
func (s *Session) refuse(failed relay.Side, client, backend Leg, err error) {
	for side, leg := range [2]Leg{relay.Client: client, relay.Backend: backend} {
		if conn := &s.legs[side].conn; conn.Loop() != nil {
			conn.Close()
		} else {
			unix.Close(leg.FD)
		}
		s.relay.End(relay.Side(side), s.now(), &s.shared.out, &s.shared.back)
		s.resetBuffers()
	}
	s.failed(failed, fmt.Errorf("%w: %w", errNoLoop, err))
	s.finish()
}

func (s *Session) resetBuffers() {
	s.shared.out.Reset()
	s.shared.back.Reset()
}

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
			s.watchQueue(from)
		}
		if len(plain) > 0 {
			s.feed(from, plain)
		}
		if s.done {
			return len(p)
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

// feed gives plaintext to the relay and writes what comes of it.
func (s *Session) feed(from relay.Side, p []byte) {
	s.relay.Feed(from, p, s.now(), &s.shared.out, &s.shared.back) // the error is in the verdict
	s.deliver(from)
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
	}
	if s.waiting(to) && !s.legs[from].ended {
		s.legs[from].conn.Pause()
	}
}

// send writes to a side, at once as far as its socket takes it.
func (s *Session) send(to relay.Side, segs [][]byte) {
	l := &s.legs[to]
	if len(segs) == 0 || l.shut || s.gone(to) {
		return
	}
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
	if err != nil {
		s.broke(side, err)
		return
	}
	l := &s.becomeLate().sides[side]
	if l.moved = s.now(); c.Queued() == 0 {
		l.moved = 0
		s.legs[other(side)].conn.Resume()
	}
	if s.closing {
		s.relay.Progress(side, s.now())
		s.followClosing()
	}
}

// broke notes that a side takes nothing more. It is still read for its last words, but
// not for ever.
func (s *Session) broke(side relay.Side, err error) {
	l := &s.becomeLate().sides[side]
	l.moved = 0
	if l.until == 0 {
		l.until = s.now() + max(s.opt.Relay.CloseTimeout, 1)
		s.failed(side, err)
		s.arm()
	}
	s.legs[other(side)].conn.Resume()
}

// Ended is the end of a side's stream: loop.Handler.
func (s *Session) Ended(c *loop.Conn, err error) { s.end(s.sideOf(c), err) }

func (s *Session) end(side relay.Side, err error) {
	l := &s.legs[side]
	if l.ended || s.done {
		return
	}
	if !errors.Is(err, io.EOF) {
		s.failed(side, err)
	}
	l.ended = true
	s.relay.End(side, s.now(), &s.shared.out, &s.shared.back)
	s.deliver(side)
	s.followClosing()
}

// followClosing carries out what the relay has decided about the end.
func (s *Session) followClosing() {
	if s.done {
		return
	}
	if !s.closing && s.relay.Closing() {
		s.closing = true
		s.obs.Closing()
	}
	for side := range s.legs {
		if !s.legs[side].shut && s.relay.Shut(relay.Side(side)) {
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
	l.shut = true
	l.conn.CloseWrite()
}

// flushed reports whether nothing waits for a side that still takes bytes.
func (s *Session) flushed() bool {
	return !s.waiting(relay.Client) && !s.waiting(relay.Backend)
}

// finish ends the session.
func (s *Session) finish() {
	if s.done {
		return
	}
	s.done = true
	res := engine.Result{Verdict: s.relay.Verdict(), Counts: s.counted()}
	if s.late != nil {
		s.loop().Stop(&s.late.timer)
		res.ClientErr, res.BackendErr = s.late.sides[relay.Client].err, s.late.sides[relay.Backend].err
	}
	for side := range s.legs {
		s.legs[side].conn.Close()
	}
	s.loop().Reserve(-2)
	go s.obs.Done(res)
}

// Close ends the session on behalf of the edge: engine.Session.
func (s *Session) Close(e relay.Ending) {
	s.loop().Post(func() {
		if s.done {
			return
		}
		s.relay.Close(e, s.now(), &s.shared.out, &s.shared.back)
		s.send(relay.Client, s.shared.out.Segments())
		s.send(relay.Backend, s.shared.back.Segments())
		s.resetBuffers()
		s.followClosing()
	})
}

// Kill closes both connections as they stand: engine.Session.
func (s *Session) Kill() {
	s.loop().Post(func() {
		for side := range s.legs {
			s.abort(relay.Side(side), net.ErrClosed)
		}
	})
}

// Counts returns what has come from each side so far: engine.Session.
func (s *Session) Counts() (c [2]relay.Count) {
	s.shared.group.on(s.loop().Index(), func() { c = s.counted() })
	return c
}

func (s *Session) counted() [2]relay.Count {
	return [2]relay.Count{s.relay.Count(relay.Client), s.relay.Count(relay.Backend)}
}

// abort gives a side up as it stands.
func (s *Session) abort(side relay.Side, err error) {
	if s.done {
		return
	}
	l, given := &s.legs[side], &s.becomeLate().sides[side]
	given.until, given.moved = s.now(), 0
	s.failed(side, err)
	l.conn.Close()
	s.legs[other(side)].conn.Resume()
	if l.ended {
		s.followClosing()
		return
	}
	s.end(side, err)
}

// arm sets the timer to what comes first: a deadline of the relay, a queue without
// progress, a side that takes nothing more and does not end.
func (s *Session) arm() {
	at := s.relay.Deadline()
	if at == 0 && s.late == nil {
		return
	}
	late := s.becomeLate()
	sooner := func(t time.Duration) {
		if t > 0 && (at == 0 || t < at) {
			at = t
		}
	}
	for side := range s.legs {
		l := &late.sides[side]
		if l.moved != 0 && s.opt.WriteTimeout > 0 {
			sooner(l.moved + s.opt.WriteTimeout)
		}
		if !s.legs[side].ended {
			sooner(l.until)
		}
	}
	if at == 0 {
		s.loop().Stop(&late.timer)
		return
	}
	s.loop().Set(&late.timer, at)
}

// tick acts on what has come due.
func (s *Session) tick() {
	now := s.now()
	a := s.relay.Tick(now, &s.shared.out, &s.shared.back)
	s.send(relay.Client, s.shared.out.Segments())
	s.send(relay.Backend, s.shared.back.Segments())
	s.resetBuffers()
	for side := range s.legs {
		l := &s.late.sides[side]
		switch {
		case a.Abort[side], !s.legs[side].ended && l.until != 0 && now >= l.until:
			s.abort(relay.Side(side), nil)
		case l.moved != 0 && s.opt.WriteTimeout > 0 && now >= l.moved+s.opt.WriteTimeout:
			s.abort(relay.Side(side), os.ErrDeadlineExceeded)
		}
	}
	s.followClosing()
}
