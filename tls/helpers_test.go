package tls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key := ecdsaKey(t)
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-240 * time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{cert: cert, key: key, pem: encode("CERTIFICATE", der)}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issued is a certificate with its key.
type issued struct {
	certPEM, keyPEM []byte
	leaf            *x509.Certificate
	key             crypto.Signer
}

// options change the template of a certificate.
type option func(*x509.Certificate)

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
}

func commonNameOnly(name string) option {
	return func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = name, nil }
}

func (a *authority) issue(t testing.TB, key crypto.Signer, names []string, options ...option) issued {
	t.Helper()
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	for _, o := range options {
		o(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return issued{certPEM: encode("CERTIFICATE", der), keyPEM: encode("PRIVATE KEY", keyDER), leaf: leaf, key: key}
}

// names issues an ECDSA certificate.
func (a *authority) names(t testing.TB, names ...string) issued {
	t.Helper()
	return a.issue(t, ecdsaKey(t), names)
}

func ecdsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// rsaKey returns the same key each time: they are slow to make.
var rsaKey = sync.OnceValue(func() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func encode(blockType string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})
}

func (i issued) pair(t testing.TB) cryptotls.Certificate {
	t.Helper()
	pair, err := cryptotls.X509KeyPair(i.certPEM, i.keyPEM)
	must(t, err)
	return pair
}

// folder is a directory of files.
type folder string

func newFolder(t testing.TB) folder { return folder(t.TempDir()) }

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// write replaces a file and returns its path.
func (f folder) write(t testing.TB, name string, content []byte) string {
	t.Helper()
	must(t, os.WriteFile(f.path(name), content, 0o600))
	return f.path(name)
}

// pair writes NAME.crt and NAME.key.
func (f folder) pair(t testing.TB, name string, i issued) KeyPairFiles {
	t.Helper()
	return KeyPairFiles{CertFile: f.write(t, name+".crt", i.certPEM), KeyFile: f.write(t, name+".key", i.keyPEM)}
}

func mustStore(t testing.TB, settings ServerSettings) *Store {
	t.Helper()
	store, err := NewStore(settings)
	must(t, err)
	return store
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// accepted is what a server saw of a connection.
type accepted struct {
	state cryptotls.ConnectionState
	err   error
}

// server is a TLS echo server on loopback.
type server struct {
	addr     string
	accepted chan accepted // one for each connection, after its handshake
}

func serve(t testing.TB, config *cryptotls.Config) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &server{addr: listener.Addr().String(), accepted: make(chan accepted, 100)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.echo(cryptotls.Server(conn, config)) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return s
}

func (s *server) echo(conn *cryptotls.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	err := conn.Handshake()
	s.accepted <- accepted{conn.ConnectionState(), err}
	if err == nil {
		io.Copy(conn, conn)
	}
}

// dial connects and exchanges a byte, so that tickets and late refusals of TLS 1.3
// have arrived. The connection is closed at the end of the test.
func (s *server) dial(t testing.TB, config *cryptotls.Config) (*cryptotls.Conn, error) {
	t.Helper()
	conn, err := cryptotls.Dial("tcp", s.addr, config)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, ping(conn)
}

func ping(conn net.Conn) error {
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// visit dials, returns what both ends saw, and hangs up.
func (s *server) visit(t testing.TB, config *cryptotls.Config) (client, server cryptotls.ConnectionState) {
	t.Helper()
	conn, err := s.dial(t, config)
	seen := <-s.accepted
	if err := errors.Join(err, seen.err); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState(), seen.state
}

// refuse dials and returns why it failed at both ends.
func (s *server) refuse(t testing.TB, config *cryptotls.Config) (client, server error) {
	t.Helper()
	conn, err := s.dial(t, config)
	if err == nil {
		t.Fatalf("the connection was accepted: %+v", conn.ConnectionState())
	}
	return err, (<-s.accepted).err
}

// versions are those that every test about resumption runs with.
var versions = map[string]uint16{"TLS 1.2": cryptotls.VersionTLS12, "TLS 1.3": cryptotls.VersionTLS13}
