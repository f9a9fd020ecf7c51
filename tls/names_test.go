package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// clientOf returns a client that asks for name and trusts ca, and verifies nothing
// itself: what was served is what the tests look at.
func clientOf(name string) *cryptotls.Config {
	return &cryptotls.Config{ServerName: name, InsecureSkipVerify: true}
}

func TestSNI(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{
		dir.pair(t, "default", ca.names(t, "default.test", "192.0.2.1")),
		dir.pair(t, "wild", ca.names(t, "*.example.com")),
		dir.pair(t, "exact", ca.names(t, "Chat.Example.com")),
		dir.pair(t, "deep", ca.names(t, "*.eu.example.com", "example.net")),
		dir.pair(t, "cn", ca.issue(t, ecdsaKey(t), nil, commonNameOnly("legacy.test"))),
		dir.pair(t, "cnsan", ca.issue(t, ecdsaKey(t), nil, commonNameOnly("ignored.test"), func(c *x509.Certificate) { c.DNSNames = []string{"san.test"} })),
	}})
	server := serve(t, store.ServerConfig())
	for _, c := range []struct{ name, want string }{
		{"chat.example.com", "exact"},
		{"CHAT.example.COM", "exact"},
		{"www.example.com", "wild"},
		{"WWW.Example.Com", "wild"},
		{"a.b.example.com", "default"}, // a wildcard is one label
		{"example.com", "default"},     // and not none
		{"x.eu.example.com", "deep"},
		{"eu.example.com", "wild"},
		{"example.net", "deep"},
		{"legacy.test", "cn"},
		{"ignored.test", "default"}, // RFC 9525: alternative names make the common name void
		{"san.test", "cnsan"},
		{"unknown.test", "default"},
		{"", "default"},
		{"192.0.2.1", "default"}, // addresses are not sent as SNI
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _ := server.visit(t, clientOf(c.name))
			if want := infoOf(t, store, dir.path(c.want+".crt")); got.PeerCertificates[0].NotAfter != want.NotAfter || nameOf(got.PeerCertificates[0]) != want.Name {
				t.Errorf("got the certificate of %s, want %s", nameOf(got.PeerCertificates[0]), want.Name)
			}
		})
	}
}

// A final dot never arrives by crypto/tls, which refuses it, but the index ignores it.
func TestIndexIgnoresFinalDot(t *testing.T) {
	pairs := []part[*keyPair]{
		{value: &keyPair{patterns: []string{"default.test"}}},
		{value: &keyPair{patterns: []string{normalise("a.test.")}}},
		{value: &keyPair{patterns: []string{"*.b.test"}}},
	}
	index := newNameIndex(pairs)
	for name, want := range map[string]int{"a.test.": 1, "A.TEST": 1, "x.b.test.": 2, ".b.test": 2, ".": 0, "..": 0, "": 0, "*.b.test": 2} {
		if got := index.candidates(name); got[0] != pairs[want].value {
			t.Errorf("candidates(%q) starts with %v, want pair %d", name, got[0].patterns, want)
		}
	}
}

func infoOf(t *testing.T, store *Store, file string) CertificateInfo {
	t.Helper()
	for _, info := range store.Certificates() {
		if info.CertFile == file {
			return info
		}
	}
	t.Fatalf("%s is not among the certificates", file)
	return CertificateInfo{}
}

func TestKeyTypeByClient(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	rsaFiles := dir.pair(t, "rsa", ca.issue(t, rsaKey(), []string{"both.test"}))
	ecdsaFiles := dir.pair(t, "ecdsa", ca.names(t, "both.test"))
	wildFiles := dir.pair(t, "wild", ca.issue(t, rsaKey(), []string{"*.wild.test"}))
	exactFiles := dir.pair(t, "exact", ca.names(t, "a.wild.test"))

	rsaOnly := func(name string) *cryptotls.Config {
		return &cryptotls.Config{ServerName: name, InsecureSkipVerify: true, MaxVersion: cryptotls.VersionTLS12,
			CipherSuites: []uint16{cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	}
	ecdsaOnly := rsaOnly("both.test")
	ecdsaOnly.CipherSuites = []uint16{cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	modern12 := clientOf("both.test")
	modern12.MaxVersion = cryptotls.VersionTLS12

	for order, files := range map[string][]KeyPairFiles{
		"RSA first":   {rsaFiles, ecdsaFiles, wildFiles, exactFiles},
		"ECDSA first": {ecdsaFiles, rsaFiles, wildFiles, exactFiles},
	} {
		server := serve(t, mustStore(t, ServerSettings{Certificates: files}).ServerConfig())
		for name, c := range map[string]struct {
			client *cryptotls.Config
			want   x509.PublicKeyAlgorithm
		}{
			"TLS 1.3":                    {clientOf("both.test"), x509.ECDSA},
			"TLS 1.2":                    {modern12, x509.ECDSA},
			"TLS 1.2, RSA suites":        {rsaOnly("both.test"), x509.RSA},
			"TLS 1.2, ECDSA suites":      {ecdsaOnly, x509.ECDSA},
			"no SNI, modern":             {clientOf(""), x509.ECDSA},
			"no SNI, RSA suites":         {rsaOnly(""), x509.RSA},
			"unknown SNI, RSA suites":    {rsaOnly("unknown.test"), x509.RSA},
			"exact name, modern":         {clientOf("a.wild.test"), x509.ECDSA},
			"exact name unusable by RSA": {rsaOnly("a.wild.test"), x509.RSA}, // falls to the wildcard
		} {
			t.Run(order+"/"+name, func(t *testing.T) {
				got, _ := server.visit(t, c.client)
				if algorithm := got.PeerCertificates[0].PublicKeyAlgorithm; algorithm != c.want {
					t.Errorf("served %v, want %v", algorithm, c.want)
				}
			})
		}
	}
}

func TestNoCertificateFitsTheClient(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{
		dir.pair(t, "a", ca.names(t, "a.test")), dir.pair(t, "b", ca.names(t, "a.test")),
	}})
	client := &cryptotls.Config{ServerName: "a.test", InsecureSkipVerify: true, MaxVersion: cryptotls.VersionTLS12,
		CipherSuites: []uint16{cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	if _, err := serve(t, store.ServerConfig()).refuse(t, client); err == nil {
		t.Error("the server saw no error")
	}
}

func TestExpiredCertificateIsServedLast(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	old := ca.issue(t, ecdsaKey(t), []string{"a.test"}, expired)
	valid := ca.issue(t, rsaKey(), []string{"a.test"})
	files := []KeyPairFiles{dir.pair(t, "old", old), dir.pair(t, "valid", valid)}

	both := mustStore(t, ServerSettings{Certificates: files})
	if got, _ := serve(t, both.ServerConfig()).visit(t, clientOf("a.test")); !got.PeerCertificates[0].Equal(valid.leaf) {
		t.Error("the expired certificate was preferred")
	}
	alone := mustStore(t, ServerSettings{Certificates: files[:1]})
	if got, _ := serve(t, alone.ServerConfig()).visit(t, clientOf("a.test")); !got.PeerCertificates[0].Equal(old.leaf) {
		t.Error("the only certificate was not served")
	}
	rsaRefused := clientOf("a.test")
	rsaRefused.MaxVersion = cryptotls.VersionTLS12
	rsaRefused.CipherSuites = []uint16{cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	if got, _ := serve(t, both.ServerConfig()).visit(t, rsaRefused); !got.PeerCertificates[0].Equal(old.leaf) {
		t.Error("the only certificate that the client can verify was not served")
	}
}

// Nothing exported here may be mistaken for crypto/tls's.
func TestExportsDifferFromCryptoTLS(t *testing.T) {
	theirs, err := build.Import("crypto/tls", "", 0)
	must(t, err)
	names := exported(t, theirs.Dir, theirs.GoFiles)
	if len(names) < 50 || !names["Config"] || !names["NoClientCert"] {
		t.Fatalf("only %d exports of crypto/tls were found", len(names))
	}
	own, err := build.ImportDir(".", 0)
	must(t, err)
	ours := exported(t, ".", own.GoFiles)
	if !ours["Store"] {
		t.Fatal("our own exports were not found")
	}
	for name := range ours {
		if names[name] {
			t.Errorf("crypto/tls exports %s too", name)
		}
	}
}

// exported returns the package-level exported names of some files.
func exported(t *testing.T, dir string, files []string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	add := func(identifiers ...*ast.Ident) {
		for _, identifier := range identifiers {
			if identifier.IsExported() {
				names[identifier.Name] = true
			}
		}
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, file), nil, parser.SkipObjectResolution)
		must(t, err)
		for _, declaration := range parsed.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					add(d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						add(s.Name)
					case *ast.ValueSpec:
						add(s.Names...)
					}
				}
			}
		}
	}
	return names
}
