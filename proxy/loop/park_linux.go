package loop

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A loop parks once it has not been busy on average over calmTime, and no longer once the
	// time from turn to turn is less than hastyPace on average.
	calmTime  = 2 * time.Second
	calmTurns = int(calmTime / busyPace)
	hastyPace = 250 * time.Microsecond
	// maxParked bounds how many connections a loop may have that comes to park: the kernel
	// looks at each, which takes about a quarter of a microsecond.
	maxParked = 1 << 15
)

// parking is where the goroutine of a loop waits while the loop has little to do: in the
// runtime's own poller, as goroutines wait for a connection. The runtime watches bell, and
// bell watches the loop's events only while the loop parks. Else nobody shall wake for
// each of them, nor the kernel have more to do for it.
type parking struct {
	bell  *os.File // an epoll instance whose events are never fetched
	fd    int      // of bell
	wait  syscall.RawConn
	until time.Duration // the deadline of bell; 0: none
	in    bool          // bell watches

	since time.Duration // when counting began
	turns int           // since then

	arrived func(uintptr) bool // fetches
	events  []unix.EpollEvent  // these,
	n       int                // so many
}

// newParking makes the place for a loop with this epoll instance, and has it park.
func newParking(epoll int) (*parking, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.NewFile has it not watched
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &parking{fd: fd, bell: os.NewFile(uintptr(fd), "epoll of a loop")}
	p.arrived = func(uintptr) bool {
		p.n = epollWait(epoll, p.events, 0, false)
		return p.n > 0
	}
	if err = p.bell.SetReadDeadline(time.Time{}); err == nil { // else the runtime does not watch it
		p.wait, err = p.bell.SyscallConn()
	}
	if err == nil {
		err = p.watch(epoll, true)
	}
	if err != nil {
		p.bell.Close()
		return nil, err
	}
	return p, nil
}

// watch has bell watch the events of the loop, or no longer.
func (p *parking) watch(epoll int, on bool) error {
	op := unix.EPOLL_CTL_ADD
	if !on {
		op = unix.EPOLL_CTL_DEL
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
	if err := unix.EpollCtl(p.fd, op, epoll, &ev); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	p.in = on
	return nil
}

// parks says whether the loop shall park until its next turn.
func (l *Loop) parks() bool {
	p := l.parking
	p.turns++
	switch {
	case p.in && l.pace < hastyPace:
		p.watch(l.epoll, false)
		p.since, p.turns = l.now, 0
	case l.now-p.since >= calmTime:
		if !p.in && p.turns <= calmTurns && l.load.Load() <= maxParked {
			p.watch(l.epoll, true) // or the next time
		}
		p.since, p.turns = l.now, 0
	}
	return p.in
}

// park waits until there are events or the time has come; 0 is never. From before arrived
// looks for them, the runtime remembers that the bell has rung: no event goes by unseen.
func (l *Loop) park(events []unix.EpollEvent, until time.Duration) int {
	p := l.parking
	if until != p.until {
		at := time.Time{}
		if until > 0 {
			at = l.start.Add(until)
		}
		p.bell.SetReadDeadline(at)
		p.until = until
	}
	p.events, p.n = events, 0
	p.wait.Read(p.arrived) // the one error is that the time has come
	return p.n
}
