package proxy

import (
	cryptotls "crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/preface"
)

// believing are settings whose listener takes the PROXY protocol from this machine.
func believing(settings Settings) Settings {
	settings.Listeners[0].ProxyProtocol = &ProxyProtocolSettings{
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: 10 * time.Second}
	return settings
}

// from is a header of the PROXY protocol that speaks for a client.
func from(v preface.Version, client string) string {
	return string(v.Header(preface.Ends{Source: netip.MustParseAddrPort(client), Destination: netip.MustParseAddrPort("198.51.100.2:443")}))
}

// firstConn sends something in one packet with what is written first.
type firstConn struct {
	net.Conn
	first string
}

func (c *firstConn) Write(p []byte) (int, error) {
	first := c.first
	c.first = ""
	n, err := c.Conn.Write(append([]byte(first), p...))
	return max(0, n-len(first)), err
}

// connect makes a connection that begins with a header, over TLS if secure.
func (e *testEdge) connect(secure bool, header string) *rawConn {
	c := dialRaw(e.t, e.addr())
	var conn net.Conn = &firstConn{c.Conn, header}
	if secure {
		conn = cryptotls.Client(conn, &cryptotls.Config{InsecureSkipVerify: true})
	}
	return newRawConn(e.t, conn)
}

// forwarding is a backend that echoes, and says for whom each request was.
func forwarding(t *testing.T) (addr string, clients chan string) {
	clients = make(chan string, 1000)
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		clients <- r.Header.Get("X-Forwarded-For")
		c.send(switching(r))
		for {
			h, err := ws.ReadHeader(c.in)
			if err != nil {
				return
			}
			p := make([]byte, h.Length)
			io.ReadFull(c.in, p)
			ws.Cipher(p, h.Mask, 0)
			c.send(serverFrame(h.OpCode, string(p)))
		}
	})
	return b.addr, clients
}

// echoes sends a message to and fro.
func (c *rawConn) echoes(text string) {
	c.t.Helper()
	c.send(clientFrame(ws.OpText, text))
	c.wantText(text)
}

// TestNamedClient: who is named is the client everywhere, whoever connects. The header comes
// in one packet with the request or the ClientHello.
func TestNamedClient(t *testing.T) {
	t.Parallel()
	four, six := "192.0.2.1:4711", "[2001:db8::1]:4711"
	for _, secure := range []bool{false, true} {
		addr, clients := forwarding(t)
		settings := believing(defaults(addr))
		if secure {
			settings = secured(t, settings)
		}
		e := startEdge(t, settings)
		for _, tt := range []struct{ name, header, want string }{
			{"v1", from(preface.V1, four), four},
			{"v2", from(preface.V2, four), four},
			{"v1, IPv6", from(preface.V1, six), six},
			{"v2, IPv6", from(preface.V2, six), six},
			{"v1, mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n", four},
			{"v1, UNKNOWN", "PROXY UNKNOWN\r\n", ""},
			{"v2, LOCAL", string(preface.V2.Header(preface.Ends{})), ""},
			{"no header", "", ""},
		} {
			c := e.connect(secure, tt.header)
			c.send(upgradeRequest("/"))
			c.upgraded()
			c.echoes(strings.Repeat("x", 3000))
			s := e.onlySession()
			want := tt.want
			if want == "" {
				want = c.LocalAddr().String()
			}
			if got := s.Info().Client.String(); got != want {
				t.Errorf("secure %v, %s: the session is that of %s, want %s", secure, tt.name, got, want)
			}
			ip := netip.MustParseAddrPort(want).Addr().String()
			if got := <-clients; got != ip || s.ClientIP().String() != ip {
				t.Errorf("secure %v, %s: X-Forwarded-For is %s, the session's client %s, want %s", secure, tt.name, got, s.ClientIP(), ip)
			}
			c.Close()
			e.idle()
		}
		if n := e.Totals().Shed[shedNaming]; n != 0 {
			t.Errorf("%d connections were refused", n)
		}
	}
}

// TestNamedClientInPieces cuts headers at every byte, and sends one byte by byte before TLS.
func TestNamedClientInPieces(t *testing.T) {
	t.Parallel()
	addr, clients := forwarding(t)
	e := startEdge(t, believing(defaults(addr)))
	for _, v := range []preface.Version{preface.V1, preface.V2} {
		header := from(v, "192.0.2.1:4711")
		for cut := range len(header) {
			c := dialRaw(t, e.addr())
			c.send(header[:cut])
			c.send(header[cut:] + upgradeRequest("/"))
			c.upgraded()
			if got := <-clients; got != "192.0.2.1" {
				t.Errorf("cut at %d: the client is %s", cut, got)
			}
			c.Close()
		}
	}
	e = startEdge(t, secured(t, believing(defaults(addr))))
	c := dialRaw(t, e.addr())
	for _, b := range from(preface.V1, "192.0.2.1:4711") {
		c.send(string(b))
	}
	c = newRawConn(t, tlsClient(c))
	c.send(upgradeRequest("/"))
	c.upgraded()
	c.echoes("hello")
	if got := <-clients; got != "192.0.2.1" {
		t.Errorf("the client is %s", got)
	}
}

// TestNamingIsForTheTrusted: to others' first bytes nobody listens.
func TestNamingIsForTheTrusted(t *testing.T) {
	t.Parallel()
	settings := believing(defaults(echoBackend(t)))
	settings.Listeners[0].ProxyProtocol.Trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	e := startEdge(t, settings)
	for _, v := range []preface.Version{preface.V1, preface.V2} {
		c := dialRaw(t, e.addr())
		c.send(from(v, "192.0.2.1:4711") + upgradeRequest("/"))
		if got := c.wantEnd(); !strings.HasPrefix(got, "HTTP/1.1 400 ") || strings.Contains(got, "HTTP/1.1 101") {
			t.Errorf("got %q", got)
		}
	}
	e.open("/").echoes("served all the same")

	e = startEdge(t, secured(t, settings))
	c := e.connect(true, from(preface.V2, "192.0.2.1:4711"))
	if err := c.Conn.(*cryptotls.Conn).Handshake(); err == nil {
		t.Error("TLS behind a header was accepted")
	}
	e.eventually("it failed as TLS", func() bool { return e.Totals().TLSFailed == 1 })
	if n := e.Totals().Shed[shedNaming]; n != 0 {
		t.Errorf("%d connections counted as refused for their header", n)
	}
}

// TestBrokenNames end the connection without an answer, and are counted and logged.
func TestBrokenNames(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		settings := believing(defaults(echoBackend(t)))
		if secure {
			settings = secured(t, settings)
		}
		e := startEdge(t, settings)
		broken := []string{"PROXY TCP4 nonsense\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\n", "PROXY " + strings.Repeat("x", 200),
			from(preface.V2, "192.0.2.1:4711")[:12] + "\x21\x41\x00\x00"}
		for _, header := range broken {
			c := dialRaw(t, e.addr())
			c.send(header)
			if got := c.wantEnd(); got != "" {
				t.Errorf("%q was answered: %q", header, got)
			}
		}
		if n := e.Totals().Shed[shedNaming]; n != uint64(len(broken)) {
			t.Errorf("%d counted, want %d", n, len(broken))
		}
		if n := e.logs.FilterMessage("PROXY protocol header refused").Len(); n != len(broken) {
			t.Errorf("%d lines, want %d", n, len(broken))
		}
	}
}

// TestLateNames: a header that stops in the middle ends its connection in time, that of the
// header or of the whole handshake.
func TestLateNames(t *testing.T) {
	t.Parallel()
	for _, timeouts := range [][2]time.Duration{{time.Second, time.Hour}, {time.Hour, time.Second}} {
		settings := believing(defaults(echoBackend(t)))
		settings.Listeners[0].ProxyProtocol.Timeout, settings.Listeners[0].Limits.HandshakeTimeout = timeouts[0], timeouts[1]
		e := startEdge(t, settings)
		var late []*rawConn
		for _, header := range []string{"PROXY TCP4 192", from(preface.V2, "192.0.2.1:4711")[:20], "PRO"} {
			c := dialRaw(t, e.addr())
			c.send(header)
			late = append(late, c)
		}
		for i, c := range late {
			if got := c.wantEnd(); got != "" {
				t.Errorf("header %d was answered: %q", i, got)
			}
		}
		if n := e.Totals().Shed[shedNaming]; n != 3 {
			t.Errorf("timeouts %v: %d counted, want 3", timeouts, n)
		}
	}
}

// TestSilenceIsNoName: who says nothing in time is taken for a client, for whom
// handshake_timeout is.
func TestSilenceIsNoName(t *testing.T) {
	t.Parallel()
	settings := believing(defaults(echoBackend(t)))
	settings.Listeners[0].ProxyProtocol.Timeout, settings.Listeners[0].Limits.HandshakeTimeout = time.Millisecond, 200*time.Millisecond
	e := startEdge(t, settings)
	dialRaw(t, e.addr()).wantEnd()
	if n := e.Totals().Shed[shedNaming]; n != 0 {
		t.Error("silence was counted")
	}
	e.apply(believing(defaults(echoBackend(t))))
	c := dialRaw(t, e.addr())
	c.Conn.(*net.TCPConn).CloseWrite() // a balancer that looks whether somebody listens
	if got := c.wantEnd(); got != "" || e.Totals().Shed[shedNaming] != 0 {
		t.Errorf("a look at the port: %q, %v", got, e.Totals().Shed)
	}
}

// TestSilentProxiesStopNobody: accepting goes on beside them, and the edge ends without them.
func TestSilentProxiesStopNobody(t *testing.T) {
	t.Parallel()
	settings := believing(defaults(echoBackend(t)))
	settings.Listeners[0].ProxyProtocol.Timeout = time.Hour
	settings.Listeners[0].Limits.HandshakeTimeout = time.Hour
	e := startEdge(t, settings)
	for range 20 {
		dialRaw(t, e.addr())
		dialRaw(t, e.addr()).send("PROXY ")
	}
	e.open("/").echoes("served")
	e.Shutdown(t.Context(), 0, time.Second)
}

// TestLimitsGoByTheName: max_sessions_per_ip, and whose X-Forwarded-For is believed.
func TestLimitsGoByTheName(t *testing.T) {
	t.Parallel()
	addr, clients := forwarding(t)
	settings := believing(defaults(addr))
	settings.Listeners[0].Limits.MaxSessionsPerIP = 1
	trustLoopback(&settings) // 10.0.0.0/8, too
	e := startEdge(t, settings)
	open := func(client, forwarded string) int {
		c := e.connect(false, from(preface.V2, client))
		c.send(upgradeRequest("/", "X-Forwarded-For: "+forwarded))
		return c.response().StatusCode
	}
	for _, tt := range []struct {
		client, forwarded string
		status            int
		want              string
	}{
		{"192.0.2.1:1", "1.1.1.1", 101, "192.0.2.1"},
		{"192.0.2.1:2", "2.2.2.2", 429, ""},
		{"192.0.2.2:1", "1.1.1.1", 101, "192.0.2.2"},
		{"10.0.0.7:1", "1.1.1.1", 101, "1.1.1.1, 10.0.0.7"}, // a trusted proxy behind the balancer
		{"10.0.0.7:2", "1.1.1.1", 429, ""},
		{"10.0.0.8:1", "192.0.2.1", 429, ""},
	} {
		if got := open(tt.client, tt.forwarded); got != tt.status {
			t.Errorf("%v: got %d", tt, got)
		}
		if tt.want != "" {
			if got := <-clients; got != tt.want {
				t.Errorf("%v: X-Forwarded-For is %s", tt, got)
			}
		}
	}
}

// TestRemoteAddr is the client's for whoever answers plain requests.
func TestRemoteAddr(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		settings := believing(defaults(echoBackend(t)))
		if secure {
			settings = secured(t, settings)
		}
		seen := make(chan string, 2)
		e := startEdgeWith(t, settings, func(s *Server) {
			s.Plain = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.RemoteAddr })
		})
		for header, want := range map[string]string{from(preface.V1, "192.0.2.1:4711"): "192.0.2.1:4711", "": ""} {
			c := e.connect(secure, header)
			c.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n")
			c.response()
			if got := <-seen; got != want && (want != "" || got != c.LocalAddr().String()) {
				t.Errorf("secure %v, %q: got %s", secure, header, got)
			}
		}
	}
}

// TestNamingComesAndGoes with the configuration, on the same socket.
func TestNamingComesAndGoes(t *testing.T) {
	t.Parallel()
	addr, clients := forwarding(t)
	settings := defaults(addr)
	e := startEdge(t, settings)
	header := from(preface.V1, "192.0.2.1:4711")
	status := func() int {
		c := e.connect(false, header)
		c.send(upgradeRequest("/"))
		return c.response().StatusCode
	}
	if got := status(); got != 400 {
		t.Errorf("before: %d", got)
	}
	at := e.addr()
	e.apply(believing(defaults(addr)))
	if got := status(); got != 101 || <-clients != "192.0.2.1" || e.addr() != at {
		t.Errorf("with it: %d", got)
	}
	e.apply(settings)
	if got := status(); got != 400 {
		t.Errorf("afterwards: %d", got)
	}
}

// TestNobodyIsNotBelieved: of somebody whom his proxy does not name, what he says of himself is
// dropped, also where the proxy's own word would count.
func TestNobodyIsNotBelieved(t *testing.T) {
	t.Parallel()
	addr, clients := forwarding(t)
	settings := believing(defaults(addr))
	settings.Listeners[0].TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	e := startEdge(t, settings)
	for header, want := range map[string]string{
		"PROXY UNKNOWN\r\n":                       "127.0.0.1",
		string(preface.V2.Header(preface.Ends{})): "1.1.1.1, 127.0.0.1", // the proxy's own
	} {
		c := e.connect(false, header)
		c.send(upgradeRequest("/", "X-Forwarded-For: 1.1.1.1"))
		c.upgraded()
		if got := <-clients; got != want {
			t.Errorf("%q: X-Forwarded-For is %s, want %s", header, got, want)
		}
		c.Close()
	}
	e.idle()
}

// TestLinkLocalNetworks hold for addresses with a zone.
func TestLinkLocalNetworks(t *testing.T) {
	t.Parallel()
	if !contains([]netip.Prefix{netip.MustParsePrefix("fe80::/10")}, netip.MustParseAddr("fe80::1%eth0")) {
		t.Error("the zone makes a difference")
	}
}
