package proxy

import (
	"context"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/proxy/preface"
)

// shedNaming counts connections that were closed for the header of their proxy.
const shedNaming = "proxy_protocol"

// mayName reports whether a peer may say for whom it connects. It is asked for each
// connection, and costs nothing where nobody may.
func (e *endpoint) mayName(peer netip.AddrPort) bool {
	return e.ProxyProtocol != nil && contains(e.ProxyProtocol.Trusted, peer.Addr())
}

// hearName reads the header of the PROXY protocol that may stand first on a connection of
// somebody who is trusted; the client of the connection is whom it names. A header that is
// broken, or not complete in time, ends the connection, and hearName reports false. Who says
// nothing for that long is taken for a client.
func (e *endpoint) hearName(ctx context.Context, c *clientConn, tcp *net.TCPConn) bool {
	deadline := time.Now().Add(e.ProxyProtocol.Timeout)
	if !c.deadline.IsZero() && c.deadline.Before(deadline) {
		deadline = c.deadline
	}
	tcp.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { tcp.SetReadDeadline(time.Unix(1, 0)) })
	ends, err := preface.Receive(tcp)
	if stop() {
		tcp.SetReadDeadline(time.Time{})
	}
	if err != nil {
		srv := e.ln.srv
		srv.noise.Info("PROXY protocol header refused", zap.String("listener", e.Name), zap.Stringer("client", c.remote), zap.Error(err))
		srv.stats.shed(shedNaming)
		tcp.Close()
		return false
	}
	switch {
	case ends == nil:
	case ends.Source.IsValid():
		c.named, c.remote = ends, ends.Source
	default:
		c.nobody = true
	}
	return true
}
