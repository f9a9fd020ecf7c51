package tls

import (
	"crypto/rsa"
	cryptotls "crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"time"
)

// nameIndex finds the pairs that cover a server name. It is never changed.
type nameIndex struct {
	byPattern map[string][]*keyPair // best pair first
	fallback  []*keyPair            // for no name or one that no pair covers; not empty
}

// newNameIndex indexes pairs, of which there is at least one.
func newNameIndex(pairs []part[*keyPair]) *nameIndex {
	x := &nameIndex{byPattern: make(map[string][]*keyPair)}
	for _, pair := range pairs {
		for _, pattern := range pair.value.patterns {
			if !slices.Contains(x.byPattern[pattern], pair.value) {
				x.byPattern[pattern] = append(x.byPattern[pattern], pair.value)
			}
		}
	}
	for _, covering := range x.byPattern {
		// Whoever speaks ECDSA mostly speaks RSA too, and signing with RSA costs
		// many times as much: the order of the settings decides only among equals.
		slices.SortStableFunc(covering, func(a, b *keyPair) int { return signingCost(a) - signingCost(b) })
	}
	// The default is answered as if its primary name had been asked for, so that
	// a client without SNI can choose between key types too.
	first := pairs[0].value
	x.fallback = []*keyPair{first}
	if len(first.patterns) > 0 {
		x.fallback = x.byPattern[first.patterns[0]]
	}
	return x
}

func signingCost(pair *keyPair) int {
	if _, ok := pair.certificate.PrivateKey.(*rsa.PrivateKey); ok {
		return 1
	}
	return 0
}

// candidates returns the pairs for a server name, the best first: exact matches,
// then those by a wildcard, which stands for exactly one label (RFC 9525 §6.3).
func (x *nameIndex) candidates(serverName string) []*keyPair {
	name := normalise(serverName)
	covering := x.byPattern[name]
	if _, parent, ok := strings.Cut(name, "."); ok {
		covering = slices.Concat(covering, x.byPattern["*."+parent])
	}
	if len(covering) == 0 {
		return x.fallback
	}
	return covering
}

// choose returns the best certificate that the client can verify and that has
// not expired; else one that it can verify; else the best, with which crypto/tls
// then ends the handshake in the proper alert.
func (x *nameIndex) choose(hello *cryptotls.ClientHelloInfo, now time.Time) *cryptotls.Certificate {
	candidates := x.candidates(hello.ServerName)
	if len(candidates) == 1 {
		return &candidates[0].certificate
	}
	// The name has been matched here. SupportsCertificate would match it again,
	// and find the default unsuitable for a name that nobody covers.
	able := *hello
	able.ServerName = ""
	var expired *keyPair
	for _, pair := range candidates {
		if able.SupportsCertificate(&pair.certificate) != nil {
			continue
		}
		if now.Before(pair.info.NotAfter) {
			return &pair.certificate
		}
		if expired == nil {
			expired = pair
		}
	}
	if expired != nil {
		return &expired.certificate
	}
	return &candidates[0].certificate
}

// patternsOf returns the names under which a certificate is found. Clients look
// at the common name only if there is no alternative name at all, and few do.
func patternsOf(leaf *x509.Certificate) []string {
	var patterns []string
	for _, name := range leaf.DNSNames {
		patterns = append(patterns, normalise(name))
	}
	for _, ip := range leaf.IPAddresses {
		// SNI never carries an address (RFC 6066 §3); this only groups the pairs
		// of a default that has nothing but addresses.
		patterns = append(patterns, ip.String())
	}
	if len(patterns) == 0 && leaf.Subject.CommonName != "" {
		patterns = append(patterns, normalise(leaf.Subject.CommonName))
	}
	return patterns
}

func nameOf(leaf *x509.Certificate) string {
	switch {
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return leaf.Subject.CommonName
}

// normalise makes names comparable: DNS names have no case (RFC 4343), and a
// final dot only says that they are complete.
func normalise(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
