package test

import (
	"bufio"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	tgtls "github.com/tidegate/tidegate/tls"
)

// configTestdata are files with every kind of mistake, and what is to be said of them.
const configTestdata = "../internal/config/testdata"

// sampleEnv is the environment that those files count on.
var sampleEnv = []string{"HOST=chat.example.com", "SIZE=64KiB", "ONE=1", "YES=true", "EMPTY=", "INJECT=a, pool: b\n- name: c", "NESTED=${HOST}"}

// sampleDir is a directory with the files that those files name.
func sampleDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) { must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600)) }
	for _, name := range []string{"edge", "other", "clients", "upstream-ca"} {
		cert, key, err := tgtls.NewDevelopmentCertificate(name + ".example.com")
		must(t, err)
		write(name+".crt", cert)
		write(name+".key", key)
	}
	write("k1.bin", make([]byte, 32))
	write("k2.bin", []byte(strings.Repeat("k", 80)))
	write("short.bin", []byte("too short"))
	write("m.key", []byte("0123456789abcdef0123456789abcdef\n"))
	write("token", []byte("secret\n"))
	write("blank", []byte(" \n"))
	write("notes.txt", []byte("no PEM here\n"))
	write("broken.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("?")}))
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	return dir
}

// TestCheck runs `tidegate check` on each file: every mistake comes with its position,
// in order, on a line of its own, and nothing else does.
func TestCheck(t *testing.T) {
	dir := sampleDir(t)
	files, err := filepath.Glob(configTestdata + "/*.yml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, source := range files {
		name := filepath.Base(source)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(source)
			must(t, err)
			path := filepath.Join(dir, name)
			must(t, os.WriteFile(path, content, 0o600))
			code, stdout, stderr := tidegate(t, sampleEnv, "check", "--config", path)
			if strings.HasSuffix(name, ".good.yml") {
				if code != 0 || stderr != "" || !strings.HasPrefix(stdout, path+" is valid: ") {
					t.Errorf("exit %d\n%s%s", code, stdout, stderr)
				}
				return
			}
			wanted, err := os.ReadFile(strings.TrimSuffix(source, ".yml") + ".want")
			must(t, err)
			want, got := nonEmptyLines(string(wanted)), nonEmptyLines(stderr)
			if code != 1 || stdout != "" || len(got) != len(want)+1 || !strings.HasPrefix(got[0], "tidegate: "+path+" is not valid: ") {
				t.Fatalf("exit %d, want %d lines\n%s%s", code, len(want)+1, stdout, stderr)
			}
			for i, line := range got[1:] {
				// Spaces that a terminal would not show as they are come as one.
				line = strings.Join(strings.Fields(strings.ReplaceAll(line, dir+"/", "")), " ")
				if position(line) != position(want[i]) || position(line) == "" {
					t.Errorf("line %d is %q, want %q", i+1, line, want[i])
				}
			}
		})
	}
}

// position is FILE:LINE:COL at the beginning of a line.
func position(line string) string { return positionForm.FindString(line) }

var positionForm = regexp.MustCompile(`^[^:]+:\d+:\d+: `)

func nonEmptyLines(s string) (list []string) {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

// TestNoConfiguration names files that are none.
func TestNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.yml")
	must(t, os.WriteFile(garbage, noise(100_000), 0o600))
	nulls := filepath.Join(dir, "nulls.yml")
	must(t, os.WriteFile(nulls, make([]byte, 4096), 0o600))
	for _, path := range []string{filepath.Join(dir, "absent.yml"), dir, garbage, nulls, "/dev/null", "/dev/zero", ""} {
		for _, command := range []string{"check", "run"} {
			code, stdout, stderr := tidegate(t, nil, command, "--config", path)
			if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "tidegate: ") || len(stderr) > 4096 || strings.ContainsRune(stderr, 0) {
				t.Errorf("%s %q: exit %d\n%s%.2000s", command, path, code, stdout, stderr)
			}
		}
	}
}

// TestWrongUsage calls commands wrongly: exit code 2 and one line that names the help.
func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"fly"}, {"--fly"}, {"run"}, {"check"}, {"run", "--config"}, {"run", "--config", "a.yml", "b.yml"}, {"check", "a.yml"},
		{"run", "-x"}, {"version", "now"}, {"status", "all"}, {"close"}, {"close", "a", "b"}, {"close", "a", "--code", "many"},
		{"close", "a", "--code", "1005"}, {"close", "a", "--reason", strings.Repeat("r", 124)}, {"sessions", "--limit", "-1"},
		{"sessions", "--ip", "everybody"}, {"status", "--admin", "nowhere"}, {"status", "--admin", "ftp://127.0.0.1:1"},
		{"reload", "now"}, {"pools", "--json=perhaps"},
		{"demo", "--backends", "0"}, {"demo", "--backends", "101"}, {"demo", "--backends", "-1"}, {"demo", "--backends", "three"}, {"demo", "here"},
		{"demo", "--listen", "localhost"}, {"demo", "--listen", ""}, {"demo", "--listen", "localhost:many"}, {"demo", "--listen", "localhost:99999"},
		{"demo", "--admin", "nowhere"}, {"demo", "--admin", ""},
	} {
		code, stdout, stderr := tidegate(t, nil, args...)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "tidegate: ") || !strings.Contains(stderr, "--help") {
			t.Errorf("%q: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

// TestNoEdge has commands for an edge that is not there, or is something else.
func TestNoEdge(t *testing.T) {
	nobody := freeAddr(t)
	other := newApp(t, "other") // answers HTTP, but is no edge
	silent := listenRaw(t, nil)
	go func() { // it hangs up
		for {
			c, err := silent.ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for _, command := range [][]string{{"status"}, {"pools"}, {"sessions"}, {"reload"}, {"close", "0abc"}} {
		for _, at := range []struct{ addr, says string }{
			{nobody, "no edge answers at " + nobody}, {"unix:" + t.TempDir() + "/none.sock", "no edge answers at unix:"},
			{other.addr, "is not the admin API"}, {silent.addr(), "no edge answers at " + silent.addr()},
		} {
			code, stdout, stderr := tidegate(t, []string{"TIDEGATE_ADMIN=" + at.addr}, command...)
			if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "tidegate: ") || !strings.Contains(stderr, at.says) {
				t.Errorf("%q at %s: exit %d\n%s%s", command, at.addr, code, stdout, stderr)
			}
		}
	}
}

// TestCannotStart starts edges that cannot run here: exit code 1 and one clear line.
func TestCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	dir := sampleDir(t)
	for _, tt := range []struct{ name, yaml, says string }{
		{"admin port in use", `
admin: {address: "` + taken.Addr().String() + `"}
listeners: [{name: edge, address: "127.0.0.1:0"}]`, taken.Addr().String()},
		{"listener port in use", `
admin: {address: "127.0.0.1:0"}
listeners: [{name: edge, address: "127.0.0.1:0"}, {name: second, address: "` + taken.Addr().String() + `"}]`, "second"},
		{"admin socket in no directory", `
admin: {address: "unix:` + dir + `/nowhere/admin.sock"}
listeners: [{name: edge, address: "127.0.0.1:0"}]`, "/nowhere/admin.sock"},
		{"address of another machine", `
admin: {address: "127.0.0.1:0"}
listeners: [{name: edge, address: "203.0.113.1:8443"}]`, "203.0.113.1:8443"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, "start.yml")
			must(t, os.WriteFile(path, []byte(tt.yaml+"\nroutes: [{name: all, pool: apps}]\npools: [{name: apps, backends: [{address: \"127.0.0.1:1\"}]}]\n"), 0o600))
			code, stdout, stderr := tidegate(t, nil, "run", "--config", path)
			clear := clearLines(stderr)
			if code != 1 || stdout != "" || len(clear) != 1 || !strings.Contains(clear[0], tt.says) {
				t.Errorf("exit %d\n%s%s", code, stdout, stderr)
			}
		})
	}
}

// TestUnusableCertificates starts edges whose certificates cannot be used: the problem
// has a position, as in `tidegate check`.
func TestUnusableCertificates(t *testing.T) {
	dir := sampleDir(t)
	for name, pair := range map[string][2]string{
		"absent": {"none.crt", "none.key"}, "directory": {"sub", "edge.key"}, "not PEM": {"notes.txt", "edge.key"},
		"broken": {"broken.crt", "edge.key"}, "other key": {"edge.crt", "other.key"}, "swapped": {"edge.key", "edge.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "tls.yml")
			must(t, os.WriteFile(path, []byte(`admin: {address: "127.0.0.1:0"}
listeners: [{name: edge, address: "127.0.0.1:0", tls: {certificates: [{cert: `+pair[0]+`, key: `+pair[1]+`}]}}]
routes: [{name: all, pool: apps}]
pools: [{name: apps, backends: [{address: "127.0.0.1:1"}]}]
`), 0o600))
			code, _, stderr := tidegate(t, nil, "run", "--config", path)
			lines := nonEmptyLines(stderr)
			if code != 1 || len(lines) < 2 || !strings.Contains(lines[0], "is not valid: ") || !strings.HasPrefix(lines[1], path+":2:") {
				t.Errorf("exit %d\n%s", code, stderr)
			}
		})
	}
}

// clearLines are the lines for a person, without the log.
func clearLines(stderr string) (list []string) {
	for _, line := range nonEmptyLines(stderr) {
		if !strings.HasPrefix(line, "{") {
			list = append(list, line)
		}
	}
	return list
}

// TestConfigurationFromAPipe runs an edge whose configuration comes out of a pipe, once:
// it runs, reads the pipe no second time, and ends when it is told to.
func TestConfigurationFromAPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "tidegate.yml")
	must(t, syscall.Mkfifo(pipe, 0o600))
	cmd := exec.Command(binary, "run", "--config", pipe)
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	exited := make(chan error, 1)
	running := make(chan struct{})
	go func() {
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			if strings.Contains(sc.Text(), `"msg":"running"`) {
				close(running)
			}
		}
		exited <- cmd.Wait()
	}()
	defer cmd.Process.Kill()
	must(t, os.WriteFile(pipe, []byte(`
admin: {address: "127.0.0.1:0"}
listeners: [{name: edge, address: "127.0.0.1:0"}]
routes: [{name: all, pool: apps}]
pools: [{name: apps, backends: [{address: "127.0.0.1:1"}]}]
`), 0o600)) // returns when the edge has opened it
	select {
	case <-running:
	case err := <-exited:
		t.Fatalf("exited: %v", err)
	}
	// Two rounds of looking at the file.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2200 * time.Millisecond); time.Now().Before(end); <-tick.C {
		if fd, err := syscall.Open(pipe, syscall.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			syscall.Close(fd)
			t.Fatal("the edge reads the pipe again")
		}
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-exited:
		must(t, err)
	case <-time.After(soon):
		t.Fatal("the edge has not exited")
	}
}
