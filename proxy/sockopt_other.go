//go:build !linux

package proxy

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: this system has no TCP_USER_TIMEOUT.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
