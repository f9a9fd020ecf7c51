package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// poller is the engine of Linux: one level-triggered epoll set with every socket of the
// worker, an eventfd to be woken by and a timerfd for due times, because the timeout of
// epoll_wait has milliseconds only and a schedule needs microseconds.
//
// A socket is read once per event into a buffer that all share. What a socket does not
// take is kept and written when epoll says so.
type poller struct {
	w          *worker
	ep, wakeup int
	timer      int
	armed      int64         // when the timer fires; never: not at all
	polled     []*polledConn // by descriptor
	events     []unix.EpollEvent
	raw, plain []byte // what was read, and decrypted
	cipher     []byte // what TLS wants written
}

func newEngine(w *worker, goroutines bool) (engine, error) {
	if goroutines {
		return newStreams(w), nil
	}
	p := &poller{w: w, ep: -1, wakeup: -1, timer: -1, armed: never, events: make([]unix.EpollEvent, 256),
		raw: make([]byte, readSize), plain: make([]byte, readSize)}
	if err := p.open(); err != nil {
		p.close()
		return nil, fmt.Errorf("making an event loop: %w", err)
	}
	return p, nil
}

func (p *poller) open() (err error) {
	if p.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if p.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	for _, fd := range []int{p.wakeup, p.timer} {
		if err = unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

func (p *poller) close() {
	for _, fd := range []int{p.ep, p.wakeup, p.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (p *poller) wake() { unix.Write(p.wakeup, []byte{0, 0, 0, 0, 0, 0, 0, 1}) }

// arm sets the timer; it fires at once if that time has passed.
func (p *poller) arm(until int64) error {
	if until == p.armed {
		return nil
	}
	var spec unix.ItimerSpec // zero disarms
	if until != never {
		spec.Value = unix.NsecToTimespec(max(until-now(), 1))
	}
	p.armed = until
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(p.timer, 0, &spec, nil))
}

func (p *poller) wait(until int64) error {
	timeout := -1
	if until <= now() {
		timeout = 0
	} else if err := p.arm(until); err != nil {
		return err
	}
	n, err := unix.EpollWait(p.ep, p.events, timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("epoll_wait", err)
	}
	for _, e := range p.events[:max(n, 0)] {
		switch fd := int(e.Fd); fd {
		case p.wakeup:
			var count [8]byte
			unix.Read(fd, count[:])
		case p.timer:
			var count [8]byte
			unix.Read(fd, count[:])
			p.armed = never
		default:
			// A connection that ended in this very batch is no longer there. None can
			// have taken its place: connections come by post.
			if c := p.polled[fd]; c != nil {
				c.serve(e.Events)
			}
		}
	}
	return nil
}

// polledConn is a connection of a poller.
type polledConn struct {
	p        *poller
	l        *link
	fd       int
	tls      *tls.Conn  // nil: plain
	tcp      *transport // below tls
	first    []byte
	out      []byte // what the socket did not take
	at       int    // how much of out is written
	held     bool
	started  bool   // in the epoll set
	interest uint32 // what it is there for
}

// attach moves the socket out of Go's poller: the descriptor is duplicated, and the
// net.Conn closed.
func (p *poller) attach(l *link, d *established) (carrier, error) {
	c := &polledConn{p: p, l: l, fd: -1, tcp: d.tcp, first: d.first}
	c.tls, _ = d.conn.(*tls.Conn)
	tcp, err := d.tcp.tcpConn()
	if err != nil {
		return nil, err
	}
	defer tcp.Close()
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dup error
	err = raw.Control(func(fd uintptr) { c.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, os.NewSyscallError("fcntl", dup)); err != nil {
		return nil, err
	}
	d.tcp.polled = true
	return c, nil
}

func (p *poller) start(l *link) {
	c := l.c.(*polledConn)
	for len(p.polled) <= c.fd {
		p.polled = append(p.polled, nil)
	}
	p.polled[c.fd] = c
	c.interest, c.started = c.wanted(), true // something may have been written before
	if err := c.control(unix.EPOLL_CTL_ADD); err != nil {
		p.w.fail(l, err)
		return
	}
	if first := c.first; len(first) > 0 {
		c.first = nil
		p.w.receive(l, first)
	}
	if c.tls != nil && !l.gone {
		c.decrypt() // what TLS read beyond the handshake
	}
}

func (c *polledConn) control(op int) error {
	e := unix.EpollEvent{Events: c.interest, Fd: int32(c.fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(c.p.ep, op, c.fd, &e))
}

// wanted are the events that matter now.
func (c *polledConn) wanted() (events uint32) {
	if !c.held {
		events |= unix.EPOLLIN
	}
	if c.blocked() {
		events |= unix.EPOLLOUT
	}
	return events
}

func (c *polledConn) watch() {
	want := c.wanted()
	if !c.started || want == c.interest {
		return
	}
	c.interest = want
	if err := c.control(unix.EPOLL_CTL_MOD); err != nil && c.l.err == nil {
		c.l.err = err
	}
}

func (c *polledConn) hold(held bool) {
	if c.held != held {
		c.held = held
		c.watch()
	}
}

func (c *polledConn) blocked() bool { return c.at < len(c.out) }

// serve handles an event.
func (c *polledConn) serve(events uint32) {
	if events&unix.EPOLLOUT != 0 && c.blocked() {
		c.flush()
	}
	if c.l.gone || events&^uint32(unix.EPOLLOUT) == 0 || c.held && events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return
	}
	n, err := unix.Read(c.fd, c.p.raw)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		c.p.w.fail(c.l, os.NewSyscallError("read", err))
	case c.tls != nil:
		c.tcp.in, c.tcp.eof = c.p.raw[:n], n == 0
		c.decrypt()
	case n == 0:
		c.p.w.fail(c.l, io.EOF)
	default:
		c.p.w.receive(c.l, c.p.raw[:n])
	}
}

// decrypt hands on what TLS has; it takes everything of tcp.in unless the link ends.
func (c *polledConn) decrypt() {
	for !c.l.gone {
		n, err := c.tls.Read(c.p.plain)
		if n > 0 {
			c.p.w.receive(c.l, c.p.plain[:n])
		}
		if len(c.tcp.out) > 0 && !c.l.gone { // such as the answer to a KeyUpdate
			if err := c.push(nil); err != nil {
				c.p.w.fail(c.l, err)
			}
		}
		if err == errNotYet {
			return
		}
		if err != nil && !c.l.gone {
			c.p.w.fail(c.l, err)
		}
	}
}

func (c *polledConn) write(p []byte) error {
	if c.tls == nil {
		return c.push(p)
	}
	c.tcp.out = c.p.cipher[:0]
	_, err := c.tls.Write(p)
	if err != nil {
		return err
	}
	return c.push(nil)
}

// push writes p, or without it what TLS has made, behind what waits already.
func (c *polledConn) push(p []byte) error {
	if c.tls != nil {
		p = c.tcp.out
		c.p.cipher, c.tcp.out = p[:0], nil
	}
	if !c.blocked() {
		n, err := c.send(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	if len(p) > 0 {
		c.out = append(c.out, p...)
		c.watch()
	}
	return nil
}

// send writes what the socket takes.
func (c *polledConn) send(p []byte) (sent int, err error) {
	for sent < len(p) {
		n, err := unix.Write(c.fd, p[sent:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return sent, nil
		case err != nil:
			return sent, os.NewSyscallError("write", err)
		default:
			sent += n
		}
	}
	return sent, nil
}

// flush writes what waits.
func (c *polledConn) flush() {
	n, err := c.send(c.out[c.at:])
	if c.at += n; err != nil {
		c.p.w.fail(c.l, err)
		return
	}
	if c.blocked() {
		return
	}
	c.out, c.at = nil, 0 // rare, so the memory goes back
	c.watch()
	c.p.w.drain(c.l)
}

func (c *polledConn) close() {
	if c.tls != nil && !c.blocked() {
		c.tcp.out = nil
		if c.tls.CloseWrite() == nil { // a close_notify, if it fits
			c.send(c.tcp.out)
		}
	}
	if c.started {
		c.p.polled[c.fd] = nil
	}
	unix.Close(c.fd) // leaves the epoll set: no duplicate is open
}
