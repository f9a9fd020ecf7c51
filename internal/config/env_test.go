package config

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	env := func(name string) (string, bool) {
		value, ok := map[string]string{"A": "1", "B_2": "two", "EMPTY": "", "REF": "${A}", "_x": "y"}[name]
		return value, ok
	}
	for _, tc := range []struct {
		text, want string
		expanded   bool
		err        string
	}{
		{text: "", want: ""},
		{text: "plain $5 $A $$ {A}", want: "plain $5 $A $$ {A}"},
		{text: "${A}", want: "1", expanded: true},
		{text: "<${A}${B_2}>${_x}", want: "<1two>y", expanded: true},
		{text: "${EMPTY}", want: "", expanded: true},
		{text: "${EMPTY:-x}", want: "x", expanded: true},
		{text: "${NONE:-x y:-z}", want: "x y:-z", expanded: true},
		{text: "${NONE:-}", want: "", expanded: true},
		{text: "${A:-x}", want: "1", expanded: true},
		{text: "${REF}", want: "${A}", expanded: true},
		{text: "${NONE:-$}A}", want: "$A}", expanded: true},
		{text: "$${A}", want: "${A}"},
		{text: "$${A}${A}", want: "${A}1", expanded: true},
		{text: "$$${A}", want: "$${A}"},
		{text: "$${", want: "${"},
		{text: "${NONE}", err: "environment variable NONE is not set"},
		{text: "${A", err: `"${A" has no closing brace`},
		{text: "${}", err: "is no reference"},
		{text: "${1A}", err: "is no reference"},
		{text: "${A-x}", err: "is no reference"},
		{text: "${A:x}", err: "is no reference"},
		{text: "${ A }", err: "is no reference"},
		{text: "${É}", err: "is no reference"},
		{text: "${A${A}}", err: "is no reference"},
	} {
		got, expanded, err := expand(tc.text, env)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q: %q, %v; want error %q", tc.text, got, err, tc.err)
			}
			continue
		}
		if err != nil || got != tc.want || expanded != tc.expanded {
			t.Errorf("%q: %q, %v, %v; want %q, %v", tc.text, got, expanded, err, tc.want, tc.expanded)
		}
	}
}

// TestEnvironmentValues shows that an expanded value is converted by the type of its
// field, with quotes or without, and that it cannot add structure.
func TestEnvironmentValues(t *testing.T) {
	text := `
listeners: [{name: edge, address: "${HOST}:${PORT:-8080}", limits: {max_sessions: "${COUNT}"}}]
routes: [{name: chat, pool: chat, headers: {set: {X-Note: "${NOTE}", "X-Fold": "$${NOTE}"}}}]
pools:
  - name: chat
    backends: [{address: "h:1", weight: '${COUNT}'}]
    consul:
      service: ${NOTE}
      passing_only: ${NO}
    upstream: {connect_timeout: "${WAIT}"}
`
	env := map[string]string{"HOST": "127.0.0.1", "COUNT": "7", "NO": "false", "WAIT": "250ms", "NOTE": "a: [b, {c: d}] # ${COUNT}"}
	file, err := samples{dir: t.TempDir()}.parse("x.yaml", text, env)
	if err != nil {
		t.Fatal(err)
	}
	l, p := file.Listeners[0], file.Pools[0]
	for _, tc := range []struct{ got, want any }{
		{l.Address, "127.0.0.1:8080"},
		{l.Limits.MaxSessions, 7},
		{p.Backends[0].Weight, 7},
		{p.Consul.PassingOnly, false},
		{p.Consul.Service, env["NOTE"]},
		{p.Upstream.ConnectTimeout.String(), "250ms"},
		{file.Routes[0].Headers.Set["X-Note"], env["NOTE"]},
		{file.Routes[0].Headers.Set["X-Fold"], "${NOTE}"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %v, want %v", tc.got, tc.want)
		}
	}
}
