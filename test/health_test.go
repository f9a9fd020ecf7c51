package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

const healthConfig = `
ADMIN
listeners: [{name: plain, address: "127.0.0.1:0"}]
routes: [{name: all, pool: apps}]
pools:
  - name: apps
    backends: [{address: "ADDR_A", id: a}, {address: "ADDR_B", id: b}]
    balance: {policy: round_robin}
    health:
      active: {type: websocket, path: /probe, interval: 300ms, timeout: 300ms, rise: 1, fall: 2}
      passive: {consecutive_failures: 0, panic_threshold: PANIC}
`

// TestHealth has the probes of a running edge take backends out and bring them back, and
// panic: in the API, the metrics, the table and the log.
func TestHealth(t *testing.T) {
	a, b := newApp(t, "a"), newApp(t, "b")
	yaml := strings.NewReplacer("ADDR_A", a.addr, "ADDR_B", b.addr).Replace(healthConfig)
	e := start(t, strings.Replace(yaml, "PANIC", "30%", 1))
	url := "ws://" + e.addr("plain") + "/"
	lands := func() string {
		t.Helper()
		c, res, err := websocket.DefaultDialer.Dial(url, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, e.log())
		}
		c.Close()
		return res.Header.Get("X-App")
	}
	is := func(name, state, reason string) {
		t.Helper()
		e.eventually(fmt.Sprintf("%s is %s: %s", name, state, reason), func() bool {
			x, ok := backendOf(e.pools()["apps"], name)
			return ok && x.State == state && (x.Reason == reason || reason != "" && strings.HasPrefix(x.Reason, reason))
		})
	}
	panics := func(want bool) {
		t.Helper()
		e.eventually(fmt.Sprint("panic: ", want), func() bool {
			return e.pools()["apps"].Panic == want && (e.metrics()[`tidegate_pool_panic{pool="apps"}`] == 1) == want
		})
	}

	is("a", "up", "")
	is("b", "up", "")
	b.stop()
	is("b", "ejected", "probe: connection refused")
	e.waitLog("backend ejected", func(l map[string]any) bool { return l["backend"] == "b" && l["pool"] == "apps" })
	for range 4 {
		if got := lands(); got != "a" {
			t.Errorf("a session landed on %q", got)
		}
	}
	if m := e.metrics(); m[`tidegate_backend_state{backend="b",pool="apps",state="ejected"}`] != 1 || m[`tidegate_backend_failures_total{backend="b",kind="probe",pool="apps"}`] < 2 {
		t.Error("the metrics do not show b as ejected for its probes")
	}
	panics(false)

	a.stop()
	is("a", "ejected", "probe: connection refused")
	panics(true)
	code, out, _ := e.cli("pools")
	if code != 0 || !strings.Contains(out, "pool apps is in panic") || !strings.Contains(out, "probe: connection refused") {
		t.Errorf("exit code %d:\n%s", code, out)
	}

	a.start()
	b.start()
	is("a", "up", "")
	is("b", "up", "")
	panics(false)
	e.eventually("b gets sessions", func() bool { return lands() == "b" })
	e.waitLog("backend healthy", func(l map[string]any) bool { return l["backend"] == "b" })

	// Without a panic threshold nobody is used when nobody is well.
	if _, err := e.reload(strings.Replace(yaml, "PANIC", "0", 1)); err != nil {
		t.Fatal(err)
	}
	a.stop()
	b.stop()
	is("a", "ejected", "probe: ")
	is("b", "ejected", "probe: ")
	if _, res, err := websocket.DefaultDialer.Dial(url, nil); err == nil || res == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %v, %v, want 503", res, err)
	}
}
