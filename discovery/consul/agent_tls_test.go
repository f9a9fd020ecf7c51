package consul

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/consultest"
)

// authority issues certificates for the test into its directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.issue("ca", template)
	return a
}

// issue writes NAME.pem and NAME.key; the first certificate signs itself.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.check(err)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	a.check(err)
	cert, err := x509.ParseCertificate(der)
	a.check(err)
	raw, err := x509.MarshalECPrivateKey(key)
	a.check(err)
	write(a.t, a.path(name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(a.t, a.path(name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})))
	return cert, key
}

func (a *authority) leaf(name string, usage x509.ExtKeyUsage) {
	a.issue(name, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) check(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func TestAgentOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.leaf("server", x509.ExtKeyUsageServerAuth)
	ca.leaf("edge", x509.ExtKeyUsageClientAuth)
	a := consultest.Start(t, consultest.Options{TLS: &consultest.TLS{
		CA: ca.path("ca.pem"), Cert: ca.path("server.pem"), Key: ca.path("server.key"), VerifyIncoming: true,
	}})
	a.Register(t, consultest.Service{ID: "s", Name: "secure", Port: 80})
	config := Config{Address: "https://" + a.HTTPSAddress(), Service: "secure",
		TLS: TLS{CA: ca.path("ca.pem"), Cert: ca.path("edge.pem"), Key: ca.path("edge.key")}}
	f := follow(t, config)
	f.expect(t, "with a certificate", "dc1/node1/s*1:up")

	other := newAuthority(t)
	for name, tls := range map[string]TLS{
		"no client certificate": {CA: config.TLS.CA},
		"another authority":     {CA: other.path("ca.pem"), Cert: config.TLS.Cert, Key: config.TLS.Key},
	} {
		bad := config
		bad.TLS = tls
		f := follow(t, bad)
		f.fails(t, name)
	}
}
