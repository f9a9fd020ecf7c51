package health

import (
	"context"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

// Monitor watches the backends of one pool. Its methods may be called from any goroutine.
type Monitor struct {
	log   *zap.Logger
	probe func(context.Context, target) (http.Header, error)
	wake  chan struct{} // capacity 1: Run is to look again

	mu       sync.Mutex
	settings Settings
	changed  chan struct{} // closed when backends are to be probed otherwise
	members  map[*balance.Live]*member
	settled  bool // the first set is whole: who comes now is a newcomer
	panic    bool
	notes    []note // what is to be logged once the lock is free
}

// member is one backend of the present set.
type member struct {
	backend *balance.Backend
	cancel  context.CancelFunc // of its prober; nil: none runs
	takes   bool               // discovery and health let it take sessions
	warming time.Time          // since when; zero: it does not warm
	verdict verdict            // of the probes
	record  record             // of its handshakes and sessions
}

type note struct {
	level   zapcore.Level
	message string
	fields  []zap.Field
}

// New returns a monitor that knows no backend and trusts all. log names the pool.
func New(log *zap.Logger) *Monitor {
	return &Monitor{log: log, probe: probe, wake: make(chan struct{}, 1), changed: make(chan struct{}), members: map[*balance.Live]*member{}}
}

// Apply brings other settings into force: for probes with the next one, which comes at once
// if what is probed has changed, for everything else with the next decision. Backends keep
// what is known of them; those of a check that is switched off are trusted again.
func (m *Monitor) Apply(s Settings) {
	now := time.Now()
	m.mu.Lock()
	defer m.release()
	before := m.settings
	m.settings = s
	if !sameProbes(before.Active, s.Active) {
		close(m.changed)
		m.changed = make(chan struct{})
		for _, x := range m.members {
			m.reprobe(x, now)
		}
	}
	if s.Passive.ConsecutiveFailures == 0 {
		for _, x := range m.members {
			m.pardon(x, now)
		}
	}
	m.warmAll(now)
	m.review()
}

func sameProbes(a, b *Active) bool { return a == b || a != nil && b != nil && *a == *b }

// Update tells the monitor of the next set, before anybody picks from it. whole says that
// every source of the pool has spoken: backends that join later are newcomers, which must
// pass a probe before they get a session, and are warmed.
func (m *Monitor) Update(set *balance.Set, whole bool) {
	now := time.Now()
	m.mu.Lock()
	defer m.release()
	next := make(map[*balance.Live]*member, set.Len())
	for _, b := range set.Backends() {
		x := m.members[b.Live]
		if x != nil && x.backend.Addr != b.Addr {
			// What answers there is another server, whatever its name.
			x.leave()
			x = nil
		}
		if x == nil {
			x = m.join(b, now)
		} else {
			m.renew(x, b, now)
		}
		next[b.Live] = x
		delete(m.members, b.Live)
	}
	for _, x := range m.members {
		x.leave()
	}
	m.members = next
	m.settled = m.settled || whole
	m.review()
}

// Retire forgets all backends: the pool is gone. Should it come back, its first set is a
// first one again. Run is to have been told to end.
func (m *Monitor) Retire() {
	m.mu.Lock()
	defer m.release()
	for _, x := range m.members {
		x.leave()
	}
	clear(m.members)
	m.settled, m.panic = false, false
}

// join makes a member of a backend. The lock is held.
func (m *Monitor) join(b *balance.Backend, now time.Time) *member {
	x := &member{backend: b}
	x.verdict.begin(m.settings.Active != nil, m.settled)
	b.Live.Set(balance.Failing, x.verdict.failing)
	x.takes = !m.settled && b.Status == discovery.Up // those of the first set are not warmed
	m.weigh(x, now)
	m.nudge()
	return x
}

// renew takes what another set says of a member. The lock is held.
func (m *Monitor) renew(x *member, b *balance.Backend, now time.Time) {
	before := x.backend
	x.backend = b
	if before.Status != b.Status && b.Status == discovery.Up {
		m.pardon(x, now) // it has been away: what is known of its sessions is of a former life
	}
	m.weigh(x, now)
}

// leave takes back all that the monitor has said of a backend.
func (x *member) leave() {
	x.stopProber()
	for _, mark := range []balance.Mark{balance.Failing, balance.Outlier, balance.Panicking} {
		x.backend.Live.Set(mark, false)
	}
	x.backend.Live.Warm(1)
}

func (x *member) stopProber() {
	if x.cancel != nil {
		x.cancel()
		x.cancel = nil
	}
}

// weigh begins to warm a member that takes sessions from now on, and ends it with one that
// does not any more. The lock is held.
func (m *Monitor) weigh(x *member, now time.Time) {
	takes := x.backend.Status == discovery.Up && !x.verdict.failing && !x.record.outlier
	if takes != x.takes {
		x.takes = takes
		m.warm(x, takes, now)
		m.nudge()
	}
}

// offered reports whether discovery and the operator let the backend take sessions.
func (x *member) offered() bool {
	switch x.backend.Live.State() {
	case balance.StateUp, balance.StateSlowStart, balance.StateEjected:
		return x.backend.Weight > 0
	}
	return false
}

// Run probes and keeps time until ctx is done, and returns when nothing of it runs any more.
func (m *Monitor) Run(ctx context.Context) {
	var probers sync.WaitGroup
	defer probers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		m.startProbers(ctx, &probers)
		var due <-chan time.Time
		if next := m.advance(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case <-due:
		case <-m.wake:
		case <-ctx.Done():
			return
		}
	}
}

// reviewInterval is how often the panic threshold is looked at while backends are out: an
// operator who has others drained does not tell the monitor.
const reviewInterval = time.Second

// advance does what is due and returns when there is something to do next, the zero time if
// there is not.
func (m *Monitor) advance(now time.Time) (next time.Time) {
	m.mu.Lock()
	defer m.release()
	at := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, x := range m.members {
		m.readmit(x, now)
		if x.record.outlier {
			at(x.record.until)
		}
		if t := m.warmer(x, now); !t.IsZero() {
			at(t)
		}
		if m.settings.Passive.PanicThreshold > 0 && (x.record.outlier || x.verdict.failing) {
			at(now.Add(reviewInterval))
		}
	}
	m.review()
	return next
}

// nudge lets Run look again.
func (m *Monitor) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// note has a line logged about a member once the lock is free. The lock is held.
func (m *Monitor) note(level zapcore.Level, message string, fields ...zap.Field) {
	m.notes = append(m.notes, note{level, message, fields})
}

// release gives the lock back and logs what has been noted.
func (m *Monitor) release() {
	notes := m.notes
	m.notes = nil
	m.mu.Unlock()
	for _, n := range notes {
		m.log.Log(n.level, n.message, n.fields...)
	}
}
