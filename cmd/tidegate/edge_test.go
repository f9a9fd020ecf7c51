package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/internal/demo"
	"github.com/tidegate/tidegate/tls"
)

// soon bounds every wait.
const soon = 20 * time.Second

// testEdge is an edge in this process, without signals, admin socket and follower.
type testEdge struct {
	*edge
	t    *testing.T
	dir  string
	logs *observer.ObservedLogs
}

// startEdge runs an edge with a configuration until the test ends. The files are written
// beside it before.
func startEdge(t *testing.T, yaml string, files map[string]string) *testEdge {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	e := &testEdge{t: t, dir: t.TempDir(), logs: logs}
	for name, content := range files {
		e.write(name, content)
	}
	e.write("tidegate.yaml", yaml)
	path := filepath.Join(e.dir, "tidegate.yaml")
	e.edge = newEdge(path, zap.New(core), zap.NewAtomicLevel())
	file, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.srv.Shutdown(context.Background(), 0, 0) })
	if _, err := e.start(file); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *testEdge) write(name, content string) {
	e.t.Helper()
	if err := os.WriteFile(filepath.Join(e.dir, name), []byte(content), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// reloaded applies the file, which must be good.
func (e *testEdge) reloaded() {
	e.t.Helper()
	if _, err := e.Reload(context.Background()); err != nil {
		e.t.Fatal(err, err.(*admin.Rejected).Diagnostics)
	}
}

func (e *testEdge) eventually(what string, cond func() bool) {
	e.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(soon)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			e.t.Fatalf("not so within %v: %s", soon, what)
		}
	}
}

// nobody is an address of loopback at which nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// authority is a certificate in PEM.
func authority(t *testing.T) string {
	t.Helper()
	cert, _, err := tls.NewDevelopmentCertificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	return string(cert)
}

const withConsul = `
listeners: [{name: edge, address: "127.0.0.1:0"}]
routes: [{name: all, pool: apps}]
pools: [{name: apps, consul: {address: "https://%s", service: chat, tls: {ca: ca.crt}}}]
`

// TestSourceFollowsItsAuthorities: a source reads its authorities once, so that a reload
// after the file has changed must make another one, and no other reload may.
func TestSourceFollowsItsAuthorities(t *testing.T) {
	e := startEdge(t, fmt.Sprintf(withConsul, nobody(t)), map[string]string{"ca.crt": authority(t)})
	source := func() discovery.Source { return e.srv.Pools()[0].Sources[0] }
	first := source()
	e.reloaded()
	if source() != first {
		t.Error("a reload without a change made another source")
	}
	e.write("ca.crt", authority(t))
	e.reloaded()
	second := source()
	if second == first {
		t.Error("a reload left the source with its former authorities")
	}
	e.reloaded()
	if source() != second {
		t.Error("the reload after it made another source")
	}
}

// TestStaleIsShownAlike: a Consul that never answered is known from the source only, and
// the API and the metrics say the same of it.
func TestStaleIsShownAlike(t *testing.T) {
	e := startEdge(t, fmt.Sprintf(withConsul, nobody(t)), map[string]string{"ca.crt": authority(t)})
	e.eventually("the metrics say stale", func() bool { return gauges{e.edge}.Snapshot().Pools[0].Stale })
	if e.srv.Pools()[0].Stale {
		t.Error("there is a snapshot: this shows nothing")
	}
	if !(view{e.edge}).Pools()[0].Stale {
		t.Error("the API says that the set is current")
	}
}

const oneBackend = `
log: {format: %s}
admin: {address: "%s"}
listeners: [{name: edge, address: "127.0.0.1:0", trusted_proxies: [127.0.0.0/8]}]
routes: [{name: %s, pool: apps}]
pools: [{name: apps, backends: [{address: "%s"}]}]
`

// TestNextStart: what waits for the next start is told by what the process runs with.
func TestNextStart(t *testing.T) {
	yaml := func(format, admin, route string) string {
		return fmt.Sprintf(oneBackend, format, admin, route, "127.0.0.1:1")
	}
	first := yaml("json", "127.0.0.1:1", "all")
	e := startEdge(t, first, nil)
	const format, api = "log.format changes at the next start", "admin changes at the next start"
	for i, step := range []struct {
		yaml string
		want []string
	}{
		{first, nil},
		{yaml("console", "127.0.0.1:1", "all"), []string{format}},
		{yaml("console", "127.0.0.1:2", "all"), []string{format, api}},
		{yaml("json", "127.0.0.1:2", "every"), []string{api}},
		{yaml("json", "127.0.0.1:1", "every"), nil}, // back to what runs
	} {
		e.logs.TakeAll()
		e.write("tidegate.yaml", step.yaml)
		e.reloaded()
		var got []string
		for _, line := range e.logs.TakeAll() {
			if line.Level == zapcore.WarnLevel {
				got = append(got, line.Message)
			}
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("reload %d warned:\n%s", i+1, diff)
		}
	}
}

// TestReloadWithoutFile is that of the demo: it is refused, and no failure.
func TestReloadWithoutFile(t *testing.T) {
	e := newEdge("", zap.NewNop(), zap.NewAtomicLevel())
	t.Cleanup(func() { e.srv.Shutdown(context.Background(), 0, 0) })
	file, err := config.Parse("demo", []byte(fmt.Sprintf(oneBackend, "json", "127.0.0.1:1", "all", "127.0.0.1:1")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.start(file); err != nil {
		t.Fatal(err)
	}
	before, counted := view{e}.Status().Config, gauges{e}.Snapshot().Config
	if _, err := e.Reload(context.Background()); !errors.Is(err, admin.ErrNoFile) {
		t.Errorf("got %v, want %v", err, admin.ErrNoFile)
	}
	if diff := cmp.Diff(before, view{e}.Status().Config); diff != "" || !before.LastReloadOK || before.Path != "" {
		t.Errorf("%+v changed:\n%s", before, diff)
	}
	if diff := cmp.Diff(counted, gauges{e}.Snapshot().Config); diff != "" {
		t.Errorf("metrics changed:\n%s", diff)
	}
}

// TestSessionView has a client behind a trusted proxy.
func TestSessionView(t *testing.T) {
	app, err := demo.NewApp("a", &demo.Hub{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); app.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	e := startEdge(t, fmt.Sprintf(oneBackend, "json", "127.0.0.1:1", "all", app.Addr()), nil)
	c, _, err := websocket.DefaultDialer.Dial("ws://"+e.srv.Current().Listeners()[0].Address+"/ws", map[string][]string{"X-Forwarded-For": {"203.0.113.7"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sessions := func(ip string) []admin.Session {
		page, err := view{e.edge}.Sessions(admin.SessionQuery{IP: netip.MustParseAddr(ip), Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return page.Sessions
	}
	e.eventually("the session is listed", func() bool { return len(sessions("203.0.113.7")) == 1 })
	if got := sessions("203.0.113.7")[0]; got.ClientIP != "203.0.113.7" || got.Client != c.LocalAddr().String() {
		t.Errorf("client_ip %q, client %q", got.ClientIP, got.Client)
	}
	if got := sessions("127.0.0.1"); len(got) != 0 {
		t.Errorf("the proxy's address selects %v", got)
	}
}

// TestUnroutedMetrics: requests without a route get to the metrics.
func TestUnroutedMetrics(t *testing.T) {
	e := startEdge(t, fmt.Sprintf(oneBackend, "json", "127.0.0.1:1", "all, match: {path: /ws}", "127.0.0.1:1"), nil)
	_, res, err := websocket.DefaultDialer.Dial("ws://"+e.srv.Current().Listeners()[0].Address+"/other", nil)
	if err == nil || res == nil || res.StatusCode != 404 {
		t.Fatalf("got %v, %v", res, err)
	}
	got := gauges{e.edge}.Snapshot()
	if got.Unrouted.Handshakes["no_route"] != 1 || got.Unrouted.Requests[404] != 1 {
		t.Errorf("without a route: %+v", got.Unrouted)
	}
}

// TestLooksAtTheFileAndReloadsTakeTurns: whatever a look at the file comes between, a
// content that has been applied is not applied again because the look saw what was there
// before. Content and reload change under the edge's lock, so that a look that holds it
// never finds anything that was not tried.
func TestLooksAtTheFileAndReloadsTakeTurns(t *testing.T) {
	const yaml = `
listeners: [{name: edge, address: "127.0.0.1:0"}]
routes: [{name: all, pool: apps}]
pools: [{name: apps, backends: [{address: "127.0.0.1:1", weight: %d}]}]
`
	e := startEdge(t, fmt.Sprintf(yaml, 1), nil)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for seen := e.look([32]byte{}); ; seen = e.look(seen) {
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	const reloads = 300
	for i := range reloads {
		e.mu.Lock()
		e.write("tidegate.yaml", fmt.Sprintf(yaml, i+2))
		_, err := e.reload()
		e.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if got, want := e.srv.Current().Number, uint64(reloads+1); got != want {
		t.Errorf("%d generations, want the first and one for each of %d reloads", got, reloads)
	}
	if n := e.logs.FilterMessage("the configuration file has changed").Len(); n != 0 {
		t.Errorf("%d changes noticed that were applied already", n)
	}
}
