package engine

import "golang.org/x/sys/unix"

// ReadDelivery asks the system about a TCP socket (tcp(7), TCP_INFO). The zero value stands
// for what is no TCP socket.
func ReadDelivery(fd int) Delivery {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Delivery{}
	}
	waiting, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return Delivery{}
	}
	// Nothing is in flight and something is left: the peer's window is closed.
	return Delivery{Acked: info.Bytes_acked, Waiting: waiting, Closed: info.Notsent_bytes > 0 && info.Unacked == 0}
}
