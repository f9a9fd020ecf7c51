package docs_test

import (
	cryptotls "crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/tls"
)

// full has every block that is off unless present, and required keys only.
const full = `
listeners:
  - {name: n, address: ":1", tls: {certificates: [{cert: edge.crt, key: edge.key}], client_auth: {ca: clients.crt}, ticket_keys: {files: [ticket.key]}}, proxy_protocol: {trusted: [10.0.0.1]}}
routes:
  - {name: n, pool: n, sticky: {cookie: {secret_file: sticky.key}}}
pools:
  - {name: n, backends: [{address: "a:1"}], consul: {service: s}, upstream: {tls: {}}, health: {active: {}}, migrate: {secret_file: migrate.key}, rebalance: {}}
`

// key is one key of the schema.
type key struct {
	required bool
	value    string // the default as the documentation writes it; empty: none
	block    bool   // a mapping, or a list of mappings
}

// schema walks the struct tags of config.File, with the values of a file in which only
// what is required was given.
func schema(t *testing.T) map[string]key {
	t.Helper()
	file, err := config.Parse(filepath.Join(fixtures(t), "tidegate.yaml"), []byte(full), nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]key{}
	walk(keys, "", reflect.ValueOf(*file))
	return keys
}

func walk(keys map[string]key, path string, v reflect.Value) {
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name, ok := tag.Lookup("key")
		if !ok {
			continue
		}
		at, inner := path+name, reflect.Indirect(v.Field(i))
		k := key{required: tag.Get("required") == "true"}
		if inner.Kind() == reflect.Slice && inner.Type().Elem().Kind() == reflect.Struct && !isAddress(inner.Type().Elem()) {
			at, inner = at+"[]", inner.Index(0)
		}
		if inner.Kind() == reflect.Struct && inner.Type() != reflect.TypeFor[config.HashSource]() && inner.Type() != reflect.TypeFor[config.MemorySize]() {
			k.block = true
			walk(keys, at+".", inner)
		} else {
			k.value = show(tag.Get("as"), inner)
		}
		keys[at] = k
	}
}

// isAddress reports whether values of t are an address or a network: a scalar.
func isAddress(t reflect.Type) bool {
	return t == reflect.TypeFor[netip.Prefix]() || t == reflect.TypeFor[netip.Addr]()
}

// show writes a value as configuration.md does.
func show(as string, v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		s := x.String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		return s
	case config.MemorySize:
		return fmt.Sprintf("%v%%", x.Share*100)
	case config.HashSource:
		return x.From
	case uint16:
		return strings.TrimPrefix(cryptotls.VersionName(x), "TLS ")
	case float64:
		switch {
		case as == "percent":
			return fmt.Sprintf("%v%%", x*100)
		case as == "rate" && x != 0:
			return fmt.Sprintf("%v/s", x)
		}
	case int64:
		for i, unit := range []string{"GiB", "MiB", "KiB"} {
			if size := int64(1) << (30 - 10*i); x >= size && x%size == 0 {
				return strconv.FormatInt(x/size, 10) + unit
			}
		}
	case []string:
		return strings.Join(x, ", ")
	}
	if (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
		return ""
	}
	return fmt.Sprint(v.Interface())
}

// otherDefaults are defaults that the values of full do not show.
var otherDefaults = map[string]string{
	"pools[].backends[].id":      "the address",
	"pools[].health.active.path": "`/healthz`", // looks like a file that was given
}

// TestConfigurationTable holds the tables of configuration.md against the schema: every
// key with its default, and nothing else.
func TestConfigurationTable(t *testing.T) {
	missing := schema(t)
	for _, row := range read(t, "docs/configuration.md").rows() {
		k, ok := missing[row[0]]
		if !ok {
			t.Errorf("key %s stands there twice or does not exist", row[0])
			continue
		}
		delete(missing, row[0])
		want := "`" + k.value + "`"
		switch given := isGiven(k.value); {
		case k.required && (k.block || given):
			want = "required"
		case otherDefaults[row[0]] != "":
			want = otherDefaults[row[0]]
		case k.block || given || k.value == "":
			want = "–"
		}
		if row[2] != want {
			t.Errorf("key %s has default %s, the page says %s", row[0], want, row[2])
		}
	}
	for name, k := range missing {
		if !k.block {
			t.Errorf("key %s is not in configuration.md", name)
		}
	}
}

// isGiven reports whether a value comes from full: it is no default.
func isGiven(value string) bool {
	return slices.Contains([]string{"n", "s", ":1", "a:1", "[10.0.0.1/32]"}, value) || filepath.IsAbs(value) && len(value) > 1
}

// fixtures is a directory with the files that examples name.
func fixtures(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cert, privateKey, err := tls.NewDevelopmentCertificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"edge.crt": string(cert), "edge.key": string(privateKey), "other.crt": string(cert), "other.key": string(privateKey),
		"clients.crt": string(cert), "internal-ca.crt": string(cert), "consul-ca.crt": string(cert),
		"ticket.key": strings.Repeat("0123456789", 5), "ticket-old.key": strings.Repeat("9876543210", 5),
		"migrate.key": strings.Repeat("0123456789", 5), "sticky.key": strings.Repeat("0123456789", 5),
		"admin.token": "secret", "consul.token": "secret",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var (
	absolute = regexp.MustCompile(`/(etc|var/lib)/tidegate/`)
	top      = []string{"log", "admin", "shutdown", "listeners", "routes", "pools"}
)

// TestExamples parses every YAML block. A fragment of a configuration gets the sections
// that it leaves out.
func TestExamples(t *testing.T) {
	examples := 0
	for _, p := range pages(t) {
		for i, text := range p.blocks("yaml") {
			var sections map[string]any
			if err := yaml.Unmarshal([]byte(text), &sections); err != nil {
				t.Errorf("%s: block %d: %v", p.name, i+1, err)
				continue
			}
			if !isConfiguration(sections) {
				continue
			}
			examples++
			whole := absolute.ReplaceAllString(text, "") + missingSections(sections)
			if _, err := config.Parse(filepath.Join(fixtures(t), "example.yaml"), []byte(whole), nil); err != nil {
				t.Errorf("%s: block %d: %v\n%s", p.name, i+1, err, whole)
			}
		}
	}
	if examples < 10 {
		t.Errorf("found %d configurations only", examples)
	}
}

// isConfiguration tells our YAML from that of other programs.
func isConfiguration(sections map[string]any) bool {
	for name := range sections {
		if slices.Contains(top, name) {
			return true
		}
	}
	return false
}

// missingSections completes a fragment with what its routes and pools refer to.
func missingSections(sections map[string]any) string {
	var b strings.Builder
	if sections["listeners"] == nil {
		b.WriteString("\nlisteners: [{name: edge, address: \":8443\"}]\n")
	}
	if sections["routes"] == nil {
		pool := "chat"
		if names := field(sections["pools"], "name"); len(names) > 0 {
			pool = names[0]
		}
		fmt.Fprintf(&b, "\nroutes: [{name: chat, pool: %s}]\n", pool)
	}
	if sections["pools"] == nil {
		names := field(sections["routes"], "pool")
		if len(names) == 0 {
			names = []string{"chat"}
		}
		slices.Sort(names)
		b.WriteString("\npools:\n")
		for _, name := range slices.Compact(names) {
			fmt.Fprintf(&b, "  - {name: %s, backends: [{address: \"10.0.0.5:9001\"}]}\n", name)
		}
	}
	return b.String()
}

// field returns the values of one key in a list of mappings.
func field(list any, key string) (values []string) {
	elements, _ := list.([]any)
	for _, e := range elements {
		if m, ok := e.(map[string]any); ok && m[key] != nil {
			values = append(values, fmt.Sprint(m[key]))
		}
	}
	return values
}
