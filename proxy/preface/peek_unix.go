//go:build unix

package preface

import (
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// socket is the wire of a TCP connection.
type socket struct{ *net.TCPConn }

// peek leaves the bytes in the socket: who takes the descriptor later finds them there. To
// wait for more than has come it waits for the runtime's poller, which reports each arrival
// once. The end of the stream behind a part of what was asked for is no arrival, so that only
// the deadline ends that wait.
func (s socket) peek(p []byte, atLeast int) (n int, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, failed = recvPeek(int(fd), p)
		return failed != unix.EAGAIN && (failed != nil || n >= atLeast)
	})
	if err == nil {
		err = failed
	}
	return n, err
}

func recvPeek(fd int, p []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, p, unix.MSG_PEEK)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
