package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// healthSettings are what the pool wants of its monitor.
func (v *poolView) healthSettings() health.Settings {
	s := health.Settings{Checks: v.Health, SlowStart: v.SlowStart, TLS: v.Upstream.TLS,
		Dial: v.probe, Answered: func(b *balance.Backend, h http.Header) { v.pool.report(b.Live, h) }}
	if v.Upstream.Host != HostPreserve && v.Upstream.Host != HostBackend {
		s.Host = v.Upstream.Host // else the backend's address: a probe has no client
	}
	return s
}

// endOf says what the end of a session has to do with its backend, and what the backend
// did, where it did something.
func endOf(res *engine.Result) (health.End, error) {
	switch res.Cause {
	case relay.BackendGone:
		if res.Why != relay.WhyGone {
			return health.EndAborted, errors.New(res.Why)
		}
		return health.EndAborted, cmp.Or(res.BackendErr, errGone)
	case relay.BackendViolation:
		// Limits are the operator's: who sends too much is not broken.
		if code := res.Err.Code; code == ws.StatusProtocolError || code == ws.StatusInvalidFramePayloadData {
			return health.EndViolation, res.Err
		}
	case relay.BackendClosed:
		switch code := res.Code; {
		case code == ws.StatusNormalClosure, code == ws.StatusGoingAway, code == ws.StatusNoStatusRcvd, code >= 3000 && code <= 4999:
			return health.EndWell, nil
		case code == ws.StatusInternalServerError:
			return health.EndInternalError, closedWith(code)
		default:
			return health.EndClosed, closedWith(code)
		}
	}
	return health.EndOther, nil
}

var errGone = errors.New("it ended without a Close")

// closedWith is a Close of a backend's that speaks against it.
type closedWith ws.StatusCode

func (c closedWith) Error() string { return fmt.Sprintf("closed with %d", uint16(c)) }
