//go:build !linux

package proxy

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: this system has no TCP_USER_TIMEOUT.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }

// latePort does nothing: this system chooses a local port when it binds.
func latePort(_, _ string, _ syscall.RawConn) error { return nil }
