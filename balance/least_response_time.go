package balance

// responseMemory is the time constant, in seconds, with which peaks of response times decay.
const responseMemory = 10

// Answered tells how many seconds the backend took for a handshake, from the beginning of the
// dial to the 101, or how long it was waited for in vain.
func (l *Live) Answered(seconds float64) { l.handshake.observe(seconds) }

// Ponged tells how many seconds the backend took for the Pong to a Ping of the edge's own.
func (l *Live) Ponged(seconds float64) { l.pong.observe(seconds) }

// ResponseTimes returns the present peaks of what Answered and Ponged were told, in seconds; 0
// if they were told nothing yet.
func (l *Live) ResponseTimes() (handshake, pong float64) {
	handshake, _ = l.handshake.load()
	pong, _ = l.pong.load()
	return handshake, pong
}

// peaking is a peak-sensitive mean of times, in seconds, and the longest time since it was last
// made to decay; 0 is none. A longer time is the mean at once, and shorter ones let it decay
// toward the longest of them. (The peak EWMA of Finagle and Linkerd, but the clock is that of
// who calls Settle.)
type peaking struct{ pair }

func (p *peaking) observe(seconds float64) {
	seconds = max(seconds, 1e-6) // something, so that it is told from nothing
	p.update(func(peak, longest float64) (float64, float64) {
		return max(peak, seconds), max(longest, seconds)
	})
}

// decay brings the mean nearer to the longest time, or to another goal if there was none.
func (p *peaking) decay(keep, goal float64) {
	p.update(func(peak, longest float64) (float64, float64) {
		switch {
		case longest > 0:
			return longest + (peak-longest)*keep, 0
		case peak > 0:
			return goal + (peak-goal)*keep, 0
		}
		return 0, 0
	})
}

// Settle lets the response times of the backends of a pool decay, so many seconds after the last
// call. Those of a backend that was not asked anything decay toward the best of the pool: who was slow once
// gets no sessions that could show that it is better now, and so is given the benefit of the
// doubt, but never more than the best has. One goroutine calls it.
func Settle(backends []*Backend, seconds float64) {
	keep := remains(seconds, responseMemory)
	for _, times := range []func(*Live) *peaking{
		func(l *Live) *peaking { return &l.handshake },
		func(l *Live) *peaking { return &l.pong },
	} {
		best := 0.0
		for _, b := range backends {
			if peak, _ := times(b.Live).load(); peak > 0 && (best == 0 || peak < best) {
				best = peak
			}
		}
		for _, b := range backends {
			times(b.Live).decay(keep, best)
		}
	}
}

// responseTime is the gauge of least_response_time:
//
//	(handshake + pong) × (load + 1)
//
// with the means of peaking. A backend of which one of the two is not known counts with the
// mean of the others; while nothing is known of any, the load decides.
type responseTime struct{}

// survey returns the mean times of those that are known.
func (responseTime) survey(entrants []entrant) survey {
	var handshakes, pongs, asked, pinged float64
	for i := range entrants {
		if l := entrants[i].live; l.Eligible() {
			if h, _ := l.handshake.load(); h > 0 {
				handshakes += h
				asked++
			}
			if p, _ := l.pong.load(); p > 0 {
				pongs += p
				pinged++
			}
		}
	}
	return survey{mean: handshakes / max(1, asked), pong: pongs / max(1, pinged)}
}

func (responseTime) cost(_ int, e *entrant, load int64, s survey) float64 {
	if s.mean+s.pong == 0 {
		return float64(load)
	}
	handshake, _ := e.live.handshake.load()
	pong, _ := e.live.pong.load()
	if handshake == 0 {
		handshake = s.mean
	}
	if pong == 0 {
		pong = s.pong
	}
	return (handshake + pong) * float64(load+1)
}
