package load

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// latePort has the system choose the local port when it connects and not when it binds,
// so that a port serves several addresses (IP_BIND_ADDRESS_NO_PORT, Linux 4.2).
func latePort(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Without it a source address merely has fewer ports.
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
