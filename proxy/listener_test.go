package proxy

import (
	"context"
	cryptotls "crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/gorilla/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tidegate/tidegate/tls"
)

// TestClientLibraries echoes with the clients of other people.
func TestClientLibraries(t *testing.T) {
	t.Parallel()
	trust := &cryptotls.Config{InsecureSkipVerify: true}
	text := strings.Repeat("hällo ", 20000)
	clients := []struct {
		name string
		echo func(url string) (got, subprotocol string, err error)
	}{
		{"gorilla", func(url string) (string, string, error) {
			d := websocket.Dialer{TLSClientConfig: trust, Subprotocols: []string{"chat.v1"}, EnableCompression: true}
			c, _, err := d.Dial(url, nil)
			if err != nil {
				return "", "", err
			}
			defer c.Close()
			if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				return "", "", err
			}
			_, p, err := c.ReadMessage()
			c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""))
			return string(p), c.Subprotocol(), err
		}},
		{"coder", func(url string) (string, string, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			transport := &http.Transport{TLSClientConfig: trust}
			defer transport.CloseIdleConnections()
			c, _, err := coder.Dial(ctx, url, &coder.DialOptions{HTTPClient: &http.Client{Transport: transport},
				Subprotocols: []string{"chat.v1"}, CompressionMode: coder.CompressionContextTakeover})
			if err != nil {
				return "", "", err
			}
			c.SetReadLimit(1 << 20)
			if err := c.Write(ctx, coder.MessageText, []byte(text)); err != nil {
				return "", "", err
			}
			_, p, err := c.Read(ctx)
			if err == nil {
				err = c.Close(coder.StatusNormalClosure, "bye")
			}
			return string(p), c.Subprotocol(), err
		}},
		{"gobwas", func(url string) (string, string, error) {
			d := ws.Dialer{TLSConfig: trust, Protocols: []string{"chat.v1"}, Timeout: patience}
			c, br, hs, err := d.Dial(context.Background(), url)
			if err != nil {
				return "", "", err
			}
			defer c.Close()
			if br != nil {
				return "", "", fmt.Errorf("%d bytes came behind the 101", br.Buffered())
			}
			if err := wsutil.WriteClientText(c, []byte(text)); err != nil {
				return "", "", err
			}
			p, err := wsutil.ReadServerText(c)
			return string(p), hs.Protocol, err
		}},
	}
	for _, secure := range []bool{false, true} {
		settings := defaults(echoBackend(t))
		scheme := "ws://"
		if secure {
			settings, scheme = secured(t, settings), "wss://"
		}
		e := startEdge(t, settings)
		for _, tt := range clients {
			t.Run(scheme+tt.name, func(t *testing.T) {
				got, subprotocol, err := tt.echo(scheme + e.addr() + "/chat?room=1")
				if err != nil || got != text || subprotocol != "chat.v1" {
					t.Errorf("got %d bytes, subprotocol %q, %v", len(got), subprotocol, err)
				}
			})
		}
		e.idle()
	}
}

// handshake makes a TLS connection and returns its state.
func (e *testEdge) handshake(cfg *cryptotls.Config) (cryptotls.ConnectionState, error) {
	c, err := cryptotls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", e.addr(), cfg)
	if err != nil {
		return cryptotls.ConnectionState{}, err
	}
	defer c.Close()
	return c.ConnectionState(), nil
}

// served is the common name of the certificate for a name.
func (e *testEdge) served(name string) string {
	e.t.Helper()
	s, err := e.handshake(&cryptotls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		e.t.Fatal(err)
	}
	return s.PeerCertificates[0].Subject.CommonName
}

func TestCertificateBySNI(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	first, _ := ca.issue(t, "a.test")
	second, _ := ca.issue(t, "b.test", "*.b.test")
	settings := defaults(echoBackend(t))
	settings.Listeners[0].TLS = &tls.ServerSettings{Certificates: []tls.KeyPairFiles{first, second}}
	e := startEdge(t, settings)
	for name, want := range map[string]string{"a.test": "a.test", "b.test": "b.test", "x.b.test": "b.test", "y.x.b.test": "a.test", "c.test": "a.test", "": "a.test"} {
		if got := e.served(name); got != want {
			t.Errorf("%q is served the certificate of %q, want %q", name, got, want)
		}
	}
	if v := e.Current().Listeners()[0]; !v.TLS || len(v.Certificates) != 2 || v.Name != "edge" {
		t.Errorf("the listener shows %+v", v)
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	files, _ := ca.issue(t, "localhost", "127.0.0.1")
	_, known := ca.issue(t, "client.test")
	_, unknown := other.issue(t, "client.test")
	settings := defaults(echoBackend(t))
	settings.Listeners[0].TLS = &tls.ServerSettings{Certificates: []tls.KeyPairFiles{files}, ClientAuth: tls.ClientAuthRequire, ClientCAFile: ca.caFile()}
	e := startEdge(t, settings)
	tests := []struct {
		name  string
		certs []cryptotls.Certificate
		ok    bool
	}{
		{"known", []cryptotls.Certificate{known}, true},
		{"none", nil, false},
		{"unknown", []cryptotls.Certificate{unknown}, false},
	}
	for _, tt := range tests {
		for _, version := range []uint16{cryptotls.VersionTLS12, cryptotls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s in %s", tt.name, cryptotls.VersionName(version)), func(t *testing.T) {
				failed := e.Totals().TLSFailed
				cfg := &cryptotls.Config{RootCAs: ca.pool(), ServerName: "localhost", MaxVersion: version}
				if len(tt.certs) > 0 {
					// Shown whatever CAs the edge names.
					cfg.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) { return &tt.certs[0], nil }
				}
				c := newRawConn(t, cryptotls.Client(dialRaw(t, e.addr()).Conn, cfg))
				defer c.Close()
				io.WriteString(c, upgradeRequest("/"))
				if tt.ok {
					c.upgraded()
					return
				}
				if got := c.wantEnd(); got != "" {
					t.Errorf("got %q", got)
				}
				e.eventually("the failure is counted", func() bool { return e.Totals().TLSFailed == failed+1 })
			})
		}
	}
}

// TestResumption resumes TLS sessions through the edge, also after a reload that changes
// other settings of the listener.
func TestResumption(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{cryptotls.VersionTLS12, cryptotls.VersionTLS13} {
		t.Run(cryptotls.VersionName(version), func(t *testing.T) {
			settings := secured(t, defaults(echoBackend(t)))
			e := startEdge(t, settings)
			cfg := &cryptotls.Config{InsecureSkipVerify: true, ClientSessionCache: cryptotls.NewLRUClientSessionCache(8), MaxVersion: version, ServerName: "localhost"}
			resumed := func() bool {
				t.Helper()
				c := cryptotls.Client(dialRaw(t, e.addr()).Conn, cfg)
				raw := newRawConn(t, c)
				defer c.Close()
				raw.send(upgradeRequest("/"))
				raw.upgraded() // the ticket has come by then
				raw.send(clientFrame(ws.OpText, "x"))
				raw.wantText("x")
				return c.ConnectionState().DidResume
			}
			if resumed() {
				t.Error("the first connection resumed something")
			}
			if !resumed() {
				t.Error("the second connection did not resume")
			}
			settings.Listeners[0].Limits.MaxSessions = 100
			e.apply(settings)
			if !resumed() {
				t.Error("a reload ended resumption")
			}
		})
	}
}

// TestCertificateReload replaces the files under a running edge.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	files, _ := ca.issue(t, "old.test")
	settings := defaults(echoBackend(t))
	settings.Listeners[0].TLS = &tls.ServerSettings{Certificates: []tls.KeyPairFiles{files}}
	e := startEdge(t, settings)
	c := newRawConn(t, tlsClient(dialRaw(t, e.addr())))
	c.send(upgradeRequest("/"))
	c.upgraded()

	next, _ := ca.issue(t, "new.test")
	move(t, next.CertFile, files.CertFile)
	move(t, next.KeyFile, files.KeyFile)
	if got := e.served(""); got != "old.test" {
		t.Errorf("served %q before the reload", got)
	}
	e.apply(settings)
	if got := e.served(""); got != "new.test" {
		t.Errorf("served %q after the reload", got)
	}

	if err := os.WriteFile(files.CertFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Prepare(settings); err == nil || !strings.Contains(err.Error(), "listener edge") {
		t.Errorf("Prepare with a broken file returned %v", err)
	}
	if got := e.served(""); got != "new.test" {
		t.Errorf("served %q after the failed reload", got)
	}
	c.send(clientFrame(ws.OpText, "untouched"))
	c.wantText("untouched")
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateWatch lets the time pass in which a listener looks at its files.
func TestCertificateWatch(t *testing.T) {
	ca := newAuthority(t)
	files, _ := ca.issue(t, "old.test")
	store, err := tls.NewStore(tls.ServerSettings{Certificates: []tls.KeyPairFiles{files}})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	e := &endpoint{ListenerSettings: ListenerSettings{Name: "edge"}, ln: &listener{srv: &Server{log: zap.New(core)}}, store: store}
	subject := func() string { return store.Certificates()[0].DNSNames[0] }
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		go e.watchCertificates(ctx)
		before := subject()
		next, _ := ca.issue(t, "new.test")
		move(t, next.CertFile, files.CertFile)
		move(t, next.KeyFile, files.KeyFile)
		time.Sleep(certificatePoll)
		synctest.Wait()
		if subject() == before || logs.FilterMessage("certificates reloaded").Len() != 1 {
			t.Errorf("after the poll the certificate is of %s; logged %v", subject(), logs.All())
		}
		os.WriteFile(files.KeyFile, []byte("broken"), 0o600)
		time.Sleep(3 * certificatePoll)
		synctest.Wait()
		if n := logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
			t.Errorf("a broken file was logged %d times, want once", n)
		}
		cancel()
	})
}

// TestListeners serves the same routes on two addresses, each with its own settings.
func TestListeners(t *testing.T) {
	t.Parallel()
	settings := secured(t, defaults(echoBackend(t)))
	second := defaults().Listeners[0]
	second.Name, second.Address, second.Limits.MaxSessions = "plain", "localhost:0", 1
	settings.Listeners = append(settings.Listeners, second)
	e := startEdge(t, settings)
	views := e.Current().Listeners()
	secure := newRawConn(t, tlsClient(dialRaw(t, views[0].Address)))
	plain := dialRaw(t, views[1].Address)
	for _, c := range []*rawConn{secure, plain} {
		c.send(upgradeRequest("/"))
		c.upgraded()
	}
	if got := e.session(secure).Info().Listener + " " + e.session(plain).Info().Listener; got != "edge plain" {
		t.Errorf("the sessions are of the listeners %s", got)
	}
	if got := e.route("all").Active; got["edge"] != 1 || got["plain"] != 1 {
		t.Errorf("active: %v", got)
	}
	third := dialRaw(t, views[1].Address)
	third.send(upgradeRequest("/"))
	if res := third.response(); res.StatusCode != 503 {
		t.Errorf("got %s of a listener that is full", res.Status)
	}
}

// TestTLSHandshakesDoNotWait has one that does not go on, beside others that do.
func TestTLSHandshakesDoNotWait(t *testing.T) {
	t.Parallel()
	e := startEdge(t, secured(t, defaults(echoBackend(t))))
	for range 10 {
		dialRaw(t, e.addr()).send(clientHello(t)[:20])
	}
	c := newRawConn(t, tlsClient(dialRaw(t, e.addr())))
	c.send(upgradeRequest("/"))
	c.upgraded()
}
