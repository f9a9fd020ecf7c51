package evented

import (
	"context"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) {
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
	if l.Store != nil {
		t.Skip("later")
	}
	raw, err := l.Conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	leg := Leg{FD: -1, Plain: l.Head}
	raw.Control(func(fd uintptr) {
		leg.FD, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Conn.Close()
	return leg
}
