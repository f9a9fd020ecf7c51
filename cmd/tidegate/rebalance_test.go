package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/proxy"
)

// TestRebalanceSettings: a pool without the block has its defaults, for when somebody asks.
func TestRebalanceSettings(t *testing.T) {
	const yaml = `
listeners: [{name: edge, address: ":0"}]
routes: [{name: all, pool: off}]
pools:
  - {name: off, backends: [{address: "h:1"}]}
  - {name: default, backends: [{address: "h:1"}], rebalance: {}}
  - {name: own, backends: [{address: "h:1"}], rebalance: {tolerance: 2, rate: 30/m, min_age: 5s, interval: 1h}}
`
	file, err := config.Parse("a.yaml", []byte(yaml), nil)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := settingsOf(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	byDefault := proxy.RebalanceSettings{Interval: 10 * time.Second, Tolerance: 1.25, Rate: 10, MinAge: time.Minute}
	on := byDefault
	on.On = true
	for i, want := range []proxy.RebalanceSettings{
		byDefault, on, {On: true, Interval: time.Hour, Tolerance: 2, Rate: 0.5, MinAge: 5 * time.Second},
	} {
		if got := settings.Pools[i]; got.Rebalance != want {
			t.Errorf("%s: %+v, want %+v", got.Name, got.Rebalance, want)
		}
	}
}

// TestRebalanceIsAsked: what the API asks of a pool, and what it and the metrics show.
func TestRebalanceIsAsked(t *testing.T) {
	e := startEdge(t, fmt.Sprintf(oneBackend, "json", "127.0.0.1:1", "all", "127.0.0.1:1"), nil)
	v := view{e.edge}
	if r, err := v.Rebalance("apps"); err != nil || r != (admin.Rebalancing{PerSecond: 10}) {
		t.Errorf("a pool without sessions: %+v, %v", r, err)
	}
	if _, err := v.Rebalance("nope"); err != admin.ErrNoPool {
		t.Errorf("a pool that is not there: %v", err)
	}
	if p := v.Pools()[0]; p.Rebalancing != nil {
		t.Errorf("shown is %+v", p.Rebalancing)
	}
	shown := poolMetrics(proxy.PoolView{Rebalanced: 7})
	if shown.Rebalanced != 7 {
		t.Errorf("the metric is %d", shown.Rebalanced)
	}
}
