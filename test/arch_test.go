package test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tidegate/tidegate"

// listed is what `go list` says of a package.
type listed struct {
	ImportPath, Dir, Name string
	Standard              bool
	GoFiles               []string
	Imports, Deps         []string
}

// own is the path inside this module; ok is false for a package of somebody else.
func own(importPath string) (rest string, ok bool) { return strings.CutPrefix(importPath, module+"/") }

// listPackages lists all packages that the module is made of on a system, those of others
// included.
func listPackages(t *testing.T, goos string) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Name,Standard,GoFiles,Imports,Deps", "./...")
	cmd.Dir, cmd.Stderr = "..", os.Stderr
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	packages := map[string]listed{}
	for dec := json.NewDecoder(stdout); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	must(t, cmd.Wait())
	if len(packages) < 100 {
		t.Fatalf("go list lists %d packages", len(packages))
	}
	return packages
}

// under reports whether p is one of patterns, where dir/... is dir and all below it.
func under(p string, patterns ...string) bool {
	for _, pattern := range patterns {
		dir, below := strings.CutSuffix(pattern, "/...")
		if p == dir || below && strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

// layers say which packages of this module a package may import: the first rule that is
// about it holds. DESIGN.md draws it.
var layers = []struct {
	about string
	may   []string
}{
	{"discovery", nil},
	{"discovery/...", []string{"discovery"}},
	{"balance", []string{"discovery"}},
	{"proxy/frame", nil},
	{"proxy/deflate", nil},
	{"proxy/relay", []string{"proxy/frame", "proxy/deflate"}},
	{"proxy/loop", nil},
	{"proxy/...", []string{"proxy/...", "balance", "discovery", "tls", "internal/histogram", "internal/health", "internal/extendedconnect"}},
	{"tls", nil},
	{"internal/metrics", []string{"internal/histogram"}},
	{"internal/cli", []string{"internal/admin", "internal/scalar"}},
	{"internal/admin", []string{"internal/closecode", "internal/scalar"}},
	{"internal/config", []string{"internal/closecode", "internal/scalar"}},
	{"internal/health", []string{"balance", "discovery"}},
	{"internal/...", nil},
	{"cmd/...", []string{"proxy/...", "balance", "discovery/...", "tls", "internal/..."}},
}

// TestImportsPointOneWay holds the imports inside the module against the layers.
func TestImportsPointOneWay(t *testing.T) {
	for _, goos := range []string{"linux", "darwin"} {
		for _, p := range listPackages(t, goos) {
			name, ok := own(p.ImportPath)
			if !ok {
				continue
			}
			rule := slices.IndexFunc(layers, func(l struct {
				about string
				may   []string
			}) bool {
				return under(name, l.about)
			})
			for _, imported := range p.Imports {
				dep, ok := own(imported)
				switch {
				case !ok:
				case under(dep, "cmd/...", "test/...", "docs/..."):
					t.Errorf("%s imports %s, which is for nobody", name, dep)
				case strings.HasSuffix(dep, "test") && !strings.HasSuffix(name, "test"):
					t.Errorf("%s imports %s, which is for tests", name, dep)
				case rule >= 0 && !under(dep, layers[rule].may...):
					t.Errorf("%s imports %s; it may import %q", name, dep, layers[rule].may)
				}
			}
		}
	}
}

// forbidden says which packages of others, or of the standard library, must not be
// reached from where. Direct rules are about what a package imports itself.
var forbidden = []struct {
	from   []string
	what   []string
	direct bool
	why    string
}{
	{[]string{"proxy/...", "balance/...", "discovery/...", "tls/..."},
		[]string{"github.com/prometheus/...", "go.yaml.in/...", "gopkg.in/...", "github.com/spf13/..."}, false, "logic knows no exposition"},
	{[]string{"proxy/...", "balance/...", "discovery/...", "tls/..."},
		[]string{module + "/internal/admin", module + "/internal/config", module + "/internal/metrics", module + "/internal/cli", module + "/cmd/..."}, false, "imports point one way"},
	{[]string{"proxy/frame", "proxy/relay"},
		[]string{"net/...", "os/...", "syscall", "log/...", "sync/...", "context", "go.uber.org/...", "golang.org/x/sys/..."}, true, "it does no I/O, takes no lock and logs nothing"},
	{[]string{"proxy/deflate"}, []string{"net/...", "os/...", "syscall", "log/...", "time", "context", "go.uber.org/...", "golang.org/x/sys/..."}, true, "it does no I/O and logs nothing"},
	{[]string{"proxy/loop"}, []string{"github.com/gobwas/...", "net/http"}, false, "a loop knows no WebSocket"},
	{[]string{"balance"}, []string{"net/...", "os/...", "log/...", "time"}, true, "a pick does no I/O"},
}

// TestForbiddenImports looks for what must not be reached, also by way of others.
func TestForbiddenImports(t *testing.T) {
	for _, goos := range []string{"linux", "darwin"} {
		for _, p := range listPackages(t, goos) {
			name, ok := own(p.ImportPath)
			if !ok {
				continue
			}
			for _, rule := range forbidden {
				reached := p.Deps
				if rule.direct {
					reached = p.Imports
				}
				for _, dep := range reached {
					if under(name, rule.from...) && under(dep, rule.what...) {
						t.Errorf("%s reaches %s: %s", name, dep, rule.why)
					}
				}
			}
		}
	}
}

// dependencies of others belong to the packages that they are for.
var dependencies = map[string][]string{
	"github.com/prometheus/...":     {"internal/metrics"},
	"go.yaml.in/...":                {"internal/config"},
	"github.com/spf13/...":          {"internal/cli", "cmd/tidegate"},
	"github.com/hashicorp/...":      {"discovery/consul", "internal/consultest"},
	"github.com/cespare/xxhash/...": {"balance"},
	"github.com/KimMachineGun/...":  {"cmd/tidegate"},
	"github.com/klauspost/...":      {"proxy/deflate"},
	"github.com/chromedp/...":       nil,
	"github.com/gorilla/...":        nil,
	"github.com/coder/...":          nil,
}

// TestDependencies keeps the packages of others where they belong, and the standard
// library alone in discovery and balance.
func TestDependencies(t *testing.T) {
	packages := listPackages(t, runtime.GOOS)
	for _, p := range packages {
		name, ok := own(p.ImportPath)
		if !ok {
			continue
		}
		for _, imported := range p.Imports {
			_, mine := own(imported)
			if mine || packages[imported].Standard {
				continue
			}
			for pattern, users := range dependencies {
				if under(imported, pattern) && !slices.Contains(users, name) {
					t.Errorf("%s imports %s, which is for %q", name, imported, users)
				}
			}
			if name == "discovery" || name == "discovery/static" || name == "internal/histogram" ||
				name == "balance" && imported != "github.com/cespare/xxhash/v2" || under(name, "proxy/frame", "proxy/relay") && imported != "github.com/gobwas/ws" {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}

// TestNoClock shows that the packages that take time as an argument read no clock.
func TestNoClock(t *testing.T) {
	plain := []string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}
	for _, dir := range []string{"../proxy/frame", "../proxy/deflate", "../proxy/relay"} {
		for _, file := range parseDir(t, dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && !slices.Contains(plain, sel.Sel.Name) {
					t.Errorf("%s uses time.%s", dir, sel.Sel.Name)
				}
				return true
			})
		}
	}
}

// TestTLSNames shows that nothing of package tls can be taken for crypto/tls's.
func TestTLSNames(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	theirs := exported(parseDir(t, filepath.Join(strings.TrimSpace(string(root)), "src/crypto/tls")))
	if !slices.Contains(theirs, "Config") || !slices.Contains(theirs, "VersionTLS13") {
		t.Fatalf("crypto/tls exports %q", theirs)
	}
	for _, name := range exported(parseDir(t, "../tls")) {
		if slices.Contains(theirs, name) {
			t.Errorf("package tls exports %s, as crypto/tls does", name)
		}
	}
}

// TestNames finds names that say nothing, and packages that are named otherwise than
// their directory.
func TestNames(t *testing.T) {
	nothing := []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc"}
	for _, p := range listPackages(t, runtime.GOOS) {
		name, ok := own(p.ImportPath)
		if !ok {
			continue
		}
		if base := path.Base(name); slices.Contains(nothing, base) || p.Name != base && p.Name != "main" {
			t.Errorf("package %s in %s", p.Name, name)
		}
		for _, file := range p.GoFiles {
			if slices.Contains(nothing, strings.TrimSuffix(file, ".go")) {
				t.Errorf("%s/%s", name, file)
			}
		}
	}
}

// parseDir parses the files of a package that are no tests, for whatever system.
func parseDir(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(dir + "/*.go")
	must(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		must(t, err)
		files = append(files, file)
	}
	if len(files) == 0 {
		t.Fatalf("no files in %s", dir)
	}
	return files
}

// exported are the names that a package declares for others, without methods.
func exported(files []*ast.File) (names []string) {
	add := func(idents ...*ast.Ident) {
		for _, id := range idents {
			if id.IsExported() {
				names = append(names, id.Name)
			}
		}
	}
	for _, file := range files {
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					add(d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec.Name)
					case *ast.ValueSpec:
						add(spec.Names...)
					}
				}
			}
		}
	}
	return names
}
