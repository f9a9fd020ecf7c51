package load

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper waits until a time to some microseconds, where Go's timers may be a
// millisecond late. It keeps its thread.
type sleeper struct{}

func newSleeper() *sleeper {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // without it: 50 µs later
	return &sleeper{}
}

// until returns false if ctx is done.
func (*sleeper) until(ctx context.Context, at int64) bool {
	for ctx.Err() == nil {
		left := at - now()
		if left <= 0 {
			return true
		}
		pause := unix.NsecToTimespec(min(left, int64(100*time.Millisecond))) // to see that ctx is done
		unix.Nanosleep(&pause, nil)
	}
	return false
}

// stop lets the thread end, slack and all.
func (*sleeper) stop() {}
