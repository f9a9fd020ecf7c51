package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// unixPrefix starts the address of a unix socket; the path follows.
const unixPrefix = "unix:"

// socketMode lets the owner talk to a unix socket, and nobody else.
const socketMode = 0o600

// probeTimeout bounds the question whether somebody answers on a unix socket. Its
// answer is immediate; only a process with a full backlog takes longer.
const probeTimeout = time.Second

func listen(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, unixPrefix)
	if !isUnix {
		return net.Listen("tcp", address)
	}
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	l, err := listenUnix(path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	return listenUnix(path)
}

// checkSocketPath refuses abstract sockets besides nothing at all: they have no mode,
// so anyone on the machine could connect.
func checkSocketPath(path string) error {
	if path == "" || path[0] == '@' || path[0] == 0 {
		return fmt.Errorf("want %s/path, have %q", unixPrefix, unixPrefix+path)
	}
	return nil
}

// listenUnix binds path with socketMode.
func listenUnix(path string) (net.Listener, error) {
	l, err := bindUnix(path)
	if err != nil {
		return nil, err
	}
	// For systems on which the mode of a socket's descriptor means nothing.
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// bindUnix sets the mode before the socket has a name (Linux applies that of the
// descriptor when it binds), so there is no moment at which others could connect.
func bindUnix(path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), socketMode) })
	}}
	return lc.Listen(context.Background(), "unix", path)
}

// removeStale removes the socket that an earlier process left behind. Only a refused
// connection shows that nobody listens: every other answer, and everything that is
// not a socket, is left alone.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process answers: %w", syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("asking whether another process answers: %w", err)
	}
	return os.Remove(path)
}

// local reports whether only this machine reaches a bound address.
func local(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}
