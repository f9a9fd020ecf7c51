package test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

const stickyRoute = `
ADMIN
shutdown: {drain_window: 100ms, deadline: 10s}
listeners:
  - {name: edge, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: all, pool: apps, sticky: {cookie: {secret_file: SECRET}}}
pools:
  - {name: apps, backends: [BACKENDS], balance: {policy: round_robin}}
`

// TestStickyCookie: two edges with one secret send a browser to the same backend, also when that
// is drained and after a reload, until the secret is another one.
func TestStickyCookie(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "s.key")
	write := func(content string) { must(t, os.WriteFile(secret, []byte(content), 0o600)) }
	write(strings.Repeat("0123456789", 4))
	a, b, c := newApp(t, "a"), newApp(t, "b"), newApp(t, "c")
	yaml := strings.ReplaceAll(withBackends(stickyRoute, a.addr, b.addr, c.addr), "SECRET", secret)
	e, other := start(t, yaml), start(t, yaml)
	visit := func(e *edge, cookie string) (app, next string) {
		t.Helper()
		header := http.Header{}
		if cookie != "" {
			header.Set("Cookie", cookie)
		}
		conn, res, err := (&websocket.Dialer{TLSClientConfig: insecure()}).Dial("wss://"+e.addr("edge")+"/", header)
		must(t, err)
		conn.Close()
		for _, c := range res.Cookies() {
			next = c.Name + "=" + c.Value
		}
		return res.Header.Get("X-App"), next
	}
	app, cookie := visit(e, "")
	if cookie == "" {
		t.Fatal("no cookie")
	}
	for range 4 {
		for _, edge := range []*edge{e, other} {
			if got, next := visit(edge, cookie); got != app || next != "" {
				t.Errorf("to %s, not to %s, with %q", got, app, next)
			}
		}
	}
	_, err := e.reload(yaml + "# changed\n")
	must(t, err)
	if got, _ := visit(e, cookie); got != app {
		t.Errorf("after a reload to %s, not to %s", got, app)
	}
	left := map[string]string{"a": a.addr, "b": b.addr, "c": c.addr}[app]
	var moved [2]string
	for i, edge := range []*edge{e, other} {
		if code, _, text := edge.cli("drain", "apps/"+left); code != 0 {
			t.Fatal(text)
		}
		var next string
		if moved[i], next = visit(edge, cookie); moved[i] == app || next == "" {
			t.Errorf("from a drained %s to %s with %q", app, moved[i], next)
		}
		if again, _ := visit(edge, next); again != moved[i] {
			t.Errorf("the new cookie leads to %s, not to %s", again, moved[i])
		}
	}
	if moved[0] != moved[1] {
		t.Errorf("two edges move the same client to %v", moved)
	}
	write(strings.Repeat("9876543210", 4))
	_, err = e.api.Reload(context.Background())
	must(t, err)
	if _, next := visit(e, cookie); next == "" {
		t.Error("a cookie of the former secret is still good")
	}
}
