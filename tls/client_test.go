package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// backend serves one certificate and asks clients for theirs.
func backend(t *testing.T, ca *authority, clientAuth cryptotls.ClientAuthType) *server {
	return serve(t, &cryptotls.Config{
		Certificates: []cryptotls.Certificate{ca.names(t, "app.test", "127.0.0.1").pair(t)},
		NextProtos:   []string{"h2", "http/1.1"}, ClientAuth: clientAuth, ClientCAs: ca.pool(),
	})
}

func TestClientVerifiesTheBackend(t *testing.T) {
	ca, foreign, dir := newAuthority(t, "ca"), newAuthority(t, "foreign"), newFolder(t)
	server := backend(t, ca, cryptotls.NoClientCert)
	caFile, foreignFile := dir.write(t, "ca.pem", ca.pem), dir.write(t, "foreign.pem", foreign.pem)
	for name, c := range map[string]struct {
		settings ClientSettings
		refused  any // what errors.As finds
	}{
		"own CA":                 {ClientSettings{CAFile: caFile, ServerName: "app.test"}, nil},
		"no name, dialled by IP": {ClientSettings{CAFile: caFile}, nil},
		"other name":             {ClientSettings{CAFile: caFile, ServerName: "other.test"}, new(x509.HostnameError)},
		"foreign CA":             {ClientSettings{CAFile: foreignFile, ServerName: "app.test"}, new(x509.UnknownAuthorityError)},
		"CAs of the system":      {ClientSettings{ServerName: "app.test"}, new(*cryptotls.CertificateVerificationError)},
		"verification skipped":   {ClientSettings{SkipVerify: true, ServerName: "other.test"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := NewClientConfig(c.settings)
			must(t, err)
			if c.refused != nil {
				if err, _ := server.refuse(t, config); !errors.As(err, c.refused) {
					t.Errorf("refused with %v, want a %T", err, c.refused)
				}
				return
			}
			client, seen := server.visit(t, config)
			if client.NegotiatedProtocol != "http/1.1" || client.Version != cryptotls.VersionTLS13 {
				t.Errorf("negotiated %q over %s", client.NegotiatedProtocol, cryptotls.VersionName(client.Version))
			}
			if seen.ServerName != c.settings.ServerName {
				t.Errorf("sent SNI %q, want %q", seen.ServerName, c.settings.ServerName)
			}
			server.resumes(t, config, true, "the second time")
			server.resumes(t, config.Clone(), true, "with a clone")
		})
	}
}

func TestClientRefusesOldVersions(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	server := serve(t, &cryptotls.Config{Certificates: []cryptotls.Certificate{ca.names(t, "app.test").pair(t)}, MaxVersion: cryptotls.VersionTLS11, MinVersion: cryptotls.VersionTLS10})
	config, err := NewClientConfig(ClientSettings{CAFile: dir.write(t, "ca.pem", ca.pem), ServerName: "app.test"})
	must(t, err)
	server.refuse(t, config)
}

func TestClientSettings(t *testing.T) {
	dir, ca := newFolder(t), newAuthority(t, "ca")
	for name, c := range map[string]struct {
		settings ClientSettings
		is       error
		says     []string
	}{
		"certificate without key": {ClientSettings{CertFile: "a.crt"}, ErrSettings, []string{"both"}},
		"key without certificate": {ClientSettings{KeyFile: "a.key"}, ErrSettings, []string{"both"}},
		"CA of no use":            {ClientSettings{CAFile: "ca.pem", SkipVerify: true}, ErrSettings, []string{"ca.pem"}},
		"all missing": {ClientSettings{CAFile: dir.path("ca.pem"), CertFile: dir.path("a.crt"), KeyFile: dir.path("a.key")}, os.ErrNotExist,
			[]string{"ca.pem: stat", "a.crt: stat"}},
		"mismatch": {ClientSettings{CertFile: dir.pair(t, "x", ca.names(t, "x")).CertFile, KeyFile: dir.pair(t, "y", ca.names(t, "y")).KeyFile}, ErrKeyMismatch, []string{"x.crt", "y.key"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewClientConfig(c.settings)
			if !errors.Is(err, c.is) {
				t.Fatalf("got %v, want %v", err, c.is)
			}
			for _, words := range c.says {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q does not say %q", err, words)
				}
			}
		})
	}
}

// testClock is a clock that stands still.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestClientCertificateFollowsItsFiles(t *testing.T) {
	ca := newAuthority(t, "ca")
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			dir, clock := newFolder(t), &testClock{now: time.Now()}
			server := backend(t, ca, cryptotls.RequireAndVerifyClientCert)
			files := dir.pair(t, "client", ca.names(t, "first"))
			config, err := newClientConfig(ClientSettings{
				CAFile: dir.write(t, "ca.pem", ca.pem), ServerName: "app.test", CertFile: files.CertFile, KeyFile: files.KeyFile,
			}, clock.Now)
			must(t, err)
			config.MaxVersion = number

			shows := func(name string, resumed bool) {
				t.Helper()
				_, seen := server.visit(t, config)
				if got := seen.PeerCertificates[0].DNSNames[0]; got != name || seen.DidResume != resumed {
					t.Errorf("shown: %s, resumed: %v, want %s, %v", got, seen.DidResume, name, resumed)
				}
			}
			shows("first", false)
			shows("first", true)
			dir.pair(t, "client", ca.names(t, "second"))
			shows("first", true) // not looked at yet
			clock.advance(clientFilesInterval)
			shows("second", false) // a resumed session would speak for the first
			shows("second", true)

			dir.write(t, "client.crt", []byte("garbage"))
			clock.advance(clientFilesInterval)
			shows("second", true)
			clock.advance(72 * time.Hour) // by our clock it has expired, and there is no other
			config.ClientSessionCache = nil
			if err, _ := server.refuse(t, config); !strings.Contains(err.Error(), "client.crt: holds no certificate") {
				t.Errorf("refused with %v", err)
			}
			dir.pair(t, "client", ca.names(t, "third"))
			clock.advance(clientFilesInterval)
			shows("third", false)
		})
	}
}

func TestClientCertificateUnderLoad(t *testing.T) {
	ca, dir, clock := newAuthority(t, "ca"), newFolder(t), &testClock{now: time.Now()}
	server := backend(t, ca, cryptotls.RequireAndVerifyClientCert)
	files := dir.pair(t, "client", ca.names(t, "client"))
	config, err := newClientConfig(ClientSettings{
		CAFile: dir.write(t, "ca.pem", ca.pem), ServerName: "app.test", CertFile: files.CertFile, KeyFile: files.KeyFile,
	}, clock.Now)
	must(t, err)
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for range 8 {
				conn, err := cryptotls.Dial("tcp", server.addr, config)
				if err == nil {
					err = errors.Join(ping(conn), conn.Close())
				}
				if err != nil {
					t.Error(err)
				}
				clock.advance(clientFilesInterval)
			}
		})
	}
	for range 8 {
		dir.pair(t, "client", ca.names(t, "client"))
	}
	work.Wait()
}
