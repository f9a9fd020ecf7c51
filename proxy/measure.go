package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Policies that go by what is measured.
const (
	leastBandwidth = "least_bandwidth"
	leastLoad      = "least_load"
	leastResponse  = "least_response_time"
)

const (
	// measurePause is the time between two looks at the sessions of a pool, and measureRest
	// the least time, as a multiple of what the last look took.
	measurePause = time.Second
	measureRest  = 20
	// reportPause is the time after which a report of load is older by one.
	reportPause = 5 * time.Second
)

// measure has what the policy of a pool needs measured as long as the pool has that policy.
// It is called at each commit; Server.applying is held.
func (s *Server) measure(v *poolView) {
	p := v.pool
	if p.measured == v.Balance.Policy {
		return
	}
	p.stopMeasuring()
	switch p.measured = v.Balance.Policy; p.measured {
	case leastBandwidth:
		p.unmeasure = s.start(func(ctx context.Context) { s.measureTraffic(ctx, p) })
	case leastLoad:
		p.unmeasure = s.start(p.ageReports)
	case leastResponse:
		p.unmeasure = s.start(func(ctx context.Context) { p.calm(ctx, s.measurePause) })
	}
}

// stopMeasuring ends what measure has begun. Server.applying is held, or the server ends.
func (p *pool) stopMeasuring() {
	p.measured = ""
	if p.unmeasure != nil {
		p.unmeasure()
		p.unmeasure = nil
	}
}

// measureTraffic tells the backends of a pool what their sessions carry until ctx is done.
func (s *Server) measureTraffic(ctx context.Context, p *pool) {
	m := p.traffic.begin()
	defer p.traffic.stop(m)
	m.look(s, p, 0) // what was carried before is nobody's
	last := time.Now()
	timer := time.NewTimer(s.measurePause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		m.look(s, p, began.Sub(last))
		last = began
		timer.Reset(max(s.measurePause, measureRest*time.Since(began)))
	}
}

// calm lets what backends took for their answers decay until ctx is done.
func (p *pool) calm(ctx context.Context, pause time.Duration) {
	for range 2 { // what was before is forgotten: the peaks decay to the latest, and these to the best
		balance.Settle(p.registry.Backends(), time.Hour.Seconds())
	}
	last := time.Now()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			balance.Settle(p.registry.Backends(), now.Sub(last).Seconds())
			last = now
		}
	}
}

// traffic collects what the sessions of a pool had carried that have ended since the meter
// last looked, if there is a meter. The zero value has none.
type traffic struct {
	mu    sync.Mutex
	meter *meter
	ended []carried // behind the meter's last look
}

// carried is what a session has carried by its end.
type carried struct {
	number uint64
	live   *balance.Live
	bytes  uint64
}

// meter knows what each session had carried when it last looked. It belongs to one goroutine.
type meter struct {
	before, now map[uint64]uint64 // bytes by session
}

// begin makes a meter. It takes the place of one that was told to stop and may not have yet.
func (t *traffic) begin() *meter {
	m := &meter{before: map[uint64]uint64{}, now: map[uint64]uint64{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.meter, t.ended = m, nil
	return m
}

func (t *traffic) stop(m *meter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.meter == m {
		t.meter, t.ended = nil, nil
	}
}

// end takes note of a session that has ended, before it is out of the list of sessions.
func (t *traffic) end(number uint64, live *balance.Live, counts [2]relay.Count) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.meter != nil {
		t.ended = append(t.ended, carried{number, live, bytesOf(counts)})
	}
}

// take returns the sessions that have ended since the last call.
func (t *traffic) take(m *meter) (ended []carried) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.meter == m {
		ended, t.ended = t.ended, nil
	}
	return ended
}

func bytesOf(c [2]relay.Count) uint64 { return c[relay.Client].Bytes + c[relay.Backend].Bytes }

// look tells each backend what its sessions have carried since the last look, which was that
// long ago; at the first look it is 0, and nobody is told. What a session carries in the
// interval in which it moves counts for the backend that it moves to.
//
// The list of sessions is made first: a session that ends is in the list or among those that
// have ended, or in both, but never in neither.
func (m *meter) look(s *Server, p *pool, since time.Duration) {
	all := s.sessions.gather(func(x *Session) bool { return x.place.traffic == &p.traffic })
	counts := s.Counts(all)
	sums := map[*balance.Live]uint64{}
	clear(m.now)
	ended := p.traffic.take(m)
	for _, c := range ended {
		sums[c.live] += c.bytes - min(c.bytes, m.before[c.number])
		m.now[c.number] = c.bytes
	}
	for i, x := range all {
		if _, gone := m.now[x.number]; !gone {
			bytes := bytesOf(counts[i])
			sums[x.Backend().Live] += bytes - min(bytes, m.before[x.number])
			m.now[x.number] = bytes
		}
	}
	for _, c := range ended {
		delete(m.now, c.number)
	}
	m.before, m.now = m.now, m.before
	if since > 0 {
		for _, b := range p.registry.Backends() {
			b.Live.Carried(sums[b.Live], since.Seconds())
		}
	}
}
