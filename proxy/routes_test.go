package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// get is a request for the table.
func get(host, path string, headers ...string) *http.Request {
	r := &http.Request{Host: host, URL: &url.URL{Path: path}, Header: http.Header{}}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func tableOf(routes ...RouteSettings) *table {
	var list []*route
	for _, s := range routes {
		list = append(list, newRoute(s, &poolView{}, newRouteStats(s.Name), nil))
	}
	return newTable(list)
}

func nameOf(r *route) string {
	if r == nil {
		return ""
	}
	return r.Name
}

func TestRouteTable(t *testing.T) {
	t.Parallel()
	routes := []RouteSettings{
		{Name: "exact", Hosts: []string{"chat.example.com"}, Path: "/ws"},
		{Name: "exact v2", Hosts: []string{"chat.example.com"}, Path: "/ws/v2"},
		{Name: "exact slash", Hosts: []string{"chat.example.com"}, Path: "/slash/"},
		{Name: "wildcard", Hosts: []string{"*.example.com"}, Path: "/"},
		{Name: "wildcard long", Hosts: []string{"*.eu.example.com"}, Path: "/"},
		{Name: "several", Hosts: []string{"a.test", "b.test", "*.c.test"}, Path: "/"},
		{Name: "address", Hosts: []string{"::1", "192.0.2.1"}, Path: "/"},
		{Name: "any gold", Path: "/tier", Headers: map[string]string{"x-tier": "gold"}},
		{Name: "any gold eu", Path: "/tier", Headers: map[string]string{"X-Tier": "gold", "X-Region": "eu"}},
		{Name: "any tier", Path: "/tier"},
		{Name: "only ws", Path: "/proto", Protocol: WebSocketOnly},
		{Name: "only http", Path: "/proto", Protocol: HTTPOnly},
		{Name: "any proto", Path: "/proto"},
		{Name: "lone ws", Path: "/lone", Protocol: WebSocketOnly},
	}
	tests := []struct {
		name string
		r    *http.Request
		http bool
		want string
	}{
		{"exact host", get("chat.example.com", "/ws"), false, "exact"},
		{"with a port", get("chat.example.com:8443", "/ws"), false, "exact"},
		{"in another case", get("Chat.EXAMPLE.com", "/ws"), false, "exact"},
		{"with a final dot", get("chat.example.com.", "/ws"), false, "exact"},
		{"with all of it", get("CHAT.example.com.:443", "/ws"), false, "exact"},
		{"below the path", get("chat.example.com", "/ws/room/1"), false, "exact"},
		{"longest path", get("chat.example.com", "/ws/v2"), false, "exact v2"},
		{"below the longest path", get("chat.example.com", "/ws/v2/x"), false, "exact v2"},
		{"a path ends at a segment", get("chat.example.com", "/ws/v22"), false, "exact"},
		{"no path of the exact host: the wildcard", get("chat.example.com", "/other"), false, "wildcard"},
		{"no segment border", get("chat.example.com", "/wsx"), false, "wildcard"},
		{"paths have a case", get("chat.example.com", "/WS"), false, "wildcard"},
		{"a path with a final slash", get("chat.example.com", "/slash/x"), false, "exact slash"},
		{"its own slash", get("chat.example.com", "/slash/"), false, "exact slash"},
		{"without that slash", get("chat.example.com", "/slash"), false, "wildcard"},
		{"wildcard", get("other.example.com", "/"), false, "wildcard"},
		{"several labels", get("a.b.example.com", "/"), false, "wildcard"},
		{"longest wildcard", get("a.eu.example.com", "/"), false, "wildcard long"},
		{"several labels before the longest", get("a.b.eu.example.com:80", "/"), false, "wildcard long"},
		{"the suffix itself is the shorter one's", get("eu.example.com", "/"), false, "wildcard"},
		{"a wildcard needs a label", get("example.com", "/"), false, ""},
		{"an empty label is none", get(".example.com", "/"), false, ""},
		{"a suffix is no label", get("badexample.com", "/"), false, ""},
		{"a label is no suffix", get("chat.example.com.evil.test", "/ws"), false, ""},
		{"second host of a route", get("b.test", "/"), false, "several"},
		{"third host of a route", get("x.c.test", "/"), false, "several"},
		{"IPv4", get("192.0.2.1:80", "/"), false, "address"},
		{"IPv6", get("[::1]:80", "/"), false, "address"},
		{"IPv6 without a port", get("[::1]", "/"), false, "address"},
		{"no host", get("", "/tier"), false, "any tier"},
		{"no host condition", get("unknown.test", "/tier"), false, "any tier"},
		{"falls through two hosts", get("chat.other.test", "/tier"), false, "any tier"},
		{"header condition", get("x", "/tier", "X-Tier: gold"), false, "any gold"},
		{"more header conditions", get("x", "/tier", "X-Tier: gold", "X-Region: eu"), false, "any gold eu"},
		{"another value", get("x", "/tier", "X-Tier: silver"), false, "any tier"},
		{"a value in another case", get("x", "/tier", "X-Tier: Gold"), false, "any tier"},
		{"one of two conditions", get("x", "/tier", "X-Region: eu"), false, "any tier"},
		{"WebSocket", get("x", "/proto"), false, "only ws"},
		{"HTTP", get("x", "/proto"), true, "only http"},
		{"HTTP on a WebSocket route", get("x", "/lone"), true, ""},
		{"nothing", get("x", "/"), false, ""},
	}
	for range 5 {
		tb := tableOf(routes...)
		for _, tt := range tests {
			if got := nameOf(tb.find(tt.r, !tt.http)); got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}
		// The order of the configuration must not matter.
		rand.Shuffle(len(routes), func(i, j int) { routes[i], routes[j] = routes[j], routes[i] })
	}
}

// oracle reads the rules of CONTRACT.md one after the other: among all routes that match
// it takes the one with the best rank.
func oracle(routes []RouteSettings, r *http.Request, websocket bool) string {
	best, name := []int(nil), ""
	for _, s := range routes {
		host := -1
		if len(s.Hosts) == 0 {
			host = 0
		}
		for _, h := range s.Hosts {
			switch suffix, wild := strings.CutPrefix(h, "*"); {
			case wild && strings.HasSuffix(r.Host, suffix) && len(r.Host) > len(suffix):
				host = max(host, 1+len(suffix))
			case !wild && r.Host == h:
				host = 1 << 20
			}
		}
		path := r.URL.Path == s.Path || strings.HasPrefix(r.URL.Path, strings.TrimSuffix(s.Path, "/")+"/")
		for name, value := range s.Headers {
			path = path && r.Header.Get(name) == value
		}
		if s.Protocol == WebSocketOnly {
			path = path && websocket
		}
		if s.Protocol == HTTPOnly {
			path = path && !websocket
		}
		if host < 0 || !path {
			continue
		}
		rank := []int{host, len(s.Path), len(s.Headers), int(min(s.Protocol, 1))}
		if best == nil || slices.Compare(rank, best) > 0 {
			best, name = rank, s.Name
		}
	}
	return name
}

// FuzzRouteTable builds tables out of few parts, so that much overlaps, and asks each for
// every request of these parts.
func FuzzRouteTable(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add([]byte{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 255, 254, 253, 252})
	for i := range 20 {
		b := make([]byte, 40)
		for j := range b {
			b[j] = byte(rand.New(rand.NewPCG(uint64(i), uint64(j))).Uint32())
		}
		f.Add(b)
	}
	hosts := []string{"", "a.test", "b.a.test", "c.b.a.test", "*.test", "*.a.test", "*.b.a.test"}
	paths := []string{"/", "/w", "/w/", "/w/x", "/w/x/y", "/v"}
	headers := []map[string]string{nil, {"X-A": "1"}, {"X-A": "2"}, {"X-A": "1", "X-B": "1"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var routes []RouteSettings
		taken := map[string]bool{}
		for ; len(b) >= 4 && len(routes) < 12; b = b[4:] {
			s := RouteSettings{Name: fmt.Sprint(len(routes)), Path: paths[int(b[1])%len(paths)],
				Headers: headers[int(b[2])%len(headers)], Protocol: Protocol(b[3] % 3)}
			if b[0]%7 > 0 {
				s.Hosts = slices.Compact([]string{hosts[b[0]%7], hosts[1+b[0]/7%6]})
			}
			// Ties are errors of the configuration and have no answer here.
			free := true
			for _, h := range append([]string{""}, s.Hosts...)[min(1, len(s.Hosts)):] {
				place := fmt.Sprint(h, s.Path, len(s.Headers), min(s.Protocol, 1))
				free = free && !taken[place]
				taken[place] = true
			}
			if free {
				routes = append(routes, s)
			}
		}
		tb := tableOf(routes...)
		for _, host := range []string{"x", "test", "a.test", "b.a.test", "z.a.test", "c.b.a.test", "z.b.a.test", "z.c.b.a.test"} {
			for _, path := range []string{"/", "/w", "/w/", "/w/x", "/w/xy", "/w/x/y", "/wx", "/v/w"} {
				for _, h := range [][]string{nil, {"X-A: 1"}, {"X-A: 2", "X-B: 1"}, {"X-A: 1", "X-B: 1"}} {
					for _, websocket := range []bool{true, false} {
						r := get(host, path, h...)
						if got, want := nameOf(tb.find(r, websocket)), oracle(routes, r, websocket); got != want {
							t.Fatalf("%s%s %v websocket %v: got route %q, want %q of %+v", host, path, h, websocket, got, want, routes)
						}
					}
				}
			}
		}
	})
}

// TestRouting sends requests through an edge with a pool for each route.
func TestRouting(t *testing.T) {
	t.Parallel()
	app := func(name string) *rawBackend {
		return startRaw(t, func(c *rawConn, r *http.Request) {
			if !asksWebSocket(r) {
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-App: " + name + "\r\n\r\n")
				return
			}
			c.send(switching(r, "X-App: "+name))
			c.rest()
		})
	}
	settings := defaults()
	settings.Routes, settings.Pools = nil, nil
	for _, r := range []RouteSettings{
		{Name: "chat", Hosts: []string{"chat.test"}, Path: "/ws"},
		{Name: "wild", Hosts: []string{"*.test"}, Path: "/ws"},
		{Name: "http", Hosts: []string{"chat.test"}, Path: "/page", Protocol: HTTPOnly},
		{Name: "live", Hosts: []string{"chat.test"}, Path: "/live", Protocol: WebSocketOnly},
	} {
		r.Pool = r.Name
		settings.Routes = append(settings.Routes, r)
		settings.Pools = append(settings.Pools, pool1(r.Name, app(r.Name).addr))
	}
	e := startEdge(t, settings)
	plain := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: chat.test\r\n\r\n" }
	tests := []struct {
		name, request string
		want          int
		app           string
	}{
		{"exact", upgradeRequest("/ws", "Host: chat.test"), 101, "chat"},
		{"exact with port, case and dot", upgradeRequest("/ws/x", "Host: Chat.Test.:8443"), 101, "chat"},
		{"by an absolute target", upgradeRequest("http://chat.test/ws", "Host: other.invalid"), 101, "chat"},
		{"wildcard", upgradeRequest("/ws?x=/page", "Host: a.b.test"), 101, "wild"},
		{"an encoded path", upgradeRequest("/%77s", "Host: chat.test"), 101, "chat"},
		{"no such path", upgradeRequest("/wsx", "Host: chat.test"), 404, ""},
		{"no such host", upgradeRequest("/ws", "Host: chat.invalid"), 404, ""},
		{"WebSocket on an HTTP route", upgradeRequest("/page", "Host: chat.test"), 404, ""},
		{"HTTP on any route", plain("/ws"), 200, "chat"},
		{"HTTP on a WebSocket route", plain("/live"), 426, ""},
		{"HTTP on an HTTP route", plain("/page"), 200, "http"},
		{"HTTP elsewhere", plain("/"), 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, body := e.ask(tt.request)
			if res.StatusCode != tt.want || res.Header.Get("X-App") != tt.app {
				t.Errorf("got %s of %q (%s)", res.Status, res.Header.Get("X-App"), body)
			}
		})
	}
	e.idle()
}
