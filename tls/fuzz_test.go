package tls

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func FuzzParseKeyPair(f *testing.F) {
	ca := newAuthority(f, "ca")
	ecdsaPair, rsaPair := ca.names(f, "a.test", "*.b.test", "192.0.2.1"), ca.issue(f, rsaKey(), []string{"a.test"})
	for _, pair := range []issued{ecdsaPair, rsaPair} {
		f.Add(pair.certPEM, pair.keyPEM)
		f.Add(slices.Concat(pair.certPEM, ca.pem), pair.keyPEM)
		f.Add(slices.Concat(ca.pem, pair.certPEM), pair.keyPEM)
		f.Add(pair.keyPEM, pair.certPEM)
		f.Add(pair.certPEM[:len(pair.certPEM)/2], pair.keyPEM[:len(pair.keyPEM)/2])
		f.Add(bytes.ReplaceAll(pair.certPEM, []byte("\n"), []byte("\r\n")), pair.keyPEM)
	}
	f.Add(ecdsaPair.certPEM, rsaPair.keyPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte(nil), []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	files := KeyPairFiles{"a.crt", "a.key"}
	f.Fuzz(func(t *testing.T, certPEM, keyPEM []byte) {
		pair, err := parseKeyPair(files, certPEM, keyPEM)
		if err != nil {
			if _, ok := errors.AsType[*FileError](err); !ok || err.Error() == "" {
				t.Fatalf("%v is no FileError", err)
			}
			return
		}
		certificate := pair.certificate
		if len(certificate.Certificate) == 0 || !bytes.Equal(certificate.Certificate[0], certificate.Leaf.Raw) {
			t.Fatal("the leaf is not the first of the chain")
		}
		index := newNameIndex([]part[*keyPair]{{value: pair}})
		for _, pattern := range append(pair.patterns, "", "unknown.test") {
			if got := index.candidates(pattern); len(got) == 0 || got[0] != pair {
				t.Fatalf("not found as %q", pattern)
			}
		}
	})
}

func FuzzParseCAs(f *testing.F) {
	one, two := newAuthority(f, "one"), newAuthority(f, "two")
	f.Add(one.pem)
	f.Add(slices.Concat(one.pem, two.pem))
	f.Add(one.pem[:100])
	f.Add([]byte("-----BEGIN CERTIFICATE-----"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		pool, err := parseCAs("ca.pem", data)
		if (pool == nil) == (err == nil) {
			t.Fatalf("got %v, %v", pool, err)
		}
	})
}

func FuzzDevelopmentHost(f *testing.F) {
	for _, host := range []string{"localhost", "*.a.test", "::1", "192.0.2.1", "a b", "xn--bcher-kva.test", "%", "fe80::1%lo"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		certPEM, keyPEM, err := NewDevelopmentCertificate(host)
		if err != nil {
			return
		}
		if _, err := parseKeyPair(KeyPairFiles{"a.crt", "a.key"}, certPEM, keyPEM); err != nil {
			t.Fatalf("host %q made an unusable certificate: %v", host, err)
		}
	})
}
