package proxy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUnrouted: what is refused before a route was found is counted without one, and
// only that.
func TestUnrouted(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	settings.Routes[0].Hosts = []string{"edge.test"}
	e := startEdge(t, settings)
	plain := func(path, host string) string { return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	for _, tt := range []struct {
		request  string
		status   int
		unrouted bool
	}{
		{upgradeRequest("/ws", "Host: other.test"), 404, true},
		{upgradeRequest("/ws", "Host: another.test"), 404, true},
		{upgradeRequest("/ws/../admin"), 400, true},
		{plain("/ws", "other.test"), 404, true},
		{plain("/a/../b", "edge.test"), 400, true},
		{plain("/ws", "edge.test"), 400, false},
		{upgradeRequest("/ws", "Sec-WebSocket-Key: short"), 400, false},
	} {
		before := e.Unrouted()
		if res, _ := e.ask(tt.request); res.StatusCode != tt.status {
			t.Errorf("%q: got %s, want %d", tt.request, res.Status, tt.status)
		}
		if changed := !cmp.Equal(before, e.Unrouted()); changed != tt.unrouted {
			t.Errorf("%q: counted without a route is %v, want %v", tt.request, changed, tt.unrouted)
		}
	}
	want := Answers{Handshakes: map[string]uint64{"no_route": 2, "malformed": 1}, Requests: map[int]uint64{404: 3, 400: 2}}
	if diff := cmp.Diff(want, e.Unrouted()); diff != "" {
		t.Errorf("without a route:\n%s", diff)
	}
	want = Answers{Handshakes: map[string]uint64{"malformed": 1}, Requests: map[int]uint64{400: 2}}
	if diff := cmp.Diff(want, e.route("all").Answers); diff != "" {
		t.Errorf("of the route:\n%s", diff)
	}
}

// TestFailedTLSIsCounted has a client that speaks no TLS to a port that does.
func TestFailedTLSIsCounted(t *testing.T) {
	t.Parallel()
	e := startEdge(t, secured(t, defaults(echoBackend(t))))
	c := dialRaw(t, e.addr())
	c.send(upgradeRequest("/ws"))
	c.wantEnd()
	want := Answers{Handshakes: map[string]uint64{"tls": 1}, Requests: map[int]uint64{}}
	if diff := cmp.Diff(want, e.Unrouted()); diff != "" {
		t.Errorf("without a route:\n%s", diff)
	}
}
