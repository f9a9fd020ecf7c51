package proxy

import (
	"bufio"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// seen is what a backend got for a request through an edge with these settings.
func seen(t *testing.T, settings func(*Settings), request string) (target string, h http.Header, raw string) {
	t.Helper()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.rest()
	})
	s := defaults(b.addr)
	if settings != nil {
		settings(&s)
	}
	e := startEdge(t, s)
	c := dialRaw(t, e.addr())
	defer c.Close()
	c.send(request)
	c.upgraded()
	raw = <-b.heads
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Host", r.Host) // ReadRequest takes it out
	if r.Host == b.addr {
		r.Header.Set("Host", "BACKEND")
	}
	return r.RequestURI, r.Header, raw
}

func trustLoopback(s *Settings) {
	s.Listeners[0].TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
}

// TestBackendSees goes through what a backend gets of a client's headers.
func TestBackendSees(t *testing.T) {
	t.Parallel()
	upstream := func(f func(*UpstreamSettings)) func(*Settings) { return func(s *Settings) { f(&s.Pools[0].Upstream) } }
	route := func(f func(*RouteSettings)) func(*Settings) { return func(s *Settings) { f(&s.Routes[0]) } }
	tests := []struct {
		name     string
		settings func(*Settings)
		lines    []string
		want     http.Header // nil: no such header
	}{
		{"the handshake", nil, nil, http.Header{"Host": {"edge.test"}, "Upgrade": {"websocket"}, "Connection": {"Upgrade"},
			"Sec-Websocket-Key": {testKey}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": nil}},
		{"Connection is the edge's own", nil, []string{"Connection: keep-alive, upgrade", "Upgrade: h2c, WEBSOCKET"},
			http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}},
		{"Host is kept with its port and case", nil, []string{"Host: Chat.Example.com:8443"}, http.Header{"Host": {"Chat.Example.com:8443"}}},
		{"Host of the backend", upstream(func(u *UpstreamSettings) { u.Host = HostBackend }), nil, http.Header{"Host": {"BACKEND"}, "X-Forwarded-Host": {"edge.test"}}},
		{"Host as written", upstream(func(u *UpstreamSettings) { u.Host = "app.internal" }), nil, http.Header{"Host": {"app.internal"}}},

		{"X-Forwarded is made", nil, nil, http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"edge.test"}}},
		{"X-Forwarded of a stranger is replaced", nil,
			[]string{"X-Forwarded-For: 1.2.3.4", "x-forwarded-for: 5.6.7.8", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test",
				"X-Forwarded-Port: 1", "X-Forwarded-User: root", "Forwarded: for=1.2.3.4", "X-Request-Id: forged"},
			http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"edge.test"},
				"X-Forwarded-Port": nil, "X-Forwarded-User": nil, "Forwarded": nil}},
		{"X-Forwarded of a trusted proxy is kept", trustLoopback,
			[]string{"X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 10.0.0.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: chat.test", "X-Request-Id: abc"},
			http.Header{"X-Forwarded-For": {"1.2.3.4, 10.0.0.7, 127.0.0.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"chat.test"}, "X-Request-Id": {"abc"}}},
		{"whatever else says who the client is, of a stranger", nil,
			[]string{"X-Real-IP: 1.2.3.4", "True-Client-IP: 1.2.3.4", "cf-connecting-ip: 1.2.3.4", "X-Original-URL: /admin", "X-Realm: mine"},
			http.Header{"X-Real-Ip": nil, "True-Client-Ip": nil, "Cf-Connecting-Ip": nil, "X-Original-Url": nil, "X-Realm": {"mine"}}},
		{"the same of a trusted proxy", trustLoopback, []string{"X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4"},
			http.Header{"X-Real-Ip": {"1.2.3.4"}, "Forwarded": nil, "X-Forwarded-For": {"127.0.0.1"}}},
		{"what CGI takes for the same", trustLoopback,
			[]string{"X_Forwarded_For: 1.2.3.4", "x-forwarded_FOR: 1.2.3.4", "X_Request_Id: forged", "Tidegate_Session: 1", "X_Other: 2"},
			http.Header{"X_forwarded_for": nil, "X-Forwarded_for": nil, "X_request_id": nil, "Tidegate_session": nil, "X_other": {"2"}, "X-Forwarded-For": {"127.0.0.1"}}},
		{"a trusted proxy that says nothing", trustLoopback, nil,
			http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"edge.test"}}},

		{"hop-by-hop headers", nil, []string{"Connection: Upgrade, X-Hop, x-other", "X-Hop: 1", "X-Other: 2", "X-End: 3", "Keep-Alive: 5", "TE: trailers",
			"Trailer: X", "Proxy-Authorization: x", "Proxy-Connection: keep-alive"},
			http.Header{"X-Hop": nil, "X-Other": nil, "X-End": {"3"}, "Keep-Alive": nil, "Te": nil, "Trailer": nil, "Proxy-Authorization": nil, "Proxy-Connection": nil}},
		{"Connection cannot take the edge's headers out", nil, []string{"Connection: Upgrade, X-Forwarded-For, Sec-WebSocket-Key, X-Request-Id"},
			http.Header{"X-Forwarded-For": {"127.0.0.1"}, "Sec-Websocket-Key": {testKey}}},
		{"extension offers", nil, []string{"Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Extensions: x"}, http.Header{"Sec-Websocket-Extensions": nil}},
		{"Tidegate's own", nil, []string{"Tidegate-Session: 1", "tidegate-attempt: 2", "TIDEGATE-PREVIOUS-BACKEND: 3", "Tidegate-Signature: 4"},
			http.Header{"Tidegate-Session": nil, "Tidegate-Attempt": nil, "Tidegate-Previous-Backend": nil, "Tidegate-Signature": nil}},
		{"Tidegate's own of a trusted proxy", trustLoopback, []string{"Tidegate-Session: 1"}, http.Header{"Tidegate-Session": nil}},
		{"Content-Length 0", nil, []string{"Content-Length: 0"}, http.Header{"Content-Length": nil}},
		{"cookies and repeated headers", nil, []string{"Cookie: a=1; b=2", "Cookie: c=3", "X-Many: 1", "X-Many: 2", "Authorization: Bearer x", "Origin: https://a.test", "User-Agent: me"},
			http.Header{"Cookie": {"a=1; b=2", "c=3"}, "X-Many": {"1", "2"}, "Authorization": {"Bearer x"}, "Origin": {"https://a.test"}, "User-Agent": {"me"}}},
		{"subprotocols", nil, []string{"Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b,c"}, http.Header{"Sec-Websocket-Protocol": {"a, b, c"}}},

		{"the route sets", route(func(r *RouteSettings) { r.SetHeaders = map[string]string{"X-Edge": "eu1"} }), []string{"X-Edge: forged", "X-Edge: twice"},
			http.Header{"X-Edge": {"eu1"}}},
		{"the route removes", route(func(r *RouteSettings) { r.RemoveHeaders = []string{"X-Secret", "X-Forwarded-Host"} }), []string{"x-secret: 1", "X-Secret: 2"},
			http.Header{"X-Secret": nil, "X-Forwarded-Host": nil}},
		{"removed and set", route(func(r *RouteSettings) {
			r.RemoveHeaders, r.SetHeaders = []string{"X-A"}, map[string]string{"X-A": "new"}
		}), []string{"X-A: old"},
			http.Header{"X-A": {"new"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got, raw := seen(t, tt.settings, upgradeRequest("/", tt.lines...))
			for name, want := range tt.want {
				if diff := cmp.Diff([]string(want), got[name]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
			if id := got["X-Request-Id"]; len(id) != 1 || id[0] == "forged" || id[0] == "" {
				t.Errorf("got X-Request-Id %q", id)
			}
			if n := strings.Count(strings.ToLower(raw), "\nhost:"); n != 1 {
				t.Errorf("%d Host lines", n)
			}
		})
	}
}

// TestRequestID makes one unless a trusted proxy names a reasonable one, and shows the
// same in the session.
func TestRequestID(t *testing.T) {
	t.Parallel()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.rest()
	})
	settings := defaults(b.addr)
	trustLoopback(&settings)
	e := startEdge(t, settings)
	made := regexp.MustCompile(`^[0-9a-f]{32}$`)
	ids := map[string]bool{}
	for _, given := range []string{"", "", "given-1", strings.Repeat("x", 200), strings.Repeat("x", 201)} {
		var lines []string
		if given != "" {
			lines = []string{"X-Request-Id: " + given}
		}
		c := e.open("/", lines...)
		r, _ := http.ReadRequest(bufio.NewReader(strings.NewReader(<-b.heads)))
		id := r.Header.Get("X-Request-Id")
		if kept := given != "" && len(given) <= 200; kept && id != given || !kept && !made.MatchString(id) {
			t.Errorf("%.30q became %.30q", given, id)
		}
		if got := e.session(c).Info().RequestID; got != id {
			t.Errorf("the session has %q, the backend %q", got, id)
		}
		if ids[id] {
			t.Errorf("%q came twice", id)
		}
		ids[id] = true
		c.Close()
	}
	e.idle()
}

func TestForwardedProtoOfTLS(t *testing.T) {
	t.Parallel()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.rest()
	})
	_, dial := startEither(t, true, defaults(b.addr))
	c := dial()
	c.send(upgradeRequest("/"))
	c.upgraded()
	if head := <-b.heads; !strings.Contains(head, "\r\nX-Forwarded-Proto: https\r\n") {
		t.Errorf("got\n%s", head)
	}
}

// TestClientAddress reads X-Forwarded-For from the right, as far as it is believed.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	tests := []struct {
		name, peer string
		lines      []string
		want       string
	}{
		{"no header", "10.0.0.1", nil, "10.0.0.1"},
		{"a stranger's word", "9.9.9.9", []string{"1.2.3.4"}, "9.9.9.9"},
		{"a proxy's word", "10.0.0.1", []string{"1.2.3.4"}, "1.2.3.4"},
		{"the client's own word is left of it", "10.0.0.1", []string{"8.8.8.8, 1.2.3.4"}, "1.2.3.4"},
		{"several proxies", "10.0.0.1", []string{"1.2.3.4, 10.0.0.3, 10.0.0.2"}, "1.2.3.4"},
		{"several lines", "10.0.0.1", []string{"8.8.8.8", "1.2.3.4", "10.0.0.2"}, "1.2.3.4"},
		{"all are proxies", "10.0.0.1", []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		{"garbage ends it", "10.0.0.1", []string{"1.2.3.4, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"nothing but garbage", "10.0.0.1", []string{"_hidden"}, "10.0.0.1"},
		{"an empty line", "10.0.0.1", []string{""}, "10.0.0.1"},
		{"with a port", "10.0.0.1", []string{"1.2.3.4:5678"}, "1.2.3.4"},
		{"IPv6", "fd00::1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 in brackets", "10.0.0.1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"IPv6 with a port", "10.0.0.1", []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		{"IPv4 in IPv6", "10.0.0.1", []string{"1.2.3.4, ::ffff:10.0.0.2"}, "1.2.3.4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{"X-Forwarded-For": tt.lines}}
			o := originOf(r, netip.AddrPortFrom(netip.MustParseAddr(tt.peer), 1), trusted)
			if o.client.String() != tt.want {
				t.Errorf("got %s, want %s", o.client, tt.want)
			}
			if o.trusted != (tt.peer != "9.9.9.9") {
				t.Errorf("trusted is %v", o.trusted)
			}
		})
	}
}

// FuzzClientAddress compares with a slow reading of the same rule.
func FuzzClientAddress(f *testing.F) {
	for _, s := range []string{"", "1.2.3.4", "1.2.3.4, 10.0.0.1", "10.0.0.1:80,[::1]:80", "unknown", ",,", "10.1.1.1, x, 10.2.2.2", "::ffff:10.0.0.1", "fe80::1%eth0", "[10.0.0.1]"} {
		f.Add(s, "10.0.0.9")
		f.Add(s, "9.9.9.9")
	}
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	f.Fuzz(func(t *testing.T, header, peer string) {
		from, err := netip.ParseAddr(peer)
		if err != nil || from.Zone() != "" {
			return
		}
		from = from.Unmap()
		r := &http.Request{Header: http.Header{"X-Forwarded-For": {header}}}
		got := originOf(r, netip.AddrPortFrom(from, 1), trusted).client

		believed := func(a netip.Addr) bool { return trusted[0].Contains(a) || trusted[1].Contains(a) }
		want := from
		for hops := strings.Split(header, ","); believed(want) && len(hops) > 0; hops = hops[:len(hops)-1] {
			a, ok := parseHop(hops[len(hops)-1])
			if !ok {
				break
			}
			want = a
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if !got.IsValid() || got.Is4In6() {
			t.Errorf("got %v, which would not compare with an address", got)
		}
	})
}

// TestUpstreamTarget replaces the route's prefix and nothing else.
func TestUpstreamTarget(t *testing.T) {
	t.Parallel()
	tests := []struct {
		route, pool, target, want string
	}{
		{"/", "", "/", "/"},
		{"/", "", "/a/b?x=1&y=%20", "/a/b?x=1&y=%20"},
		{"/ws", "", "/ws/a%2Fb?q", "/ws/a%2Fb?q"},
		{"/", "", "//double//slash", "//double//slash"},
		{"/", "", "/semi;a=b", "/semi;a=b"},
		{"/", "", "http://edge.test/abs?x=1", "/abs?x=1"},
		{"/", "", "/empty?", "/empty?"},

		{"/ws", "/app", "/ws", "/app"},
		{"/ws", "/app", "/ws/", "/app/"},
		{"/ws", "/app", "/ws/a/b", "/app/a/b"},
		{"/ws", "/app", "/ws?x=1", "/app?x=1"},
		{"/ws", "/app", "/ws/?x=1", "/app/?x=1"},
		{"/ws", "/app", "/ws?", "/app?"},
		{"/ws", "/app/", "/ws", "/app/"},
		{"/ws", "/app/", "/ws/a", "/app/a"},
		{"/ws", "/", "/ws", "/"},
		{"/ws", "/", "/ws/a", "/a"},
		{"/ws/", "/app", "/ws/a", "/app/a"},
		{"/", "/app", "/", "/app"},
		{"/", "/app", "/a", "/app/a"},
		{"", "/app", "/", "/app"},
		{"", "/app", "/a%2Fb", "/app/a%2Fb"},
		{"/ws", "/app", "/ws/a%2Fb/c%20d?q=%2F", "/app/a%2Fb/c%20d?q=%2F"},
		{"/ws", "/app", "/%77s/a%2Fb", "/app/a%2Fb"},
		{"/a b", "/app", "/a%20b/c%20d", "/app/c%20d"},
		{"/ws", "/app", "/ws//a", "/app//a"},
		{"/ws", "/ws/ws", "/ws/ws", "/ws/ws/ws"},
	}
	for _, tt := range tests {
		t.Run(tt.route+" to "+tt.pool+" of "+tt.target, func(t *testing.T) {
			got, _, _ := seen(t, func(s *Settings) {
				s.Routes[0].Path, s.Pools[0].Upstream.Path = tt.route, tt.pool
			}, upgradeRequest(tt.target))
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestClientSeesBackendHeaders passes the headers of the 101 on.
func TestClientSeesBackendHeaders(t *testing.T) {
	t.Parallel()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r, "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", "X-App: 7", "Connection: Upgrade, X-Hop", "X-Hop: 1", "Keep-Alive: 5"))
		c.rest()
	})
	e := startEdge(t, defaults(b.addr))
	c := dialRaw(t, e.addr())
	c.send(upgradeRequest("/"))
	got := c.upgraded().Header
	want := http.Header{"Set-Cookie": {"a=1; Path=/", "b=2"}, "X-App": {"7"}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Accept": {acceptKey(testKey)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
