package config

import (
	"os"
	"path/filepath"
	"testing"
)

const shipped = "../../configs"

// writeShippedFiles writes the files that the shipped configurations name, relative to them.
func writeShippedFiles(t *testing.T, dir string) {
	t.Helper()
	s := samples{dir: dir}
	for _, name := range []string{
		"edge", "example.com", "wildcard.example.org", "devices-ca", "internal-ca", "edge-client",
	} {
		cert, key := selfSigned(t, name)
		s.write(t, name+".crt", cert)
		s.write(t, name+".key", key)
	}
	s.write(t, "ticket.key", make([]byte, 80))
	s.write(t, "sticky.key", make([]byte, 32))
}

// TestShippedConfigurations loads every file of configs/ as a user would who has put
// certificates beside it, with no environment but the process's.
func TestShippedConfigurations(t *testing.T) {
	dir := t.TempDir()
	writeShippedFiles(t, dir)
	for _, name := range []string{
		"TIDEGATE_CERT", "TIDEGATE_KEY", "TIDEGATE_TLS", "TIDEGATE_STICKY_KEY", "CONSUL_HTTP_ADDR",
	} {
		t.Setenv(name, "") // restored afterwards; the defaults serve for empty ones
	}
	entries, err := os.ReadDir(shipped)
	if err != nil {
		t.Fatal(err)
	}
	loaded := map[string]*File{}
	for _, entry := range entries {
		name := entry.Name()
		if filepath.Ext(name) != ".yaml" {
			t.Errorf("configs/%s is no .yaml file", name)
			continue
		}
		data, err := os.ReadFile(filepath.Join(shipped, name))
		if err != nil {
			t.Fatal(err)
		}
		file, err := Load(samples{dir: dir}.write(t, name, data))
		if err != nil {
			t.Errorf("configs/%s:\n%v", name, err)
			continue
		}
		loaded[name] = file
	}
	if t.Failed() {
		return
	}
	for _, tc := range []struct {
		what      string
		got, want any
	}{
		{"minimal.yaml: TLS", loaded["minimal.yaml"].Listeners[0].TLS == nil, true},
		{"minimal.yaml: weight", loaded["minimal.yaml"].Pools[0].Backends[1].Weight, 2},
		{"consul.yaml: certificate", loaded["consul.yaml"].Listeners[0].TLS.Certificates[0].Cert, filepath.Join(dir, "edge.crt")},
		{"consul.yaml: service", loaded["consul.yaml"].Pools[0].Consul.Service, "chat"},
		{"tls.yaml: certificates", len(loaded["tls.yaml"].Listeners[0].TLS.Certificates), 2},
		{"tls.yaml: client certificates", loaded["tls.yaml"].Listeners[1].TLS.ClientAuth.Mode, "require"},
		{"tls.yaml: upstream", loaded["tls.yaml"].Pools[0].Upstream.TLS.ServerName, "app.internal"},
		{"hashing.yaml: hash", loaded["hashing.yaml"].Pools[0].Balance.HashOn, HashSource{From: "query", Name: "room"}},
		{"socketio.yaml: cookie", loaded["socketio.yaml"].Routes[0].Sticky.Cookie.SecretFile, filepath.Join(dir, "sticky.key")},
		{"hashing.yaml: alias", len(loaded["hashing.yaml"].Pools[2].Backends), 3},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %v, want %v", tc.what, tc.got, tc.want)
		}
	}
}

// TestShippedWithEnvironment shows that certificates may lie elsewhere.
func TestShippedWithEnvironment(t *testing.T) {
	elsewhere := t.TempDir()
	writeShippedFiles(t, elsewhere)
	t.Setenv("TIDEGATE_CERT", filepath.Join(elsewhere, "example.com.crt"))
	t.Setenv("TIDEGATE_KEY", filepath.Join(elsewhere, "example.com.key"))
	t.Setenv("TIDEGATE_TLS", elsewhere)
	for _, name := range []string{"consul.yaml", "tls.yaml"} {
		file, err := Load(filepath.Join(shipped, name))
		if err != nil {
			t.Errorf("configs/%s:\n%v", name, err)
			continue
		}
		if got, want := file.Listeners[0].TLS.Certificates[0].Cert, filepath.Join(elsewhere, "example.com.crt"); got != want {
			t.Errorf("configs/%s: certificate %s, want %s", name, got, want)
		}
	}
}
