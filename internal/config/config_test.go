package config

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the messages that testdata/*.bad.yml now gets into its .want files")

// sampleEnv is what the environment of testdata holds.
var sampleEnv = map[string]string{
	"HOST": "chat.example.com", "SIZE": "64KiB", "ONE": "1", "YES": "true", "EMPTY": "",
	"INJECT": "a, pool: b\n- name: c", "NESTED": "${HOST}",
}

// TestBadFiles compares all messages about each testdata/*.bad.yml with its .want file.
func TestBadFiles(t *testing.T) {
	s := newSamples(t)
	for _, name := range testdataNames(t, "*.bad.yml") {
		t.Run(name, func(t *testing.T) {
			file, err := s.parse(name, readTestdata(t, name), sampleEnv)
			if err == nil {
				t.Fatal("accepted")
			}
			if file != nil {
				t.Error("a file comes with the error")
			}
			got := s.messages(t, err)
			wantName := strings.TrimSuffix(name, ".yml") + ".want"
			if *update {
				if err := os.WriteFile(filepath.Join("testdata", wantName), []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(readTestdata(t, wantName), got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGoodFiles loads each testdata/*.good.yml.
func TestGoodFiles(t *testing.T) {
	s := newSamples(t)
	for _, name := range testdataNames(t, "*.good.yml") {
		t.Run(name, func(t *testing.T) {
			if _, err := s.parse(name, readTestdata(t, name), sampleEnv); err != nil {
				t.Error(err)
			}
		})
	}
}

const minimal = `
listeners: [{name: edge, address: ":8080"}]
routes: [{name: chat, pool: chat}]
pools: [{name: chat, backends: [{address: "10.0.0.5:9001"}]}]
`

func TestLoad(t *testing.T) {
	s := newSamples(t)
	path := s.write(t, "tidegate.yaml", []byte(minimal))
	file, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if file.Name != path {
		t.Errorf("name %q, want %q", file.Name, path)
	}
	if file.Digest != sha256.Sum256([]byte(minimal)) {
		t.Error("the digest is not that of the content")
	}

	_, err = Load(filepath.Join(s.dir, "absent.yaml"))
	if _, isDiagnostics := errors.AsType[Diagnostics](err); !errors.Is(err, fs.ErrNotExist) || isDiagnostics {
		t.Errorf("absent file: %v, want an error of the file system", err)
	}
	if _, err = Load(s.dir); err == nil {
		t.Error("a directory was loaded")
	}

	bad := s.write(t, "bad.yaml", []byte("log: {}\n"))
	if _, err = Load(bad); !errors.As(err, new(Diagnostics)) {
		t.Errorf("bad file: %v, want Diagnostics", err)
	}
}

// TestRelativeFiles shows that the working directory does not matter.
func TestRelativeFiles(t *testing.T) {
	s := newSamples(t)
	t.Chdir(t.TempDir())
	_, err := s.parse("sub/tidegate.yaml", strings.Replace(contract, `token_file: ""`, `token_file: ../token`, 1), nil)
	if err == nil {
		t.Fatal("certificates of the parent directory were found")
	}
	if got := s.messages(t, err); strings.Contains(got, "token") || !strings.Contains(got, "cannot read sub/edge.crt: no such file") {
		t.Error(got)
	}
	file, err := s.parse("tidegate.yaml", contract, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := file.Listeners[0].TLS.TicketKeys.Files[1], filepath.Join(s.dir, "k2.bin"); got != want {
		t.Errorf("resolved to %s, want %s", got, want)
	}
}

// TestLineEndings shows that files of Windows editors work.
func TestLineEndings(t *testing.T) {
	for _, text := range []string{
		strings.ReplaceAll(minimal, "\n", "\r\n"),
		"\ufeff" + minimal,
		"---" + minimal + "...\n# the end\n",
	} {
		if _, err := Parse("x.yaml", []byte(text), nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := Parse("x.yaml", []byte("\ufefflog: {}\r\nlgo: {}\r\n"), nil)
	if err == nil || !strings.Contains(err.Error(), `x.yaml:2:1: unknown key "lgo"`) {
		t.Error(err)
	}
}

func TestTooLarge(t *testing.T) {
	s := newSamples(t)
	_, err := s.parse("x.yaml", minimal+strings.Repeat("#", maxFileBytes), nil)
	if got, want := s.messages(t, err), "x.yaml:1:1: the file is larger than 8 MiB\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoEnvironment(t *testing.T) {
	text := strings.Replace(minimal, "name: chat, pool", "name: '${NAME:-chat}', pool", 1)
	if _, err := Parse("x.yaml", []byte(text), nil); err != nil {
		t.Error(err)
	}
}

func TestReferencedFileTooLarge(t *testing.T) {
	s := newSamples(t)
	s.write(t, "huge", make([]byte, maxReferencedBytes+1))
	_, err := s.parse("x.yaml", "admin: {token_file: huge}"+minimal, nil)
	want := "x.yaml:1:21: admin.token_file: cannot read huge: larger than 4 MiB\n"
	if got := s.messages(t, err); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestEndlessFile shows that a device is refused and not read.
func TestEndlessFile(t *testing.T) {
	s := newSamples(t)
	_, err := s.parse("x.yaml", "admin: {token_file: /dev/zero}"+minimal, nil)
	want := "x.yaml:1:21: admin.token_file: cannot read /dev/zero: not a regular file\n"
	if got := s.messages(t, err); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConsulAddress(t *testing.T) {
	s := newSamples(t)
	for _, tc := range []struct{ yaml, env, want string }{
		{"", "", "http://127.0.0.1:8500"},
		{"", "agent:8500", "http://agent:8500"},
		{"", "https://agent:8501", "https://agent:8501"},
		{"address: agent:8500", "other:1", "http://agent:8500"},
		{"address: 'http://agent/prefix/'", "", "http://agent/prefix"},
		{"address: 'unix:///run/consul.sock'", "", "unix:///run/consul.sock"},
		{"address: 'agent:8501', tls: {ca: edge.crt}", "", "https://agent:8501"},
		{"tls: {ca: edge.crt}", "agent:8501", "https://agent:8501"},
		{"address: 'https://[::1]:8501', tls: {ca: edge.crt}", "", "https://[::1]:8501"},
	} {
		text := strings.Replace(minimal, "name: chat, backends", "name: chat, consul: {service: chat, "+tc.yaml+"}, backends", 1)
		file, err := s.parse("x.yaml", text, map[string]string{"CONSUL_HTTP_ADDR": tc.env})
		if err != nil {
			t.Errorf("%q with %q: %v", tc.yaml, tc.env, err)
			continue
		}
		if got := file.Pools[0].Consul.Address; got != tc.want {
			t.Errorf("%q with %q: %q, want %q", tc.yaml, tc.env, got, tc.want)
		}
	}

	text := strings.Replace(minimal, "name: chat, backends", "name: chat, consul: {service: chat}, backends", 1)
	_, err := s.parse("x.yaml", text, map[string]string{"CONSUL_HTTP_ADDR": "agent"})
	want := "x.yaml:4:30: pools[0].consul.address: CONSUL_HTTP_ADDR: \"agent\" has no port: write agent:PORT\n"
	if got := s.messages(t, err); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNormalForms shows values that are kept in another form than they were written.
func TestNormalForms(t *testing.T) {
	text := `
listeners: [{name: edge, address: ":8080", trusted_proxies: ["::ffff:10.0.0.1", "fd00::/8"]}]
routes:
  - name: chat
    pool: chat
    match: {hosts: [Chat.Example.COM, "*.Example.org", "[2001:DB8::1]", 10.0.0.1], headers: {x-tier: Gold}}
    headers: {set: {x-edge: "a b"}, remove: [x-secret]}
    origins: ["HTTPS://Chat.example.com:443", "http://localhost:3000", "null", "app://local"]
pools:
  - name: chat
    backends: [{address: "h:1"}]
    balance: {policy: consistent_hash, hash_on: "header:x-user"}
`
	file, err := Parse("x.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	route := file.Routes[0]
	for _, tc := range []struct{ got, want any }{
		{fmt.Sprint(file.Listeners[0].TrustedProxies), "[10.0.0.1/32 fd00::/8]"},
		{route.Match.Hosts, []string{"chat.example.com", "*.example.org", "2001:db8::1", "10.0.0.1"}},
		{route.Match.Headers, map[string]string{"X-Tier": "Gold"}},
		{route.Headers, HeaderEdits{Set: map[string]string{"X-Edge": "a b"}, Remove: []string{"X-Secret"}}},
		{route.Origins, []string{"https://chat.example.com", "http://localhost:3000", "null", "app://local"}},
		{file.Pools[0].Balance.HashOn, HashSource{From: "header", Name: "X-User"}},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}
