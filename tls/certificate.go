package tls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// KeyPairFiles names a certificate and its private key, both in PEM.
type KeyPairFiles struct {
	// CertFile holds the server's (or client's) own certificate first and then
	// the intermediates, in the order in which they are sent.
	CertFile string

	// KeyFile holds the private key, without a passphrase: PKCS #8, PKCS #1 or
	// SEC 1; RSA, ECDSA on P-256, P-384 or P-521, or Ed25519. It may be the same
	// file as CertFile.
	KeyFile string
}

func (f KeyPairFiles) list() []string { return []string{f.CertFile, f.KeyFile} }

// CertificateInfo describes a certificate in force.
type CertificateInfo struct {
	// Name is the first DNS name, else the first IP address, else the common
	// name of the subject. Pairs with different key types share a name.
	Name      string
	DNSNames  []string  // in the order of the certificate, as they stand there
	NotBefore time.Time // of the first certificate of the file, not of its chain
	NotAfter  time.Time // likewise
	CertFile  string    // as in the settings
}

var (
	// ErrKeyEncrypted: the private key is protected by a passphrase.
	ErrKeyEncrypted = errors.New("the private key is encrypted")

	// ErrKeyMismatch: certificate and private key do not belong together.
	ErrKeyMismatch = errors.New("the private key does not match the certificate")
)

// keyPair is a loaded certificate. It is never changed.
type keyPair struct {
	certificate cryptotls.Certificate
	patterns    []string // normalised names, the first is the primary one; may be empty
	info        CertificateInfo
}

// parseKeyPair builds a pair from the contents of files.
func parseKeyPair(files KeyPairFiles, certPEM, keyPEM []byte) (*keyPair, error) {
	// Both are looked at before giving up, so that one attempt shows all.
	chain, certErr := parseCertificates(files.CertFile, certPEM)
	key, keyErr := parseKey(files.KeyFile, keyPEM)
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	leaf := chain[0]
	if err := checkKeyType(files.CertFile, leaf); err != nil {
		return nil, err
	}
	if !belongsTo(key, leaf) {
		remedy := "install the certificate that was issued for this key, together with it"
		if at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return belongsTo(key, c) }); at > 0 {
			remedy = fmt.Sprintf("certificate %d of the file does match: put it first, and its issuers after it", at+1)
		}
		return nil, &FileError{Files: files.list(), Err: ErrKeyMismatch, Remedy: remedy}
	}
	pair := &keyPair{
		certificate: cryptotls.Certificate{PrivateKey: key, Leaf: leaf},
		patterns:    patternsOf(leaf),
		info: CertificateInfo{
			Name: nameOf(leaf), DNSNames: leaf.DNSNames,
			NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
			CertFile: files.CertFile,
		},
	}
	for _, c := range chain {
		pair.certificate.Certificate = append(pair.certificate.Certificate, c.Raw)
	}
	return pair, nil
}

// parseCertificates returns the certificates of a PEM file, at least one, in its
// order. Blocks of other types, such as a key in the same file, are passed over.
func parseCertificates(file string, data []byte) ([]*x509.Certificate, error) {
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, fileError(file, err, "write the file again, in full")
	}
	var certificates []*x509.Certificate
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fileError(file, fmt.Errorf("parsing certificate %d: %w", len(certificates)+1, err), "replace that certificate")
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, fileError(file, fmt.Errorf("holds no certificate%s", found(blocks)),
			"a block that starts with -----BEGIN CERTIFICATE----- is expected")
	}
	return certificates, nil
}

// parseKey returns the first private key of a PEM file.
func parseKey(file string, data []byte) (crypto.Signer, error) {
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, fileError(file, err, "write the file again, in full")
	}
	at := slices.IndexFunc(blocks, func(b *pem.Block) bool { return strings.HasSuffix(b.Type, "PRIVATE KEY") })
	if at < 0 {
		return nil, fileError(file, fmt.Errorf("holds no private key%s", found(blocks)),
			"a block that starts with -----BEGIN PRIVATE KEY----- is expected")
	}
	block := blocks[at]
	// RFC 7468 §11 (PKCS #8) and RFC 1421 §4.6.1.1 (what OpenSSL once wrote).
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, fileError(file, ErrKeyEncrypted,
			"store it without a passphrase, readable by tidegate only (openssl pkey -in encrypted.key -out plain.key)")
	}
	key, err := parseKeyDER(block)
	if err != nil {
		return nil, fileError(file, fmt.Errorf("parsing the private key: %w", err), "export the key as PKCS #8 in PEM (openssl pkey)")
	}
	return key, nil
}

func parseKeyDER(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("unsupported format %q", block.Type)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

// found lists what a file holds instead of what was looked for.
func found(blocks []*pem.Block) string {
	if len(blocks) == 0 {
		return " in PEM"
	}
	var types []string
	for _, block := range blocks {
		if !slices.Contains(types, block.Type) {
			types = append(types, block.Type)
		}
	}
	return fmt.Sprintf(" but %s", strings.ToLower(strings.Join(types, ", ")))
}

// checkKeyType refuses, at load, keys with which every handshake would fail.
func checkKeyType(file string, leaf *x509.Certificate) error {
	const remedy = "use a key of ECDSA P-256, Ed25519, or RSA of at least 2048 bits"
	switch public := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < 1024 {
			return fileError(file, fmt.Errorf("an RSA key of %d bits is too short", bits), remedy)
		}
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return fileError(file, fmt.Errorf("TLS has no signature scheme for curve %s", public.Curve.Params().Name), remedy)
		}
	case ed25519.PublicKey:
	default:
		return fileError(file, fmt.Errorf("unsupported public key algorithm %s", leaf.PublicKeyAlgorithm), remedy)
	}
	return nil
}

func belongsTo(key crypto.Signer, certificate *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(certificate.PublicKey)
}
