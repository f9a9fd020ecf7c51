package test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/consul/api"

	"github.com/tidegate/tidegate/internal/consultest"
)

const snapshotConfig = `
ADMIN
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: plain, address: "127.0.0.1:0"}
routes:
  - {name: all, match: {path: /}, pool: apps}
pools:
  - name: apps
    consul: {address: "http://CONSUL", service: web, EXTRA}
    balance: {policy: round_robin}
    upstream: {connect_timeout: 500ms}
    on_backend_removed: keep
`

func snapshotYAML(agent *consultest.Agent, extra string) string {
	return strings.NewReplacer("CONSUL", agent.Address(), "EXTRA", extra).Replace(snapshotConfig)
}

// registerApp announces an app under its name.
func registerApp(t *testing.T, agent *consultest.Agent, a *app) {
	t.Helper()
	var port int
	if _, err := fmt.Sscanf(a.addr, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	agent.Register(t, consultest.Service{ID: a.name, Name: "web", Address: "127.0.0.1", Port: port})
}

// stillThere has a message echoed.
func stillThere(t *testing.T, c *websocket.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if err := c.WriteMessage(websocket.TextMessage, []byte("still there?")); err != nil {
		t.Error(err)
	} else if _, p, err := c.ReadMessage(); err != nil || string(p) != "still there?" {
		t.Errorf("got %q, %v", p, err)
	}
}

// TestSnapshotFile: an edge that starts while Consul is away serves by the last set that
// an edge before it knew, says so, and follows Consul when it is back.
func TestSnapshotFile(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{Persistent: true})
	a, b, c := newApp(t, "a"), newApp(t, "b"), newApp(t, "c")
	registerApp(t, agent, a)
	registerApp(t, agent, b)
	file := filepath.Join(t.TempDir(), "web.json")
	yaml := snapshotYAML(agent, fmt.Sprintf("snapshot_file: %q", file))
	var e *edge
	url := func() string { return "ws://" + e.addr("plain") + "/" }
	both := map[string]int{"a": 2, "b": 2}

	e = start(t, yaml)
	// The first handshake need not wait for anybody to look at the pools.
	if where := landings(t, 4, url()); !maps.Equal(where, both) {
		t.Fatalf("with Consul new sessions landed at %v", where)
	}
	e.eventually("the file is written", func() bool {
		raw, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(raw), a.addr) && strings.Contains(string(raw), b.addr)
	})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	e.kill() // no farewell

	agent.Stop(t)
	e = start(t, yaml)
	begun := time.Now()
	if where := landings(t, 4, url()); !maps.Equal(where, both) {
		// The file is taken when Consul has failed, or kept silent for two seconds.
		t.Errorf("without Consul new sessions landed at %v\n%s", where, e.logTail())
	}
	t.Logf("the first sessions from the file took %v", time.Since(begun).Round(time.Millisecond))
	e.eventually("the pool is stale", func() bool { return e.pools()["apps"].Stale })
	if m := e.metrics(); m[`tidegate_discovery_stale{pool="apps"}`] != 1 || m[`tidegate_consul_last_contact_timestamp_seconds{pool="apps"}`] != 0 {
		t.Errorf("stale is %v, last contact %v", m[`tidegate_discovery_stale{pool="apps"}`], m[`tidegate_consul_last_contact_timestamp_seconds{pool="apps"}`])
	}
	if status, _ := e.get("/readyz"); status != 200 {
		t.Errorf("/readyz answers %d: the edge serves", status)
	}
	kept, _, err := dialer.Dial(url(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()

	agent.Start(t)
	e.eventually("Consul is followed", func() bool { return !e.pools()["apps"].Stale })
	registerApp(t, agent, c)
	agent.Deregister(t, "a")
	e.eventually("the set is Consul's", func() bool {
		p := e.pools()["apps"]
		one, there := backendOf(p, "a")
		_, new := backendOf(p, "c")
		return new && (!there || one.State == "removed")
	})
	if where := landings(t, 4, url()); !maps.Equal(where, map[string]int{"b": 2, "c": 2}) {
		t.Errorf("with Consul again new sessions landed at %v", where)
	}
	e.eventually("the file is up to date", func() bool {
		raw, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(raw), c.addr) && !strings.Contains(string(raw), a.addr)
	})
	e.eventually("the session from before is the only one", func() bool { return e.status().Sessions == 1 })
	stillThere(t, kept)
}

// TestColdStartWithoutConsul: with no file there is nothing to serve by, which is said and
// not waited for; the edge comes to life with Consul.
func TestColdStartWithoutConsul(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{Persistent: true})
	a := newApp(t, "a")
	registerApp(t, agent, a)
	agent.Stop(t)
	e := start(t, snapshotYAML(agent, "wait: 1m"))
	url := "ws://" + e.addr("plain") + "/"
	if where := landings(t, 2, url); where["503"] != 2 {
		t.Errorf("without Consul new sessions landed at %v", where)
	}
	agent.Start(t)
	e.eventually("Consul is followed", func() bool { _, ok := backendOf(e.pools()["apps"], "a"); return ok })
	if where := landings(t, 2, url); where["a"] != 2 {
		t.Errorf("with Consul new sessions landed at %v", where)
	}
}

// TestDatacenters: new sessions go to the first datacenter that has somebody, and sessions
// stay where they are when that changes.
func TestDatacenters(t *testing.T) {
	east := consultest.Start(t, consultest.Options{Datacenter: "east", WAN: true})
	west := consultest.Start(t, consultest.Options{Datacenter: "west", WAN: true})
	east.JoinWAN(t, west)
	a, b := newApp(t, "a"), newApp(t, "b")
	registerApp(t, east, a)
	registerApp(t, west, b)
	e := start(t, snapshotYAML(east, "datacenters: [east, west]"))
	url := "ws://" + e.addr("plain") + "/"
	to := func(when, app string) {
		t.Helper()
		if where := landings(t, 4, url); where[app] != 4 {
			t.Errorf("%s: new sessions landed at %v, want %s", when, where, app)
		}
	}
	takes := func(name string) func() bool {
		return func() bool {
			for _, b := range e.pools()["apps"].Backends {
				if (b.ID == name) != (b.State == "up" && b.Weight > 0) {
					return false
				}
			}
			return len(e.pools()["apps"].Backends) == 2
		}
	}
	e.eventually("both datacenters are known, east is in use", takes("east/node1/a"))
	to("at first", "a")
	kept, _, err := dialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()

	east.SetCheck(t, "a", api.HealthCritical)
	e.eventually("west takes over", takes("west/node1/b"))
	to("east is critical", "b")
	over, _, err := dialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()

	east.SetCheck(t, "a", api.HealthPassing)
	e.eventually("east takes new sessions again", takes("east/node1/a"))
	to("east is back", "a")
	// Nobody was moved or closed, there or back.
	e.eventually("one session is in each", func() bool {
		p := e.pools()["apps"]
		one, _ := backendOf(p, "a")
		two, _ := backendOf(p, "b")
		return one.Sessions == 1 && two.Sessions == 1 && one.Datacenter == "east" && two.Datacenter == "west"
	})
	if e.pools()["apps"].Stale {
		t.Error("the pool is stale")
	}

	west.Stop(t) // a datacenter that is not in use goes away
	e.eventually("the set is not current any more", func() bool { return e.pools()["apps"].Stale })
	to("west is away", "a")
	e.eventually("two sessions are left", func() bool { return e.status().Sessions == 2 })
	stillThere(t, kept)
	stillThere(t, over)
}
