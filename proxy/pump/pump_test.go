package pump

import (
	cryptotls "crypto/tls"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/enginetest"
	"github.com/tidegate/tidegate/proxy/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, opt *engine.Options, obs engine.Observer, client, backend enginetest.Leg) engine.Session {
		return Start(opt, obs, newLeg(t, client), newLeg(t, backend))
	}, func(t *testing.T, s engine.Session, backend enginetest.Leg) { s.(*Session).Move(newLeg(t, backend)) }, func(tally *engine.Tally) (sum relay.Traffic) {
		tally.AddRest(&sum)
		return sum
	})
}

func newLeg(t *testing.T, l enginetest.Leg) Leg {
	t.Helper()
	stream := NewStream(l.Conn)
	if l.Store == nil {
		return Leg{stream, l.Head}
	}
	conn := cryptotls.Server(stream, l.Store.ServerConfig())
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return Leg{NewTLSStream(conn, stream), l.Head}
}
