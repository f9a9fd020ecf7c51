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

func (gone) Close(relay.Ending)            {}
func (gone) Kill()                         {}
func (gone) Counts() (none [2]relay.Count) { return none }

// sumRest returns what sessions without event loops have counted.
func sumRest(tallies []*engine.Tally) []relay.Traffic {
	sums := make([]relay.Traffic, len(tallies))
	for i, t := range tallies {
		t.AddRest(&sums[i])
	}
	return sums
}

func countEach(sessions []engine.Session) [][2]relay.Count {
	counts := make([][2]relay.Count, len(sessions))
	for i, s := range sessions {
		counts[i] = s.Counts()
	}
	return counts
}

// refused is the end of a session that its engine did not take.
func refused(err error) engine.Result {
	return engine.Result{Verdict: relay.Verdict{Cause: relay.EdgeClosed, Code: 1006}, ClientErr: err, BackendErr: err}
}
