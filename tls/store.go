package tls

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// ServerSettings is the TLS side of one listener.
type ServerSettings struct {
	// Certificates are the pairs to serve, at least one. SNI picks among them;
	// the first is the default for a client that names no host or an unknown
	// one. Several pairs may cover one name, with keys of different types.
	Certificates []KeyPairFiles

	// MinVersion is cryptotls.VersionTLS12 or cryptotls.VersionTLS13; 0 means
	// TLS 1.2. Nothing older is spoken.
	MinVersion uint16

	// ClientAuth says whether clients show a certificate; zero: they do not.
	ClientAuth ClientAuthMode

	// ClientCAFile holds, in PEM, the CAs whose client certificates are
	// accepted. It is needed exactly when ClientAuth is not ClientAuthNone.
	ClientCAFile string

	// TicketKeyFiles hold the keys of session tickets, to be shared by edges
	// that shall resume each other's sessions. The first one encrypts, all of
	// them decrypt. A file is any 32 bytes or more, binary or text; its key is
	// the SHA-256 of the whole content, byte for byte (so the 48 and 80 byte
	// files of nginx will do, but the tickets are not nginx's). None: keys live
	// in memory only, and crypto/tls replaces them once a day and decrypts for
	// a week.
	TicketKeyFiles []string

	// NextProtos are the ALPN protocols (RFC 7301), the preferred first. None:
	// ALPN is not negotiated.
	NextProtos []string
}

// A Store holds the certificates, client CAs and ticket keys of one listener in
// memory and replaces them as their files change. Its methods may be called from
// any goroutine. There is nothing to close.
type Store struct {
	settings  ServerSettings // never changed
	config    *cryptotls.Config
	accepting *cryptotls.Config // what Accept makes handshakes with
	current   atomic.Pointer[content]
	read      readFunc
}

// NewStore loads everything that settings name. The error joins all that is
// wrong, a [*FileError] for each file, and is an [ErrSettings] where settings
// contradict themselves. A certificate that has expired, or is not valid yet, is
// not an error: see [Store.Certificates].
func NewStore(settings ServerSettings) (*Store, error) {
	return newStore(settings, readFile)
}

func newStore(settings ServerSettings, read readFunc) (*Store, error) {
	settings.Certificates = slices.Clone(settings.Certificates)
	settings.TicketKeyFiles = slices.Clone(settings.TicketKeyFiles)
	settings.NextProtos = slices.Clone(settings.NextProtos)
	if err := settings.validate(); err != nil {
		return nil, err
	}
	s := &Store{settings: settings, read: read}
	first := s.load(&content{
		pairs:   make([]part[*keyPair], len(settings.Certificates)),
		tickets: make([]part[ticketKey], len(settings.TicketKeyFiles)),
	})
	if err := errors.Join(first.failures()...); err != nil {
		return nil, fmt.Errorf("loading TLS files: %w", err)
	}
	s.config = s.newConfig()
	if s.settings.ClientAuth != ClientAuthNone {
		s.requireCurrentCAs(s.config)
	}
	s.accepting = s.newAccepting()
	s.current.Store(first)
	return s, nil
}

// ErrSettings is wrapped by the errors about settings that cannot be used
// whatever the files contain.
var ErrSettings = errors.New("invalid TLS settings")

func (settings *ServerSettings) validate() error {
	var problems []error
	add := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: "+format, append([]any{ErrSettings}, args...)...))
	}
	if len(settings.Certificates) == 0 {
		add("no certificate: name at least one certificate and key file")
	}
	for i, files := range settings.Certificates {
		if files.CertFile == "" || files.KeyFile == "" {
			add("certificate %d needs both a certificate file and a key file (one file that holds both may be named twice)", i+1)
		}
	}
	switch settings.MinVersion {
	case 0, cryptotls.VersionTLS12, cryptotls.VersionTLS13:
	default:
		add("minimum version %s: choose TLS 1.2 or TLS 1.3", cryptotls.VersionName(settings.MinVersion))
	}
	switch settings.ClientAuth {
	case ClientAuthNone:
		if settings.ClientCAFile != "" {
			add("client CA file %s is given but client certificates are not asked for: make them optional or required, or leave the file out", settings.ClientCAFile)
		}
	case ClientAuthOptional, ClientAuthRequire:
		if settings.ClientCAFile == "" {
			add("client certificates are %s but there is no client CA file to verify them with", settings.ClientAuth)
		}
	default:
		add("unknown client authentication %s", settings.ClientAuth)
	}
	if slices.Contains(settings.TicketKeyFiles, "") {
		add("a ticket key file has an empty name")
	}
	return errors.Join(problems...)
}

// ServerConfig returns the configuration for the listener: always the same one,
// with always current content. The caller must not change it. A clone of it (as
// net/http makes) stays current too.
func (s *Store) ServerConfig() *cryptotls.Config { return s.config }

// newConfig returns a Config that differs from the store's own only in that it
// says nothing of client certificates.
func (s *Store) newConfig() *cryptotls.Config {
	minVersion := s.settings.MinVersion
	if minVersion == 0 {
		minVersion = cryptotls.VersionTLS12
	}
	return &cryptotls.Config{
		MinVersion:     minVersion,
		CipherSuites:   slices.Clone(forwardSecretAEADs),
		NextProtos:     slices.Clone(s.settings.NextProtos),
		GetCertificate: s.certificateFor,
		WrapSession:    s.sealTicket,
		UnwrapSession:  s.openTicket,
	}
}

// forwardSecretAEADs are the suites of TLS 1.2 (RFC 5288, 5289, 7905) that are
// left; the order carries no meaning for crypto/tls.
var forwardSecretAEADs = []uint16{
	cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	cryptotls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	cryptotls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	cryptotls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	cryptotls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	cryptotls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func (s *Store) certificateFor(hello *cryptotls.ClientHelloInfo) (*cryptotls.Certificate, error) {
	return s.current.Load().names.choose(hello, time.Now()), nil
}

// Certificates describes the certificates in force, in the order of the
// settings. Nothing is left out: an expired certificate is served like any other
// if there is no better one, and it is for the caller to warn of it.
func (s *Store) Certificates() []CertificateInfo {
	pairs := s.current.Load().pairs
	infos := make([]CertificateInfo, len(pairs))
	for i, pair := range pairs {
		infos[i] = pair.value.info
		infos[i].DNSNames = slices.Clone(infos[i].DNSNames)
	}
	return infos
}
