package tls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseKeyPair(t *testing.T) {
	ca := newAuthority(t, "ca")
	good, other := ca.names(t, "a.test", "b.test"), ca.names(t, "other.test")
	rsaPair := ca.issue(t, rsaKey(), []string{"rsa.test"})
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	weak := ca.issue(t, p224, []string{"weak.test"})

	sec1, err := x509.MarshalECPrivateKey(good.key.(*ecdsa.PrivateKey))
	must(t, err)
	legacy := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1,
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00112233445566778899AABBCCDDEEFF"}})
	chain := slices.Concat(good.certPEM, ca.pem)

	for name, c := range map[string]struct {
		cert, key []byte
		is        error    // errors.Is
		says      []string // in the message; none: no error
	}{
		"PKCS #8":                {cert: good.certPEM, key: good.keyPEM},
		"SEC 1":                  {cert: good.certPEM, key: encode("EC PRIVATE KEY", sec1)},
		"EC parameters in front": {cert: good.certPEM, key: slices.Concat(encode("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), encode("EC PRIVATE KEY", sec1))},
		"RSA":                    {cert: rsaPair.certPEM, key: rsaPair.keyPEM},
		"chain":                  {cert: chain, key: good.keyPEM},
		"one file for both":      {cert: slices.Concat(good.keyPEM, chain), key: slices.Concat(good.keyPEM, chain)},
		"text around the blocks": {cert: slices.Concat([]byte("subject=a\n"), good.certPEM, []byte("# end\n")), key: good.keyPEM},
		"carriage returns":       {cert: bytes.ReplaceAll(good.certPEM, []byte("\n"), []byte("\r\n")), key: good.keyPEM},

		"encrypted":               {cert: good.certPEM, key: encode("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}), is: ErrKeyEncrypted, says: []string{"the.key", "without a passphrase"}},
		"encrypted as of old":     {cert: good.certPEM, key: legacy, is: ErrKeyEncrypted, says: []string{"the.key", "openssl pkey"}},
		"other key":               {cert: good.certPEM, key: other.keyPEM, is: ErrKeyMismatch, says: []string{"the.crt, the.key", "issued for this key"}},
		"other type of key":       {cert: good.certPEM, key: rsaPair.keyPEM, is: ErrKeyMismatch, says: []string{"the.crt, the.key"}},
		"chain in wrong order":    {cert: slices.Concat(ca.pem, good.certPEM), key: good.keyPEM, is: ErrKeyMismatch, says: []string{"certificate 2 of the file does match", "first"}},
		"swapped":                 {cert: good.keyPEM, key: good.certPEM, says: []string{"the.crt: holds no certificate but private key", "the.key: holds no private key but certificate"}},
		"empty":                   {says: []string{"the.crt: holds no certificate in PEM", "the.key: holds no private key in PEM"}},
		"DER":                     {cert: good.leaf.Raw, key: sec1, says: []string{"-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----"}},
		"chain cut short":         {cert: chain[:len(chain)-40], key: good.keyPEM, is: errDamagedPEM, says: []string{"the.crt", "in full"}},
		"damaged first block":     {cert: bytes.Replace(chain, []byte("MII"), []byte("M!I"), 1), key: good.keyPEM, is: errDamagedPEM, says: []string{"the.crt"}},
		"key cut short":           {cert: good.certPEM, key: good.keyPEM[:80], is: errDamagedPEM, says: []string{"the.key"}},
		"intermediate is garbage": {cert: slices.Concat(good.certPEM, encode("CERTIFICATE", []byte("no"))), key: good.keyPEM, says: []string{"parsing certificate 2"}},
		"key is garbage":          {cert: good.certPEM, key: encode("PRIVATE KEY", []byte("no")), says: []string{"the.key: parsing the private key"}},
		"key of OpenSSH":          {cert: good.certPEM, key: encode("OPENSSH PRIVATE KEY", []byte("no")), says: []string{`unsupported format "OPENSSH PRIVATE KEY"`, "PKCS #8"}},
		"curve without a scheme":  {cert: weak.certPEM, key: weak.keyPEM, says: []string{"the.crt", "P-224", "P-256"}},
	} {
		t.Run(name, func(t *testing.T) {
			pair, err := parseKeyPair(KeyPairFiles{"the.crt", "the.key"}, c.cert, c.key)
			if len(c.says) == 0 {
				if err != nil || pair.certificate.Leaf == nil {
					t.Fatalf("got %v, %v", pair, err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if _, ok := errors.AsType[*FileError](err); !ok {
				t.Errorf("%v is no FileError", err)
			}
			for _, words := range c.says {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q does not say %q", err, words)
				}
			}
		})
	}
}

func TestChainIsSentInTheOrderOfTheFile(t *testing.T) {
	root, dir := newAuthority(t, "root"), newFolder(t)
	second, third := newAuthority(t, "second"), newAuthority(t, "third")
	leaf := root.names(t, "a.test")
	leaf.certPEM = slices.Concat(leaf.certPEM, third.pem, second.pem)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", leaf)}})
	got, _ := serve(t, store.ServerConfig()).visit(t, clientOf("a.test"))
	want := []*x509.Certificate{leaf.leaf, third.cert, second.cert}
	if !slices.EqualFunc(got.PeerCertificates, want, (*x509.Certificate).Equal) {
		t.Errorf("sent %d certificates in another order", len(got.PeerCertificates))
	}
}

func TestReadFile(t *testing.T) {
	dir := newFolder(t)
	must(t, os.Mkdir(dir.path("directory"), 0o700))
	must(t, unix.Mkfifo(dir.path("pipe"), 0o600)) // opening it would block
	large, err := os.Create(dir.path("large"))
	must(t, err)
	must(t, large.Truncate(maxFileBytes+1))
	must(t, large.Close())
	must(t, os.Symlink(dir.write(t, "file", []byte("content")), dir.path("link")))
	must(t, os.Symlink("nowhere", dir.path("dangling")))
	dir.write(t, "secret", []byte("content"))
	must(t, os.Chmod(dir.path("secret"), 0))

	for name, want := range map[string]string{
		"missing":   "missing: stat: no such file or directory: create the file or correct the path",
		"dangling":  "dangling: stat: no such file or directory: create the file or correct the path",
		"directory": "directory: is not a regular file",
		"pipe":      "pipe: is not a regular file",
		"large":     "large: is larger than",
		"secret":    "secret: open: permission denied: let the user that runs tidegate read it",
		"file":      "",
		"link":      "",
	} {
		t.Run(name, func(t *testing.T) {
			if name == "secret" && os.Geteuid() == 0 {
				// Root may read everything.
				own := filepath.Dir(dir.path(name))
				if err := errors.Join(os.Chmod(own, 0o755), os.Chmod(filepath.Dir(own), 0o755)); err != nil {
					t.Fatal(err)
				}
				defer asNobody(t)()
			}
			data, err := readFile(dir.path(name))
			switch {
			case want == "" && (err != nil || string(data) != "content"):
				t.Errorf("got %q, %v", data, err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
	if _, err := readFile(dir.path("missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not ErrNotExist", err)
	}
}
