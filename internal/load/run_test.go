package load

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tidegate/tidegate/tls"
)

// engines are both engines, by whether they are the one of goroutines.
var engines = map[string]bool{"default": false, "goroutines": true}

// certificates makes a certificate of localhost, for the server, and the authority that
// trusts it, for the client.
func certificates(t testing.TB) (server, client *cryptotls.Config) {
	t.Helper()
	certPEM, keyPEM, err := tls.NewDevelopmentCertificate()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := cryptotls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}}, &cryptotls.Config{RootCAs: roots}
}

// serve runs a server for the test and returns its address.
func serve(t testing.TB, s *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := s.Open(); n != 0 {
			t.Errorf("%d connections are open after Serve", n)
		}
	})
	return ln.Addr().String()
}

// short is a run that takes an eighth of a second.
func short(o Options) Options {
	if o.Connections == 0 {
		o.Connections = 4
	}
	o.Duration = 100 * time.Millisecond
	if o.Rate > 0 {
		o.Warmup = 20 * time.Millisecond
	}
	return o
}

// unharmed fails the test if messages or connections came to harm.
func unharmed(t *testing.T, r *Report) {
	t.Helper()
	m := r.Messages
	if m.Lost+m.Doubled+m.Reordered+m.Misdelivered+m.Unexpected != 0 || len(r.Errors) != 0 {
		t.Errorf("harm: %+v, errors %+v", m, r.Errors)
	}
	if r.Handshakes.Completed != r.Handshakes.Attempted || r.Handshakes.Failed != 0 {
		t.Errorf("handshakes: %+v", r.Handshakes)
	}
	for code := range r.Closes {
		if code != 1000 {
			t.Errorf("closes: %v", r.Closes)
		}
	}
}

func TestRunAgainstServer(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	for engine, goroutines := range engines {
		for _, scheme := range []string{"ws", "wss"} {
			var offered *cryptotls.Config
			if scheme == "wss" {
				offered = serverTLS
			}
			for name, o := range map[string]Options{
				"echo":          {Mode: Echo, Size: 64},
				"echo, text":    {Mode: Echo, Size: 64, Text: true},
				"echo, least":   {Mode: Echo, Size: 16},
				"echo, 16 KiB":  {Mode: Echo, Size: 16 << 10},
				"echo, 300 KiB": {Mode: Echo, Size: 300 << 10},
				"echo, rate":    {Mode: Echo, Size: 64, Rate: 2000, Workers: 2},
				"push":          {Mode: Push, Size: 64, Rate: 2000},
				"push, text":    {Mode: Push, Size: 1024, Rate: 2000, Text: true},
				"push, bulk":    {Mode: Push, Size: 16 << 10},
				"idle":          {Mode: Idle},
				"idle, primed":  {Mode: Idle, Size: 16 << 10},
				"idle, pings":   {Mode: Idle, Ping: 20 * time.Millisecond},
				"sources":       {Mode: Echo, Size: 64, SourceIPs: []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}},
				"subprotocol":   {Mode: Echo, Size: 64, Subprotocols: []string{"chat"}},
			} {
				t.Run(fmt.Sprintf("%s %s/%s", engine, scheme, name), func(t *testing.T) {
					t.Parallel()
					o := short(o)
					o.URL = scheme + "://" + serve(t, &Server{Workers: 2, goroutines: goroutines, TLS: offered}) + "/x?y=1"
					o.TLS, o.goroutines = clientTLS, goroutines
					r, err := Run(t.Context(), o)
					if err != nil {
						t.Fatal(err)
					}
					unharmed(t, r)
					if r.Closes[1000] != 4 {
						t.Errorf("closes: %v, want 4 with 1000", r.Closes)
					}
					if (r.TLS != nil) != (scheme == "wss") || r.TLS != nil && r.TLS.Version != "TLS 1.3" {
						t.Errorf("TLS: %+v", r.TLS)
					}
					checkCounts(t, &o, r)
				})
			}
		}
	}
}

func checkCounts(t *testing.T, o *Options, r *Report) {
	t.Helper()
	if o.Mode == Idle {
		if (r.Pings.Answered > 0) != (o.Ping > 0) || r.Latency.Count != r.Pings.Answered {
			t.Errorf("pings: %+v, latency %+v", r.Pings, r.Latency)
		}
		return
	}
	bulk := o.Mode == Push && o.Rate == 0 // on a busy machine, none of 100 ms may come to be made
	if r.Messages.Received == 0 && !bulk || r.Messages.Sent != r.Messages.Received || r.Latency.Count != r.Messages.Received {
		t.Errorf("messages: %+v, latency of %d", r.Messages, r.Latency.Count)
	}
	if r.Bytes.Received != r.Messages.Received*uint64(o.Size) {
		t.Errorf("bytes: %+v", r.Bytes)
	}
	// 2000/s for 0.1 s, however late; the backend's clock of push mode begins when it likes.
	if n := r.Messages.Sent; o.Rate > 0 && (n < 196 || n > 204 || o.Mode == Echo && n != 200) {
		t.Errorf("%d messages, want 200", n)
	}
}
