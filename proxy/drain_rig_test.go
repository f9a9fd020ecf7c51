package proxy

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// drainRig is a server without sockets, in a bubble of made-up time. Its sessions are
// sham, all else is real.
type drainRig struct {
	*Server
	t        *testing.T
	source   *testSource
	settings Settings
	place    *place
	began    time.Time
	logs     *observer.ObservedLogs

	mu   sync.Mutex
	ends []shamEnd
}

// shamEnd is the end of a session, in time since the drain was to begin.
type shamEnd struct {
	*sham
	at     time.Duration
	killed bool
	ending relay.Ending
}

// sham is a session that does what its engine is told, at once.
type sham struct {
	*Session
	rig      *drainRig
	stubborn bool // does not end when it is told to
	messages atomic.Uint64
	done     atomic.Bool
}

func (s *sham) Close(e relay.Ending) {
	if s.State() != StateOpen {
		return
	}
	s.rig.note(s, false, e)
	if (*observed)(s.Session).Closing(); !s.stubborn {
		s.finish(engine.Result{Verdict: relay.Verdict{Cause: relay.EdgeClosed, Code: e.Client, Why: e.Why}})
	}
}

func (s *sham) Shed(e relay.Ending) { s.Close(e) }
func (s *sham) Held() int           { return 0 }
func (s *sham) CancelMove(string)   {}

func (s *sham) Kill() {
	s.rig.note(s, true, relay.Ending{})
	s.finish(engine.Result{Verdict: relay.Verdict{Cause: relay.EdgeClosed, Code: ws.StatusAbnormalClosure}})
}

func (s *sham) Counts() [2]relay.Count {
	return [2]relay.Count{relay.Client: {Messages: s.messages.Load()}}
}

// finish is once, as an engine's: a drain and the end of the edge may close it at a time.
func (s *sham) finish(res engine.Result) {
	if !s.done.Swap(true) {
		(*observed)(s.Session).Done(res)
	}
}

// note is called by drains, each on its goroutine. Tests read what it notes when all wait.
func (r *drainRig) note(s *sham, killed bool, e relay.Ending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = append(r.ends, shamEnd{s, time.Since(r.began), killed, e})
}

// drained runs a test of a pool with the backends a and b.
func drained(t *testing.T, drain DrainSettings, test func(*drainRig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		r := &drainRig{Server: NewServer(zap.New(core)), t: t, source: newSource(), logs: logs}
		drain.Code, drain.Reason = ws.StatusCode(1012), "service restart"
		r.settings = Settings{Pools: []PoolSettings{{Name: "apps", Balance: balance.Options{Policy: "random"}, Drain: drain,
			Sources: []SourceSettings{{Slot: "test", Key: "k", Source: r.source}}, OnRemoved: DrainSessions, RemovalGrace: 2 * time.Second}}}
		r.reload()
		r.say("a", "b")
		r.place = &place{srv: r.Server, stats: r.stats.route("all"), limits: &limits{}, traffic: new(traffic), health: health.New(zap.NewNop()), listener: "edge", route: "all", pool: "apps"}
		r.began = time.Now()
		test(r)
		r.Shutdown(context.Background(), 0, 0)
	})
}

func (r *drainRig) reload() {
	r.t.Helper()
	next, err := r.Prepare(r.settings)
	if err != nil {
		r.t.Fatal(err)
	}
	next.Commit()
	synctest.Wait()
}

// say makes these the backends of the pool; those in maintenance have a "!".
func (r *drainRig) say(ids ...string) {
	r.t.Helper()
	var list []discovery.Instance
	for _, id := range ids {
		i := discovery.Instance{ID: id, Addr: id + ":1", Weight: 1}
		if id[len(id)-1] == '!' {
			i.ID, i.Status = id[:len(id)-1], discovery.Maintenance
		}
		list = append(list, i)
	}
	r.source.say(r.t, list...)
	synctest.Wait()
}

// backend returns a backend that discovery knows, or which has sessions, or nil.
func (r *drainRig) backend(id string) *balance.Backend {
	for _, b := range r.pool("apps").show().Backends {
		if b.ID == id {
			return b
		}
	}
	return nil
}

// view returns a drain as it stands.
func (r *drainRig) view(id string) (DrainView, bool) {
	v, ok := r.pool("apps").show().Drains[id]
	return v, ok
}

// reserve picks a backend as a handshake does.
func (r *drainRig) reserve(id string) *balance.Backend {
	r.t.Helper()
	var others []*balance.Backend
	for _, b := range r.pool("apps").show().Backends {
		if b.ID != id {
			others = append(others, b)
		}
	}
	b, err := r.pool("apps").pick(balance.Request{Tried: others})
	if err != nil || b.ID != id {
		r.t.Fatalf("got %v, %v, want backend %s", b, err, id)
	}
	return b
}

// begin is a session on a backend that was reserved.
func (r *drainRig) begin(b *balance.Backend) *sham {
	r.t.Helper()
	ip := netip.MustParseAddr("192.0.2.1")
	if refused := r.place.limits.admit(ListenerLimits{}, ip); refused != nil {
		r.t.Fatal(refused)
	}
	x := newSession(r.place, b, &SessionInfo{Client: netip.AddrPortFrom(ip, 1), ClientIP: ip})
	s := &sham{Session: x, rig: r}
	r.place.stats.enter(r.place.listener)
	b.Live.Open()
	x.engine = s
	r.sessions.add(x)
	return s
}

// open opens sessions on a backend.
func (r *drainRig) open(id string, n int) (all []*sham) {
	r.t.Helper()
	for range n {
		all = append(all, r.begin(r.reserve(id)))
	}
	return all
}

// drain drains a backend, from now on.
func (r *drainRig) drain(id string, asked DrainPace) {
	r.t.Helper()
	if err := r.Drain("apps", id, asked); err != nil {
		r.t.Fatal(err)
	}
}

// sleep lets time pass, and all happen that is due by then.
func (r *drainRig) sleep(d time.Duration) {
	r.seen()
	time.Sleep(d)
	synctest.Wait()
}

// seen orders what drains write from now on behind what the test has read.
func (r *drainRig) seen() {
	r.mu.Lock()
	defer r.mu.Unlock()
}

// until lets time pass up to a moment after the beginning.
func (r *drainRig) until(d time.Duration) { r.sleep(d - time.Since(r.began)) }

// ended checks how many sessions have ended.
func (r *drainRig) ended(when string, least, most int) {
	r.t.Helper()
	if n := len(r.ends); n < least || n > most {
		r.t.Fatalf("%s: %d sessions have ended, want %d to %d", when, n, least, most)
	}
}

// state checks what a backend is and how its drain stands; by 0 is none.
func (r *drainRig) state(when, id string, state balance.State, by DrainCause, remaining int64) {
	r.t.Helper()
	b := r.backend(id)
	if b == nil {
		r.t.Fatalf("%s: %s is not there", when, id)
	}
	v, ok := r.view(id)
	if b.Live.State() != state || ok != (by != 0) || v.By != by || v.Remaining != remaining {
		r.t.Fatalf("%s: %s is %s with the drain %v of %d (%v), want %s, %v, %d", when, id, b.Live.State(), v.By, v.Remaining, ok, state, by, remaining)
	}
}

// paced checks that ends lie in slots of equal length that begin at a time.
func (r *drainRig) paced(ends []shamEnd, from, slot time.Duration) {
	r.t.Helper()
	var at []time.Time
	for i, e := range ends {
		if begins := from + time.Duration(i)*slot; e.at < begins || e.at > begins+slot {
			r.t.Errorf("end %d of %d is at %v, its slot is from %v to %v", i, len(ends), e.at, begins, begins+slot)
		}
		at = append(at, r.began.Add(e.at))
	}
	if most := mostInASecond(at); most > max(1, int(2*time.Second/slot)) {
		r.t.Errorf("a second has %d ends", most)
	}
}

// order returns the numbers of those that have ended among all.
func (r *drainRig) order(all []*sham) (numbers []int) {
	for _, e := range r.ends {
		numbers = append(numbers, slices.Index(all, e.sham))
	}
	return numbers
}
