package test

import (
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestReadyFailsFirst: whoever finds a listener closed by a shutdown has been told before.
// A load balancer in front goes by /readyz, and must not meet refused connections of an
// edge that says it is ready.
func TestReadyFailsFirst(t *testing.T) {
	a := newApp(t, "a")
	e := start(t, `ADMIN
shutdown: {drain_window: 1m, deadline: 2m}
listeners:
  - {name: one, address: "127.0.0.1:0"}
  - {name: two, address: "127.0.0.2:0"}
routes: [{name: all, pool: apps}]
pools: [{name: apps, backends: [{address: "`+a.addr+`"}]}]
`)
	one, two := e.addr("one"), e.addr("two")
	// The session keeps the edge, and so its API, alive.
	c, _, err := dialer.Dial("ws://"+one+"/", nil)
	must(t, err)
	defer c.Close()
	readyz := "http://" + e.waitLog("running", nil)["admin"].(string) + "/readyz"
	client := http.Client{Timeout: soon}
	defer client.CloseIdleConnections()
	ready := func() int {
		t.Helper()
		res, err := client.Get(readyz)
		must(t, err)
		res.Body.Close()
		return res.StatusCode
	}
	if got := ready(); got != http.StatusOK {
		t.Fatalf("/readyz answers %d before the shutdown", got)
	}
	e.signal(syscall.SIGTERM)
	for _, addr := range []string{two, one} {
		refused := false
		for deadline := time.Now().Add(soon); !refused; {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			refused = errors.Is(err, syscall.ECONNREFUSED)
			if time.Now().After(deadline) {
				t.Fatalf("%s does not refuse connections: %v\n%s", addr, err, e.log())
			}
		}
		if got := ready(); got != http.StatusServiceUnavailable {
			t.Errorf("%s refuses connections, and /readyz answers %d", addr, got)
		}
	}
	e.signal(syscall.SIGTERM)
	e.waitExit(soon)
}
