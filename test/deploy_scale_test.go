package test

import (
	"fmt"
	"testing"
	"time"
)

// TestScaleOut: two app servers become four while their clients talk. Those that are new get
// their share, and nobody notices.
func TestScaleOut(t *testing.T) {
	npmLibrary(t) // or there is no Node.js
	const settle, tolerance = 300 * time.Millisecond, 1.25
	const moving = "    migrate: {secret_file: KEY_FILE, settle: 300ms, timeout: 30s, redials_per_second: 0}\n"
	perSecond := deploySize(200, 25)
	r := newDeployRig(t, deploySettings{size: deploySize(2000, 200), pace: time.Duration(deploySize(3000, 500)) * time.Millisecond,
		pool: fmt.Sprintf("%s    rebalance: {tolerance: %v, rate: %d/s, min_age: 0s, interval: 1s}\n", moving, tolerance, perSecond)}, false, true)
	r.open()
	r.flows("at first")
	if got := r.rebalanced(); got != 0 {
		t.Errorf("%d sessions were moved between backends that have their share", got)
	}
	for i, name := range []string{"c", "d"} {
		r.register(t, r.launch(t, name, i == 1))
	}
	r.isUp("c")
	r.isUp("d")
	begun := time.Now()
	// Each of the first two gives away half of what it has.
	least, share := r.size/2, float64(r.size)/4
	r.within(2*time.Minute, "all have their share", func() bool {
		for _, b := range r.pools()["apps"].Backends {
			if float64(b.Sessions) > tolerance*share {
				return false
			}
		}
		return true
	})
	took := time.Since(begun)
	r.within(time.Minute, "nobody has more than its share", func() bool {
		return r.pools()["apps"].Rebalancing == nil && r.rebalanced() == r.moves()["ok"]
	})
	t.Logf("within tolerance %v after c and d had come, at %d a second: %s", took.Round(time.Millisecond), perSecond, r.whereabouts())
	if soonest := time.Duration(float64(least)*(2-tolerance)/float64(perSecond)*float64(time.Second)) / 2; took < soonest {
		t.Errorf("that is faster than %d a second can be", perSecond)
	}
	r.flows("afterwards")
	for _, c := range r.all() {
		if c.over() {
			t.Errorf("client %d was disconnected: %d %q, %v", c.number, c.code, c.reason, c.err)
		}
	}
	if got := r.moves(); len(got) != 1 || r.inDoubt() != 0 {
		t.Errorf("moves ended so: %v, %d messages in doubt", got, r.inDoubt())
	}
	// Clients that go must not make the others move.
	if _, err := r.reload(r.with(moving)); err != nil {
		t.Fatal(err, details(err))
	}
	r.finish()
	moved := r.moves()["ok"]
	if sum := r.audit(settle); sum.lost != 0 || sum.unanswered != 0 || sum.gained != moved || sum.codes[1000] != len(r.all()) {
		t.Errorf("%+v after %d moves", sum, moved)
	}
}

// rebalanced is how many sessions have left a backend for its having more than its share.
func (r *deployRig) rebalanced() int {
	return int(r.metrics()[`tidegate_rebalanced_total{pool="apps"}`])
}
