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
	timer   *loop.Timer // nil until it has been set
	late    *late       // nil until a side has not taken something at once, or the end begins
	ended   [2]bool     // nothing more comes from the side
	over    [2]bool     // nothing more goes to it
	closing bool
	done    bool
}

// leg is one side.
type leg struct {
	codec Codec
	conn  loop.Conn
}

// late is what there is to know of a session once a side has not taken something at once,
// or the end has begun.
type late struct {
	told  int // how much of the memory that is not the loop's Options.Memory knows
	sides [2]struct {
		err   error
		moved time.Duration // when the socket last took bytes while some were waiting; 0: none wait
		until time.Duration // it takes nothing more: how long it is still read; 0: it does
		rest  []byte        // came from it, and the relay has not taken it yet
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
		s.late = new(late)
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
	if l := &s.becomeLate().sides[side]; l.err == nil && !s.ended[side] {
		l.err = err
	}
}

// begin brings the connections to the loop and feeds what was read before.
func (s *Session) begin(client, backend Leg) {
	s.relay.Begin(s.now())
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
	if !s.done {
		s.arm()
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
	if err != nil {
		s.broke(side, err)
		return
	}
	l := &s.becomeLate().sides[side]
	if l.moved = s.now(); c.Queued() == 0 {
		l.moved = 0
		if s.refill(side); !s.stuck(side) {
			s.resume(other(side))
		}
	}
	s.relay.Progress(side, s.now())
	s.account()
	if s.closing {
		s.followClosing()
	}
}

// broke notes that a side takes nothing more. It is still read for its last words, but
// not for ever.
func (s *Session) broke(side relay.Side, err error) {
	l := &s.becomeLate().sides[side]
	l.moved = 0
	s.relay.Discard(side)
	if l.until == 0 {
		l.until = s.now() + max(s.opt.Relay.CloseTimeout, 1)
		s.failed(side, err)
		s.arm()
	}
	s.resume(other(side))
}

// Ended is the end of a side's stream: loop.Handler.
func (s *Session) Ended(c *loop.Conn, err error) { s.end(s.sideOf(c), err) }

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
	s.account()
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

// Shed ends the session to get back the memory that it holds: engine.Session.
func (s *Session) Shed(e relay.Ending) {
	s.loop().Post(func() {
		if s.done {
			return
		}
		s.relay.Shed(e, s.now(), &s.shared.out)
		s.send(relay.Client, s.shared.out.Segments())
		s.resetBuffers()
		s.account()
		s.followClosing()
	})
}

// Held returns how many bytes the session holds: engine.Session.
func (s *Session) Held() (n int) {
	s.shared.group.on(s.loop().Index(), func() { n = s.held() })
	return n
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
				sooner(l.moved + s.opt.WriteTimeout)
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
	case l.moved != 0 && s.opt.WriteTimeout > 0 && s.now() >= l.moved+s.opt.WriteTimeout:
		s.relay.Lost(side, relay.WhyWriteTimeout)
		s.abort(side, os.ErrDeadlineExceeded)
	}
}

// judge decides about a side that has not answered a Ping in time.
func (s *Session) judge(side relay.Side) {
	d := engine.ReadDelivery(s.legs[side].conn.FD())
	switch alive, stopped := d.Silent(s.opt.Relay.PongTimeout, s.opt.WriteTimeout); {
	case alive:
		s.relay.Progress(side, s.now())
	case stopped:
		s.relay.Lost(side, relay.WhyWriteTimeout)
		s.abort(side, os.ErrDeadlineExceeded)
	default:
		s.relay.Lost(side, relay.WhyPongTimeout)
		s.abort(side, errNoPong)
	}
}
