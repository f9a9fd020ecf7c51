package tls

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// openssl runs `openssl s_client` against a server until the server closes, and
// returns what it printed.
func openssl(t *testing.T, addr string, args ...string) (output string, ok bool) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("openssl is not on PATH, and nothing is skipped in CI")
		}
		t.Skip("openssl is not on PATH")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, path, append([]string{"s_client", "-connect", addr}, args...)...)
	// An open input: at its end s_client would hang up before the ticket is there.
	input, err := command.StdinPipe()
	must(t, err)
	defer input.Close()
	var printed bytes.Buffer
	command.Stdout, command.Stderr = &printed, &printed
	err = command.Run()
	return printed.String(), err == nil
}

// serveGreeting accepts connections, says hello and closes.
func serveGreeting(t *testing.T, config *cryptotls.Config) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			secure := cryptotls.Server(conn, config)
			secure.SetDeadline(time.Now().Add(10 * time.Second))
			if secure.Handshake() == nil {
				secure.Write([]byte("hello from the edge\n"))
			}
			secure.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String()
}

func TestOpenSSL(t *testing.T) {
	root, clients, dir := newAuthority(t, "root"), newAuthority(t, "clients"), newFolder(t)
	rsaPair := root.issue(t, rsaKey(), []string{"both.test"})
	pairs := []KeyPairFiles{dir.pair(t, "ecdsa", root.names(t, "both.test")), dir.pair(t, "rsa", rsaPair), dir.pair(t, "wild", root.names(t, "*.wild.test"))}
	settings := ServerSettings{Certificates: pairs, NextProtos: []string{"http/1.1"}, TicketKeyFiles: []string{dir.write(t, "k", []byte(strings.Repeat("openssl ", 6)))}}
	addr := serveGreeting(t, mustStore(t, settings).ServerConfig())
	settings.ClientAuth, settings.ClientCAFile = ClientAuthRequire, dir.write(t, "clients.pem", clients.pem)
	strict := serveGreeting(t, mustStore(t, settings).ServerConfig())
	settings.MinVersion = cryptotls.VersionTLS13
	newest := serveGreeting(t, mustStore(t, settings).ServerConfig())

	trust := []string{"-CAfile", dir.write(t, "root.pem", root.pem), "-verify_return_error", "-brief"}
	asking := func(name string, more ...string) []string {
		return slices.Concat(trust, []string{"-servername", name, "-verify_hostname", name}, more)
	}
	client := dir.pair(t, "client", clients.names(t, "client"))
	shown := []string{"-cert", client.CertFile, "-key", client.KeyFile}
	foreign := dir.pair(t, "foreign", root.names(t, "client"))

	for name, c := range map[string]struct {
		addr    string
		args    []string
		refused bool
		says    string
	}{
		"TLS 1.3":                   {addr, asking("both.test", "-tls1_3"), false, "Protocol version: TLSv1.3"},
		"TLS 1.2, ECDSA":            {addr, asking("both.test", "-tls1_2"), false, "ECDHE-ECDSA"},
		"TLS 1.2, RSA only":         {addr, asking("both.test", "-tls1_2", "-cipher", "aRSA"), false, "ECDHE-RSA"},
		"TLS 1.3, RSA only":         {addr, asking("both.test", "-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"), false, "Signature type: RSA-PSS"},
		"TLS 1.2, CBC only":         {addr, asking("both.test", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"), true, "handshake failure"},
		"TLS 1.1":                   {addr, asking("both.test", "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"), true, "protocol version"},
		"wildcard":                  {addr, asking("a.wild.test"), false, "hello from the edge"},
		"wildcard, two labels":      {addr, asking("a.b.wild.test"), true, "hostname mismatch"},
		"ALPN":                      {addr, asking("both.test", "-alpn", "h2,http/1.1"), false, "hello from the edge"},
		"ALPN, nothing in common":   {addr, asking("both.test", "-alpn", "mqtt"), true, "no application protocol"},
		"client certificate":        {strict, asking("both.test", shown...), false, "hello from the edge"},
		"client certificate, 1.2":   {strict, asking("both.test", append(shown, "-tls1_2")...), false, "hello from the edge"},
		"no client certificate":     {strict, asking("both.test", "-tls1_3"), true, "certificate required"},
		"no client certificate 1.2": {strict, asking("both.test", "-tls1_2"), true, "handshake failure"},
		"foreign certificate":       {strict, asking("both.test", "-cert", foreign.CertFile, "-key", foreign.KeyFile), true, "unknown ca"},
		"minimum version 1.3":       {newest, asking("both.test", append(shown, "-tls1_2")...), true, "protocol version"},
		"minimum version 1.3, kept": {newest, asking("both.test", shown...), false, "Protocol version: TLSv1.3"},
	} {
		t.Run(name, func(t *testing.T) {
			output, ok := openssl(t, c.addr, c.args...)
			if !strings.Contains(output, c.says) || strings.Contains(output, "hello from the edge") == c.refused {
				t.Errorf("ended well: %v, want %q, refused: %v:\n%s", ok, c.says, c.refused, output)
			}
		})
	}
}

func TestOpenSSLResumes(t *testing.T) {
	root, dir := newAuthority(t, "root"), newFolder(t)
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", root.names(t, "a.test"))}})
	addr := serveGreeting(t, store.ServerConfig())
	for name, version := range map[string]string{"TLS 1.2": "-tls1_2", "TLS 1.3": "-tls1_3"} {
		t.Run(name, func(t *testing.T) {
			session := dir.path(version)
			args := []string{version, "-servername", "a.test", "-CAfile", dir.write(t, "root.pem", root.pem)}
			if output, _ := openssl(t, addr, append(args, "-sess_out", session)...); !strings.Contains(output, "New, TLS") {
				t.Fatalf("no new session:\n%s", output)
			}
			if output, _ := openssl(t, addr, append(args, "-sess_in", session)...); !strings.Contains(output, "Reused, TLS") {
				t.Errorf("the session was not resumed:\n%s", output)
			}
		})
	}
}

// Keys as OpenSSL writes them.
func TestKeysOfOpenSSL(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("openssl is not on PATH, and nothing is skipped in CI")
		}
		t.Skip("openssl is not on PATH")
	}
	dir := newFolder(t)
	run := func(args ...string) {
		t.Helper()
		if output, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, output)
		}
	}
	for name, algorithm := range map[string][]string{
		"P-256":   {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"P-384":   {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"RSA":     {"-newkey", "rsa:2048"},
		"Ed25519": {"-newkey", "ed25519"},
	} {
		t.Run(name, func(t *testing.T) {
			files := KeyPairFiles{dir.path(name + ".crt"), dir.path(name + ".key")}
			run(slices.Concat([]string{"req", "-x509", "-nodes", "-subj", "/CN=a.test", "-addext", "subjectAltName=DNS:a.test", "-out", files.CertFile, "-keyout", files.KeyFile}, algorithm)...)
			server := serve(t, mustStore(t, ServerSettings{Certificates: []KeyPairFiles{files}}).ServerConfig())
			server.visit(t, clientOf("a.test"))

			run("pkey", "-in", files.KeyFile, "-aes256", "-passout", "pass:secret", "-out", dir.path("encrypted.key"))
			_, err := NewStore(ServerSettings{Certificates: []KeyPairFiles{{files.CertFile, dir.path("encrypted.key")}}})
			if err == nil || !strings.Contains(err.Error(), "encrypted.key: the private key is encrypted") {
				t.Errorf("got %v", err)
			}
			if name != "Ed25519" { // the format of old does not know it
				run("pkey", "-in", files.KeyFile, "-traditional", "-out", dir.path("traditional.key"))
				mustStore(t, ServerSettings{Certificates: []KeyPairFiles{{files.CertFile, dir.path("traditional.key")}}})
			}
		})
	}
}
