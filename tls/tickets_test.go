package tls

import (
	"crypto/sha256"
	cryptotls "crypto/tls"
	"strings"
	"testing"
)

func resuming(version uint16) *cryptotls.Config {
	return &cryptotls.Config{ServerName: "a.test", InsecureSkipVerify: true, MinVersion: version, MaxVersion: version,
		ClientSessionCache: cryptotls.NewLRUClientSessionCache(8)}
}

// resumes visits and checks whether the session was resumed.
func (s *server) resumes(t *testing.T, client *cryptotls.Config, want bool, when string) {
	t.Helper()
	c, srv := s.visit(t, client)
	if c.DidResume != want || srv.DidResume != want {
		t.Errorf("%s: resumed: %v (client), %v (server), want %v", when, c.DidResume, srv.DidResume, want)
	}
}

func TestResumption(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	shared := []string{dir.write(t, "shared.bin", []byte(strings.Repeat("0123456789", 8)))}
	for version, number := range versions {
		for name, keys := range map[string][]string{"own keys": nil, "key files": shared} {
			t.Run(version+"/"+name, func(t *testing.T) {
				store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))}, TicketKeyFiles: keys})
				server, client := serve(t, store.ServerConfig()), resuming(number)
				server.resumes(t, client, false, "at first")
				server.resumes(t, client, true, "again")
				server.resumes(t, client, true, "once more")
				dir.pair(t, "a", ca.names(t, "a.test"))
				reload(t, store, true)
				server.resumes(t, client, true, "after a reload of the certificate")

				// The layer that will take over record protection gives each
				// connection a Config of its own.
				perConnection := &cryptotls.Config{GetConfigForClient: func(*cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
					return store.ServerConfig().Clone(), nil
				}}
				serve(t, perConnection).resumes(t, client, true, "with a clone for each connection")
			})
		}
	}
}

func TestResumptionAcrossStores(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	key := func(name string) string {
		return dir.write(t, name, []byte(name+strings.Repeat(" is a ticket key of the tests", 2)))
	}
	edge := func(keys ...string) *server {
		// Each edge has a certificate of its own.
		pair := dir.pair(t, "edge", ca.names(t, "a.test"))
		return serve(t, mustStore(t, ServerSettings{Certificates: []KeyPairFiles{pair}, TicketKeyFiles: keys}).ServerConfig())
	}
	one, sameKeys, rotated, foreign, automatic := edge(key("k1"), key("k2")), edge(key("k1"), key("k2")), edge(key("k0"), key("k1")), edge(key("k3")), edge()
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			client := resuming(number)
			one.resumes(t, client, false, "at first")
			sameKeys.resumes(t, client, true, "at an edge with the same keys")
			rotated.resumes(t, client, true, "at an edge that is one rotation ahead") // and leaves a ticket by k0
			one.resumes(t, client, false, "at an edge that is behind")
			foreign.resumes(t, client, false, "at an edge with other keys")
			automatic.resumes(t, client, false, "at an edge without key files")
		})
	}
}

func TestTicketKeyRotation(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	content := func(name string) []byte { return []byte(name + strings.Repeat(" is a ticket key of the tests", 2)) }
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			store := mustStore(t, ServerSettings{
				Certificates:   []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))},
				TicketKeyFiles: []string{dir.write(t, "now", content("first")), dir.write(t, "before", content("zeroth"))},
			})
			server, client, late := serve(t, store.ServerConfig()), resuming(number), resuming(number)
			server.resumes(t, client, false, "at first")
			server.resumes(t, late, false, "at first")

			dir.write(t, "before", content("first"))
			dir.write(t, "now", content("second"))
			reload(t, store, true)
			server.resumes(t, client, true, "after one rotation") // with a new ticket from now on

			dir.write(t, "before", []byte("broken"))
			dir.write(t, "now", content("third"))
			reload(t, store, true, "before", "ticket key")
			server.resumes(t, client, false, "two files, the second key in neither")
			server.resumes(t, late, true, "the broken file keeps the first key")

			dir.write(t, "before", content("second"))
			reload(t, store, true)
			server.resumes(t, client, true, "by the third key")
		})
	}
}

func TestParseTicketKey(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		says string
	}{
		"32 bytes":        {strings.Repeat("ab", 16), ""},
		"nginx, 48 bytes": {strings.Repeat("abc", 16), ""},
		"nginx, 80 bytes": {strings.Repeat("abcde", 16), ""},
		"HAProxy, base64": {"U2l4dHkgZm91ciBieXRlcyBvZiBrZXk=\nU2l4dHkgZm91ciBieXRlcyBvZiBrZXk=\n", ""},
		"empty":           {"", "0 bytes are too few"},
		"31 bytes":        {strings.Repeat("a", 30) + "b", "31 bytes are too few"},
		"zeros":           {strings.Repeat("\x00", 48), "all bytes of the ticket key are 0x00"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := parseTicketKey("k.bin", []byte(c.data))
			switch {
			case c.says == "" && (err != nil || key != sha256.Sum256([]byte(c.data))):
				t.Errorf("got %x, %v", key, err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), "k.bin: "+c.says) || !strings.Contains(err.Error(), "openssl rand")):
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}
