package proxy

import (
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// gone is a session that its engine did not take.
type gone struct{}

func (gone) Close(relay.Ending)            {}
func (gone) Shed(relay.Ending)             {}
func (gone) Held() int                     { return 0 }
func (gone) Kill()                         {}
func (gone) CancelMove(string)             {}
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

func heldEach(sessions []engine.Session) []int {
	held := make([]int, len(sessions))
	for i, s := range sessions {
		held[i] = s.Held()
	}
	return held
}

// refused is the end of a session that its engine did not take.
func refused(err error) engine.Result {
	return engine.Result{Verdict: relay.Verdict{Cause: relay.EdgeClosed, Code: 1006, Why: "refused"}, ClientErr: err, BackendErr: err}
}
