package metrics

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tidegate/tidegate/internal/histogram"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fixed is a source that says what it was last told.
type fixed struct {
	mu sync.Mutex
	s  Snapshot
}

func (f *fixed) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.s
}

func (f *fixed) set(s Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s = s
}

func observed(bounds []float64, values ...float64) histogram.Snapshot {
	h := histogram.New(bounds...)
	for _, v := range values {
		h.Observe(v)
	}
	return h.Snapshot()
}

// full has something for every metric.
func full() Snapshot {
	at := time.Date(2025, 6, 1, 12, 0, 0, 500e6, time.UTC)
	return Snapshot{
		Sessions: []Sessions{{"edge", "chat", 3}, {"edge", "feed", 0}},
		Routes: []Route{{
			Name:              "chat",
			Answers:           Answers{Handshakes: map[string]uint64{"ok": 9, "no_backend": 1}, Requests: map[int]uint64{101: 9, 404: 2}},
			HandshakeDuration: observed([]float64{0.01, 0.1}, 0.005, 0.05, 5),
			Upstream: Traffic{TextMessages: 10, BinaryMessages: 2, MessageBytes: 4096,
				Frames: Frames{Continuation: 1, Text: 10, Binary: 3, Close: 4, Ping: 5, Pong: 6}},
			Downstream: Traffic{TextMessages: 20, MessagesDropped: 7, MessageBytes: 8192, Frames: Frames{Text: 20}},
			Closes: []Close{
				{1000, "client", 4}, {0, "client", 1}, {3000, "backend", 1}, {3999, "backend", 2},
				{4000, "client", 3}, {4999, "client", 4}, {1012, "edge", 2}, {2999, "backend", 1},
			},
			Ends:            []End{{"client", "utf8", 2}, {"edge", "idle_timeout", 3}},
			SessionDuration: observed([]float64{1, 60}, 0.5, 30, 90),
			PingRTT:         observed([]float64{0.01, 0.1}, 0.02, 0.2),
		}},
		Unrouted: Answers{Handshakes: map[string]uint64{"no_route": 3, "tls": 1}, Requests: map[int]uint64{404: 4}},
		Requests: 3, Buffered: 65536,
		Shed: map[string]uint64{"max_sessions": 2},
		Pools: []Pool{
			{
				Name:            "chat",
				ConnectDuration: observed([]float64{0.001}, 0.0005),
				Backends: []Backend{
					{ID: "a", State: "up", Sessions: 2, Picks: 7, Failures: map[string]uint64{"connect": 1}},
					{ID: "dc1/n1/b", State: "draining", Sessions: 1, Picks: 3, Draining: true, Remaining: 1},
				},
				Migrations: map[string]uint64{"ok": 12, "no_pong": 1}, InDoubt: 3, Rebalanced: 9,
				Stale:  true,
				Panic:  true,
				Consul: &Consul{Index: 1234, LastContact: at, Errors: 5},
			},
			{Name: "static", Backends: []Backend{{ID: "c", State: "up"}}},
		},
		Config:       Config{Generation: 4, Reloads: map[string]uint64{"ok": 3, "invalid": 1}, LastReloadOK: true},
		Certificates: []Certificate{{"edge", "chat.example.com", at}},
	}
}

func TestEveryMetric(t *testing.T) {
	golden := filepath.Join("testdata", "full.prom")
	if *update {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(NewCollector(&fixed{s: full()}))
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		for _, mf := range families {
			if _, err := expfmt.MetricFamilyToText(&b, mf); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if err := testutil.CollectAndCompare(NewCollector(&fixed{s: full()}), want); err != nil {
		t.Error(err)
	}
}

// TestContractNames holds the names against the contract, so that a golden file that
// was rewritten cannot rename anything.
func TestContractNames(t *testing.T) {
	contract := strings.Fields(`sessions_active{listener,route} handshakes_total{route,result}
		handshake_duration_seconds{route} messages_total{route,direction,type}
		message_bytes_total{route,direction} frames_total{route,direction,opcode}
		closes_total{route,code,initiator} session_duration_seconds{route} ping_rtt_seconds{route} session_ends_total{route,by,cause} messages_dropped_total{route,direction} requests_in_flight buffered_bytes shed_total{reason}
		requests_total{route,code} backend_sessions_active{pool,backend}
		backend_state{pool,backend,state} backend_picks_total{pool,backend}
		backend_connect_duration_seconds{pool} backend_failures_total{pool,backend,kind}
		migrations_total{pool,result} messages_in_doubt_total{pool}
		config_generation config_reloads_total{result} config_last_reload_success
		certificate_not_after_seconds{listener,name} consul_index{pool}
		consul_last_contact_timestamp_seconds{pool} consul_errors_total{pool} discovery_stale{pool}
		pool_panic{pool} drain_remaining{pool,backend} rebalanced_total{pool}`)
	families := scrape(t, &fixed{s: full()})
	wanted := make(map[string]bool)
	for _, entry := range contract {
		name, rest, _ := strings.Cut(entry, "{")
		name = "tidegate_" + name
		wanted[name] = true
		mf := families[name]
		if mf == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		labels := make(map[string]bool)
		for _, pair := range mf.Metric[0].Label {
			labels[pair.GetName()] = true
		}
		want := strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == '}' })
		for _, label := range want {
			if !labels[label] {
				t.Errorf("%s has no label %s", name, label)
			}
		}
		if len(labels) != len(want) {
			t.Errorf("%s has labels %v, want %v", name, labels, want)
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "tidegate_") && !wanted[name] {
			t.Errorf("%s is not in the contract", name)
		}
	}
}

func TestLint(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(&fixed{s: full()}))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestEmpty is an edge before its first configuration.
func TestEmpty(t *testing.T) {
	families := scrape(t, &fixed{})
	for _, name := range []string{"tidegate_config_generation", "tidegate_config_last_reload_success", "go_goroutines"} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if mf := families["tidegate_sessions_active"]; mf != nil {
		t.Errorf("sessions_active without a route: %v", mf)
	}
}

func TestStandardCollectors(t *testing.T) {
	families := scrape(t, &fixed{})
	for _, name := range []string{"go_goroutines", "go_info", "process_open_fds", "process_start_time_seconds"} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestBackendThatIsGone(t *testing.T) {
	src := &fixed{s: full()}
	handler := Handler(src, nil)
	if !strings.Contains(body(t, handler), `backend="dc1/n1/b"`) {
		t.Fatal("the backend has no series to begin with")
	}
	s := full()
	s.Pools[0].Backends = s.Pools[0].Backends[:1]
	src.set(s)
	got := body(t, handler)
	if strings.Contains(got, "dc1/n1/b") {
		t.Errorf("series of a backend that is gone:\n%s", got)
	}
	if !strings.Contains(got, `tidegate_backend_picks_total{backend="a",pool="chat"} 7`) {
		t.Error("its neighbour lost its series")
	}
}

func TestBackendStates(t *testing.T) {
	for _, state := range backendStates {
		src := &fixed{s: Snapshot{Pools: []Pool{{Name: "p", Backends: []Backend{{ID: "b", State: state}}}}}}
		got := make(map[string]float64)
		for _, m := range scrape(t, src)["tidegate_backend_state"].Metric {
			got[label(m, "state")] = m.GetGauge().GetValue()
		}
		if len(got) != len(backendStates) {
			t.Errorf("%s: %d series, want %d", state, len(got), len(backendStates))
		}
		for s, v := range got {
			if (v == 1) != (s == state) {
				t.Errorf("in state %s the series of %s is %v", state, s, v)
			}
		}
	}
}

func TestHostileIDs(t *testing.T) {
	for _, tt := range []struct{ name, id, want string }{
		{"quotes and line breaks", "a\"b\\c\nd", "a\"b\\c\nd"},
		{"a series of its own", "x\"} 1\nevil_total{a=\"", "x\"} 1\nevil_total{a=\""},
		{"invalid UTF-8", "a\xff\xfeb", `a\xff\xfeb`},
		{"cut rune", "a\xe2\x82", `a\xe2\x82`},
		{"a true replacement character", "a\ufffdb", "a\ufffdb"},
		{"NUL and escapes", "a\x00\x1b[2J", "a\x00\x1b[2J"},
		{"empty", "", ""},
		{"long", strings.Repeat("n", 1<<16), strings.Repeat("n", 1<<16)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := &fixed{s: Snapshot{Pools: []Pool{{Name: "p", Backends: []Backend{
				{ID: tt.id, State: "up", Picks: 5, Failures: map[string]uint64{"connect": 1}}, {ID: "good", Picks: 6},
			}}}}}
			families := scrape(t, src)
			picks := make(map[string]float64)
			for _, m := range families["tidegate_backend_picks_total"].Metric {
				picks[label(m, "backend")] = m.GetCounter().GetValue()
			}
			if picks[tt.want] != 5 || picks["good"] != 6 {
				t.Errorf("picks by backend: %v", picks)
			}
			if families["evil_total"] != nil {
				t.Error("an id became a series")
			}
		})
	}
}

// A source that names something twice must cost that series only, and somebody must
// hear of it.
func TestDuplicateSeries(t *testing.T) {
	s := full()
	s.Pools = append(s.Pools, Pool{Name: "static"})
	var failures []error
	got := body(t, Handler(&fixed{s: s}, func(err error) { failures = append(failures, err) }))
	if !strings.Contains(got, `tidegate_sessions_active{listener="edge",route="chat"} 3`) {
		t.Error("the rest of the scrape is missing")
	}
	if len(failures) == 0 {
		t.Error("nobody heard of it")
	}
	body(t, Handler(&fixed{s: s}, nil)) // and nobody needs to
}

func TestConcurrentScrapes(t *testing.T) {
	src := &fixed{s: full()}
	handler := Handler(src, nil)
	var scraping sync.WaitGroup
	for range 8 {
		scraping.Go(func() {
			for range 5 {
				src.set(full())
				if rec := get(handler); rec.Code != http.StatusOK {
					t.Errorf("status %d", rec.Code)
				}
			}
		})
	}
	scraping.Wait()
}

func label(m *dto.Metric, name string) string {
	for _, pair := range m.Label {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}

func get(h http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return rec
}

func body(t *testing.T, h http.Handler) string {
	t.Helper()
	rec := get(h)
	b, err := io.ReadAll(rec.Result().Body)
	if err != nil || rec.Code != http.StatusOK {
		t.Fatalf("status %d, %v:\n%s", rec.Code, err, b)
	}
	return string(b)
}

// scrape goes the way of Prometheus: over promhttp and through its parser.
func scrape(t *testing.T, src Source) map[string]*dto.MetricFamily {
	t.Helper()
	handler := Handler(src, func(err error) { t.Errorf("scraping: %v", err) })
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body(t, handler)))
	if err != nil {
		t.Fatal(err)
	}
	return families
}
