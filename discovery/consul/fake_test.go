package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tidegate/tidegate/discovery"
)

// fake answers /v1/health/service like an agent, over connections in memory, so that a
// test runs on the clock of its synctest bubble. It misbehaves where a test asks it to.
type fake struct {
	t *testing.T

	mu       sync.Mutex
	sets     map[string]*fakeSet // by datacenter, "" for none asked
	requests []*http.Request
	down     bool
	// misbehave answers a request itself if it returns true.
	misbehave func(w http.ResponseWriter, r *http.Request) bool
	conns     chan net.Conn
}

type fakeSet struct {
	index   uint64
	entries []*api.ServiceEntry
	header  http.Header
	changed chan struct{} // closed when the set changes
	absent  bool
	held    chan struct{} // answers wait until it is closed
}

// newFake is called inside a bubble.
func newFake(t *testing.T) *fake {
	f := &fake{t: t, sets: make(map[string]*fakeSet), conns: make(chan net.Conn)}
	server := &http.Server{Handler: f}
	listener := &pipeListener{conns: f.conns, closed: make(chan struct{})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return f
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (f *fake) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	select {
	case f.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// set replaces the entries of a datacenter and moves its index on.
func (f *fake) set(dc string, entries ...*api.ServiceEntry) {
	f.change(dc, func(s *fakeSet) { s.index, s.entries = s.index+1, entries })
}

func (f *fake) change(dc string, change func(*fakeSet)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.at(dc)
	change(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (f *fake) at(dc string) *fakeSet {
	s := f.sets[dc]
	if s == nil {
		s = &fakeSet{index: 10, header: make(http.Header), changed: make(chan struct{})}
		f.sets[dc] = s
	}
	return s
}

// fault makes every later request fail with it; nil ends that. Queries that block are
// interrupted, so that the fault is met at once.
func (f *fake) fault(misbehave func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	f.misbehave = misbehave
	f.mu.Unlock()
	f.wake()
}

// hold makes the answers of a datacenter wait until the channel is closed.
func (f *fake) hold(dc string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := make(chan struct{})
	f.at(dc).held = held
	return held
}

// wake makes every query that blocks return without a change.
func (f *fake) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sets {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

func (f *fake) seen() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	f.mu.Lock()
	f.requests = append(f.requests, r)
	misbehave := f.misbehave
	s := f.at(query.Get("dc"))
	index, changed := s.index, s.changed
	held := s.held
	f.mu.Unlock()

	if held != nil {
		select {
		case <-held:
		case <-r.Context().Done():
			return
		}
	}

	if misbehave != nil && misbehave(w, r) {
		return
	}
	asked, _ := strconv.ParseUint(query.Get("index"), 10, 64)
	if asked > 0 && asked >= index {
		wait, err := time.ParseDuration(query.Get("wait"))
		if err != nil {
			wait = 5 * time.Minute
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-changed:
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	f.answer(w, query.Get("dc"))
}

func (f *fake) answer(w http.ResponseWriter, dc string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.at(dc)
	if s.absent {
		http.Error(w, "No path to datacenter", http.StatusInternalServerError)
		return
	}
	w.Header().Set("X-Consul-Index", fmt.Sprint(s.index))
	w.Header().Set("X-Consul-KnownLeader", "true")
	w.Header().Set("X-Consul-LastContact", "0")
	for key, values := range s.header {
		w.Header()[key] = values
	}
	entries := s.entries
	if entries == nil {
		entries = []*api.ServiceEntry{}
	}
	if err := json.NewEncoder(w).Encode(entries); err != nil {
		f.t.Log("fake agent:", err)
	}
}

// entry is a passing instance on node n-ID at 10.0.0.1:8080.
func entry(id string, changes ...func(*api.ServiceEntry)) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Node:    &api.Node{Node: "n", Datacenter: "dc1", Address: "10.0.0.1"},
		Service: &api.AgentService{ID: id, Service: "web", Port: 8080, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
		Checks:  api.HealthChecks{{CheckID: "serfHealth", Status: api.HealthPassing}},
	}
	for _, change := range changes {
		change(e)
	}
	return e
}

func entries(n int) []*api.ServiceEntry {
	var all []*api.ServiceEntry
	for i := range n {
		all = append(all, entry(fmt.Sprintf("s%02d", i)))
	}
	return all
}

func critical(e *api.ServiceEntry) { e.Checks[0].Status = api.HealthCritical }

func weight(n int) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Service.Weights.Passing = n }
}

func in(dc string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Node.Datacenter = dc }
}

// watched is a Source that is being watched in a bubble.
type watched struct {
	*Source
	mu        sync.Mutex
	published []*discovery.Snapshot
	logs      *observer.ObservedLogs
	stop      func() error
}

// watch starts a Source against f and stops it when the test ends.
func (f *fake) watch(config Config, tune ...func(*Source)) *watched {
	f.t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	config.Address = "http://consul.test"
	config.Service = "web"
	config.Logger = zap.New(core)
	source, err := New(config)
	if err != nil {
		f.t.Fatal(err)
	}
	source.transport.Proxy = nil
	source.transport.DialContext = f.dial
	for _, t := range tune {
		t(source)
	}
	w := &watched{Source: source, logs: logs}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- source.Watch(ctx, func(s *discovery.Snapshot) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.published = append(w.published, s)
		})
	}()
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	f.t.Cleanup(func() { _ = w.stop() })
	return w
}

// all returns what has been published once everything is idle.
func (w *watched) all() []*discovery.Snapshot {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.published)
}

func (w *watched) last() *discovery.Snapshot {
	if all := w.all(); len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// count returns how often the log has had a message.
func (w *watched) count(message string) int { return w.logs.FilterMessage(message).Len() }

// shape is a snapshot in short: "id*weight:status" of each instance, "stale" at the end.
func shape(s *discovery.Snapshot) []string {
	if s == nil {
		return nil
	}
	short := []string{}
	for _, i := range s.Instances {
		short = append(short, fmt.Sprintf("%s*%d:%v", i.ID, i.Weight, i.Status))
	}
	if s.Stale {
		short = append(short, "stale")
	}
	return short
}

func expect(t *testing.T, when string, s *discovery.Snapshot, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if got := shape(s); s == nil || !slices.Equal(got, want) {
		t.Fatalf("%s: published %v, want %v", when, got, want)
	}
}
