package admin

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestHost is the protection from DNS rebinding.
func TestHost(t *testing.T) {
	s := start(t, Options{})
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host   string
		status int
	}{
		{"127.0.0.1:" + port, 200},
		{"127.0.0.1", 200},
		{"localhost:" + port, 200},
		{"LOCALHOST", 200},
		{"localhost.", 200},
		{"localhost:8000", 200}, // port forwarding
		{"[::1]:" + port, 200},
		{"[::1]", 200},
		{"10.1.2.3:9901", 200},
		{"evil.example", 403},
		{"evil.example:" + port, 403},
		{"localhost.evil.example", 403},
		{"127.0.0.1.evil.example:" + port, 403},
		{"127.0.0.1.nip.io", 403},
		{"127.1", 403},
		{"0x7f000001", 403},
		{"", 403},
	} {
		got := ask(t, s, "GET /api/v1/status\nHost: "+tt.host)
		if got.status != tt.status {
			t.Errorf("Host %q: status %d, want %d: %s", tt.host, got.status, tt.status, got.body)
		}
		if tt.status == 403 && !strings.HasPrefix(got.body, `{"error":"this Host is not`) {
			t.Errorf("Host %q: %s", tt.host, got.body)
		}
	}
	if got := ask(t, s, "GET http://evil.example/api/v1/status\nHost: localhost"); got.status != 403 {
		t.Errorf("a foreign host in the request line: status %d", got.status)
	}
	if got := ask(t, s, "GET /livez\nHost: evil.example"); got.status != 403 {
		t.Errorf("livez: status %d", got.status)
	}
}

// HTTP/1.0 probes, such as HAProxy's, send no Host; pages always do.
func TestNoHost(t *testing.T) {
	s := start(t, Options{})
	for path, want := range map[string]int{"/readyz": 200, "/livez": 200, "/api/v1/status": 403} {
		if got := ask(t, s, "GET "+path+" HTTP/1.0"); got.status != want {
			t.Errorf("%s: status %d, want %d", path, got.status, want)
		}
	}
}

func TestConfiguredHost(t *testing.T) {
	s := New(Options{Address: "Edge1.internal:9901"})
	for host, want := range map[string]bool{
		"edge1.internal": true, "edge1.internal:9901": true, "edge1.internal.": true,
		"edge2.internal": false, "internal": false, "": false,
	} {
		if got := s.hostAllowed(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
	if New(Options{Address: ":9901"}).hostAllowed("") {
		t.Error("an address without a host allows none")
	}
}

func TestCrossOrigin(t *testing.T) {
	edge := newFakeEdge()
	s := start(t, Options{Edge: edge})
	host := s.Addr()
	for _, tt := range []struct {
		name, headers string
		status        int
	}{
		{"a tool", "", 200},
		{"the API's own page", "Origin: http://" + host + "\nSec-Fetch-Site: same-origin", 200},
		{"typed into the address bar", "Sec-Fetch-Site: none", 200},
		{"another site", "Origin: https://evil.example\nSec-Fetch-Site: cross-site", 403},
		{"another site that hides its origin", "Origin: null", 403},
		{"another site without Sec-Fetch-Site", "Origin: https://evil.example", 403},
		{"another site without Origin", "Sec-Fetch-Site: cross-site", 403},
		{"another port of this machine", "Origin: http://127.0.0.1:1\nSec-Fetch-Site: same-site", 403},
		{"another port, without Origin", "Sec-Fetch-Site: same-site", 403},
		{"another scheme", "Origin: https://" + host, 403},
		{"an empty origin", "Origin: ", 403},
		{"two origins", "Origin: http://" + host + "\nOrigin: https://evil.example", 403},
	} {
		for _, request := range []string{"DELETE /api/v1/sessions/s1", "POST /api/v1/reload", "GET /api/v1/status", "GET /livez"} {
			got := ask(t, s, strings.TrimSpace(request+"\nHost: "+host+"\n"+tt.headers))
			if got.status != tt.status {
				t.Errorf("%s: %s: status %d, want %d: %s", tt.name, request, got.status, tt.status, got.body)
			}
		}
	}
	if len(edge.closed) != 3 {
		t.Errorf("%d sessions were closed, want those of the three that may", len(edge.closed))
	}
}

// A preflight is no permission: there are no CORS headers at all.
func TestPreflight(t *testing.T) {
	s := start(t, Options{})
	got := ask(t, s, "OPTIONS /api/v1/reload\nHost: "+s.Addr()+"\nOrigin: https://evil.example\nAccess-Control-Request-Method: POST")
	if got.status != 403 {
		t.Errorf("status %d", got.status)
	}
	for name := range got.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("header %s", name)
		}
	}
}

func writeToken(t *testing.T, path, token string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	writeToken(t, file, "secret\n")
	s := start(t, Options{TokenFile: file, Metrics: http.NotFoundHandler()})
	for _, tt := range []struct {
		headers string
		ok      bool
	}{
		{"Authorization: Bearer secret", true},
		{"authorization: bearer  secret ", true},
		{"", false},
		{"Authorization: Bearer", false},
		{"Authorization: Bearer ", false},
		{"Authorization: Bearer secre", false},
		{"Authorization: Bearer secrets", false},
		{"Authorization: Bearer SECRET", false},
		{"Authorization: Basic secret", false},
		{"Authorization: secret", false},
		{"Cookie: token=secret", false},
	} {
		for _, path := range []string{"/api/v1/status", "/api/v1/pools", "/api/v1/sessions", "/metrics", "/nothing", "/livez/"} {
			got := ask(t, s, strings.TrimSpace("GET "+path+"\n"+tt.headers))
			if (got.status != 401) != tt.ok {
				t.Errorf("%q: %s: status %d", tt.headers, path, got.status)
			}
			if got.status == 401 && (got.header.Get("WWW-Authenticate") != `Bearer realm="tidegate"` ||
				got.body != `{"error":"a valid bearer token is needed"}`+"\n") {
				t.Errorf("%v %s", got.header, got.body)
			}
		}
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if got := ask(t, s, "GET "+path); got.status != 200 {
			t.Errorf("%s needs a token: status %d", path, got.status)
		}
	}
	if got := ask(t, s, "GET /api/v1/status\nHost: evil.example\nAuthorization: Bearer secret"); got.status != 403 {
		t.Errorf("a token makes up for the Host: status %d", got.status)
	}
}

func TestTokenChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	writeToken(t, file, "first")
	core, logged := observer.New(zap.InfoLevel)
	s := start(t, Options{TokenFile: file, Log: zap.New(core)})
	check := func(token string, want int) {
		t.Helper()
		if got := ask(t, s, "GET /api/v1/status\nAuthorization: Bearer "+token); got.status != want {
			t.Errorf("token %q: status %d, want %d: %s", token, got.status, want, got.body)
		} else if strings.Contains(got.body, file) {
			t.Errorf("the answer names the file: %s", got.body)
		}
	}
	check("first", 200)
	writeToken(t, file, "other") // as long, and as quickly
	check("first", 401)
	check("other", 200)

	replacement := file + ".new"
	writeToken(t, replacement, "third")
	if err := os.Rename(replacement, file); err != nil {
		t.Fatal(err)
	}
	check("other", 401)
	check("third", 200)

	writeToken(t, file, " \n")
	check("third", 503)
	check("", 503)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	check("third", 503)
	if n := logged.FilterMessage("reading the admin token").Len(); n != 3 {
		t.Errorf("%d lines about it in the log, want 3", n)
	}
	writeToken(t, file, "fourth")
	check("fourth", 200)
}

func TestTokenFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	empty, long := filepath.Join(dir, "empty"), filepath.Join(dir, "long")
	writeToken(t, empty, "\n\n")
	writeToken(t, long, strings.Repeat("x", maxTokenBytes+1))
	for _, file := range []string{empty, long, dir, filepath.Join(dir, "missing"), os.DevNull} {
		s := New(Options{Address: "127.0.0.1:0", TokenFile: file, Edge: newFakeEdge()})
		if err := s.Listen(); err == nil {
			s.Close()
			t.Errorf("%s was taken for a token", file)
		}
	}
}
