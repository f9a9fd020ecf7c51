package tls

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
)

func TestClientAuth(t *testing.T) {
	ca, foreign, dir := newAuthority(t, "ca"), newAuthority(t, "foreign"), newFolder(t)
	good := ca.names(t, "client").pair(t)
	old := ca.issue(t, ecdsaKey(t), []string{"client"}, expired).pair(t)
	bad := foreign.names(t, "client").pair(t)
	serverOnly := ca.issue(t, ecdsaKey(t), []string{"client"}, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}).pair(t)

	for name, c := range map[string]struct {
		mode     ClientAuthMode
		cert     *cryptotls.Certificate
		accepted bool
		verified bool
	}{
		"none, nothing":           {ClientAuthNone, nil, true, false},
		"none, given":             {ClientAuthNone, &good, true, false}, // not asked for, not sent
		"optional, nothing":       {ClientAuthOptional, nil, true, false},
		"optional, good":          {ClientAuthOptional, &good, true, true},
		"optional, foreign CA":    {ClientAuthOptional, &bad, false, false},
		"optional, expired":       {ClientAuthOptional, &old, false, false},
		"require, nothing":        {ClientAuthRequire, nil, false, false},
		"require, good":           {ClientAuthRequire, &good, true, true},
		"require, foreign CA":     {ClientAuthRequire, &bad, false, false},
		"require, expired":        {ClientAuthRequire, &old, false, false},
		"require, not a client's": {ClientAuthRequire, &serverOnly, false, false},
	} {
		settings := ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))}, ClientAuth: c.mode}
		if c.mode != ClientAuthNone {
			settings.ClientCAFile = dir.write(t, "ca.pem", ca.pem)
		}
		for version, number := range versions {
			t.Run(name+"/"+version, func(t *testing.T) {
				server := serve(t, mustStore(t, settings).ServerConfig())
				client := showing(number, c.cert)
				if !c.accepted {
					if _, err := server.refuse(t, client); err == nil {
						t.Error("the server saw no error")
					}
					return
				}
				_, seen := server.visit(t, client)
				if (len(seen.VerifiedChains) > 0) != c.verified {
					t.Errorf("verified chains: %d, want any: %v", len(seen.VerifiedChains), c.verified)
				}
			})
		}
	}
}

// showing returns a client that shows cert whatever CAs the server lists.
func showing(version uint16, cert *cryptotls.Certificate) *cryptotls.Config {
	client := resuming(version)
	if cert != nil {
		client.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) { return cert, nil }
	}
	return client
}

func TestClientCAReload(t *testing.T) {
	oldCA, newCA, dir := newAuthority(t, "old"), newAuthority(t, "new"), newFolder(t)
	byOld, byNew := oldCA.names(t, "client").pair(t), newCA.names(t, "client").pair(t)
	shared := []string{dir.write(t, "k", []byte(strings.Repeat("a ticket key ", 4)))}
	for name, mode := range map[string]ClientAuthMode{"optional": ClientAuthOptional, "require": ClientAuthRequire} {
		for version, number := range versions {
			t.Run(name+"/"+version, func(t *testing.T) {
				settings := ServerSettings{
					Certificates: []KeyPairFiles{dir.pair(t, "a", oldCA.names(t, "a.test"))},
					ClientAuth:   mode, ClientCAFile: dir.write(t, "ca.pem", oldCA.pem), TicketKeyFiles: shared,
				}
				store := mustStore(t, settings)
				server, oldClient, newClient := serve(t, store.ServerConfig()), showing(number, &byOld), showing(number, &byNew)
				server.resumes(t, oldClient, false, "at first")
				server.resumes(t, oldClient, true, "again")
				server.refuse(t, newClient)
				open, err := server.dial(t, oldClient)
				must(t, err)
				<-server.accepted

				dir.write(t, "ca.pem", append(oldCA.pem, newCA.pem...))
				reload(t, store, true)
				server.resumes(t, oldClient, true, "while both CAs are in force")
				server.resumes(t, newClient, false, "the new client")

				dir.write(t, "ca.pem", newCA.pem)
				reload(t, store, true)
				if _, err := server.refuse(t, oldClient); !errors.As(err, new(*cryptotls.CertificateVerificationError)) {
					t.Errorf("the client of the old CA was refused with %v", err)
				}
				server.resumes(t, newClient, true, "the new client, its CA was there all the time")
				must(t, ping(open)) // what is open stays open

				dir.write(t, "ca.pem", []byte("garbage"))
				reload(t, store, false, "ca.pem", "holds no certificate")
				server.resumes(t, newClient, true, "a broken file keeps the CAs")
				server.refuse(t, oldClient)

				// Another edge that shares the ticket keys but not the CAs.
				settings.ClientCAFile = dir.write(t, "other.pem", oldCA.pem)
				serve(t, mustStore(t, settings).ServerConfig()).refuse(t, newClient)
			})
		}
	}
}

// The list of CAs in the request of the server follows the file.
func TestClientSeesTheCurrentCAs(t *testing.T) {
	oldCA, newCA, dir := newAuthority(t, "old"), newAuthority(t, "new"), newFolder(t)
	store := mustStore(t, ServerSettings{
		Certificates: []KeyPairFiles{dir.pair(t, "a", oldCA.names(t, "a.test"))},
		ClientAuth:   ClientAuthOptional, ClientCAFile: dir.write(t, "ca.pem", oldCA.pem),
	})
	server := serve(t, store.ServerConfig())
	var listed []string
	client := clientOf("a.test")
	client.GetClientCertificate = func(request *cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
		listed = nil
		for _, subject := range request.AcceptableCAs {
			listed = append(listed, string(subject))
		}
		return new(cryptotls.Certificate), nil
	}
	for _, ca := range []*authority{oldCA, newCA} {
		dir.write(t, "ca.pem", ca.pem)
		_, err := store.Reload()
		must(t, err)
		server.visit(t, client)
		if len(listed) != 1 || listed[0] != string(ca.cert.RawSubject) {
			t.Errorf("listed %q, want %q", listed, ca.cert.Subject)
		}
	}
}

// Whoever takes the Config but not its GetConfigForClient must not get by with a
// CA that may be gone.
func TestConfigWithoutItsCallbackTrustsNobody(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	cert := ca.names(t, "client").pair(t)
	config := mustStore(t, ServerSettings{
		Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))},
		ClientAuth:   ClientAuthRequire, ClientCAFile: dir.write(t, "ca.pem", ca.pem),
	}).ServerConfig().Clone()
	config.GetConfigForClient = nil
	serve(t, config).refuse(t, showing(cryptotls.VersionTLS13, &cert))
}

func TestClientAuthModeNames(t *testing.T) {
	for mode, want := range map[ClientAuthMode]string{ClientAuthNone: "none", ClientAuthOptional: "optional", ClientAuthRequire: "require", 9: "ClientAuthMode(9)"} {
		if mode.String() != want {
			t.Errorf("%d is %q, want %q", mode, mode, want)
		}
	}
}
