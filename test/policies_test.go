package test

import (
	cryptotls "crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// policyEngines are the builds for what sessions run on: event loops, and the goroutines
// of systems that have none.
var policyEngines = []struct {
	name   string
	binary func(*testing.T) string
}{{"loops", func(*testing.T) string { return binary }}, {"goroutines", goroutineBinary}}

// policyEdge is an edge with routes that differ in their policies. Each route has a raw
// backend of its own, so that sessions of different routes can be opened at once, and is
// there twice, for clients with and without TLS: what the metrics of a route say is then
// about the sessions that a test opened on it.
type policyEdge struct {
	*edge
	engine   string
	addrs    map[string]string // of the listeners, by scheme
	backends map[string]*rawBackend

	expected sync.Map // of routes: *outcomes
}

// policySet is a route's name and its websocket section, and whether little fits into the
// sockets of its sessions.
type policySet struct {
	name, policies string
	small          bool
}

var schemes = []string{"ws", "wss"}

func policyYAML(sets []policySet, addr func(route string) string) string {
	var routes, pools strings.Builder
	for _, set := range sets {
		for _, scheme := range schemes {
			name := set.name + "-" + scheme
			fmt.Fprintf(&routes, "  - {name: %s, match: {path: /%s}, pool: %s, websocket: {%s}}\n", name, name, name, set.policies)
			fmt.Fprintf(&pools, "  - {name: %s, backends: [{address: %q}]}\n", name, addr(name))
		}
	}
	return `
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0", tcp: {receive_buffer: 64KiB, send_buffer: 64KiB}}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}, tcp: {receive_buffer: 64KiB, send_buffer: 64KiB}}
routes:
` + routes.String() + "pools:\n" + pools.String()
}

// onEngines runs a test on an edge of each engine, on all of them at once.
func onEngines(t *testing.T, sets []policySet, run func(t *testing.T, e *policyEdge)) {
	var all []trial
	for _, engine := range policyEngines {
		all = append(all, trial{engine.name, func(t *testing.T) {
			e := &policyEdge{engine: engine.name, addrs: map[string]string{}, backends: map[string]*rawBackend{}}
			for _, set := range sets {
				for _, scheme := range schemes {
					e.backends[set.name+"-"+scheme] = listenPolicy(t, set.small)
				}
			}
			e.edge = startProgram(t, engine.binary(t), []string{"GOGC=100"}, policyYAML(sets, func(route string) string { return e.backends[route].addr() }))
			for _, scheme := range schemes {
				e.addrs[scheme] = e.addr(scheme)
			}
			run(t, e)
			e.checkMetrics(t)
		}})
	}
	together(t, all)
}

func listenPolicy(t *testing.T, small bool) *rawBackend {
	if !small {
		return listenRaw(t, nil)
	}
	ln, err := (&net.ListenConfig{Control: smallBuffers}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	return &rawBackend{ln}
}

// trial is a subtest.
type trial struct {
	name string
	run  func(t *testing.T)
}

// together runs subtests at once, however few CPUs there are: they do little but wait.
func together(t *testing.T, all []trial) {
	var wg sync.WaitGroup
	for _, x := range all {
		wg.Go(func() { t.Run(x.name, x.run) })
	}
	wg.Wait()
}

// onSchemes are trials of one thing with and without TLS.
func onSchemes(name string, run func(t *testing.T, scheme string)) (both []trial) {
	for _, scheme := range schemes {
		both = append(both, trial{scheme + "/" + name, func(t *testing.T) { run(t, scheme) }})
	}
	return both
}

// open opens a session on a route.
func (e *policyEdge) open(t *testing.T, name, scheme string) (c, b *rawEnd) {
	t.Helper()
	route := name + "-" + scheme
	return connect(t, e.addrs[scheme], scheme == "wss", "/"+route, e.backends[route])
}

// openSmall is open for a client with small buffers, below which wrap may do something.
func (e *policyEdge) openSmall(t *testing.T, name, scheme string, wrap func(net.Conn) net.Conn) (c, b *rawEnd) {
	t.Helper()
	route := name + "-" + scheme
	conn, err := (&net.Dialer{Control: smallBuffers}).Dial("tcp", e.addrs[scheme])
	must(t, err)
	if wrap != nil {
		conn = wrap(conn)
	}
	if scheme == "wss" {
		conn = cryptotls.Client(conn, insecure())
	}
	c = newRawEnd(t, conn, true)
	c.write([]byte(opening("/" + route)))
	b = e.backends[route].accept(t)
	b.write([]byte(b.switching()))
	c.wantSwitching()
	return c, b
}

// outcome is how a session ended, in the words of the metrics.
type outcome struct {
	by, cause       string // of session_ends_total
	code, initiator string // of closes_total
}

type outcomes struct {
	mu  sync.Mutex
	all map[string]float64 // by series
}

// ended waits for the end of the session of which b is the backend, compares what is
// logged with how it should have ended, and remembers that for checkMetrics.
func (e *policyEdge) ended(t *testing.T, b *rawEnd, want outcome) {
	t.Helper()
	end := e.endOf(b)
	code := want.code
	if code == "none" {
		code = "1006"
	}
	if got := fmt.Sprint(end["code"]); !strings.HasSuffix(code, "xxx") && got != code || end["initiator"] != want.initiator ||
		end["why"] != want.cause || end["cause"] != want.loggedCause() {
		t.Errorf("logged %v, want %+v as %s", end, want, want.loggedCause())
	}
	x, _ := e.expected.LoadOrStore(b.route(), &outcomes{all: map[string]float64{}})
	o := x.(*outcomes)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[fmt.Sprintf(`tidegate_session_ends_total{by=%q,cause=%q,route=%q}`, want.by, want.cause, b.route())]++
	o.all[fmt.Sprintf(`tidegate_closes_total{code=%q,initiator=%q,route=%q}`, want.code, want.initiator, b.route())]++
}

// loggedCause is the field cause of the log.
func (o outcome) loggedCause() string {
	switch o.cause {
	case "closed":
		return o.by + "_closed"
	case "gone", "pong_timeout", "write_timeout":
		return o.by + "_gone"
	}
	if o.by == "edge" {
		return "edge_closed"
	}
	return o.by + "_violation"
}

// route is the route of the session of which r is the backend.
func (r *rawEnd) route() string { return strings.TrimPrefix(r.req.URL.Path, "/") }

// checkMetrics wants exactly what ended recorded: for each of the routes nothing else
// was counted.
func (e *policyEdge) checkMetrics(t *testing.T) {
	t.Helper()
	got := map[string]map[string]float64{}
	for series, v := range e.metrics() {
		if (strings.HasPrefix(series, "tidegate_session_ends_total{") || strings.HasPrefix(series, "tidegate_closes_total{")) && v != 0 {
			_, route, _ := strings.Cut(series, `route="`)
			route = strings.TrimSuffix(route, `"}`)
			if got[route] == nil {
				got[route] = map[string]float64{}
			}
			got[route][series] = v
		}
	}
	e.expected.Range(func(route, want any) bool {
		if o := want.(*outcomes); !maps.Equal(got[route.(string)], o.all) {
			t.Errorf("%s counts %v, want %v", route, got[route.(string)], o.all)
		}
		return true
	})
}

// wantEOF reads the orderly end of the stream; of a TLS stream its close_notify.
func (r *rawEnd) wantEOF() {
	r.t.Helper()
	if p, err := io.ReadAll(r.r); len(p) > 0 || err != nil {
		r.t.Fatalf("%s: got %d bytes %.40x, %v, want the orderly end of the stream", r.who(), len(p), p, err)
	}
}

// hangUp answers a Close, and ends the connection.
func (r *rawEnd) hangUp(code int, reason string) {
	r.t.Helper()
	r.write(closeBytes(code, reason, r.client))
	r.Close()
}

// bye ends a session in order, and wants it to have been whole until then.
func (e *policyEdge) bye(t *testing.T, c, b *rawEnd) {
	t.Helper()
	e.finish(t, c, b)
	e.ended(t, b, outcome{"client", "closed", "1000", "client"})
}

func (e *policyEdge) finish(t *testing.T, c, b *rawEnd) {
	t.Helper()
	(&rawEdge{edge: e.edge}).finish(t, c, b)
}

func (e *policyEdge) endOf(b *rawEnd) map[string]any { return (&rawEdge{edge: e.edge}).endOf(b) }

// words is a text message, or a fragment of one.
func words(fin bool, op ws.OpCode, s string) func(*rawEnd) []byte {
	return func(r *rawEnd) []byte { return r.frame(fin, op, []byte(s)) }
}

// TestPolicyEngines shows that the edges of these tests run on what their names say.
func TestPolicyEngines(t *testing.T) {
	const sessions = 20
	onEngines(t, []policySet{{name: "idle"}}, func(t *testing.T, e *policyEdge) {
		before := e.metrics()["go_goroutines"]
		for range sessions {
			e.open(t, "idle", "wss")
		}
		e.eventually(e.engine+" carry the sessions", func() bool {
			more := e.metrics()["go_goroutines"] - before
			if e.engine == "goroutines" {
				return more >= 2*sessions && more < 3*sessions
			}
			return more < sessions
		})
	})
}

// TestPoliciesOverTime are the tests that do little but wait, all at once.
func TestPoliciesOverTime(t *testing.T) {
	together(t, []trial{
		{"times", testPolicyTimes},
		{"heartbeats", testHeartbeatModes},
		{"heartbeats of busy sessions", testBusySessionsAreNotPinged},
		{"heartbeats of clients", testHeartbeatsOfClients},
		{"heartbeats of npm", testHeartbeatsOfNPM},
		{"delayed clients", testDelayedClients},
		{"ends of delayed clients", testDelayedClientsEnd},
		{"reloads", testReloadedPolicies},
	})
}

// since fails the test if less than d has gone by since begun.
func since(t *testing.T, begun time.Time, d time.Duration) {
	t.Helper()
	if took := time.Since(begun); took < d {
		t.Errorf("it took %v, want %v at least", took, d)
	}
}
