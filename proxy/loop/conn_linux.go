package loop

import (
	"io"
	"syscall"
	"unsafe"
)

// Handler is what happens to a connection. All calls come from its loop.
type Handler interface {
	// Data is given what was read, behind what an earlier call left. It returns how much
	// of it is done with; the rest is kept and presented again with more.
	Data(c *Conn, p []byte) (used int)
	// Ended says that nothing more will come: io.EOF for an orderly end of stream, else
	// why. The connection can still be written to. It is called once, unless Close was
	// called before.
	Ended(c *Conn, err error)
	// Wrote says that the socket took some or all of the queue, see Queued, or that the
	// connection takes nothing more (err); it is not called for what Write could send at
	// once.
	Wrote(c *Conn, err error)
}

// Conn is one connection on a loop. The zero value is ready for [Loop.Adopt]; it lives in
// the struct that it is about, since there are two for each of very many sessions, and is
// not copied.
type Conn struct {
	loop    *Loop // nil until it is adopted
	handler Handler
	held    *held // nil while nothing is held, as in almost all of them
	fd      int32
	limit   int32 // of a read; 0: the scratch
	paused  bool  // the handler wants nothing to read
	ready   bool  // the socket may have something to read
	hung    bool  // the peer has ended: read on until end of stream
	ended   bool  // Ended was called
	queued  bool  // stands in Loop.again
	broken  bool  // writing has failed
	shut    bool  // shutdown when the queue is empty, or done
	closed  bool
}

// held are bytes between two turns.
type held struct {
	queue []byte // not taken by the socket yet, from sent on
	sent  int
	kept  []byte // not taken by the handler yet
}

// maxSpare bounds what a loop keeps of these for reuse.
const maxSpare = 256

// hold returns what is held, to be added to.
func (c *Conn) hold() *held {
	if c.held != nil {
		return c.held
	}
	c.held = new(held)
	if spare := c.loop.spare; len(spare) > 0 {
		last := len(spare) - 1
		c.held, spare[last] = spare[last], nil
		c.loop.spare = spare[:last]
	}
	return c.held
}

// release gives back what holds nothing any more.
func (c *Conn) release() {
	if h := c.held; h != nil && h.queue == nil && h.kept == nil {
		if len(c.loop.spare) < maxSpare {
			c.loop.spare = append(c.loop.spare, h)
		}
		c.held = nil
	}
}

// Loop returns the loop of the connection.
func (c *Conn) Loop() *Loop { return c.loop }

// Queued returns how many bytes the socket has not taken yet.
func (c *Conn) Queued() int {
	if c.held == nil {
		return 0
	}
	return len(c.held.queue) - c.held.sent
}

// Held returns how many bytes the buffers take that hold something of the connection.
func (c *Conn) Held() int {
	if c.held == nil {
		return 0
	}
	return cap(c.held.queue) + cap(c.held.kept)
}

// LimitReads bounds a read to n bytes, and with it what a handler can put into the queue
// of another connection before it pauses this one. 0 is the loop's scratch.
func (c *Conn) LimitReads(n int) { c.limit = int32(min(n, ScratchBytes)) }

// Pause stops reading. What the socket holds waits there.
func (c *Conn) Pause() { c.paused = true }

// Resume goes on reading, behind what else this turn has to do.
func (c *Conn) Resume() {
	if c.paused {
		c.paused = false
		if c.ready {
			c.later()
		}
	}
}

// later reads on in the next turn.
func (c *Conn) later() {
	if !c.queued && !c.closed {
		c.queued = true
		c.loop.again = append(c.loop.again, c)
	}
}

// read reads until the socket is empty, the handler has enough, or it is others' turn.
func (c *Conn) read() {
	l := c.loop
	for turn := 0; c.ready && !c.paused && !c.ended && !c.closed; turn++ {
		if turn == readsPerTurn {
			c.later()
			return
		}
		kept := c.putKept()
		room := l.scratch[kept:]
		if c.limit > 0 && len(room) > int(c.limit) {
			room = room[:c.limit]
		}
		n, errno := sysRecv(c.fd, room)
		switch {
		case errno == syscall.EAGAIN:
			c.ready = false
			return
		case errno != 0:
			c.finish(errno)
			return
		case n == 0:
			c.finish(io.EOF)
			return
		}
		if n < len(room) && !c.hung {
			c.ready = false // edge-triggered: more would be a new event
		}
		c.deliver(l.scratch[:kept+n])
	}
}

// putKept copies what is kept to the front of the scratch and returns how much it is.
func (c *Conn) putKept() int {
	if c.held == nil {
		return 0
	}
	return copy(c.loop.scratch, c.held.kept)
}

// deliver hands p to the handler and keeps what it leaves.
func (c *Conn) deliver(p []byte) {
	used := c.handler.Data(c, p)
	if c.closed {
		return
	}
	rest := p[used:]
	if len(rest) == 0 {
		c.dropKept()
		return
	}
	h := c.hold()
	if cap(h.kept) < len(rest) {
		c.loop.pool.put(h.kept)
		h.kept = c.loop.pool.get(len(rest))
	}
	h.kept = append(h.kept[:0], rest...)
}

func (c *Conn) dropKept() {
	if h := c.held; h != nil {
		c.loop.pool.put(h.kept)
		h.kept = nil
		c.release()
	}
}

// Retry presents to the handler once more what it left the last time, or nothing. It is
// not called while Data is.
func (c *Conn) Retry() {
	if !c.closed {
		c.deliver(c.loop.scratch[:c.putKept()])
	}
}

// Closed reports whether the connection is closed.
func (c *Conn) Closed() bool { return c.closed }

// Refuse makes a connection that no loop took one that is closed.
func (c *Conn) Refuse(l *Loop) { c.loop, c.fd, c.closed = l, -1, true }

// FD returns the descriptor, which stays the loop's, or -1 once it is closed.
func (c *Conn) FD() int {
	if c.closed {
		return -1
	}
	return int(c.fd)
}

// Inject presents bytes to the handler as if they had been read: those that were read
// before the connection came to the loop.
func (c *Conn) Inject(p []byte) {
	for len(p) > 0 && !c.closed {
		kept := c.putKept()
		n := copy(c.loop.scratch[kept:], p)
		p = p[n:]
		c.deliver(c.loop.scratch[:kept+n])
	}
}

// finish is the end of what comes from the peer.
func (c *Conn) finish(err error) {
	if c.ended || c.closed {
		return
	}
	c.ended = true
	c.ready = false
	c.handler.Ended(c, err)
}

// fail ends a connection from the loop's side, in both directions.
func (c *Conn) fail(err error) {
	if c.finish(err); !c.closed && !c.broken {
		c.breakWrite(err)
	}
	c.Close()
}

// Write sends p, which it does not keep: at once as far as the socket takes it, the rest
// when it can. A connection that takes nothing more discards it; Wrote has said so.
func (c *Conn) Write(p []byte) {
	if c.broken || c.closed || len(p) == 0 {
		return
	}
	if c.Queued() == 0 {
		n, errno := sysSend(c.fd, p)
		if errno != 0 && errno != syscall.EAGAIN {
			c.breakWrite(errno)
			return
		}
		if p = p[max(n, 0):]; len(p) == 0 {
			return
		}
	}
	c.enqueue(p)
}

func (c *Conn) enqueue(p []byte) {
	h := c.hold()
	if need := c.Queued() + len(p); cap(h.queue)-len(h.queue) < len(p) {
		if need > largest {
			need += need / 2 // those up to it grow by doubling
		}
		grown := append(c.loop.pool.get(need), h.queue[h.sent:]...)
		c.loop.pool.put(h.queue)
		h.queue, h.sent = grown, 0
	}
	h.queue = append(h.queue, p...)
}

// flush writes from the queue what the socket takes.
func (c *Conn) flush() {
	for c.Queued() > 0 {
		h := c.held
		n, errno := sysSend(c.fd, h.queue[h.sent:])
		switch errno {
		case 0:
			h.sent += n
		case syscall.EAGAIN:
			c.handler.Wrote(c, nil)
			return
		default:
			c.breakWrite(errno)
			return
		}
	}
	c.dropQueue()
	if c.shut {
		c.shutdown()
	}
	c.handler.Wrote(c, nil)
}

func (c *Conn) dropQueue() {
	if h := c.held; h != nil {
		c.loop.pool.put(h.queue)
		h.queue, h.sent = nil, 0
		c.release()
	}
}

// breakWrite is the end of what goes to the peer.
func (c *Conn) breakWrite(err error) {
	c.broken = true
	c.dropQueue()
	c.handler.Wrote(c, err)
}

// CloseWrite ends our direction of the stream behind what was written.
func (c *Conn) CloseWrite() {
	if c.shut || c.closed {
		return
	}
	c.shut = true
	if c.Queued() == 0 && !c.broken {
		c.shutdown()
	}
}

func (c *Conn) shutdown() {
	syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(c.fd), syscall.SHUT_WR, 0)
}

// Close closes the connection as it stands. The handler gets no more calls.
func (c *Conn) Close() {
	if c.closed || c.loop == nil {
		return
	}
	c.closed = true
	l := c.loop
	c.dropQueue()
	c.dropKept()
	l.conns[c.fd] = nil
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(c.fd), 0, 0)
}

// The system calls of a loop do not block, and go without telling the scheduler. recvfrom and
// sendto know that they have a socket before them, and cost less than read and write do.

func sysRecv(fd int32, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

func sysSend(fd int32, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}
