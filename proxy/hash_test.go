package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/tidegate/tidegate/balance"
)

func TestHashOn(t *testing.T) {
	t.Parallel()
	r := &http.Request{Host: "Chat.Test:8443", URL: &url.URL{Path: "/ws/1", RawQuery: "room=7&room=8&empty="},
		Header: http.Header{"X-User": {"u1", "u2"}, "Cookie": {"a=1; sid=s%201", "b=2"}}}
	client := netip.MustParseAddr("2001:db8::1")
	tests := []struct {
		name string
		on   HashOn
		want string // empty: there is no such thing
	}{
		{"the zero value", HashOn{}, "2001:db8::1"},
		{"ip", HashOn{Source: HashIP}, "2001:db8::1"},
		{"header", HashOn{HashHeader, "x-user"}, "u1"},
		{"no such header", HashOn{HashHeader, "X-Other"}, ""},
		{"cookie", HashOn{HashCookie, "sid"}, "s%201"},
		{"cookie of a second line", HashOn{HashCookie, "b"}, "2"},
		{"no such cookie", HashOn{HashCookie, "c"}, ""},
		{"query", HashOn{HashQuery, "room"}, "7"},
		{"empty query", HashOn{HashQuery, "empty"}, ""},
		{"no such query", HashOn{HashQuery, "other"}, ""},
		{"path", HashOn{Source: HashPath}, "/ws/1"},
		{"host", HashOn{Source: HashHost}, "chat.test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.on.request(r, client)
			want := balance.Request{}
			if tt.want != "" {
				want = balance.Request{Hash: balance.HashString(tt.want), Hashed: true}
			}
			if got.Hash != want.Hash || got.Hashed != want.Hashed {
				t.Errorf("got %+v, want that of %q", got, tt.want)
			}
		})
	}
}

// TestSameKeySameBackend hashes through an edge, by the address that a trusted proxy names.
// The policy comes with a reload, to the same backends.
func TestSameKeySameBackend(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t), echoBackend(t), echoBackend(t))
	trustLoopback(&settings)
	e := startEdge(t, settings)
	settings.Pools = []PoolSettings{settings.Pools[0]}
	settings.Pools[0].Balance.Policy = "consistent_hash"
	e.apply(settings)
	if got := e.Pools()[0].Policy; got != "consistent_hash" {
		t.Errorf("the policy shown is %s", got)
	}
	chosen := map[string]bool{}
	for _, client := range []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4", "5.5.5.5", "6.6.6.6", "7.7.7.7", "8.8.8.8"} {
		var first string
		for range 3 {
			c := e.open("/", "X-Forwarded-For: "+client)
			id := e.session(c).Backend().ID
			if first == "" {
				first = id
			}
			if id != first {
				t.Errorf("%s came to %s and to %s", client, first, id)
			}
			c.Close()
		}
		chosen[first] = true
	}
	if len(chosen) < 2 {
		t.Error("all clients came to one backend")
	}
}
