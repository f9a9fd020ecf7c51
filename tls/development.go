package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// developmentValidity is long enough not to be in the way and short enough that
// nobody builds on it.
const developmentValidity = 90 * 24 * time.Hour

// NewDevelopmentCertificate makes a self-signed certificate (ECDSA P-256, valid for
// 90 days) for localhost, 127.0.0.1, ::1 and the hosts given, which are DNS names,
// wildcards or IP addresses without a port. Both results are PEM, the key PKCS #8;
// nothing is written anywhere. The certificate is no CA: whoever trusts it trusts
// no other.
func NewDevelopmentCertificate(hosts ...string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a development key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: nil, // x509 draws a random one
		Subject:      pkix.Name{CommonName: "tidegate development"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback},
		// Clocks of containers and virtual machines lag.
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(developmentValidity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if err := addHost(template, host); err != nil {
			return nil, nil, fmt.Errorf("making a development certificate: host %q: %w", host, err)
		}
	}
	certDER, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("making a development certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a development key: %w", err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return certPEM, keyPEM, nil
}

// addHost adds a name or address that template does not hold yet.
func addHost(template *x509.Certificate, host string) error {
	if address, err := netip.ParseAddr(host); err == nil {
		if address.Zone() != "" {
			return errors.New("a certificate cannot name an address with a zone")
		}
		ip := net.IP(address.Unmap().AsSlice())
		if !slices.ContainsFunc(template.IPAddresses, ip.Equal) {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
		return nil
	}
	name := normalise(host)
	if !isHostname(name) {
		return errors.New("neither an IP address nor a DNS name (no port, and letters beyond ASCII as xn--)")
	}
	if !slices.Contains(template.DNSNames, name) {
		template.DNSNames = append(template.DNSNames, name)
	}
	return nil
}

// isHostname checks a normalised name by RFC 1123 §2.1, with underscores, which
// internal names do have, and a wildcard as the first label.
func isHostname(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(name, "*."), ".") {
		strange := func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, strange) {
			return false
		}
	}
	return true
}
