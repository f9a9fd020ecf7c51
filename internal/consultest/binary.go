package consultest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// pinned is the version that test/consulagent builds.
const pinned = "1.22.7"

const buildCommand = "test/consulagent/build.sh"

// Binary returns the path of a Consul agent: $TIDEGATE_CONSUL, the consul on PATH if it
// is 1.15 or newer, or the one that test/consulagent/build.sh has built. Without one
// the test is skipped, or fails if CI is set.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := findOnce()
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%v (run %s)", err, buildCommand)
	}
	t.Skipf("%v (run %s)", err, buildCommand)
	return ""
}

var findOnce = sync.OnceValues(find)

func find() (string, error) {
	if path := os.Getenv("TIDEGATE_CONSUL"); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("TIDEGATE_CONSUL: %w", err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("consul"); err == nil && newEnough(path) {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if xdg := os.Getenv("XDG_CACHE_HOME"); xdg != "" {
		cache = xdg
	} else if home, homeErr := os.UserHomeDir(); homeErr == nil {
		cache, err = filepath.Join(home, ".cache"), nil // the same place on every system
	}
	if err != nil {
		return "", fmt.Errorf("no consul agent: %w", err)
	}
	path := filepath.Join(cache, "tidegate", "consul-"+pinned, "consul")
	if _, err := exec.LookPath(path); err != nil {
		return "", fmt.Errorf("no consul agent on PATH or in the cache")
	}
	return path, nil
}

// newEnough reports whether path is Consul 1.15 or newer.
func newEnough(path string) bool {
	out, err := exec.Command(path, "version").Output()
	return err == nil && versionAtLeast(string(out), 1, 15)
}

// versionAtLeast reads the first line of `consul version`, such as "Consul v1.22.7".
func versionAtLeast(output string, major, minor int) bool {
	line, _, _ := strings.Cut(output, "\n")
	_, version, ok := strings.Cut(line, "Consul v")
	parts := strings.SplitN(version, ".", 3)
	if !ok || len(parts) < 2 {
		return false
	}
	gotMajor, err1 := strconv.Atoi(parts[0])
	gotMinor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (gotMajor > major || gotMajor == major && gotMinor >= minor)
}
