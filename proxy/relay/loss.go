package relay

import (
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// Doubt returns how many messages of the client went to the backend that was lost last
// without a sign that it has read them and had Settle to deal with them. It holds from
// MoveAsks or MoveSwitches on.
func (r *Relay) Doubt() uint64 {
	if m := r.moving(); m != nil {
		return m.doubt
	}
	return 0
}

// Loss returns why the backend was lost, as in Verdict.Why.
func (r *Relay) Loss() string {
	if m := r.moving(); m != nil {
		return m.verdict.Why
	}
	return ""
}

// ends is asked when the backend's stream has ended, and reports whether the client is
// kept.
func (r *Relay) ends(now time.Duration) bool {
	if r.opt.Migrate == nil || r.in[Backend].closed && r.moving() == nil {
		return false
	}
	m := r.moving()
	switch {
	case m != nil && m.phase > leaving && m.phase < over:
		return true // it has said its last already
	case r.left(ws.StatusAbnormalClosure, "", now):
		return true
	case m != nil && m.phase == leaving:
		r.cutShort(m)
	}
	return false
}

// keepsClient is asked when the backend sends a Close, and reports whether that is dealt
// with.
func (r *Relay) keepsClient(code ws.StatusCode, reason string, now time.Duration, toClient *Buffers) bool {
	m := r.moving()
	switch {
	case r.left(code, reason, now):
		return true
	case m != nil && m.phase == leaving:
		// It was told to go inside a message, and does: the client waits for the rest.
		r.cutShort(m).pending[Client] = r.farewell()
		r.release(Client, now, toClient)
		r.settle(now)
		return true
	}
	return false
}

// left reports whether the client is kept though its backend has sent a Close, or has ended
// its stream without one (code 1006), and does what is to be done for that.
func (r *Relay) left(code ws.StatusCode, reason string, now time.Duration) bool {
	opt, m := r.opt.Migrate, r.moving()
	gone := code == ws.StatusAbnormalClosure
	switch {
	case !r.backendBetween() || m != nil && m.phase == over:
		return false
	case m != nil && m.phase == leaving:
		if m.lost && !gone {
			m.answer = code
		}
		r.overBackend(m, now)
		return true
	case r.ending != nil || r.stays():
		return false
	case gone && !opt.OnFailure && (m == nil || m.phase < settling), !gone && !slices.Contains(opt.CloseCodes, code):
		return false
	}
	v := goneVerdict(Backend, WhyGone)
	if !gone {
		v = Verdict{Cause: BackendClosed, Code: code, Reason: reason, Why: WhyClosed}
	}
	if m = r.lose(m, now, v); !gone {
		m.answer = code
	}
	r.overBackend(m, now)
	return true
}

// stays reports whether the session cannot change its backend.
func (r *Relay) stays() bool {
	m := r.moving()
	return r.pol.opening != nil && r.pol.opening.tooBig && (m == nil || !m.holding())
}

// answerClose answers the Close of a backend without which the session goes on (RFC 6455
// §5.5.1).
func (r *Relay) answerClose(toBackend *Buffers) {
	if m := r.moving(); m != nil && m.answer != 0 && !m.cut {
		toBackend.addCopy(frame.AppendClose(nil, m.answer, "", true))
		m.answer = 0
	}
}

// lose begins to keep what the client says for the next backend, since the present one is
// lost.
func (r *Relay) lose(m *move, now time.Duration, v Verdict) *move {
	if m == nil {
		m = new(move)
		r.pol.move = m
	}
	if m.phase < asked {
		m.passed, m.cut = r.in[Client].count.Messages, !r.in[Client].betweenFrames()
		r.pol.opening.cut()
	}
	m.lost, m.verdict, m.doubt = true, v, r.doubt(m, now)
	if m.phase < asked && !r.clientBetween() {
		r.skipMessage()
	}
	r.out[Backend].owed, r.rearm = false, true
	return m
}

// overBackend is the end of the old backend's stream.
func (r *Relay) overBackend(m *move, now time.Duration) {
	r.in[Backend].closed, r.rearm = true, true
	if m.phase = ready; !m.next {
		m.phase, m.deadline = orphaned, now+r.opt.Migrate.Timeout
		r.wakeBy(m.deadline)
	}
}

// Fading says that the backend takes nothing more. If the client is to be kept, what it
// says is kept from now on, and the engine waits for the backend's last words.
func (r *Relay) Fading(now time.Duration) { r.fail(goneVerdict(Backend, WhyGone), now) }

// fail reports whether the client is kept though its backend has failed, and keeps what it
// says from now on.
func (r *Relay) fail(v Verdict, now time.Duration) bool {
	opt, m := r.opt.Migrate, r.moving()
	switch {
	case opt == nil || r.ending != nil || m != nil && m.phase == over:
		return false
	case m != nil && m.phase >= leaving:
		return true
	case r.stays() || !opt.OnFailure && (m == nil || m.phase < settling):
		return false
	}
	r.fade(r.lose(m, now, v), now)
	return true
}
