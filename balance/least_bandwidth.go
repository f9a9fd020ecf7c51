package balance

// bandwidthMemory is the time constant, in seconds, of the mean of a backend's bandwidth: what
// was measured that long ago counts 1/e of what is measured now.
const bandwidthMemory = 10

// Carried tells how many bytes the backend's sessions have carried, both ways together,
// since the last call, which was so many seconds ago. One goroutine calls it, for all backends of
// the pool about as often.
func (l *Live) Carried(bytes uint64, seconds float64) {
	if seconds <= 0 {
		return
	}
	keep := remains(seconds, bandwidthMemory)
	rate, sessions := float64(bytes)/seconds, float64(l.Sessions())
	l.bandwidth.update(func(meanRate, meanSessions float64) (float64, float64) {
		return rate + (meanRate-rate)*keep, sessions + (meanSessions-sessions)*keep
	})
}

// Bandwidth returns the mean bytes per second of the backend, both ways together, that
// Carried has made out, and the mean number of sessions, over the same time, that it is of.
func (l *Live) Bandwidth() (perSecond, sessions float64) { return l.bandwidth.load() }

// bandwidth is the gauge of least_bandwidth: the bytes per second that are to be expected.
//
//	load ≥ s: rate + mean × (load − s)      load < s: rate × load ⁄ s
//
// where rate is the backend's mean rate and s the mean number of its sessions in the same
// time, so that a session which has just opened is in s, and in rate, with a small weight
// only. For the rest it counts with the mean rate of a session of the pool, which is the sum
// of all rates by the sum of all s: sessions of which little is known yet do not pile on
// the backend that is quiet at the moment. Where nothing was carried yet, costs are equal
// and the load decides.
type bandwidth struct{}

// survey returns the mean rate of a session.
func (bandwidth) survey(entrants []entrant) survey {
	var rates, sessions float64
	for i := range entrants {
		if entrants[i].live.Eligible() {
			rate, n := entrants[i].live.Bandwidth()
			rates += rate
			sessions += n
		}
	}
	if sessions == 0 {
		return survey{}
	}
	return survey{each: rates / sessions}
}

func (bandwidth) cost(_ int, e *entrant, load int64, s survey) float64 {
	rate, sessions := e.live.Bandwidth()
	if float64(load) < sessions {
		return rate * float64(load) / sessions
	}
	return rate + s.each*(float64(load)-sessions)
}
