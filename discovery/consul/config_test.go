package consul

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// withoutEnvironment hides what the machine of the test says about Consul.
func withoutEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{api.HTTPAddrEnvName, api.HTTPTokenEnvName, api.HTTPTokenFileEnvName, api.HTTPSSLEnvName} {
		t.Setenv(name, "")
	}
}

func TestNewReportsWhatIsWrong(t *testing.T) {
	withoutEnvironment(t)
	empty := filepath.Join(t.TempDir(), "empty")
	write(t, empty, " \n")
	lines := filepath.Join(t.TempDir(), "lines")
	write(t, lines, "one\ntwo\n")
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"no service", func(c *Config) { c.Service = "" }, []string{"service: no name"}},
		{"service with a slash", func(c *Config) { c.Service = "a/../b" }, []string{"service:"}},
		{"service of dots", func(c *Config) { c.Service = ".." }, []string{"service:"}},
		{"datacenter twice", func(c *Config) { c.Datacenters = []string{"a", "b", "a"} }, []string{"datacenters[2]"}},
		{"datacenter without a name", func(c *Config) { c.Datacenters = []string{""} }, []string{"datacenters[0]"}},
		{"consistency", func(c *Config) { c.Consistency = "eventual" }, []string{"consistency:"}},
		{"half a certificate", func(c *Config) { c.Address, c.TLS.Cert = "https://x", "c.pem" }, []string{"tls:"}},
		{"short wait", func(c *Config) { c.Wait = time.Millisecond }, []string{"wait:"}},
		{"long wait", func(c *Config) { c.Wait = time.Hour }, []string{"wait:"}},
		{"debounce", func(c *Config) { c.Debounce = -1 }, []string{"debounce:"}},
		{"max_loss", func(c *Config) { c.EmptyProtection.MaxLoss = 1.5 }, []string{"empty_protection.max_loss:"}},
		{"hold", func(c *Config) { c.EmptyProtection.Hold = -1 }, []string{"empty_protection.hold:"}},
		{"directory of the snapshot", func(c *Config) { c.SnapshotFile = "/nowhere/at/all.json" }, []string{"snapshot_file:"}},
		{"file as directory of the snapshot", func(c *Config) { c.SnapshotFile = empty + "/x" }, []string{"snapshot_file:"}},
		{"token file missing", func(c *Config) { c.TokenFile = "/nowhere" }, []string{"token_file:"}},
		{"token file empty", func(c *Config) { c.TokenFile = empty }, []string{"token_file:", "empty"}},
		{"token file with lines", func(c *Config) { c.TokenFile = lines }, []string{"token_file:", "line"}},
		{"ca missing", func(c *Config) { c.Address, c.TLS.CA = "https://x", "/nowhere" }, []string{"tls.ca:"}},
		{"ca without a certificate", func(c *Config) { c.Address, c.TLS.CA = "https://x", empty }, []string{"tls.ca:"}},
		{"certificate missing", func(c *Config) { c.Address, c.TLS.Cert, c.TLS.Key = "https://x", "/no", "/no" }, []string{"tls.cert:"}},
		{"tls over http", func(c *Config) { c.Address, c.TLS.CA = "http://x", empty }, []string{"address:"}},
		{"scheme", func(c *Config) { c.Address = "ftp://x" }, []string{"address:", "ftp"}},
		{"several at once", func(c *Config) { c.Service, c.Wait = "", -1 }, []string{"service:", "wait:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Service: "web"}
			tt.change(&c)
			_, err := New(c)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	if _, err := New(Config{Service: "web"}); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestParseAddress(t *testing.T) {
	ca := TLS{CA: "ca.pem"}
	for _, tt := range []struct {
		name, address, env, ssl string
		tls                     TLS
		want                    endpoint
		err                     string
	}{
		{name: "nothing", want: endpoint{scheme: "http", host: "127.0.0.1:8500"}},
		{name: "environment", env: "10.0.0.1:8500", want: endpoint{scheme: "http", host: "10.0.0.1:8500"}},
		{name: "environment with a scheme", env: "https://c:8501", want: endpoint{scheme: "https", host: "c:8501"}},
		{name: "environment with ssl", env: "c:8501", ssl: "true", want: endpoint{scheme: "https", host: "c:8501"}},
		{name: "the setting wins", address: "http://a:1", env: "http://b:2", ssl: "true", want: endpoint{scheme: "http", host: "a:1"}},
		{name: "tls says https", address: "a:1", tls: ca, want: endpoint{scheme: "https", host: "a:1"}},
		{name: "https", address: "https://a:1", tls: ca, want: endpoint{scheme: "https", host: "a:1"}},
		{name: "IPv6", address: "http://[::1]:8500", want: endpoint{scheme: "http", host: "[::1]:8500"}},
		{name: "prefix", address: "https://gw/consul/", want: endpoint{scheme: "https", host: "gw", prefix: "/consul"}},
		{name: "credentials", address: "https://u:p@gw", want: endpoint{scheme: "https", host: "gw", auth: &api.HttpBasicAuth{Username: "u", Password: "p"}}},
		{name: "unix", address: "unix:///run/consul.sock", want: endpoint{scheme: "http", host: "consul.sock", socket: "/run/consul.sock"}},
		{name: "unix without a path", address: "unix://", err: "path"},
		{name: "unix with tls", address: "unix:///x", tls: ca, err: "tls"},
		{name: "no host", address: "http://", err: "want http"},
		{name: "query", address: "http://a?dc=b", err: "want http"},
		{name: "no URL", address: "http://a:b:c", err: "address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withoutEnvironment(t)
			t.Setenv(api.HTTPAddrEnvName, tt.env)
			t.Setenv(api.HTTPSSLEnvName, tt.ssl)
			got, err := parseAddress(tt.address, tt.tls)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one about %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got.auth == nil) != (tt.want.auth == nil) || got.auth != nil && *got.auth != *tt.want.auth {
				t.Errorf("credentials %v, want %v", got.auth, tt.want.auth)
			}
			got.auth, tt.want.auth = nil, nil
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestErrorOfAnAddressHidesThePassword(t *testing.T) {
	_, err := New(Config{Service: "web", Address: "http://user:s3cret@host:port"})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error %v", err)
	}
}

func TestConfigIsCopied(t *testing.T) {
	tags := []string{"a"}
	s, err := New(Config{Service: "web", Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	tags[0] = "b"
	if s.config.Tags[0] != "a" {
		t.Error("the caller's slice is used")
	}
}

func TestTokenComesFromTheEnvironmentsFile(t *testing.T) {
	withoutEnvironment(t)
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "from the file\n")
	t.Setenv(api.HTTPTokenFileEnvName, file)
	t.Setenv(api.HTTPTokenEnvName, "from the environment")
	s, err := New(Config{Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if value, _ := s.token.get(); value != "from the file" {
		t.Errorf("token %q", value)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
