package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ClientSettings is the TLS side toward the backends of a pool. The zero value
// verifies backends against the CAs of the system.
type ClientSettings struct {
	// CAFile holds, in PEM, the CAs that backends are verified with, instead of
	// those of the system. It is read once.
	CAFile string

	// ServerName is sent as SNI and verified. Empty: whoever dials sets it on a
	// clone of the configuration, as tls.Dialer and net/http do.
	ServerName string

	// SkipVerify accepts any certificate, and with that any impostor.
	SkipVerify bool

	// CertFile and KeyFile are shown to backends that ask for a certificate. They
	// are read again when they change.
	CertFile, KeyFile string
}

const (
	// clientFilesInterval is how old the knowledge of a client certificate's
	// files may get. A storm of connections must not become one of file reads.
	clientFilesInterval = 5 * time.Second

	// clientSessions is the number of servers whose session is remembered.
	clientSessions = 512
)

// NewClientConfig loads what settings name and returns a configuration for dialling
// backends: TLS 1.2 or newer, crypto/tls's own suites and curves, ALPN http/1.1,
// sessions resumed. It may be shared and cloned, and must not be changed. The error
// joins all that is wrong, as that of [NewStore] does.
//
// The files of the client certificate are looked at, at most every five seconds,
// as connections are made; a new certificate also ends the resumption of sessions
// that began with the old one. Files that became unusable keep the certificate
// that was loaded until it expires; from then on handshakes in which a backend asks
// for it fail with the reason.
func NewClientConfig(settings ClientSettings) (*cryptotls.Config, error) {
	return newClientConfig(settings, time.Now)
}

func newClientConfig(settings ClientSettings, now func() time.Time) (*cryptotls.Config, error) {
	if err := settings.validate(); err != nil {
		return nil, err
	}
	config := &cryptotls.Config{
		MinVersion:         cryptotls.VersionTLS12,
		ServerName:         settings.ServerName,
		InsecureSkipVerify: settings.SkipVerify,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: cryptotls.NewLRUClientSessionCache(clientSessions),
	}
	var caErr, certErr error
	if settings.CAFile != "" {
		roots := part[*x509.CertPool]{}.refresh(readFile, []string{settings.CAFile}, func(contents [][]byte) (*x509.CertPool, error) {
			return parseCAs(settings.CAFile, contents[0])
		})
		config.RootCAs, caErr = roots.value, roots.failure
	}
	if settings.CertFile != "" {
		certificate := newClientCertificate(KeyPairFiles{settings.CertFile, settings.KeyFile}, now)
		certErr = certificate.current.Load().failure
		config.GetClientCertificate = certificate.get
		config.ClientSessionCache = certificate
	}
	if err := errors.Join(caErr, certErr); err != nil {
		return nil, fmt.Errorf("loading TLS files: %w", err)
	}
	return config, nil
}

func (settings *ClientSettings) validate() error {
	var problems []error
	if (settings.CertFile == "") != (settings.KeyFile == "") {
		problems = append(problems, fmt.Errorf("%w: a client certificate needs both a certificate file and a key file", ErrSettings))
	}
	if settings.SkipVerify && settings.CAFile != "" {
		problems = append(problems, fmt.Errorf("%w: CA file %s is of no use while verification is skipped: leave one of the two out", ErrSettings, settings.CAFile))
	}
	return errors.Join(problems...)
}

// clientCertificate is a client certificate that follows its files, and the
// sessions that began with it: a resumed session speaks for the certificate that
// it began with, so these must not outlive it. It is the ClientSessionCache of its
// configuration, because a connection that resumes asks for nothing else.
type clientCertificate struct {
	files    KeyPairFiles
	now      func() time.Time
	current  atomic.Pointer[part[*keyPair]]
	sessions atomic.Pointer[cryptotls.ClientSessionCache]
	lookAt   atomic.Int64 // when to read the files again, in Unix nanoseconds
}

func newClientCertificate(files KeyPairFiles, now func() time.Time) *clientCertificate {
	c := &clientCertificate{files: files, now: now}
	c.lookAt.Store(now().Add(clientFilesInterval).UnixNano())
	first := part[*keyPair]{}.refresh(readFile, files.list(), c.parse)
	c.current.Store(&first)
	c.forgetSessions()
	return c
}

func (c *clientCertificate) parse(contents [][]byte) (*keyPair, error) {
	return parseKeyPair(c.files, contents[0], contents[1])
}

func (c *clientCertificate) forgetSessions() {
	sessions := cryptotls.NewLRUClientSessionCache(clientSessions)
	c.sessions.Store(&sessions)
}

// refresh reads the files if it is time to. One connection does so; those that
// come meanwhile go on with what there is.
func (c *clientCertificate) refresh() {
	due, now := c.lookAt.Load(), c.now()
	if now.UnixNano() < due || !c.lookAt.CompareAndSwap(due, now.Add(clientFilesInterval).UnixNano()) {
		return
	}
	old := c.current.Load()
	next := old.refresh(readFile, c.files.list(), c.parse)
	// A reader that took longer than the interval gives way to the next one.
	if c.current.CompareAndSwap(old, &next) && next.digest != old.digest {
		c.forgetSessions()
	}
}

// get is the GetClientCertificate of the configuration. It does not ask whether
// the backend lists the issuer: the operator chose this certificate for it, and a
// refusal by the backend says more than a certificate that silently was not sent.
func (c *clientCertificate) get(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
	c.refresh()
	current := c.current.Load()
	if current.failure != nil && c.now().After(current.value.info.NotAfter) {
		return nil, fmt.Errorf("client certificate has expired and cannot be replaced: %w", current.failure)
	}
	return &current.value.certificate, nil
}

// Get implements cryptotls.ClientSessionCache.
func (c *clientCertificate) Get(key string) (*cryptotls.ClientSessionState, bool) {
	c.refresh()
	return (*c.sessions.Load()).Get(key)
}

// Put implements cryptotls.ClientSessionCache.
func (c *clientCertificate) Put(key string, session *cryptotls.ClientSessionState) {
	(*c.sessions.Load()).Put(key, session)
}
