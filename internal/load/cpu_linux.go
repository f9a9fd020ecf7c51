package load

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is the CPU time of a process and its threads, those that have ended included: the
// clock of clock_getcpuclockid(3), which the scheduler keeps in nanoseconds. Child processes
// have their own.
func CPUTime(pid int) (time.Duration, error) {
	if pid <= 0 || pid > 1<<22 { // PID_MAX_LIMIT: beyond, another one would be meant
		return 0, fmt.Errorf("%d is no process", pid)
	}
	const scheduled = 2 // CPUCLOCK_SCHED of the whole process
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
