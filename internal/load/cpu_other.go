//go:build !linux

package load

import (
	"errors"
	"time"
)

// CPUTime is the CPU time of a process and its threads.
func CPUTime(int) (time.Duration, error) {
	return 0, errors.New("the CPU time of another process is read on Linux only")
}
