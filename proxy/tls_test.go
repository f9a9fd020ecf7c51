package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/tls"
)

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.sign(t, template)
	a.write(t, "ca.crt", "CERTIFICATE", a.cert.Raw)
	return a
}

// caFile is the CA's certificate in PEM.
func (a *authority) caFile() string { return filepath.Join(a.dir, "ca.crt") }

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(t *testing.T, file, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, file)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue writes a certificate for the names and addresses, to files named after the
// first one, and returns it.
func (a *authority) issue(t *testing.T, hosts ...string) (tls.KeyPairFiles, cryptotls.Certificate) {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: hosts[0]}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	cert, key := a.sign(t, template)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := tls.KeyPairFiles{CertFile: a.write(t, hosts[0]+".crt", "CERTIFICATE", cert.Raw), KeyFile: a.write(t, hosts[0]+".key", "PRIVATE KEY", der)}
	return files, cryptotls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// secured gives the first listener of settings a certificate of a development kind.
func secured(t *testing.T, settings Settings) Settings {
	t.Helper()
	files, _ := newAuthority(t).issue(t, "localhost", "127.0.0.1")
	settings.Listeners[0].TLS = &tls.ServerSettings{Certificates: []tls.KeyPairFiles{files}, NextProtos: []string{"http/1.1"}}
	return settings
}

// startEither starts an edge with or without TLS and returns how to connect to it.
func startEither(t *testing.T, secure bool, settings Settings) (*testEdge, func() *rawConn) {
	t.Helper()
	if secure {
		settings = secured(t, settings)
	}
	e := startEdge(t, settings)
	return e, func() *rawConn {
		c := dialRaw(t, e.addr())
		if !secure {
			return c
		}
		return newRawConn(t, cryptotls.Client(c.Conn, &cryptotls.Config{InsecureSkipVerify: true}))
	}
}

// clientHello is what a TLS client sends first.
func clientHello(t *testing.T) string {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		cryptotls.Client(a, &cryptotls.Config{ServerName: "localhost"}).Handshake()
		a.Close()
	}()
	p := make([]byte, 4096)
	n, err := b.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

// failures are the counts of a backend's failures that are not 0.
func failures(b *balance.Backend) map[string]uint64 {
	counts := map[string]uint64{}
	for kind := range balance.NumFailureKinds {
		if n := b.Live.Failures(kind); n > 0 {
			counts[kind.String()] = n
		}
	}
	return counts
}

// tlsClient is the client's end of TLS over a connection.
func tlsClient(c *rawConn) net.Conn {
	return cryptotls.Client(c.Conn, &cryptotls.Config{InsecureSkipVerify: true})
}
