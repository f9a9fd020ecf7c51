package proxy

import (
	"net"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/pump"
	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

// leg is one connection of a session, from its handshake to its engine.
type leg struct {
	stream *pump.Stream    // over the TCP connection
	tls    *tls.Connection // over the stream; nil for plain
	head   []byte          // bytes that came behind the handshake
}

func (l *leg) conn() net.Conn {
	if l.tls != nil {
		return l.tls
	}
	return l.stream
}

// pump returns the leg for the goroutine engine.
func (l *leg) pump() pump.Leg {
	if l.tls != nil {
		return pump.Leg{Conn: pump.NewTLSStream(l.tls, l.stream), Head: l.head}
	}
	return pump.Leg{Conn: l.stream, Head: l.head}
}

// gone is a session that its engine did not take.
type gone struct{}

func (gone) Close(relay.Ending) {}
func (gone) Kill()              {}

// refused is the end of a session that its engine did not take.
func refused(err error) engine.Result {
	return engine.Result{Verdict: relay.Verdict{Cause: relay.EdgeClosed, Code: 1006}, ClientErr: err, BackendErr: err}
}
