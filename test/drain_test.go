package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/consultest"
)

const drainConfig = `
ADMIN
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: secure, address: "127.0.0.2:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: talk, pool: apps}
pools:
  - name: apps
    consul: {address: "http://CONSUL", service: talk}
    drain: {rate: 2/s, code: 4012, reason: "new version"}
    removal_grace: 1s
`

// drainRig is an edge with conversations on three talkers that Consul announces.
type drainRig struct {
	*edge
	agent   *consultest.Agent
	talkers map[string]*talker
	fleet   *fleet
}

func newDrainRig(t *testing.T) *drainRig {
	r := &drainRig{agent: consultest.Start(t, consultest.Options{}), talkers: map[string]*talker{}}
	for _, name := range []string{"a", "b", "c"} {
		b := newTalker(t, name)
		r.talkers[name] = b
		r.agent.Register(t, consultest.Service{ID: name, Name: "talk", Address: "127.0.0.1", Port: b.port})
	}
	r.edge = start(t, strings.ReplaceAll(drainConfig, "CONSUL", r.agent.Address()))
	r.eventually("three backends are up", func() bool { return len(r.pools()["apps"].Backends) == 3 })
	r.fleet = newFleet(t, 100*time.Millisecond)
	plain, secure := r.addr("plain"), r.addr("secure")
	r.fleet.open(60, func(i int) string { return pickOf(i%5 == 0, "ws://"+plain, "wss://"+secure) + fmt.Sprintf("/%d", i) })
	return r
}

// backend is how the edge shows a talker, nothing if it does not.
func (r *drainRig) backend(name string) admin.Backend {
	b, _ := backendOf(r.pools()["apps"], name)
	return b
}

// left is how many conversations with a talker go on. Those that have ended must have ended
// as a drain ends them.
func (r *drainRig) left(name string) (n int) {
	r.t.Helper()
	for _, k := range r.fleet.talks {
		switch {
		case k.app != name:
		case !k.over():
			n++
		case k.code != 4012 || k.wrong != "" || !websocket.IsCloseError(k.err, 4012) || k.err.(*websocket.CloseError).Text != "new version":
			r.t.Fatalf("%s on %s ended with %v: %s", k.url, name, k.err, k.wrong)
		default:
			k.conn.Close() // or the edge waits for that, close_timeout long
		}
	}
	return n
}

// remaining is the value of the metric, -1 if it is not there.
func (r *drainRig) remaining(name string) int {
	v, ok := r.metrics()[fmt.Sprintf(`tidegate_drain_remaining{backend="dc1/node1/%s",pool="apps"}`, name)]
	if !ok {
		return -1
	}
	return int(v)
}

// TestConsulDrains: maintenance in Consul drains a backend for as long as it lasts, a
// deregistration once the grace has passed, and an operator as told; what is not drained
// goes on talking, and what is loses nothing before its Close.
func TestConsulDrains(t *testing.T) {
	r := newDrainRig(t)
	id := r.backend("b").ID
	if id != "dc1/node1/b" {
		t.Fatalf("the backend is %q", id)
	}

	r.agent.Maintenance(t, "b", true)
	r.eventually("two have left", func() bool { return r.left("b") <= 18 })
	if b := r.backend("b"); b.State != "draining" || b.Draining == nil || b.Draining.By != "consul" || b.Draining.Deadline.IsZero() || r.remaining("b") < 0 {
		t.Errorf("in maintenance it is %+v, %+v", b, b.Draining)
	}
	if code, _, stderr := r.cli("undrain", "apps/"+id); code != 1 || !strings.Contains(stderr, "maintenance in Consul") {
		t.Errorf("undrain: exit %d: %s", code, stderr)
	}
	r.agent.Maintenance(t, "b", false)
	r.eventually("it is up", func() bool { return r.backend("b").State == "up" })
	r.eventually("who was told to leave has left", func() bool { return int64(r.left("b")) == r.backend("b").Sessions })
	rest := r.left("b")
	if rest == 0 {
		t.Fatal("all have left: this shows nothing")
	}
	r.fleet.flows("out of maintenance")
	if n := r.left("b"); n != rest || r.remaining("b") != -1 || r.backend("b").Draining != nil {
		t.Errorf("out of maintenance %d of %d are there, drain_remaining is %d", n, rest, r.remaining("b"))
	}

	if got := r.command("drain", "apps/"+id, "--rate", "50/s"); !strings.Contains(got, "apps/"+id+" is drained by operator: ") {
		t.Errorf("drain says %q", got)
	}
	r.eventually("all have left", func() bool { return r.left("b") == 0 && r.remaining("b") == 0 })
	if table := r.command("pools"); !strings.Contains(table, "apps/"+id+" is drained by operator: 0 sessions left") {
		t.Errorf("pools says\n%s", table)
	}
	if got := r.command("undrain", "apps/"+id); got != "apps/"+id+" is up with 0 sessions\n" {
		t.Errorf("undrain says %q", got)
	}
	if code, _, stderr := r.cli("undrain", "apps/"+id); code != 1 || stderr != "tidegate: this backend is not drained\n" {
		t.Errorf("undrain again: exit %d: %s", code, stderr)
	}

	r.agent.Deregister(t, "c")
	removed := r.logged("backend removed", "dc1/node1/c")
	begun := r.logged("drain begins", "dc1/node1/c")
	if grace := begun.Sub(removed); grace < time.Second {
		t.Errorf("it is drained %v after it was removed", grace)
	}
	r.eventually("one has left", func() bool { return r.left("c") < 20 })
	r.command("drain", "apps/dc1/node1/c", "--rate", "50/s")
	r.eventually("all have left, and it is forgotten", func() bool { return r.left("c") == 0 && r.backend("c").ID == "" && r.remaining("c") == -1 })

	if n := r.left("a"); n != 20 {
		t.Errorf("%d of 20 are left on a", n)
	}
	r.eventually("all ends are counted", func() bool {
		m := r.metrics()
		drained, gone := m[`tidegate_session_ends_total{by="edge",cause="drain",route="talk"}`], m[`tidegate_session_ends_total{by="edge",cause="removed",route="talk"}`]
		return drained+gone == 40 && gone > 0
	})
	for name, b := range r.talkers {
		if wrong := b.stats().Wrong; len(wrong) > 0 {
			t.Errorf("talker %s: %v", name, wrong)
		}
	}
	up, down := r.fleet.end()
	t.Logf("%d messages up, %d down", up, down)
}

// logged is when the edge has logged something of a backend.
func (r *drainRig) logged(message, backend string) time.Time {
	r.t.Helper()
	line := r.waitLog(message, func(l map[string]any) bool { return l["backend"] == backend })
	at, err := time.Parse(time.RFC3339Nano, line["time"].(string))
	must(r.t, err)
	return at
}
