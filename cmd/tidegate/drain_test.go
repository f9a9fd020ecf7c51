package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/proxy"
)

// TestDrainSettings translates every choice that a file has.
func TestDrainSettings(t *testing.T) {
	const yaml = `
listeners: [{name: edge, address: ":0"}]
routes: [{name: all, pool: default}]
pools:
  - {name: default, backends: [{address: "h:1"}]}
  - {name: first, backends: [{address: "h:1"}], on_backend_removed: keep, removal_grace: 0,
     drain: {rate: 20/m, window: 1m, deadline: 2m, code: 4000, reason: bye, order: idle}}
  - {name: second, backends: [{address: "h:1"}], on_backend_removed: close, drain: {order: random}}
`
	file, err := config.Parse("a.yaml", []byte(yaml), nil)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := settingsOf(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	byDefault := proxy.DrainSettings{Window: time.Minute, Deadline: 5 * time.Minute, Code: 1012, Reason: "service restart"}
	random := byDefault
	random.Order = proxy.RandomOrder
	for i, want := range []proxy.PoolSettings{
		{Drain: byDefault, OnRemoved: proxy.DrainSessions, RemovalGrace: 2 * time.Second},
		{Drain: proxy.DrainSettings{Rate: 20.0 / 60, Window: time.Minute, Deadline: 2 * time.Minute, Code: 4000, Reason: "bye", Order: proxy.IdleFirst},
			OnRemoved: proxy.KeepSessions},
		{Drain: random, OnRemoved: proxy.CloseSessions, RemovalGrace: 2 * time.Second},
	} {
		got := settings.Pools[i]
		if diff := cmp.Diff(want, proxy.PoolSettings{Drain: got.Drain, OnRemoved: got.OnRemoved, RemovalGrace: got.RemovalGrace}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", got.Name, diff)
		}
	}
}

// TestDrainErrors: what the proxy refuses means the same to the API.
func TestDrainErrors(t *testing.T) {
	for _, c := range []struct{ err, want error }{
		{nil, nil}, {proxy.ErrNoPool, admin.ErrNoPool}, {proxy.ErrNoBackend, admin.ErrNoBackend}, {proxy.ErrNotDrained, admin.ErrNotDrained},
		{proxy.ErrMaintained, admin.ErrMaintained}, {proxy.ErrStopping, admin.ErrShuttingDown}, {proxy.ErrHashed, admin.ErrHashed},
	} {
		if got := leaveError(c.err); got != c.want {
			t.Errorf("%v became %v", c.err, got)
		}
	}
	if got := leaveError(fmt.Errorf("%w: window 2m0s", proxy.ErrBadPace)); !errors.Is(got, admin.ErrBadPace) || got.Error() != "bad pace: window 2m0s" {
		t.Errorf("a bad pace became %v", got)
	}
	if got := leaveError(fmt.Errorf("%w: b is down", proxy.ErrUnsettled)); !errors.Is(got, admin.ErrUnsettled) || got.Error() != "nothing is rebalanced while a backend is new or unhealthy: b is down" {
		t.Errorf("an unsettled pool became %v", got)
	}
}

// TestDrainIsShown: API and metrics say the same of a drain, and nothing once it is over.
func TestDrainIsShown(t *testing.T) {
	e := startEdge(t, fmt.Sprintf(oneBackend, "json", "127.0.0.1:1", "all", "127.0.0.1:1"), nil)
	v, g := view{e.edge}, gauges{e.edge}
	if b := v.Pools()[0].Backends[0]; b.Draining != nil || g.Snapshot().Pools[0].Backends[0].Draining {
		t.Fatalf("at first: %+v", b)
	}
	before, minute := time.Now(), time.Minute
	if err := v.Drain("apps", "127.0.0.1:1", admin.Pace{Deadline: &minute}); err != nil {
		t.Fatal(err)
	}
	b := v.Pools()[0].Backends[0]
	if d := b.Draining; b.State != "draining" || d == nil || d.By != "operator" || d.Since.Before(before) || d.Deadline != d.Since.Add(minute) || d.PerSecond <= 0 {
		t.Errorf("drained: %+v, %+v", b, d)
	}
	if m := g.Snapshot().Pools[0].Backends[0]; !m.Draining || m.Remaining != 0 {
		t.Errorf("drained: %+v", m)
	}
	if err := v.Undrain("apps", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if b := v.Pools()[0].Backends[0]; b.State != "up" || b.Draining != nil || g.Snapshot().Pools[0].Backends[0].Draining {
		t.Errorf("undrained: %+v", b)
	}
}
