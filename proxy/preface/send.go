package preface

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Version is which header is written.
type Version uint8

const (
	None Version = iota
	V1
	V2
)

// Header returns the header that speaks for a client, nil for None. Without a valid source it
// is one that speaks for nobody: the connection is the edge's own. Addresses of two families
// are both written as IPv6, the IPv4 one mapped; an unknown destination as the unspecified
// address.
func (v Version) Header(e Ends) []byte {
	if v == None {
		return nil
	}
	h := &proxyproto.Header{Version: byte(v), Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if e.Source.IsValid() {
		if !e.Destination.IsValid() {
			unknown := netip.IPv6Unspecified()
			if e.Source.Addr().Unmap().Is4() {
				unknown = netip.IPv4Unspecified()
			}
			e.Destination = netip.AddrPortFrom(unknown, 0)
		}
		h = proxyproto.HeaderProxyFromAddrs(byte(v), net.TCPAddrFromAddrPort(e.Source), net.TCPAddrFromAddrPort(e.Destination))
	}
	b, err := h.Format()
	if err != nil {
		panic(fmt.Sprintf("preface: %v of %v: %v", v, e, err)) // two TCP addresses can always be written
	}
	return b
}
