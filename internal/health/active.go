package health

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
)

// verdict is what the probes say of a backend.
//
//	first set             newcomer
//	    │                    │
//	    ▼       fall         ▼
//	 passing ─────────► failing
//	    ▲ ◄───────────────── │
//	    └───── rise ─────────┘
//
// Until a backend has passed its first probe, one result is enough either way.
type verdict struct {
	failing bool
	// pending is a newcomer of whose probes none has come to anything yet.
	pending bool
	// proven: it has passed a probe, or has served before there were any.
	proven         bool
	passed, failed int // in a row; one of the two is 0
	err            error
}

// begin is a backend that joins.
func (v *verdict) begin(probed, newcomer bool) {
	*v = verdict{failing: probed && newcomer, pending: probed && newcomer, proven: !probed}
}

// hear takes the result of a probe, and reports whether the verdict has changed.
func (v *verdict) hear(err error, a *Active) (changed bool) {
	v.pending = false
	if err != nil {
		v.passed, v.failed, v.err = 0, v.failed+1, err
		changed = !v.failing && (!v.proven || v.failed >= a.Fall)
		v.failing = v.failing || changed
		return changed
	}
	v.passed, v.failed = v.passed+1, 0
	changed = v.failing && (!v.proven || v.passed >= a.Rise)
	v.failing, v.proven = v.failing && !changed, true
	return changed
}

// reprobe is for a member whose probes change: it keeps its verdict, and is trusted if
// there are none any more. The lock is held.
func (m *Monitor) reprobe(x *member, now time.Time) {
	v := &x.verdict
	if m.settings.Active != nil {
		v.passed, v.failed = 0, 0
		m.nudge()
		return
	}
	x.stopProber()
	v.begin(false, false)
	if x.backend.Live.Set(balance.Failing, false) {
		m.noteBack(x)
	}
	m.weigh(x, now)
}

// startProbers starts what is missing. They end with ctx, with their member, or when there
// are to be no probes any more.
func (m *Monitor) startProbers(ctx context.Context, running *sync.WaitGroup) {
	m.mu.Lock()
	defer m.release()
	if ctx.Err() != nil || m.settings.Active == nil {
		return
	}
	for _, x := range m.members {
		if x.cancel != nil {
			continue
		}
		own, cancel := context.WithCancel(ctx)
		x.cancel = cancel
		running.Go(func() {
			defer cancel()
			m.watch(own, x)
		})
	}
}

// watch probes a member until ctx is done.
func (m *Monitor) watch(ctx context.Context, x *member) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		t, changed, ok := m.target(ctx, x)
		if !ok {
			return
		}
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, t.active.Timeout)
		header, err := m.probe(bounded, t)
		cancel()
		if err == nil && header != nil && t.answered != nil && ctx.Err() == nil {
			t.answered(t.backend, header)
		}
		m.probed(ctx, x, err)
		timer.Reset(jittered(t.active.Interval) - time.Since(began))
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// jittered is d, give or take a tenth: probes of many edges must not come in step.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// target is what a prober is to do, unless it is to end. changed is closed when that is
// something else.
func (m *Monitor) target(ctx context.Context, x *member) (t target, changed <-chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil || m.settings.Active == nil {
		return target{}, nil, false
	}
	s := &m.settings
	return target{backend: x.backend, active: *s.Active, tls: s.TLS, dialer: s.Dial, host: s.Host, answered: s.Answered}, m.changed, true
}

// probed takes the result of a probe. That of a prober which was told to end is not asked
// for any more.
func (m *Monitor) probed(ctx context.Context, x *member, err error) {
	now := time.Now()
	m.mu.Lock()
	defer m.release()
	if ctx.Err() != nil || m.settings.Active == nil || Own(err) {
		return
	}
	live := x.backend.Live
	if err != nil {
		live.Fail(balance.FailureProbe)
	}
	waited := x.verdict.pending
	changed := x.verdict.hear(err, m.settings.Active)
	live.Set(balance.Failing, x.verdict.failing)
	switch {
	case x.verdict.failing && (changed || waited):
		m.note(zap.WarnLevel, "backend ejected", m.about(x, zap.String("why", x.verdict.reason()), zap.Error(err))...)
	case changed:
		m.noteBack(x)
	}
	if changed {
		m.nudge()
	}
	m.weigh(x, now)
	m.review()
}

// reason is why a backend is failing, in a few words.
func (v *verdict) reason() string {
	if v.err == nil {
		return "waits for its first probe"
	}
	return "probe: " + brief(v.err) + v.row()
}

func (v *verdict) row() string {
	if v.failed < 2 {
		return ""
	}
	return " (" + strconv.Itoa(v.failed) + " in a row)"
}

// noteBack has it logged that a member is healthy, unless something else keeps it out. The
// lock is held.
func (m *Monitor) noteBack(x *member) {
	if !x.verdict.failing && !x.record.outlier {
		m.note(zap.InfoLevel, "backend healthy", m.about(x)...)
	}
}

func (m *Monitor) about(x *member, more ...zap.Field) []zap.Field {
	return append([]zap.Field{zap.String("backend", x.backend.ID), zap.String("address", x.backend.Addr)}, more...)
}
