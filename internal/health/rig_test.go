package health

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errRefused = errors.New("refused")
	// errSilent makes a probe wait until its time is up.
	errSilent = errors.New("silent")
)

// rig is a running monitor in a bubble of its own time, whose probes answer what the test
// says.
type rig struct {
	*Monitor
	t        *testing.T
	registry *balance.Registry
	set      *balance.Set
	logs     *observer.ObservedLogs
	stop     context.CancelFunc
	stopped  chan struct{}

	mu      sync.Mutex
	answers map[string]error // of probes, by address
	probes  map[string][]time.Time
}

// bubble runs a test with a monitor that has these settings.
func bubble(t *testing.T, s Settings, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		r := &rig{Monitor: New(zap.New(core)), t: t, registry: balance.NewRegistry(), logs: logs,
			stopped: make(chan struct{}), answers: map[string]error{}, probes: map[string][]time.Time{}}
		r.Monitor.probe = r.answer
		r.Apply(s)
		ctx, cancel := context.WithCancel(t.Context())
		r.stop = cancel
		go func() {
			defer close(r.stopped)
			r.Run(ctx)
		}()
		defer func() { cancel(); <-r.stopped }()
		test(r)
	})
}

func (r *rig) answer(ctx context.Context, t target) (http.Header, error) {
	r.mu.Lock()
	err := r.answers[t.backend.Addr]
	r.probes[t.backend.Addr] = append(r.probes[t.backend.Addr], time.Now())
	r.mu.Unlock()
	if err == errSilent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return http.Header{"Tidegate-Load": {"0.5"}}, err
}

// will says what probes of backends come to from now on.
func (r *rig) will(err error, ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.answers["addr-"+id] = err
	}
}

// probedAt returns when a backend has been probed.
func (r *rig) probedAt(id string) []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Time(nil), r.probes["addr-"+id]...)
}

func instance(id string, status discovery.Status) discovery.Instance {
	return discovery.Instance{ID: id, Addr: "addr-" + id, Weight: 1, Status: status}
}

// has brings the pool to backends that are up.
func (r *rig) has(ids ...string) {
	var list []discovery.Instance
	for _, id := range ids {
		list = append(list, instance(id, discovery.Up))
	}
	r.hasInstances(list...)
}

func (r *rig) hasInstances(list ...discovery.Instance) {
	r.set = r.registry.Update(list)
	r.Update(r.set, true)
	synctest.Wait()
}

// b returns a backend of the present set.
func (r *rig) b(id string) *balance.Backend {
	for _, b := range r.set.Backends() {
		if b.ID == id {
			return b
		}
	}
	r.t.Fatalf("no backend %q", id)
	return nil
}

// after lets time go by, and everything that is due then be done.
func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want holds the states of backends.
func (r *rig) want(when string, state balance.State, ids ...string) {
	r.t.Helper()
	synctest.Wait()
	for _, id := range ids {
		if got := r.b(id).Live.State(); got != state {
			r.t.Errorf("%s: %s is %v, want %v (%s)", when, id, got, state, r.View().Reasons[id])
		}
	}
}

// wantEligible holds whether picks land on a backend.
func (r *rig) wantEligible(when, id string, want bool) {
	r.t.Helper()
	if got := r.b(id).Live.Eligible(); got != want {
		r.t.Errorf("%s: %s eligible: %v, want %v", when, id, got, want)
	}
}

// wantLog holds how often a message was logged.
func (r *rig) wantLog(message string, n int) {
	r.t.Helper()
	synctest.Wait()
	if got := r.logs.FilterMessage(message).Len(); got != n {
		r.t.Errorf("logged %q %d times, want %d: %v", message, got, n, r.logs.All())
	}
}

// fails has n handshakes of a backend fail.
func (r *rig) fails(id string, n int) {
	for range n {
		r.HandshakeFailed(r.b(id), balance.FailureConnect, errRefused)
	}
}

const (
	s  = time.Second
	ms = time.Millisecond
)

var probing = Active{Probe: HTTP, Path: "/healthz", Interval: 5 * s, Timeout: 2 * s, Rise: 2, Fall: 3}

func active() Settings { a := probing; return Settings{Checks: Checks{Active: &a}} }

func passive() Settings {
	return Settings{Checks: Checks{Passive: Passive{ConsecutiveFailures: 3, EjectionTime: 30 * s, MaxEjected: 0.5, EarlyDeath: 5 * s, PanicThreshold: 0.3}}}
}
