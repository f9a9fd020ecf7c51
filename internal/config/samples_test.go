package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// samples are the files that YAML under test may name, in one directory.
type samples struct{ dir string }

// newSamples writes two key pairs (edge and other, which also serve as authorities),
// ticket keys, tokens and broken files.
func newSamples(t testing.TB) samples {
	t.Helper()
	s := samples{dir: t.TempDir()}
	for _, name := range []string{"edge", "other", "clients", "upstream-ca"} {
		cert, key := selfSigned(t, name+".example.com")
		s.write(t, name+".crt", cert)
		s.write(t, name+".key", key)
	}
	s.write(t, "k1.bin", bytes.Repeat([]byte{1}, 32))
	s.write(t, "k2.bin", bytes.Repeat([]byte{2}, 80))
	s.write(t, "m.key", []byte("0123456789abcdef0123456789abcdef\n"))
	s.write(t, "short.bin", []byte("too short"))
	s.write(t, "token", []byte("secret\n"))
	s.write(t, "blank", []byte(" \n"))
	s.write(t, "notes.txt", []byte("no PEM here\n"))
	s.write(t, "broken.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("?")}))
	if err := os.Mkdir(filepath.Join(s.dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s samples) write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parse parses text as a file of the directory.
func (s samples) parse(name, text string, env map[string]string) (*File, error) {
	return Parse(filepath.Join(s.dir, name), []byte(text), func(key string) (string, bool) {
		value, ok := env[key]
		return value, ok
	})
}

// messages returns the diagnostics of err one a line, without the directory.
func (s samples) messages(t testing.TB, err error) string {
	t.Helper()
	diags, ok := errors.AsType[Diagnostics](err)
	if !ok {
		t.Fatalf("error is %T (%v), want Diagnostics", err, err)
	}
	return strings.ReplaceAll(diags.Error(), s.dir+string(filepath.Separator), "") + "\n"
}

func selfSigned(t testing.TB, host string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func readTestdata(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func testdataNames(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths
}
