package evented

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/enginetest"
	"github.com/tidegate/tidegate/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) { testEngine(t) }

// TestEngineStdlib is TestEngine with records by crypto/tls.
func TestEngineStdlib(t *testing.T) { testEngine(t) }

func testEngine(t *testing.T) {
	t.Helper()
	g, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	enginetest.Run(t, func(t *testing.T, opt *engine.Options, obs engine.Observer, client, backend enginetest.Leg) engine.Session {
		s, err := g.Start(opt, obs, newLeg(t, client), newLeg(t, backend))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func newLeg(t *testing.T, l enginetest.Leg) Leg {
	t.Helper()
	out := Leg{FD: -1, Plain: l.Head}
	if l.Store != nil {
		conn, err := l.Store.Accept(context.Background(), l.Conn, engineOf(t))
		if err != nil {
			t.Fatal(err)
		}
		out.Codec, out.Wire, _ = conn.Detach()
	}
	raw, err := l.Conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { out.FD, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	l.Conn.Close()
	return out
}

// engineOf is who protects the records in this test.
func engineOf(t *testing.T) tls.Engine {
	if strings.HasPrefix(t.Name(), "TestEngineStdlib") {
		return tls.EngineStdlib
	}
	return tls.EngineAuto
}
