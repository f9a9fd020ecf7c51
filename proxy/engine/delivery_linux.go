package engine

import (
	"time"

	"golang.org/x/sys/unix"
)

// tcpEstablished is TCP_ESTABLISHED of the kernel's tcp_states.h.
const tcpEstablished = 1

// ReadDelivery asks the system about a TCP socket (tcp(7), TCP_INFO). What is no TCP socket
// has acknowledged nothing.
func ReadDelivery(fd int) Delivery {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Delivery{Acked: Never, Open: true}
	}
	return Delivery{
		Acked:  time.Duration(info.Last_ack_recv) * time.Millisecond,
		Sent:   time.Duration(info.Last_data_sent) * time.Millisecond,
		Taken:  info.Bytes_acked,
		Queued: info.Notsent_bytes > 0,
		Open:   info.State == tcpEstablished,
		Closed: info.Notsent_bytes > 0 && info.Unacked == 0, // nothing is in flight, and something is left
	}
}
