package test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// haproxyConfig has HAProxy in front of the edge, passing TCP on with a header of either
// version, and behind it, taking either. The sockets are handed to it.
const haproxyConfig = `
global
    maxconn 1000
defaults
    timeout connect 20s
    timeout client 60s
    timeout server 60s
listen v1
    mode tcp
    bind fd@3
    server edge PLAIN send-proxy check inter 100ms
listen v2
    mode tcp
    bind fd@4
    server edge SECURE send-proxy-v2 check inter 100ms
listen behind
    mode http
    bind fd@5 accept-proxy
    http-request set-header X-Seen %[src]:%[src_port]
    http-request set-header X-Seen-At %[dst]:%[dst_port]
    server app APP
`

// startHAProxy runs HAProxy with sockets that are listened on already, as descriptors from 3
// on, until the test is over.
func startHAProxy(t *testing.T, config string, sockets ...net.Listener) {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		missing(t, "no HAProxy")
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(path, "-db", "-f", file)
	cmd.Stdout, cmd.Stderr = &said, &said
	for _, s := range sockets {
		f, err := s.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("HAProxy said:\n%s", said.String())
		}
	})
}

// TestHAProxy puts a real HAProxy in front of the edge and another one behind it: the app
// server behind all hears of the client, by both versions, and the health checks of both
// sides pass.
func TestHAProxy(t *testing.T) {
	seen, probed := make(chan http.Header, 100), make(chan string, 100)
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			probed <- r.URL.RawQuery
			return
		}
		seen <- r.Header.Clone()
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, p, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, p) != nil {
				return
			}
		}
	}))
	defer app.Close()
	var sockets []net.Listener
	for range 3 {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		sockets = append(sockets, ln)
	}
	yaml := func(version string) string {
		return fmt.Sprintf(`
ADMIN
listeners:
  - {name: plain, address: "127.0.0.1:0", proxy_protocol: {trusted: [127.0.0.1]}}
  - {name: secure, address: "127.0.0.1:0", proxy_protocol: {trusted: [127.0.0.1]}, tls: {certificates: [{cert: CERT, key: KEY}]}}
routes: [{name: all, pool: apps}]
pools:
  - name: apps
    backends: [{address: "%[1]s", id: behind}]
    upstream: {proxy_protocol: %[2]s}
    health: {active: {type: http, path: "/healthz?%[2]s", interval: 20s, timeout: 20s}}
`, sockets[2].Addr(), version)
	}
	e := start(t, yaml("v1"))
	startHAProxy(t, strings.NewReplacer("PLAIN", e.addr("plain"), "SECURE", e.addr("secure"), "APP", app.Listener.Addr().String()).Replace(haproxyConfig), sockets...)
	for _, version := range []string{"v1", "v2"} {
		if _, err := e.reload(yaml(version)); err != nil {
			t.Fatal(err)
		}
		for <-probed != version { // the probes that go on with the first version
		}
		for i, scheme := range []string{"ws", "wss"} {
			listener := []string{"plain", "secure"}[i]
			dialer := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, HandshakeTimeout: 20 * time.Second}
			c, _, err := dialer.Dial(scheme+"://"+sockets[i].Addr().String()+"/ws", nil)
			if err != nil {
				t.Fatalf("%s, %s: %v\n%s", version, scheme, err, e.logTail())
			}
			client := c.LocalAddr().String()
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			c.WriteMessage(websocket.TextMessage, []byte("hello"))
			if _, p, err := c.ReadMessage(); err != nil || string(p) != "hello" {
				t.Errorf("%s, %s: got %q, %v", version, scheme, p, err)
			}
			h := <-seen
			if h.Get("X-Seen") != client || h.Get("X-Forwarded-For") != "127.0.0.1" {
				t.Errorf("%s, %s: the app saw %s, X-Forwarded-For %s; the client is %s", version, scheme, h.Get("X-Seen"), h.Get("X-Forwarded-For"), client)
			}
			if want := sockets[i].Addr().String(); h.Get("X-Seen-At") != want {
				t.Errorf("%s, %s: the app saw it come to %s, it went to %s", version, scheme, h.Get("X-Seen-At"), want)
			}
			e.waitLog("session opened", func(l map[string]any) bool { return l["listener"] == listener && l["client"] == client })
			c.Close()
		}
	}
	// Checks of the HAProxy in front come all the time: none of their headers is refused.
	if n := e.countLog("PROXY protocol header refused"); n != 0 {
		t.Errorf("%d headers of HAProxy's were refused:\n%s", n, e.logTail())
	}
	if n := e.countLog("backend ejected"); n != 0 {
		t.Errorf("the HAProxy behind was ejected:\n%s", e.log())
	}
}
