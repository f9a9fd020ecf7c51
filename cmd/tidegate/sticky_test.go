package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/proxy"
)

func TestStickySettings(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	key := filepath.Join(dir, "s.key")
	if err := os.WriteFile(key, []byte(secret+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := config.Parse(filepath.Join(dir, "tidegate.yaml"), []byte(`
listeners: [{name: edge, address: ":0"}]
routes:
  - {name: off, pool: apps, match: {path: /1}}
  - {name: cookie, pool: apps, match: {path: /2}, sticky: {cookie: {secret_file: s.key}}}
  - {name: other, pool: apps, match: {path: /3}, sticky: {cookie: {name: o, max_age: 0, secure: false, same_site: strict, secret_file: s.key}, strict: true}}
  - {name: header, pool: apps, match: {path: /4}, sticky: {header: x-session}}
  - {name: hash, pool: apps, match: {path: /5}, sticky: {hash: "query:room", strict: true}}
  - {name: ip, pool: apps, match: {path: /6}, sticky: {hash: ip}}
pools: [{name: apps, backends: [{address: "h:1"}]}]
`), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := settingsOf(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []*proxy.StickySettings{
		nil,
		{Cookie: &proxy.StickyCookie{Name: "tg", MaxAge: 24 * time.Hour, Secure: true, SameSite: http.SameSiteLaxMode, Secret: []byte(secret)}},
		{Cookie: &proxy.StickyCookie{Name: "o", SameSite: http.SameSiteStrictMode, Secret: []byte(secret)}, Strict: true},
		{On: proxy.HashOn{Source: proxy.HashHeader, Name: "X-Session"}},
		{On: proxy.HashOn{Source: proxy.HashQuery, Name: "room"}, Strict: true},
		{On: proxy.HashOn{Source: proxy.HashIP}},
	}
	for i, r := range settings.Routes {
		if diff := cmp.Diff(want[i], r.Sticky); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.Name, diff)
		}
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, err := settingsOf(file, nil); err == nil || !strings.HasPrefix(err.Error(), "route cookie: sticky: reading the secret: ") {
		t.Errorf("the secret has gone: %v", err)
	}
}
