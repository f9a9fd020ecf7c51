package loop

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// ScratchBytes is the size of a loop's read buffer: a part of a TLS record that was
	// kept and a whole one behind it (RFC 8446 §5.2). More did worse: it falls out of the
	// cache.
	ScratchBytes = 2*(5+16384+256) + 512
	// readsPerTurn is how often a connection is read before the others get their turn.
	readsPerTurn  = 4
	eventsPerWait = 256

	// A loop is busy while the time from turn to turn is less than busyPace on average; it
	// then waits for patience at a time; see Loop.wait. A silence counts as maxPace.
	busyPace = 4 * time.Millisecond
	patience = 10 * time.Millisecond
	maxPace  = 32 * time.Millisecond
)

// Loop is one event loop.
type Loop struct {
	group   *Group
	index   int
	epoll   int
	wakeup  int // eventfd
	mail    mailbox
	load    atomic.Int64 // connections, adopted ones that are on their way included
	ending  bool
	pace    time.Duration // from turn to turn, on average
	yielded time.Duration // when it last did, while busy
	start   time.Time
	now     time.Duration
	conns   []*Conn // by descriptor
	again   []*Conn // have more to read
	turn    []*Conn
	scratch []byte
	pool    pool
	told    int     // of pool.lent
	spare   []*held // for connections that come to hold something
	wheel   wheel
	parking *parking
}

func newLoop(index int) (*Loop, error) {
	l := &Loop{index: index, start: time.Now(), pace: maxPace, scratch: make([]byte, ScratchBytes)}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.wakeup, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(l.epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	if l.parking, err = newParking(l.epoll); err != nil {
		unix.Close(l.wakeup)
		unix.Close(l.epoll)
		return nil, err
	}
	if err := l.register(l.wakeup, unix.EPOLLIN|unix.EPOLLET); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

func (l *Loop) register(fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

func (l *Loop) release() {
	l.parking.bell.Close()
	unix.Close(l.wakeup)
	unix.Close(l.epoll)
}

// Index tells the loops of a group apart, from 0.
func (l *Loop) Index() int { return l.index }

// Now is the time of the present turn: monotonic, above 0, and the same for all that
// happens in one turn.
func (l *Loop) Now() time.Duration { return l.now }

// Post runs f on the loop, behind what was posted before. It is the one method that may
// be called from anywhere, and does not wait. It fails when the loop has ended.
func (l *Loop) Post(f func()) error {
	wake, err := l.mail.put(f)
	if wake {
		one := uint64(1)
		syscall.RawSyscall(syscall.SYS_WRITE, uintptr(l.wakeup), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		l.mail.woken()
	}
	return err
}

// Adopt makes c the connection of a descriptor, which must be a non-blocking stream
// socket. The loop owns it from then on; on an error it stays the caller's, and c is as it
// was. Called on the loop.
func (l *Loop) Adopt(c *Conn, fd int, h Handler) error {
	for fd >= len(l.conns) {
		l.conns = append(l.conns, make([]*Conn, max(64, len(l.conns)))...)
	}
	if err := l.register(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
		return err
	}
	c.loop, c.handler, c.fd = l, h, int32(fd)
	l.conns[fd] = c
	return nil
}

// Reserve counts n connections that are on their way, for the placement of others;
// a negative n gives them back. It may be called from anywhere.
func (l *Loop) Reserve(n int) { l.load.Add(int64(n)) }

// end begins the end of the loop.
func (l *Loop) end() { l.ending = true }

// run is the loop's goroutine.
func (l *Loop) run() {
	events := make([]unix.EpollEvent, eventsPerWait)
	for !l.ending {
		n := l.wait(events)
		now := l.clock()
		l.pace += (min(now-l.now, maxPace) - l.pace) / 8
		l.now = now
		for i := range events[:n] {
			l.dispatch(&events[i])
		}
		l.serveAgain()
		if l.mail.any.Load() {
			for _, f := range l.mail.take() {
				f()
			}
		}
		l.wheel.advance(l.now)
		l.tell()
	}
	l.close()
	l.tell()
}

// tell passes on how much more or less memory buffers take than last time.
func (l *Loop) tell() {
	if more := l.pool.lent - l.told; more != 0 && l.group.OnBuffered != nil {
		l.group.OnBuffered(more)
		l.told = l.pool.lent
	}
}

// wait returns the next events. A busy loop waits for them without telling the runtime:
// between messages that follow each other neither the scheduler nor its monitor has
// anything to do for it. When the runtime needs the goroutine to stop it interrupts the
// wait with a signal; so that this is rare, the loop yields now and then. A loop that has
// little to do blocks as the runtime knows it, and gives its processor to others: while one
// is held, the monitor does not sleep. One that has had little to do for a while parks,
// which the monitor has nothing to do with at all.
func (l *Loop) wait(events []unix.EpollEvent) int {
	parks := l.parks()
	if !parks {
		l.yield()
	}
	if len(l.again) > 0 || l.mail.any.Load() {
		return epollWait(l.epoll, events, 0, false)
	}
	next, timed := l.wheel.next()
	if !timed {
		next = 0
	}
	if parks {
		return l.park(events, next)
	}
	timeout := -1
	if timed {
		timeout = int(max(0, next-l.clock())/time.Millisecond) + 1
	}
	busy := l.pace < busyPace
	if busy {
		const short = int(patience / time.Millisecond)
		if timeout < 0 || timeout > short {
			timeout = short
		}
	}
	return epollWait(l.epoll, events, timeout, !busy)
}

// clock is the time now; within a turn Now is cheaper.
func (l *Loop) clock() time.Duration { return time.Since(l.start) + 1 }

// epollWait waits for some milliseconds, or without end with -1; the runtime is told, or
// not. An interrupted wait has no events.
func epollWait(epoll int, events []unix.EpollEvent, ms int, told bool) int {
	var n uintptr
	var errno syscall.Errno
	if told {
		n, _, errno = syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	} else {
		n, _, errno = syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	}
	switch errno {
	case 0:
		return int(n)
	case syscall.EINTR:
		return 0
	}
	panic(fmt.Sprintf("loop: epoll_wait: %v", errno)) // the descriptor is ours and valid
}

func (l *Loop) dispatch(ev *unix.EpollEvent) {
	if int(ev.Fd) == l.wakeup {
		var posts uint64
		syscall.RawSyscall(syscall.SYS_READ, uintptr(l.wakeup), uintptr(unsafe.Pointer(&posts)), unsafe.Sizeof(posts))
		return
	}
	c := l.conns[ev.Fd]
	if c == nil {
		return // closed earlier in this turn
	}
	if c.held != nil && ev.Events&unix.EPOLLOUT != 0 && c.Queued() > 0 {
		c.flush()
	}
	if ev.Events&^unix.EPOLLOUT != 0 && !c.closed {
		c.hung = c.hung || ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
		c.ready = true
		c.read()
	}
}

// serveAgain gives each connection that had more to read one more turn.
func (l *Loop) serveAgain() {
	if len(l.again) == 0 {
		return
	}
	l.turn, l.again = l.again, l.turn[:0]
	for i, c := range l.turn {
		l.turn[i] = nil
		c.queued = false
		if !c.closed {
			c.read()
		}
	}
}

// close ends every connection and what is still posted.
func (l *Loop) close() {
	left := l.mail.close()
	for _, f := range left {
		f()
	}
	for _, c := range l.conns {
		if c != nil {
			c.fail(ErrClosed)
		}
	}
	l.mail.quiet() // whoever wakes writes to a descriptor of ours
	l.release()
}
