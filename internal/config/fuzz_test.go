package config

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse shows for any text that Parse returns, and either a file that keeps its
// promises or diagnostics that can be printed one a line, each with a position.
func FuzzParse(f *testing.F) {
	s := newSamples(f)
	for _, name := range testdataNames(f, "*.yml") {
		f.Add([]byte(readTestdata(f, name)))
	}
	f.Add([]byte(minimal))
	f.Add([]byte(contract))
	f.Add([]byte("%YAML 1.2\n--- !!map\n? |-\n  log\n: >+\n  folded\n\n...\n"))
	f.Add([]byte("\ufeff{listeners: [&a {}, *a], ? {} : *a, <<: [*a]}"))
	f.Add([]byte("# c\n\n- # c\n  # c\n\n  a\n#c\n"))

	env := func(name string) (string, bool) { v, ok := sampleEnv[name]; return v, ok }
	// Only the samples can be read, whatever a fuzzed name points to.
	read := func(path string) ([]byte, error) {
		if filepath.Dir(path) != s.dir {
			return nil, fs.ErrNotExist
		}
		return readRegular(path)
	}
	name := filepath.Join(s.dir, "x.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parse(name, data, env, read)
		if err != nil {
			if file != nil {
				t.Error("a file comes with the error")
			}
			checkDiagnostics(t, err.(Diagnostics), name, data)
			return
		}
		checkFile(t, file)
		again, err := parse(name, data, env, read)
		if err != nil {
			t.Fatalf("accepted once: %v", err)
		}
		if diff := cmp.Diff(file, again, ignoreIdentity); diff != "" {
			t.Errorf("not the same twice:\n%s", diff)
		}
	})
}

func checkDiagnostics(t *testing.T, diags Diagnostics, name string, data []byte) {
	t.Helper()
	if len(diags) == 0 {
		t.Fatal("an error without diagnostics")
	}
	// NEL and the Unicode separators are line breaks to YAML 1.1 parsers.
	lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") +
		strings.Count(string(data), "\u0085") + strings.Count(string(data), "\u2028") + strings.Count(string(data), "\u2029") + 2
	for _, d := range diags {
		if d.File != name || d.Line < 1 || d.Col < 1 || d.Line > lines || d.Message == "" {
			t.Errorf("diagnostic %#v of a file with at most %d lines", d, lines)
		}
		if strings.ContainsFunc(d.String(), unicode.IsControl) {
			t.Errorf("control characters in %q", d.String())
		}
	}
	if !slices.IsSortedFunc(diags, func(a, b Diagnostic) int {
		return mark{a.Line, a.Col}.compare(mark{b.Line, b.Col})
	}) {
		t.Errorf("not sorted:\n%v", diags)
	}
}

// checkFile checks what the types promise of a valid file.
func checkFile(t *testing.T, file *File) {
	t.Helper()
	if len(file.Listeners) == 0 || len(file.Routes) == 0 || len(file.Pools) == 0 {
		t.Errorf("without listeners, routes or pools: %+v", file)
	}
	pools := map[string]bool{}
	for _, p := range file.Pools {
		if p.Name == "" || pools[p.Name] || len(p.Backends) == 0 && p.Consul == nil {
			t.Errorf("pool %+v", p)
		}
		pools[p.Name] = true
		ids := map[string]bool{}
		for _, b := range p.Backends {
			if b.ID == "" || ids[b.ID] || checkDialAddress(b.Address) != nil {
				t.Errorf("backend %+v", b)
			}
			ids[b.ID] = true
		}
		if p.Consul != nil && !strings.Contains(p.Consul.Address, "://") {
			t.Errorf("consul %+v", *p.Consul)
		}
	}
	for _, r := range file.Routes {
		if r.Name == "" || !pools[r.Pool] || !strings.HasPrefix(r.Match.Path, "/") {
			t.Errorf("route %+v", r)
		}
	}
}
