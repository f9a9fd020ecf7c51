package tls

import (
	cryptotls "crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNewStoreReportsEverythingAtOnce(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	good, other := ca.names(t, "a.test"), ca.names(t, "b.test")
	_, err := NewStore(ServerSettings{
		Certificates: []KeyPairFiles{
			dir.pair(t, "good", good),
			{dir.path("missing.crt"), dir.path("missing.key")},
			{dir.write(t, "mixed.crt", good.certPEM), dir.write(t, "mixed.key", other.keyPEM)},
		},
		ClientAuth:     ClientAuthRequire,
		ClientCAFile:   dir.write(t, "ca.pem", []byte("not PEM")),
		TicketKeyFiles: []string{dir.write(t, "short.bin", make([]byte, 31))},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, words := range []string{"missing.crt: stat", "mixed.crt", "mixed.key: the private key does not match", "ca.pem: holds no certificate", "short.bin: 31 bytes"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
}

func TestSettings(t *testing.T) {
	pair := []KeyPairFiles{{"a.crt", "a.key"}}
	for name, c := range map[string]struct {
		settings ServerSettings
		says     string
	}{
		"no certificate":    {ServerSettings{}, "no certificate"},
		"no key":            {ServerSettings{Certificates: []KeyPairFiles{{CertFile: "a.crt"}}}, "certificate 1 needs both"},
		"old version":       {ServerSettings{Certificates: pair, MinVersion: cryptotls.VersionTLS11}, "TLS 1.1"},
		"version of future": {ServerSettings{Certificates: pair, MinVersion: 0x0305}, "0x0305"},
		"mode without CA":   {ServerSettings{Certificates: pair, ClientAuth: ClientAuthOptional}, "certificates are optional but"},
		"CA without mode":   {ServerSettings{Certificates: pair, ClientCAFile: "ca.pem"}, "ca.pem"},
		"unknown mode":      {ServerSettings{Certificates: pair, ClientAuth: 3}, "ClientAuthMode(3)"},
		"nameless ticket":   {ServerSettings{Certificates: pair, TicketKeyFiles: []string{""}}, "empty name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewStore(c.settings)
			if !errors.Is(err, ErrSettings) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrSettings and %q", err, c.says)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	named := ca.names(t, "a.test", "b.test")
	address := ca.names(t, "2001:db8::1")
	common := ca.issue(t, ecdsaKey(t), nil, commonNameOnly("Old Device"), expired)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{
		dir.pair(t, "named", named), dir.pair(t, "address", address), dir.pair(t, "common", common),
	}})
	want := []CertificateInfo{
		{"a.test", []string{"a.test", "b.test"}, named.leaf.NotBefore, named.leaf.NotAfter, dir.path("named.crt")},
		{"2001:db8::1", nil, address.leaf.NotBefore, address.leaf.NotAfter, dir.path("address.crt")},
		{"Old Device", nil, common.leaf.NotBefore, common.leaf.NotAfter, dir.path("common.crt")},
	}
	got := store.Certificates()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !got[2].NotAfter.Before(time.Now()) {
		t.Error("the expired certificate does not show as such")
	}
	got[0].DNSNames[0] = "changed by the caller"
	if store.Certificates()[0].DNSNames[0] != "a.test" {
		t.Error("the caller can change what the store holds")
	}
}

func TestVersionsAndSuites(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	pair := []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test")), dir.pair(t, "rsa", ca.issue(t, rsaKey(), []string{"a.test"}))}
	client := func(version uint16, suites ...uint16) *cryptotls.Config {
		return &cryptotls.Config{ServerName: "a.test", InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, CipherSuites: suites}
	}
	for name, c := range map[string]struct {
		min    uint16
		client *cryptotls.Config
		ok     bool
	}{
		"default accepts 1.3":      {0, client(cryptotls.VersionTLS13), true},
		"default accepts 1.2":      {0, client(cryptotls.VersionTLS12), true},
		"default refuses 1.1":      {0, client(cryptotls.VersionTLS11), false},
		"1.3 accepts 1.3":          {cryptotls.VersionTLS13, client(cryptotls.VersionTLS13), true},
		"1.3 refuses 1.2":          {cryptotls.VersionTLS13, client(cryptotls.VersionTLS12), false},
		"CBC is refused":           {0, client(cryptotls.VersionTLS12, cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, cryptotls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA), false},
		"RSA key exchange refused": {0, client(cryptotls.VersionTLS12, cryptotls.TLS_RSA_WITH_AES_128_GCM_SHA256), false},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, mustStore(t, ServerSettings{Certificates: pair, MinVersion: c.min}).ServerConfig())
			if c.ok {
				server.visit(t, c.client)
			} else if _, err := server.refuse(t, c.client); err == nil {
				t.Error("the server saw no error")
			}
		})
	}
}

// What is offered in TLS 1.2 is what crypto/tls holds secure, less CBC: a suite that
// a later Go withdraws must not live on here.
func TestSuitesAreSecureOnes(t *testing.T) {
	var secure []uint16
	for _, suite := range cryptotls.CipherSuites() {
		if slices.Contains(suite.SupportedVersions, uint16(cryptotls.VersionTLS12)) && !strings.Contains(suite.Name, "CBC") {
			secure = append(secure, suite.ID)
		}
	}
	slices.Sort(secure)
	if diff := cmp.Diff(secure, slices.Sorted(slices.Values(forwardSecretAEADs))); diff != "" {
		t.Error(diff)
	}
}

func TestALPN(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	pair := []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))}
	for name, c := range map[string]struct {
		server, client []string
		want           string
		refused        bool
	}{
		"server prefers":     {[]string{"h2", "http/1.1"}, []string{"http/1.1", "h2"}, "h2", false},
		"only common":        {[]string{"http/1.1"}, []string{"h2", "http/1.1"}, "http/1.1", false},
		"client has none":    {[]string{"http/1.1"}, nil, "", false},
		"server has none":    {nil, []string{"h2"}, "", false},
		"nothing in common":  {[]string{"http/1.1"}, []string{"mqtt"}, "", true},
		"with a client's CA": {[]string{"http/1.1"}, []string{"http/1.1"}, "http/1.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			settings := ServerSettings{Certificates: pair, NextProtos: c.server}
			if name == "with a client's CA" { // another Config serves then
				settings.ClientAuth, settings.ClientCAFile = ClientAuthOptional, dir.write(t, "ca.pem", ca.pem)
			}
			server := serve(t, mustStore(t, settings).ServerConfig())
			client := clientOf("a.test")
			client.NextProtos = c.client
			if c.refused {
				server.refuse(t, client)
				return
			}
			if got, _ := server.visit(t, client); got.NegotiatedProtocol != c.want {
				t.Errorf("negotiated %q, want %q", got.NegotiatedProtocol, c.want)
			}
		})
	}
}

func TestServerConfigIsOne(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))}})
	before := store.ServerConfig()
	dir.pair(t, "a", ca.names(t, "b.test"))
	if changed, err := store.Reload(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if store.ServerConfig() != before {
		t.Error("a reload replaced the Config")
	}
}

func TestGarbageIsAnsweredWithAnAlert(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	server := serve(t, mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))}}).ServerConfig())
	conn, err := net.Dial("tcp", server.addr)
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"))
	must(t, err)
	if seen := <-server.accepted; seen.err == nil {
		t.Error("plain HTTP was taken for TLS")
	}
}
