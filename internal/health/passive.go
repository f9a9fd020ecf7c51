package health

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
)

// End is how a session ended, as far as its backend has to do with it.
type End uint8

const (
	// EndOther: the client or the edge ended it, whatever the backend did then.
	EndOther End = iota
	// EndWell: the backend closed it with a code that applications close with: 1000, 1001,
	// 3000 to 4999, or none.
	EndWell
	// EndClosed: the backend closed it with another code. That is a failure if it was early.
	EndClosed
	// EndInternalError: the backend closed it with 1011.
	EndInternalError
	// EndAborted: the backend ended it without a Close, or did not answer any more.
	EndAborted
	// EndViolation: the backend broke the protocol.
	EndViolation
)

// record is how a backend's handshakes and sessions have fared.
//
// Handshakes and sessions each have a row of failures. Sessions last, so that few of them
// end, and those that do not must have a say: a row of theirs is broken by
//   - an end that is the backend's own and in order;
//   - an end that is not the backend's, when the session had been open for longer than
//     early_death after the last failure;
//   - sessions that are open and began after the last failure, when there have been such
//     for longer than early_death without a gap: this is seen when the next one fails.
type record struct {
	handshakes, sessions, requests int // failures in a row

	failed time.Time // when a session last failed
	fresh  int       // sessions that are open and began after that
	since  time.Time // when the first of them began, since when there has been one

	outlier   bool
	until     time.Time
	why       string // of the latest ejection
	ejections int    // in a row
	forget    time.Time
}

// maxEjections bounds how many times longer than the first one an ejection gets.
const maxEjections = 10

// pardon breaks both rows.
func (r *record) pardon() { r.handshakes, r.sessions, r.requests = 0, 0, 0 }

// open counts a session that began at a time.
func (r *record) open(at time.Time) {
	if !at.After(r.failed) {
		return
	}
	if r.fresh == 0 {
		r.since = at
	}
	r.fresh++
}

// end counts a session out, and reports whether others speak for the backend: they are open
// and began after the last failure, longer ago than early.
func (r *record) end(opened, now time.Time, early time.Duration) (vouched bool) {
	if opened.After(r.failed) && r.fresh > 0 {
		r.fresh--
	}
	return r.fresh > 0 && now.Sub(r.since) > early
}

// fail counts a failed session.
func (r *record) fail(vouched bool, now time.Time) {
	if vouched {
		r.sessions = 0
	}
	r.sessions++
	r.failed, r.fresh = now, 0
}

// Connected says that a backend has answered a handshake with a sound 101.
func (m *Monitor) Connected(b *balance.Backend) {
	m.well(b, func(r *record) { r.handshakes = 0 })
}

// HandshakeFailed counts a failed attempt to open a session. err says what went wrong.
func (m *Monitor) HandshakeFailed(b *balance.Backend, kind balance.FailureKind, err error) {
	m.failed(b, kind, err, "handshakes failed", func(r *record) *int { return &r.handshakes })
}

// RequestFailed counts a request that got no answer. Answers of any status are an
// application's own: one that answers 500 to some requests may hold its sessions well.
func (m *Monitor) RequestFailed(b *balance.Backend, kind balance.FailureKind, err error) {
	m.failed(b, kind, err, "requests failed", func(r *record) *int { return &r.requests })
}

// failed adds a failure to one of the rows of a backend.
func (m *Monitor) failed(b *balance.Backend, kind balance.FailureKind, err error, what string, row func(*record) *int) {
	b.Live.Fail(kind)
	if Own(err) {
		return
	}
	now := time.Now()
	m.mu.Lock()
	defer m.release()
	if x := m.member(b); x != nil && m.judges(x) {
		n := row(&x.record)
		*n++
		m.consider(x, *n, what, err, now)
	}
}

// RequestDone ends the row of failed requests.
func (m *Monitor) RequestDone(b *balance.Backend) {
	m.well(b, func(r *record) { r.requests = 0 })
}

func (m *Monitor) well(b *balance.Backend, end func(*record)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x := m.member(b); x != nil {
		end(&x.record)
	}
}

// Opened says that a session has opened; its Ended follows with the same time.
func (m *Monitor) Opened(b *balance.Backend, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x := m.member(b); x != nil {
		x.record.open(at)
	}
}

// Ended says how a session ended. err, for an end that may be a failure, says what happened.
func (m *Monitor) Ended(b *balance.Backend, opened time.Time, end End, err error) {
	now := time.Now()
	m.mu.Lock()
	defer m.release()
	early := m.settings.Passive.EarlyDeath
	kind, failure := end.failure(now.Sub(opened) <= early && early > 0)
	if failure {
		b.Live.Fail(kind)
	}
	x := m.member(b)
	if x == nil {
		return
	}
	r := &x.record
	vouched := r.end(opened, now, early)
	switch {
	case failure && m.judges(x):
		r.fail(vouched, now)
		m.consider(x, r.sessions, "sessions ended badly", err, now)
	case failure:
	case end == EndWell, now.Sub(later(opened, r.failed)) > early:
		r.sessions = 0
	}
}

// failure is the kind of failure that an end is, if it is one.
func (e End) failure(early bool) (kind balance.FailureKind, ok bool) {
	switch e {
	case EndClosed:
		return balance.FailureEarlyDeath, early
	case EndInternalError:
		return balance.FailureInternal, true
	case EndAborted:
		return balance.FailureAborted, true
	case EndViolation:
		return balance.FailureViolation, true
	}
	return 0, false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// member returns the member that a backend of this or an earlier set is, or nil. The lock
// is held.
func (m *Monitor) member(b *balance.Backend) *member {
	if x := m.members[b.Live]; x != nil && x.backend.Addr == b.Addr {
		return x
	}
	return nil
}

// judges reports whether failures of a member count: not while it is ejected, nor while
// discovery or the operator keep sessions from it, since what happens around a restart is
// no outlier. The lock is held.
func (m *Monitor) judges(x *member) bool {
	return m.settings.Passive.ConsecutiveFailures > 0 && !x.record.outlier && x.offered()
}

// consider ejects a member that has failed often enough in a row, if the pool has room for
// another one that is out. The lock is held.
func (m *Monitor) consider(x *member, row int, what string, err error, now time.Time) {
	p := &m.settings.Passive
	if row < p.ConsecutiveFailures {
		return
	}
	why := fmt.Sprintf("%d %s in a row, the last one: %s", row, what, brief(err))
	out, offered := 1, 0
	for _, other := range m.members {
		if other.offered() {
			offered++
			if other.record.outlier {
				out++
			}
		}
	}
	if float64(out) > p.MaxEjected*float64(offered)+rounding {
		if row == p.ConsecutiveFailures {
			m.note(zap.WarnLevel, "backend not ejected: max_ejected", m.about(x, zap.String("why", why), zap.Error(err))...)
		}
		return
	}
	m.eject(x, why, err, now)
}

// eject takes a member out. The lock is held.
func (m *Monitor) eject(x *member, why string, err error, now time.Time) {
	r := &x.record
	if now.After(r.forget) {
		r.ejections = 0
	}
	r.ejections = min(r.ejections+1, maxEjections)
	length := time.Duration(r.ejections) * m.settings.Passive.EjectionTime
	r.outlier, r.why, r.until, r.forget = true, why, now.Add(length), now.Add(2*length)
	r.pardon()
	x.backend.Live.Set(balance.Outlier, true)
	m.note(zap.WarnLevel, "backend ejected", m.about(x, zap.String("why", why), zap.Error(err), zap.Duration("for", length))...)
	m.nudge()
	m.weigh(x, now)
	m.review()
}

// readmit ends an ejection whose time is up. The lock is held.
func (m *Monitor) readmit(x *member, now time.Time) {
	if x.record.outlier && !now.Before(x.record.until) {
		m.reinstate(x, now)
	}
}

// pardon ends an ejection, whatever its time. The lock is held.
func (m *Monitor) pardon(x *member, now time.Time) {
	x.record.pardon()
	if x.record.outlier {
		m.reinstate(x, now)
	}
}

func (m *Monitor) reinstate(x *member, now time.Time) {
	x.record.outlier = false
	x.record.pardon()
	x.backend.Live.Set(balance.Outlier, false)
	m.noteBack(x)
	m.weigh(x, now)
}
