package proxy

import (
	"net"

	"github.com/tidegate/tidegate/proxy/pump"
	"github.com/tidegate/tidegate/tls"
)

// leg is one connection of a session, from its handshake to its engine.
type leg struct {
	stream *pump.Stream    // over the TCP connection
	tls    *tls.Connection // over the stream; nil for plain
	head   []byte          // bytes that came behind the handshake
	http2  *stream         // in the place of all else; only a client's
}

func (l *leg) conn() net.Conn {
	if l.tls != nil {
		return l.tls
	}
	return l.stream
}

// pump returns the leg for the goroutine engine.
func (l *leg) pump() pump.Leg {
	if l.http2 != nil {
		return pump.Leg{Conn: l.http2}
	}
	if l.tls != nil {
		return pump.Leg{Conn: pump.NewTLSStream(l.tls, l.stream), Head: l.head}
	}
	return pump.Leg{Conn: l.stream, Head: l.head}
}
