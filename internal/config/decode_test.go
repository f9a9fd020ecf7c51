package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

// TestContractHasEveryKey shows that the sample of TestContract has every key of the
// schema, so that none is accepted untested. Of a list any element has it: some contradict
// each other.
func TestContractHasEveryKey(t *testing.T) {
	r := newReport("x.yaml")
	root := parseYAML(r, []byte(contract))
	d := &decoder{report: r}
	d.decode(value{node: root, at: markOf(root)}, reflect.ValueOf(new(File)).Elem(), field{})
	if len(r.diags) > 0 {
		t.Fatal(r.diags)
	}
	var walk func(typ reflect.Type, paths []string)
	walk = func(typ reflect.Type, paths []string) {
		for _, f := range schemaOf(typ) {
			inner := typ.FieldByIndex(f.index).Type
			var below []string
			for _, path := range paths {
				if at := join(path, f.key); r.given(at) {
					below = append(below, at)
				}
			}
			if len(below) == 0 {
				t.Errorf("%s is missing", join(paths[0], f.key))
				continue
			}
			if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct && !isScalar(inner.Elem()) {
				lists := below
				below, inner = nil, inner.Elem()
				for _, list := range lists {
					below = append(below, element(list, 0), element(list, 1), element(list, 2))
				}
			}
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && !isScalar(inner) {
				walk(inner, below)
			}
		}
	}
	walk(reflect.TypeFor[File](), []string{""})
}

// TestLaterKeys shows that the sample of the contract gets no message but that
// something is not available, and gets it for every key that is planned.
func TestLaterKeys(t *testing.T) {
	s := newSamples(t)
	_, err := s.parse("contract.bad.yml", readTestdata(t, "contract.bad.yml"), nil)
	all := s.messages(t, err)
	for line := range strings.Lines(all) {
		if !strings.Contains(line, "is not available in this version") {
			t.Errorf("message %q", line)
		}
	}
	for typ, keys := range laterKeys {
		for _, key := range keys {
			if !strings.Contains(all, fmt.Sprintf("key %q is not available", key)) {
				t.Errorf("%s: no message about %s", typ, key)
			}
			for _, f := range schemaOf(typ) {
				if f.key == key {
					t.Errorf("%s: %s is in the schema and in later.go", typ, key)
				}
			}
		}
	}
}

// TestSchemaTags checks the struct tags themselves: ranges parse and field types are
// ones that decode knows.
func TestSchemaTags(t *testing.T) {
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		for _, f := range schemaOf(typ) {
			inner := typ.FieldByIndex(f.index).Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && !isScalar(inner) {
				walk(inner)
				continue
			}
			if f.scalar.limit != "" {
				// Panics if the range is not written like a value.
				_, _ = f.scalar.convert("1", inner)
				_, _ = f.scalar.convert("1s", inner)
			}
			for _, choice := range f.scalar.oneof {
				if got, err := f.scalar.convert(choice, inner); err != nil || got != choice {
					t.Errorf("%s.%s: choice %s: %v, %v", typ, f.key, choice, got, err)
				}
			}
		}
	}
	walk(reflect.TypeFor[File]())
}

// TestMessagesAreForPeople guards against text of Go or of the library in messages.
func TestMessagesAreForPeople(t *testing.T) {
	s := newSamples(t)
	for _, name := range testdataNames(t, "*.bad.yml") {
		_, err := s.parse(name, readTestdata(t, name), sampleEnv)
		for _, d := range err.(Diagnostics) {
			for _, word := range []string{"yaml:", "go-yaml", "strconv", "config.", "reflect", "%!", "<nil>"} {
				if strings.Contains(d.Message, word) {
					t.Errorf("%s: message contains %q", d, word)
				}
			}
			if strings.ContainsFunc(d.String(), unicode.IsControl) {
				t.Errorf("%q contains control characters", d.String())
			}
		}
	}
}

// TestAliasesAreBounded describes a huge configuration in a short file.
func TestAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("listeners: [{name: edge, address: ':8080'}]\npools:\n")
	b.WriteString("- &pool\n  name: p\n  backends: &many\n")
	for range 500 {
		b.WriteString("  - {address: 'h:1', weight: 1}\n")
	}
	for range 500 {
		b.WriteString("- *pool\n")
	}
	b.WriteString("routes: [{name: chat, pool: p}]\n")
	_, err := Parse("x.yaml", []byte(b.String()), nil)
	if err == nil {
		t.Fatal("accepted")
	}
	if got := strings.Count(err.Error(), "values come from aliases"); got != 1 {
		t.Errorf("%d messages about the limit, want 1", got)
	}
}

func TestCyclicAlias(t *testing.T) {
	for _, text := range []string{
		"listeners: &l [*l]\n",
		"&root\nlisteners: *root\n",
		"&root\nlog: *root\n",
		"routes: [&r {name: a, pool: b, match: *r, headers: {set: *r}}]\n",
	} {
		if _, err := Parse("x.yaml", []byte(text), nil); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// TestAliasPositions shows that what is wrong with a value that comes through an alias
// is reported where it is used, not where it was first written.
func TestAliasPositions(t *testing.T) {
	text := `
listeners: [{name: edge, address: ":8080"}]
pools:
  - {name: &word chat, backends: [{address: "h:1"}]}
routes:
  - {name: a, pool: *word, websocket: &ws {max_frame_size: 1MiB}}
  - name: b
    pool: *word
    match: {path: /b, protocol: *word}
    websocket: *ws
`
	_, err := Parse("x.yaml", []byte(text), nil)
	want := `x.yaml:9:33: routes[1].match.protocol: unknown protocol "chat" (one of any, websocket, http)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
