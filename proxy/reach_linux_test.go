package proxy

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSourcePortsAreChosenLate: each backend has all ports of a source address.
func TestSourcePortsAreChosenLate(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := dialFrom(t.Context(), netip.MustParseAddr("127.0.0.4"), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	late := 0
	raw.Control(func(fd uintptr) {
		late, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT)
	})
	if err != nil || late != 1 {
		t.Errorf("IP_BIND_ADDRESS_NO_PORT is %d, %v", late, err)
	}
}
