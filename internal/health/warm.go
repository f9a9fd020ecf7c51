package health

import "time"

const (
	// coldest is the share of sessions that warming begins with.
	coldest = 0.1
	// warmSteps is how many steps it takes.
	warmSteps = 50
)

// warm begins to warm a member, or ends it. The lock is held.
func (m *Monitor) warm(x *member, begin bool, now time.Time) {
	x.warming = time.Time{}
	if begin && m.settings.SlowStart > 0 {
		x.warming = now
		x.backend.Live.Warm(coldest)
		return
	}
	x.backend.Live.Warm(1)
}

// warmer gives a member that warms the share that it has come to, and returns when the next
// step is due, the zero time if there is none. The lock is held.
func (m *Monitor) warmer(x *member, now time.Time) time.Time {
	if x.warming.IsZero() {
		return time.Time{}
	}
	all, since := m.settings.SlowStart, now.Sub(x.warming)
	if since >= all {
		m.warm(x, false, now)
		return time.Time{}
	}
	step := max(all/warmSteps, time.Millisecond)
	done := since.Truncate(step)
	x.backend.Live.Warm(coldest + (1-coldest)*float64(done)/float64(all))
	return x.warming.Add(min(done+step, all))
}

// warmAll brings what warms to other settings. The lock is held.
func (m *Monitor) warmAll(now time.Time) {
	for _, x := range m.members {
		m.warmer(x, now)
	}
	m.nudge()
}
