package consultest

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

// Ports come from below the range that systems hand out for port 0 and for outgoing
// connections: an agent that is stopped finds them free when it starts again.
const (
	lowestPort  = 12000
	highestPort = 31999
)

// freePorts returns n ports of the loopback that are free for TCP and UDP now. Another
// process may still be faster: whoever binds them must be ready to ask again.
func freePorts(n int) ([]int, error) {
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries > 1000 {
			return nil, errors.New("no free ports")
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if isFree(port) && !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

func isFree(port int) bool {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return udp.Close() == nil
}
