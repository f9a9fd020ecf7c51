package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func newClient(t *testing.T, address, token string) *Client {
	t.Helper()
	c, err := NewClient(address, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestClient goes through every call, over each kind of address.
func TestClient(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	writeToken(t, token, "secret")
	edge := newFakeEdge()
	tcp := start(t, Options{Edge: edge, TokenFile: token})
	unix := start(t, Options{Edge: edge, TokenFile: token, Address: "unix:" + socketPath(t)})
	_, port, err := net.SplitHostPort(tcp.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{tcp.Addr(), "http://" + tcp.Addr(), "http://" + tcp.Addr() + "/", "localhost:" + port, ":" + port, unix.Addr()} {
		t.Run(address, func(t *testing.T) { checkCalls(t, newClient(t, address, "secret"), edge) })
	}
}

func checkCalls(t *testing.T, c *Client, edge *fakeEdge) {
	ctx := context.Background()
	status, err := c.Status(ctx)
	same(t, "status", err, status, edge.status)
	pools, err := c.Pools(ctx)
	if err != nil || len(pools) != 1 || len(pools[0].Backends) != 3 {
		t.Fatalf("pools: %v, %v", err, pools)
	}
	for _, want := range pools[0].Backends {
		b, err := c.Backend(ctx, "chat", want.ID)
		same(t, "backend", err, b, want)
	}
	b, err := c.Drain(ctx, "chat", "c/drain", DrainRequest{Rate: "2.5/s", Deadline: "1m"})
	same(t, "drain", err, b, pools[0].Backends[2])
	same(t, "drain", nil, edge.drains[len(edge.drains)-1], "drain chat c/drain rate 2.5 deadline 1m0s")
	b, err = c.Undrain(ctx, "chat", "c/drain")
	same(t, "undrain", err, b, pools[0].Backends[2])
	same(t, "undrain", nil, edge.drains[len(edge.drains)-1], "undrain chat c/drain")
	begun, err := c.Rebalance(ctx, "a b/c")
	same(t, "rebalance", err, begun, Rebalancing{Remaining: 412, PerSecond: 10})
	same(t, "rebalance", nil, edge.drains[len(edge.drains)-1], "rebalance a b/c")
	q := SessionQuery{"a b", "c/d", "e&f", netip.MustParseAddr("2001:db8::1"), 7, "g=h"}
	page, err := c.Sessions(ctx, q)
	same(t, "sessions", err, page, SessionPage{Sessions: edge.sessions})
	same(t, "query", nil, edge.query, q)
	session, err := c.Session(ctx, "s1")
	same(t, "session", err, session, edge.sessions[0])
	done, err := c.CloseSession(ctx, "s1", 0, "")
	same(t, "close", err, done, Closing{"s1", 1008, ""})
	done, err = c.CloseSession(ctx, "s1", 3000, "tea & cake")
	same(t, "close", err, done, Closing{"s1", 3000, "tea & cake"})
	generation, err := c.Reload(ctx)
	same(t, "reload", err, generation, 5)
	raw, err := c.Call(ctx, http.MethodGet, SessionPath("s1"), nil)
	same(t, "raw", err, string(raw), sessionJSON+"\n")
}

func same[T any](t *testing.T, what string, err error, got, want T) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	} else if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

// Whatever an id contains must arrive as it is.
func TestStrangeIDs(t *testing.T) {
	ids := []string{"a/b/c", "//", "a//b", ".", "..", "a/../b", "../../../livez", "%2F", "a b", "é", "\xff", "?x=1", "#", ";", "a\nb"}
	edge := newFakeEdge()
	edge.pools = nil
	for _, id := range ids {
		edge.pools = append(edge.pools, Pool{Name: id, Backends: []Backend{{ID: id, Address: "address of " + id}}})
		edge.sessions = append(edge.sessions, Session{ID: id})
	}
	c := newClient(t, start(t, Options{Edge: edge}).Addr(), "")
	for _, id := range ids {
		b, err := c.Backend(context.Background(), id, id)
		if want := strings.ToValidUTF8("address of "+id, "\ufffd"); err != nil || b.Address != want {
			t.Errorf("backend %q: %v, %q", id, err, b.Address)
		}
		b, err = c.Drain(context.Background(), id, id, DrainRequest{})
		if drained := edge.drains[len(edge.drains)-1]; err != nil || b.ID != strings.ToValidUTF8(id, "\ufffd") || drained != "drain "+id+" "+id {
			t.Errorf("%q: %v, %q", drained, err, b.ID)
		}
		if _, err := c.Session(context.Background(), id); err != nil {
			t.Errorf("session %q: %v", id, err)
		}
	}
}

func TestClientErrors(t *testing.T) {
	edge := newFakeEdge()
	diagnostics := []Diagnostic{{"a.yaml", 3, 9, "pools", "none"}}
	edge.reload = func(context.Context) (uint64, error) { return 0, &Rejected{diagnostics} }
	c := newClient(t, start(t, Options{Edge: edge}).Addr(), "")
	_, err := c.Reload(context.Background())
	refused, ok := errors.AsType[*APIError](err)
	if !ok || refused.Status != 422 || refused.Error() != "the configuration was rejected: 1 problem" {
		t.Fatalf("reload: %v", err)
	}
	if diff := cmp.Diff(diagnostics, refused.Diagnostics); diff != "" {
		t.Error(diff)
	}
	_, err = c.Session(context.Background(), "nope")
	if refused, ok := errors.AsType[*APIError](err); !ok || refused.Status != 404 || refused.Message != "no such session" {
		t.Errorf("session: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	for address, cause := range map[string]error{
		address:                   syscall.ECONNREFUSED,
		"unix:" + socketPath(t):   syscall.ENOENT,
		"http://" + address + "/": syscall.ECONNREFUSED,
	} {
		_, err := newClient(t, address, "").Status(context.Background())
		gone, ok := errors.AsType[*UnreachableError](err)
		if !ok || gone.Address != address || !errors.Is(err, cause) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Something else than an edge may answer.
func TestForeignServer(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a page":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"a page missing": http.NotFound,
		"other JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, `{"message":"x"}`)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != StatusPath {
				t.Errorf("the redirect was followed, with %q", r.Header.Get("Authorization"))
			}
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(h)
			defer srv.Close()
			c := newClient(t, srv.URL, "secret")
			defer c.Close()
			_, err := c.Status(context.Background())
			if err == nil || !strings.Contains(err.Error(), "is not the admin API of an edge") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestClientAddresses(t *testing.T) {
	for _, tt := range []struct{ address, base string }{
		{"127.0.0.1:9901", "http://127.0.0.1:9901"},
		{":9901", "http://localhost:9901"},
		{"[::1]:9901", "http://[::1]:9901"},
		{"edge1:9901", "http://edge1:9901"},
		{"http://edge1", "http://edge1"},
		{"https://edge1:443/", "https://edge1:443"},
		{"unix:/run/tidegate.sock", "http://localhost"},
		{"", ""}, {"9901", ""}, {"edge1", ""}, {"::1", ""}, {"edge1:", ""}, {"edge1:http", ""}, {"edge1:0", ""}, {"edge1:99999", ""},
		{"ftp://edge1", ""}, {"http://", ""}, {"http://u:p@edge1", ""}, {"http://edge1/api", ""}, {"http://edge1?x", ""},
		{"http://edge1#x", ""}, {"unix:", ""}, {"unix:@x", ""}, {"http://a b", ""}, {"a b:1", ""},
	} {
		c, err := NewClient(tt.address, "")
		if (err == nil) != (tt.base != "") || err == nil && c.base.String() != tt.base {
			t.Errorf("%q: %v, %v", tt.address, c, err)
		}
	}
}
