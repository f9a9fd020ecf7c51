package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func TestDevelopmentCertificate(t *testing.T) {
	certPEM, keyPEM, err := NewDevelopmentCertificate("Edge.Test.", "*.edge.test", "192.0.2.7", "localhost", "127.0.0.1", "::ffff:192.0.2.7", "2001:db8::1", "my_host")
	must(t, err)
	dir := newFolder(t)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "dev", issued{certPEM: certPEM, keyPEM: keyPEM})}})
	server := serve(t, store.ServerConfig())
	caFile := dir.path("dev.crt")
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "edge.test", "a.edge.test", "192.0.2.7", "2001:db8::1"} {
		config, err := NewClientConfig(ClientSettings{CAFile: caFile, ServerName: name})
		must(t, err)
		server.visit(t, config)
	}
	config, err := NewClientConfig(ClientSettings{CAFile: caFile, ServerName: "other.test"})
	must(t, err)
	server.refuse(t, config)

	leaf := store.current.Load().pairs[0].value.certificate.Leaf
	if leaf.PublicKeyAlgorithm != x509.ECDSA || leaf.IsCA || len(leaf.IPAddresses) != 4 || len(leaf.DNSNames) != 4 {
		t.Errorf("%v, CA %v, %v, %v", leaf.PublicKeyAlgorithm, leaf.IsCA, leaf.IPAddresses, leaf.DNSNames)
	}
	if days := time.Until(leaf.NotAfter).Hours() / 24; days < 89 || days > 91 || time.Since(leaf.NotBefore) <= 0 {
		t.Errorf("valid for %.0f days from %v", days, leaf.NotBefore)
	}
	if store.Certificates()[0].Name != "localhost" {
		t.Errorf("named %s", store.Certificates()[0].Name)
	}
}

func TestDevelopmentCertificatesDiffer(t *testing.T) {
	one, oneKey, err := NewDevelopmentCertificate()
	must(t, err)
	two, twoKey, err := NewDevelopmentCertificate()
	must(t, err)
	if string(one) == string(two) || string(oneKey) == string(twoKey) {
		t.Error("two certificates are the same")
	}
	if _, err := cryptotls.X509KeyPair(one, oneKey); err != nil {
		t.Error(err)
	}
}

func TestDevelopmentCertificateRefusesHosts(t *testing.T) {
	for _, host := range []string{"", "localhost:8443", "a b", "bücher.test", "a..b", "-a.test", "a.*.test", "*", "fe80::1%eth0", "http://a.test", strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 130) + "test"} {
		if _, _, err := NewDevelopmentCertificate(host); err == nil {
			t.Errorf("%q was accepted", host)
		}
	}
}
