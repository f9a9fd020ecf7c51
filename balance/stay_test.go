package balance

import (
	"testing"

	"github.com/tidegate/tidegate/discovery"
)

// Whoever stays needs no room, but a backend that takes sessions.
func TestStay(t *testing.T) {
	r := NewRegistry()
	set := r.Update([]discovery.Instance{{ID: "a", Weight: 1}, {ID: "b"}})
	a, b := set.Backends()[0], set.Backends()[1]
	if got := set.Stay(a.Live); got != a || a.Live.InFlight() != 1 || a.Live.Picks() != 1 {
		t.Errorf("got %v with %d in flight", got, a.Live.InFlight())
	}
	a.Live.Release()
	if got := set.Stay(b.Live); got != nil {
		t.Errorf("got %v without a weight", got)
	}
	if got := set.Stay(&Live{}); got != nil {
		t.Errorf("got %v for one of another set", got)
	}
	a.Live.Set(Drained, true)
	if got := set.Stay(a.Live); got != nil || a.Live.InFlight() != 0 {
		t.Errorf("got %v, which is drained", got)
	}
}
