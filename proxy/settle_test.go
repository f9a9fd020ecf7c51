package proxy

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/internal/health"
)

// TestMovedSessionsVouch: a session that has moved to a backend speaks for it as one that
// opened there, so that a failure now and one long after are no row.
func TestMovedSessionsVouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := health.New(zap.NewNop())
		m.Apply(health.Settings{Checks: health.Checks{Passive: health.Passive{ConsecutiveFailures: 2, EjectionTime: time.Minute,
			MaxEjected: 0.5, EarlyDeath: time.Second}}})
		set := balance.NewRegistry().Update([]discovery.Instance{{ID: "a", Addr: "a:1", Weight: 1}, {ID: "b", Addr: "b:1", Weight: 1}})
		m.Update(set, true)
		policy, err := balance.New(balance.Options{Policy: "random"})
		if err != nil {
			t.Fatal(err)
		}
		a, b := set.Backends()[0], set.Backends()[1]
		reserve := func(other *balance.Backend) *balance.Backend {
			got, err := policy(set).Pick(balance.Request{Tried: []*balance.Backend{other}})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		fails := func() {
			at := time.Now()
			m.Opened(b, at)
			m.Ended(b, at, health.EndAborted, errors.New("gone"))
		}
		s := newSession(&place{srv: NewServer(zap.NewNop()), health: m}, a, &SessionInfo{})
		s.again = new(again)
		reserve(b).Live.Open()
		m.Opened(a, s.attached())
		fails()
		time.Sleep(time.Second)
		s.settleAt(reserve(a))
		if s.Backend() != b || a.Live.Load() != 0 || b.Live.Sessions() != 1 {
			t.Errorf("with %s; %d there, %d left behind", s.Backend().ID, b.Live.Sessions(), a.Live.Load())
		}
		time.Sleep(time.Minute / 2)
		if fails(); b.Live.Has(balance.Outlier) {
			t.Error("two failures with a session that lives between them are a row")
		}
		if fails(); !b.Live.Has(balance.Outlier) {
			t.Error("two failures in a row eject nobody")
		}
	})
}
