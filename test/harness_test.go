package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tgtls "github.com/tidegate/tidegate/tls"

	"github.com/tidegate/tidegate/internal/admin"
)

// binary is the tidegate under test, built once with the same race detector as the tests.
var binary string

func TestMain(m *testing.M) {
	if name := os.Getenv(talkerEnv); name != "" {
		os.Exit(runTalker(name))
	}
	if name := os.Getenv(deployEnv); name != "" {
		os.Exit(runDeployApp(name, os.Getenv(deployJournalEnv)))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tidegate-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "tidegate")
		args := []string{"build", "-o", binary}
		if raceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "../cmd/tidegate")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building tidegate: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// edge is a running tidegate.
type edge struct {
	t      *testing.T
	dir    string
	config string // path of the YAML
	cmd    *exec.Cmd
	api    *admin.Client
	exited chan struct{}
	err    error // of the process, once exited is closed

	mu   sync.Mutex
	logs []map[string]any // JSON log lines
	raw  bytes.Buffer     // all of stderr
	wake chan struct{}    // closed and replaced at each line
}

// start runs an edge with a configuration. In yaml, ADMIN stands for the admin section
// and CERT and KEY for a certificate of localhost. It returns when the edge is ready. The
// collector has an operator's setting, so that what is alive shows soon and steadily.
func start(t *testing.T, yaml string) *edge { return startWith(t, []string{"GOGC=100"}, yaml) }

// startWith is start with an environment.
func startWith(t *testing.T, env []string, yaml string) *edge {
	t.Helper()
	return startProgram(t, binary, env, yaml)
}

// startProgram is startWith of another build.
func startProgram(t *testing.T, program string, env []string, yaml string) *edge {
	t.Helper()
	e := &edge{t: t, dir: t.TempDir(), exited: make(chan struct{}), wake: make(chan struct{})}
	certPEM, keyPEM, err := tgtls.NewDevelopmentCertificate("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	e.writeFile("edge.crt", string(certPEM))
	e.writeFile("edge.key", string(keyPEM))
	e.config = e.writeFile("tidegate.yaml", e.expand(yaml))
	e.cmd = exec.Command(program, "run", "--config", e.config)
	e.cmd.Env = append(os.Environ(), env...)
	stderr, err := e.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() { e.readLogs(stderr); close(read) }()
	go func() { <-read; e.err = e.cmd.Wait(); close(e.exited) }()
	t.Cleanup(e.kill)
	running := e.waitLog("running", nil)
	if e.api, err = admin.NewClient(running["admin"].(string), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.api.Close)
	return e
}

func (e *edge) expand(yaml string) string {
	return strings.NewReplacer("ADMIN", `admin: {address: "127.0.0.1:0"}`, "CERT", "edge.crt", "KEY", "edge.key").Replace(yaml)
}

// writeFile writes a file into the edge's directory, whole at once.
func (e *edge) writeFile(name, content string) string {
	e.t.Helper()
	path := filepath.Join(e.dir, name)
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		e.t.Fatal(err)
	}
	return path
}

func (e *edge) readLogs(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := map[string]any{}
		json.Unmarshal(sc.Bytes(), &line)
		e.mu.Lock()
		e.raw.Write(sc.Bytes())
		e.raw.WriteByte('\n')
		e.logs = append(e.logs, line)
		close(e.wake)
		e.wake = make(chan struct{})
		e.mu.Unlock()
	}
}

// waitLog returns the first log line with this message for which match, if not nil, is
// true, now or within 20 s.
func (e *edge) waitLog(message string, match func(map[string]any) bool) map[string]any {
	e.t.Helper()
	deadline := time.After(20 * time.Second)
	for seen := 0; ; {
		e.mu.Lock()
		for ; seen < len(e.logs); seen++ {
			if l := e.logs[seen]; l["msg"] == message && (match == nil || match(l)) {
				e.mu.Unlock()
				return l
			}
		}
		wake := e.wake
		e.mu.Unlock()
		select {
		case <-wake:
		case <-e.exited:
			e.t.Fatalf("the edge exited (%v) before it logged %q:\n%s", e.err, message, e.log())
		case <-deadline:
			e.t.Fatalf("not logged within 20 s: %q\n%s", message, e.log())
		}
	}
}

// waitLogAfterExit is waitLog for an edge that has exited: all of its lines are there.
func (e *edge) waitLogAfterExit(message string) map[string]any {
	e.t.Helper()
	<-e.exited
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.logs {
		if l["msg"] == message {
			return l
		}
	}
	e.t.Fatalf("never logged: %q", message)
	return nil
}

func (e *edge) log() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.raw.String()
}

// countLog returns how many lines have this message.
func (e *edge) countLog(message string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.logs {
		if l["msg"] == message {
			n++
		}
	}
	return n
}

// addr is where a listener is bound.
func (e *edge) addr(listener string) string {
	e.t.Helper()
	for _, l := range e.status().Listeners {
		if l.Name == listener {
			return l.Address
		}
	}
	e.t.Fatalf("no listener %q", listener)
	return ""
}

func (e *edge) status() admin.Status {
	e.t.Helper()
	s, err := e.api.Status(context.Background())
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.log())
	}
	return s
}

// reload writes a new configuration and applies it through the API.
func (e *edge) reload(yaml string) (uint64, error) {
	e.writeFile("tidegate.yaml", e.expand(yaml))
	return e.api.Reload(context.Background())
}

// eventually polls cond until it holds, 20 s at most.
func (e *edge) eventually(what string, cond func() bool) {
	e.t.Helper()
	e.within(20*time.Second, what, cond)
}

// within polls cond until it holds, for so long at most.
func (e *edge) within(patience time.Duration, what string, cond func() bool) {
	e.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-e.exited:
			e.t.Fatalf("the edge exited (%v): %s\n%s", e.err, what, e.log())
		case <-deadline:
			e.t.Fatalf("not so within %v: %s\n%s", patience, what, e.logTail())
		}
	}
}

// cli runs a command of the binary against the edge and returns its exit code and output.
func (e *edge) cli(args ...string) (code int, stdout, stderr string) {
	e.t.Helper()
	return tidegate(e.t, []string{"TIDEGATE_ADMIN=" + e.waitLog("running", nil)["admin"].(string)}, args...)
}

// command is cli of a command that must do what it is asked.
func (e *edge) command(args ...string) string {
	e.t.Helper()
	code, stdout, stderr := e.cli(args...)
	if code != 0 {
		e.t.Fatalf("%q: exit %d: %s", args, code, stderr)
	}
	return stdout
}

func tidegate(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func (e *edge) signal(sig syscall.Signal) {
	e.t.Helper()
	if err := e.cmd.Process.Signal(sig); err != nil {
		e.t.Fatal(err)
	}
}

// waitExit waits for the end of the process.
func (e *edge) waitExit(within time.Duration) {
	e.t.Helper()
	select {
	case <-e.exited:
	case <-time.After(within):
		e.t.Fatalf("the edge has not exited within %v\n%s", within, e.log())
	}
}

// kill ends the process and fails the test if it had panicked or raced.
func (e *edge) kill() {
	select {
	case <-e.exited:
	default:
		e.cmd.Process.Kill()
		<-e.exited
	}
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(e.log(), bad) {
			e.t.Errorf("the edge's log has %q:\n%s", bad, e.log())
		}
	}
}

// insecure accepts the development certificate.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// freeAddr returns an address of loopback that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
