package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/proxy/preface"
)

// reach makes a connection to a backend at addr, host:port, and tunes it. header, if not
// empty, is what goes first on it: see [poolView.header]. What is left to the caller is
// UpstreamSettings.ConnectTimeout, by ctx, and TLS.
func (v *poolView) reach(ctx context.Context, addr string, tcp TCPSettings, header []byte) (net.Conn, error) {
	conn, err := v.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := tune(conn, tcp); err != nil {
		v.pool.srv.noise.Info("connection not tuned", zap.String("pool", v.Name), zap.String("address", addr), zap.Error(err))
	}
	if err := introduce(conn, header); err != nil {
		return nil, err
	}
	return conn, nil
}

// header is what goes first on connections to backends that are made for a client: nil, or a
// header of the PROXY protocol. Its source is the client as the edge believes it. Whom a
// trusted proxy's X-Forwarded-For names has no port there.
func (v *poolView) header(client netip.Addr, conn *clientConn) []byte {
	if v.Upstream.ProxyProtocol == preface.None {
		return nil
	}
	source := conn.remote
	if source.Addr() != client {
		source = netip.AddrPortFrom(client, 0)
	}
	return v.Upstream.ProxyProtocol.Header(preface.Ends{Source: source, Destination: conn.destination()})
}

// probe makes a connection for a probe: one that speaks for nobody.
func (v *poolView) probe(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := v.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := introduce(conn, v.Upstream.ProxyProtocol.Header(preface.Ends{})); err != nil {
		return nil, err
	}
	return conn, nil
}

// introduce writes the header. A connection on which that fails is closed.
func introduce(conn net.Conn, header []byte) error {
	if len(header) == 0 {
		return nil
	}
	// Nothing has been written before: it cannot block.
	if _, err := conn.Write(header); err != nil {
		conn.Close()
		return fmt.Errorf("sending the PROXY protocol header: %w", err)
	}
	return nil
}

// dial makes a connection from the next of the pool's source addresses whose family the
// backend has.
func (v *poolView) dial(ctx context.Context, addr string) (net.Conn, error) {
	sources := v.Upstream.SourceAddresses
	if len(sources) == 0 {
		dialer := net.Dialer{KeepAlive: -1}
		return dialer.DialContext(ctx, "tcp", addr)
	}
	turn := int((v.pool.turn.Add(1) - 1) % uint32(len(sources)))
	var answered [2]error // by family: no other source would be answered otherwise
	var errs, own []error // own: of source addresses that are not to be had
	for i := range sources {
		source := sources[(turn+i)%len(sources)]
		family := familyOf(source)
		if answered[family] != nil {
			continue
		}
		conn, err := dialFrom(ctx, source, addr)
		if err == nil {
			return conn, nil
		}
		if unfit := new(net.AddrError); errors.As(err, &unfit) { // the backend has no address of this family
			answered[family] = err
			continue
		}
		if usedUp(err) {
			own = append(own, err)
		} else {
			answered[family] = err
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 { // otherwise somebody has asked the backend, and that is what counts
		errs = own
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("%s has no address of the same family as any of source_addresses", addr)
	}
	return nil, errors.Join(errs...)
}

// familyOf is 0 for IPv4 and 1 for IPv6.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// dialFrom connects from a source address. The error is a *net.AddrError if what addr stands
// for has no address of its family.
func dialFrom(ctx context.Context, source netip.Addr, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil && familyOf(ip.Unmap()) != familyOf(source) {
		return nil, &net.AddrError{Err: "another family", Addr: host}
	}
	network := [...]string{"tcp4", "tcp6"}[familyOf(source)]
	dialer := net.Dialer{KeepAlive: -1, Control: latePort, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))}
	return dialer.DialContext(ctx, network, addr)
}

// usedUp reports whether a source address has no port left for a backend, or is none of this
// machine's any more: the next one may do.
func usedUp(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)
}

// checkSources reports those source addresses that connections cannot come from.
func checkSources(sources []netip.Addr) error {
	var errs []error
	for _, source := range sources {
		// Nobody can connect to a datagram socket in this moment.
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)))
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream.source_addresses: %s is no address of this machine: %w", source, err))
			continue
		}
		c.Close()
	}
	return errors.Join(errs...)
}
