package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"fmt"
)

// ClientAuthMode says whether clients have to show a certificate.
type ClientAuthMode uint8

const (
	// ClientAuthNone does not ask for a certificate.
	ClientAuthNone ClientAuthMode = iota

	// ClientAuthOptional asks for one. A client without one is let in; one that
	// cannot be verified ends the handshake.
	ClientAuthOptional

	// ClientAuthRequire lets in only clients whose certificate was verified.
	ClientAuthRequire
)

// String returns the word of the configuration file.
func (m ClientAuthMode) String() string {
	switch m {
	case ClientAuthNone:
		return "none"
	case ClientAuthOptional:
		return "optional"
	case ClientAuthRequire:
		return "require"
	}
	return fmt.Sprintf("ClientAuthMode(%d)", uint8(m))
}

func (m ClientAuthMode) cryptotls() cryptotls.ClientAuthType {
	switch m {
	case ClientAuthNone:
		return cryptotls.NoClientCert
	case ClientAuthOptional:
		return cryptotls.VerifyClientCertIfGiven
	}
	return cryptotls.RequireAndVerifyClientCert
}

// parseCAs returns the CAs of a PEM file, of which there must be one at least.
func parseCAs(file string, data []byte) (*x509.CertPool, error) {
	certificates, err := parseCertificates(file, data)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, certificate := range certificates {
		pool.AddCert(certificate)
	}
	return pool, nil
}

// requireCurrentCAs makes each connection of config use the Config that was built
// with the CAs in force when it began. VerifiedChains and the list of CAs that is
// sent to clients then follow the file too, which a VerifyConnection of ours could
// not bring about.
//
// config itself trusts nobody: somebody who clones it and puts a
// GetConfigForClient of his own in place, without calling ours, shuts all clients
// out instead of letting some in by a CA that was taken away.
func (s *Store) requireCurrentCAs(config *cryptotls.Config) {
	config.ClientAuth = s.settings.ClientAuth.cryptotls()
	config.ClientCAs = x509.NewCertPool()
	config.GetConfigForClient = func(*cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
		return s.current.Load().forClient, nil
	}
}
