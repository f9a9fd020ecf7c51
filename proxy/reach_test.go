package proxy

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/preface"
	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

// call is a request as a backend behind the PROXY protocol sees it.
type call struct {
	path, source, destination string
	version                   byte
	local                     bool
}

// guarded is a backend that takes nothing without a header of the PROXY protocol.
type guarded struct {
	*httptest.Server
	mu    sync.Mutex
	calls []call
}

// guard puts a backend that does not run yet behind the PROXY protocol. ca, if not nil, gives
// it TLS.
func guard(t *testing.T, handler http.Handler, ca *authority) *guarded {
	t.Helper()
	g := &guarded{}
	type connKey struct{}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Context().Value(connKey{}).(*proxyproto.Conn).ProxyHeader()
		g.mu.Lock()
		g.calls = append(g.calls, call{r.URL.Path, r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey).(net.Addr).String(),
			h.Version, h.Command == proxyproto.LOCAL})
		g.mu.Unlock()
		if r.URL.Path == "/healthz" && r.Header.Get("Upgrade") == "" {
			return
		}
		handler.ServeHTTP(w, r)
	}))
	g.Listener = &proxyproto.Listener{Listener: g.Listener, ReadHeaderTimeout: patience,
		ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
	g.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	g.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if secured, ok := c.(*cryptotls.Conn); ok {
			c = secured.NetConn()
		}
		return context.WithValue(ctx, connKey{}, c)
	}
	if ca == nil {
		g.Start()
	} else {
		_, cert := ca.issue(t, "127.0.0.1")
		g.Server.TLS = &cryptotls.Config{Certificates: []cryptotls.Certificate{cert}}
		g.StartTLS()
	}
	t.Cleanup(g.Close)
	return g
}

func (g *guarded) addr() string { return g.Listener.Addr().String() }

// last returns the last request for a path.
func (g *guarded) last(path string) (c call, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range slices.Backward(g.calls) {
		if c.path == path {
			return c, true
		}
	}
	return call{}, false
}

// TestIntroduced: each handshake begins with a header that speaks for the client as the edge
// believes it.
func TestIntroduced(t *testing.T) {
	t.Parallel()
	four, six := "192.0.2.1:4711", "[2001:db8::1]:4711"
	for _, secure := range []bool{false, true} {
		for _, v := range []preface.Version{preface.V1, preface.V2} {
			var ca *authority
			if secure {
				ca = newAuthority(t)
			}
			g := guard(t, echoHandler(), ca)
			settings := believing(defaults(deadAddr(t), g.addr())) // each second one is a retry
			settings.Pools[0].Upstream.ProxyProtocol = v
			settings.Listeners[0].TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			if secure {
				cfg, err := tls.NewClientConfig(tls.ClientSettings{CAFile: ca.caFile()})
				if err != nil {
					t.Fatal(err)
				}
				settings.Pools[0].Upstream.TLS = cfg
			}
			e := startEdge(t, settings)
			for _, tt := range []struct {
				name, header, source, destination string
			}{
				{"a client of its own", "", "", e.addr()},
				{"a named client", from(preface.V2, four), four, "198.51.100.2:443"},
				{"IPv6 to IPv4", from(preface.V1, six), six, "198.51.100.2:443"},
				{"whom a trusted proxy names", from(preface.V1, "10.0.0.7:1"), "203.0.113.9:0", "198.51.100.2:443"},
				{"IPv4 to IPv6", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 4711 443\r\n", four, "[2001:db8::2]:443"},
			} {
				c := e.connect(false, tt.header)
				c.send(upgradeRequest("/ws", "X-Forwarded-For: 203.0.113.9"))
				c.upgraded()
				c.echoes("hello")
				if tt.source == "" {
					tt.source = c.LocalAddr().String()
				}
				if got, _ := g.last("/ws"); got != (call{"/ws", tt.source, tt.destination, byte(v), false}) {
					t.Errorf("secure %v, version %d, %s: got %+v, want %s to %s", secure, v, tt.name, got, tt.source, tt.destination)
				}
				c.Close()

				// Plain requests share no connection with other clients.
				c = e.connect(false, tt.header)
				for range 2 {
					c.send("GET /plain HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
					io.Copy(io.Discard, c.response().Body)
				}
				if tt.header == "" {
					tt.source = c.LocalAddr().String()
				}
				if got, _ := g.last("/plain"); got != (call{"/plain", tt.source, tt.destination, byte(v), false}) {
					t.Errorf("secure %v, version %d, %s, plain: got %+v, want %s to %s", secure, v, tt.name, got, tt.source, tt.destination)
				}
				c.Close()
			}
			e.idle()
		}
	}
}

// TestProbesAreIntroduced as nobody's, and without a header a backend that wants one is down.
func TestProbesAreIntroduced(t *testing.T) {
	t.Parallel()
	for _, what := range []health.Probe{health.TCP, health.HTTP, health.WebSocket} {
		ca := newAuthority(t)
		g := guard(t, echoHandler(), ca)
		cfg, err := tls.NewClientConfig(tls.ClientSettings{CAFile: ca.caFile()})
		if err != nil {
			t.Fatal(err)
		}
		settings := defaults(g.addr())
		settings.Pools[0].Upstream.TLS, settings.Pools[0].Health.Active = cfg, quick(what)
		e := startEdge(t, settings)
		e.in(g.addr(), balance.StateEjected)
		for _, v := range []preface.Version{preface.V1, preface.V2} {
			settings.Pools[0].Upstream.ProxyProtocol = v
			e.apply(settings)
			e.in(g.addr(), balance.StateUp)
			if what == health.TCP {
				continue
			}
			e.eventually("a probe with this header", func() bool {
				got, ok := g.last("/healthz")
				return ok && got.local && got.version == byte(v)
			})
		}
	}
}

// TestMovesAreIntroduced: the next backend hears of the same client as the one before.
func TestMovesAreIntroduced(t *testing.T) {
	t.Parallel()
	for _, v := range []preface.Version{preface.V1, preface.V2} {
		a, b := guard(t, echoHandler(), nil), guard(t, echoHandler(), nil)
		settings := moving()
		settings.Pools[0].Sources = []SourceSettings{staticSource(a.addr(), b.addr())}
		settings.Pools[0].Upstream.ProxyProtocol = v
		e := startEdge(t, believing(settings))
		c := e.connect(false, from(preface.V2, "192.0.2.1:4711"))
		c.send(upgradeRequest("/ws", "Cookie: user=1"))
		c.upgraded()
		c.echoes("before")
		s := e.onlySession()
		if result := s.Move(t.Context(), "test"); result != relay.MoveDone {
			t.Fatalf("moved: %q", result)
		}
		c.echoes("afterwards")
		want := call{"/ws", "192.0.2.1:4711", "198.51.100.2:443", byte(v), false}
		for _, g := range []*guarded{a, b} {
			if got, _ := g.last("/ws"); got != want {
				t.Errorf("version %d: got %+v", v, got)
			}
		}
		c.Close()
		e.idle()
	}
}

func addresses(list ...string) (all []netip.Addr) {
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// TestSourceAddresses are taken in turn, also by probes.
func TestSourceAddresses(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string][]string{}
	echo := echoHandler()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		mu.Lock()
		seen[r.URL.Path] = append(seen[r.URL.Path], host)
		mu.Unlock()
		if r.URL.Path != "/healthz" {
			echo.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(app.Close)
	settings := defaults(app.Listener.Addr().String())
	settings.Pools[0].Upstream.SourceAddresses = addresses("127.0.0.2", "127.0.0.3")
	e := startEdge(t, settings)
	for range 4 {
		e.open("/ws").echoes("hello")
	}
	mu.Lock()
	if got := strings.Join(seen["/ws"], " "); got != "127.0.0.2 127.0.0.3 127.0.0.2 127.0.0.3" {
		t.Errorf("sessions came from %s", got)
	}
	mu.Unlock()
	settings.Pools[0].Health.Active = quick(health.HTTP)
	e.apply(settings)
	e.eventually("probes come from both", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(seen["/healthz"], "127.0.0.2") && slices.Contains(seen["/healthz"], "127.0.0.3") && !slices.Contains(seen["/healthz"], "127.0.0.1")
	})
}

// TestSourceAddressesOfOthers are refused when they are configured, and what runs stays.
func TestSourceAddressesOfOthers(t *testing.T) {
	t.Parallel()
	settings := defaults(echoBackend(t))
	e := startEdge(t, settings)
	bad := defaults("127.0.0.1:1")
	bad.Pools[0].Upstream.SourceAddresses = addresses("127.0.0.2", "203.0.113.1")
	_, err := e.Prepare(bad)
	if err == nil || !strings.Contains(err.Error(), "pool apps: upstream.source_addresses: 203.0.113.1 is no address of this machine") || strings.Contains(err.Error(), "127.0.0.2") {
		t.Fatalf("got %v", err)
	}
	e.open("/").echoes("as before")
}

// TestDialFromSources: what is no use is passed over, and what nobody can help is an error.
func TestDialFromSources(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	here, dead := ln.Addr().String(), deadAddr(t)
	_, port, _ := net.SplitHostPort(here)
	const own, gone = "127.0.0.2", "203.0.113.1" // the second is for documentation (RFC 5737)
	tests := []struct {
		name    string
		sources []netip.Addr
		addr    string
		from    string
		want    error
		text    string
	}{
		{"one that is gone, and another", addresses(gone, own), here, own, nil, ""},
		{"another family", addresses("::1", own), here, own, nil, ""},
		{"another family of a name", addresses("::1", own), "localhost:" + port, own, nil, ""},
		{"none of its family", addresses("::1", "fe80::1"), here, "", nil, here + " has no address of the same family as any of source_addresses"},
		{"none is left", addresses(gone, "203.0.113.2"), here, "", syscall.EADDRNOTAVAIL, "203.0.113.2"},
		{"one that is gone, and the backend refuses the other", addresses(gone, own), dead, "", syscall.ECONNREFUSED, own},
		{"the backend refuses: once is enough", addresses(own, "127.0.0.3"), dead, "", syscall.ECONNREFUSED, own},
	}
	for _, tt := range tests {
		v := &poolView{pool: newPool("apps", NewServer(zap.NewNop())), PoolSettings: PoolSettings{Upstream: UpstreamSettings{SourceAddresses: tt.sources}}}
		conn, err := v.reach(t.Context(), tt.addr, TCPSettings{}, nil)
		if tt.from != "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if got, _, _ := net.SplitHostPort(conn.LocalAddr().String()); got != tt.from {
				t.Errorf("%s: from %s, want %s", tt.name, got, tt.from)
			}
			conn.Close()
			continue
		}
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		if health.Own(err) != (tt.want == syscall.EADDRNOTAVAIL) {
			t.Errorf("%s: %v: the edge's own is %v", tt.name, err, health.Own(err))
		}
		if strings.Contains(err.Error(), "127.0.0.3") {
			t.Errorf("%s: tried twice: %v", tt.name, err)
		}
	}
}

// TestNoSourceFits counts against the backend and answers 502.
func TestNoSourceFits(t *testing.T) {
	t.Parallel()
	settings := defaults("[::1]:1") // nobody connects to it
	settings.Pools[0].Upstream.SourceAddresses = addresses("127.0.0.2")
	e := startEdge(t, settings)
	res, _ := e.ask(upgradeRequest("/"))
	if res.StatusCode != http.StatusBadGateway || failures(e.backend())["connect"] != 1 {
		t.Errorf("got %s, failures %v", res.Status, failures(e.backend()))
	}
}
