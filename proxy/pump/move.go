package pump

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/tidegate/tidegate/proxy/relay"
)

const (
	// minBufferBytes is what a reader holds while it waits.
	minBufferBytes = 1 << 10
	// maxBufferBytes is what a reader that is kept busy gets unless Config says less:
	// more saves no system calls worth the memory.
	maxBufferBytes = 32 << 10
)

var large = sync.Pool{New: func() any { b := make([]byte, maxBufferBytes); return &b }}

// reader reads with a small buffer while little comes, and borrows a large one while
// reads fill it.
type reader struct {
	small []byte
	big   *[]byte
	limit int
	lent  func(bytes int) // tells how much more or less the large one takes
}

func newReader(limit int, lent func(int)) *reader {
	if limit <= 0 || limit > maxBufferBytes {
		limit = maxBufferBytes
	}
	return &reader{small: make([]byte, minBufferBytes), limit: max(limit, minBufferBytes), lent: lent}
}

func (r *reader) buf() []byte {
	if r.big != nil {
		return (*r.big)[:r.limit]
	}
	return r.small
}

// took adapts to a read of n bytes that has been dealt with.
func (r *reader) took(n int) {
	switch {
	case r.big == nil && n == len(r.small) && r.limit > len(r.small):
		r.big = large.Get().(*[]byte)
		r.lent(maxBufferBytes)
	case r.big != nil && n <= r.limit/4: // there is no more for now
		r.release()
	}
}

func (r *reader) release() {
	if r.big != nil {
		large.Put(r.big)
		r.big = nil
		r.lent(-maxBufferBytes)
	}
}

// read is the goroutine of one connection, from its first byte to its end.
func (s *Session) read(from relay.Side, leg Leg) {
	conn := leg.Conn
	if len(leg.Head) > 0 {
		s.feed(from, conn, leg.Head)
	}
	r := newReader(s.opt.BufferBytes, s.lent)
	defer r.release()
	for {
		p := r.buf()
		n, err := conn.Read(p)
		if n > 0 {
			s.feed(from, conn, p[:n])
			r.took(n)
		}
		if err != nil {
			s.ended(from, conn, err)
			return
		}
	}
}

// handout is what a call of the relay hands out. It is borrowed for as long as that is
// being written: what the relay inflates and compresses into it is large.
type handout struct{ out, back relay.Buffers }

var handouts = sync.Pool{New: func() any { return new(handout) }}

// feed gives bytes to the relay, when it takes them, and sees what comes of them written.
func (s *Session) feed(from relay.Side, conn Conn, p []byte) {
	h := handouts.Get().(*handout)
	defer handouts.Put(h)
	out, back := &h.out, &h.back
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.legs[from].conn == conn { // or another has taken its place
		s.block()
		n, _ := s.relay.Feed(from, p, s.now(), out, back) // the error is in the verdict
		p = p[n:]
		s.tally()
		s.inject(from, back)
		s.changed()
		s.send(other(from), out)
		out.Reset()
		back.Reset()
		if !s.mayGoOn(from) {
			return
		}
	}
}

// tally passes on what has been counted. The mutex is held.
func (s *Session) tally() {
	s.opt.Tally.Add(&s.counts)
	s.counts = relay.Traffic{}
}

// mayGoOn waits until the relay takes what it has left of a side, if it has. The mutex is
// held, but not while it waits.
func (s *Session) mayGoOn(from relay.Side) bool {
	for !s.killed {
		until, held := s.relay.Held(from)
		if !held {
			return false
		}
		if until <= s.now() {
			return true
		}
		s.moved.Wait() // the timer is set to it
	}
	return false
}

// ended reports a side's end to the relay and ends its goroutine.
func (s *Session) ended(from relay.Side, conn Conn, err error) {
	h := handouts.Get().(*handout)
	defer handouts.Put(h)
	out, back := &h.out, &h.back
	s.mu.Lock()
	l := &s.legs[from]
	if l.conn != conn {
		s.leave()
		return
	}
	l.ended = true
	if l.err == nil && !errors.Is(err, io.EOF) {
		l.err = err
	}
	s.block()
	s.relay.End(from, s.now(), out, back)
	s.changed()
	s.send(other(from), out)
	s.send(from, back)
	out.Reset()
	back.Reset()
	s.leave()
}

// send writes b to a side, as its writer, or behind its present writer; in that case it
// waits until that one is through. The mutex is held; it is released over I/O.
func (s *Session) send(to relay.Side, b *relay.Buffers) {
	l := &s.legs[to]
	if to == relay.Client && s.opt.Relay.SlowConsumer != relay.Backpressure {
		// Who reads must not be who writes.
		s.inject(to, b)
		s.changed()
		for l.busy && s.relay.Full(to) {
			s.moved.Wait()
		}
		return
	}
	if l.busy {
		for _, seg := range b.Segments() {
			l.queue = append(l.queue, seg...)
		}
		for l.busy {
			s.moved.Wait()
		}
		return
	}
	s.write(to, b.Segments())
}

// block has the relay keep what comes for a side that has a writer, if that is the
// relay's to keep. It is called before what hands out more. The mutex is held.
func (s *Session) block() {
	if s.legs[relay.Client].busy {
		s.relay.Block(relay.Client)
	}
}

// takeBytes is how much of what waits in the relay is written at a time.
const takeBytes = 16 << 10

// inject queues bytes of the edge's own for a side without waiting for them. It also
// gives the side a writer if all that is left to do is to end our direction. The mutex
// is held.
func (s *Session) inject(to relay.Side, b *relay.Buffers) {
	l := &s.legs[to]
	if s.relay.Blocked(to) {
		s.relay.Queue(to, b.Segments(), s.now())
		s.tally() // of what was dropped
	} else {
		for _, seg := range b.Segments() {
			l.queue = append(l.queue, seg...)
		}
	}
	s.account()
	if l.busy || len(l.queue) == 0 && (l.shut || !s.relay.Shut(to)) {
		return
	}
	l.busy = true
	s.running++
	go func() {
		s.mu.Lock()
		s.write(to, nil)
		s.leave()
	}()
}

// write is the writer of a side: segs, then the queue until it is empty, then the end of
// our direction if the relay has nothing more to say. The mutex is held; it is released
// over I/O.
func (s *Session) write(to relay.Side, segs [][]byte) {
	l := &s.legs[to]
	l.busy = true
	for !l.failed && !l.shut {
		if len(segs) == 0 && len(l.queue) > 0 {
			segs = [][]byte{l.queue}
			l.writing, l.queue = cap(l.queue), nil
		}
		if len(segs) == 0 && s.relay.Blocked(to) {
			var out relay.Buffers
			s.relay.Take(to, takeBytes, &out)
			if segs = out.Segments(); len(segs) > 0 {
				l.writing = out.Len()
				s.relay.Block(to) // they are being written
			}
			s.moved.Broadcast()
		}
		end := len(segs) == 0 && s.relay.Shut(to)
		if len(segs) == 0 && !end {
			break
		}
		l.shut = end
		s.mu.Unlock()
		err := writeOut(l.conn, segs, end)
		s.mu.Lock()
		segs, l.writing = nil, 0
		s.account()
		if err != nil {
			s.writeFailed(to, err)
		} else if s.relay.Closing() {
			s.relay.Progress(to, s.now())
			s.changed()
		}
	}
	if l.failed {
		l.queue = nil
		s.relay.Discard(to)
		s.account()
	}
	l.busy = false
	s.moved.Broadcast()
}

func writeOut(conn Conn, segs [][]byte, end bool) error {
	if end {
		return conn.CloseWrite()
	}
	for _, seg := range segs {
		if _, err := conn.Write(seg); err != nil {
			return err
		}
	}
	return nil
}

// writeFailed notes that a side takes nothing more. Its reader goes on for its last
// words, but not for ever; a side that made no progress is given up.
func (s *Session) writeFailed(to relay.Side, err error) {
	l := &s.legs[to]
	l.failed = true
	if to == relay.Backend {
		s.relay.Fading(s.now())
		s.changed()
	}
	if l.ended {
		return // it said its last and left: that it did not wait is no error
	}
	if l.err == nil {
		l.err = err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.relay.Lost(to, relay.WhyWriteTimeout, s.now())
		l.conn.Abort()
	} else if s.opt.Relay.CloseTimeout > 0 {
		l.conn.SetReadDeadline(time.Now().Add(s.opt.Relay.CloseTimeout))
	}
}
