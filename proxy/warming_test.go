package proxy

import (
	"testing"

	"github.com/tidegate/tidegate/balance"
)

// A backend that warms up is let go by, also under new settings, until it is warm or alone.
func TestWarmingBackendGetsLess(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t), echoBackend(t))
	e := startEdge(t, settings)
	cold, warm := e.Pools()[0].Backends[0], e.Pools()[0].Backends[1]
	cold.Live.Warm(1.0 / (1 << 16))
	for _, policy := range []string{"round_robin", "random", "power_of_two_choices", "least_connections"} {
		settings.Pools = []PoolSettings{settings.Pools[0]}
		settings.Pools[0].Balance.Policy = policy
		e.apply(settings)
		before := warm.Live.Picks()
		for range 8 {
			e.open("/").Close()
			e.idle()
		}
		if cold.Live.State() != balance.StateSlowStart || warm.Live.Picks()-before < 6 { // one of 65537 is the cold one's
			t.Errorf("%s: the warm one, of 8 sessions, got %d", policy, warm.Live.Picks()-before)
		}
	}
	warm.Live.Set(balance.Drained, true)
	e.open("/")
	if cold.Live.Sessions() != 1 {
		t.Error("the cold one got no session when it was alone")
	}
}
