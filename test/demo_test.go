package test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/internal/admin"
)

// demo is a running `tidegate demo`.
type demo struct {
	t       *testing.T
	cmd     *exec.Cmd
	port    string // of the edge, on localhost
	admin   string // address of the API
	api     *admin.Client
	exited  chan struct{}
	err     error // once exited is closed
	mu      sync.Mutex
	printed bytes.Buffer // stdout and stderr
}

// startDemo runs a command, which is to be a demo, on free ports, and returns when it is
// ready.
func startDemo(t *testing.T, command []string, args ...string) *demo {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddr(t))
	must(t, err)
	d := &demo{t: t, port: port, exited: make(chan struct{})}
	d.admin = freeAddr(t)
	if d.api, err = admin.NewClient(d.admin, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.api.Close)
	command = append(command, "demo", "--listen", "localhost:"+port, "--admin", d.admin)
	d.cmd = exec.Command(command[0], append(command[1:], args...)...)
	d.cmd.Dir = ".."
	d.cmd.Stdout, d.cmd.Stderr = d, d
	// A group of its own, so that a signal reaches what `go run` has started.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, d.cmd.Start())
	go func() { d.err = d.cmd.Wait(); close(d.exited) }()
	t.Cleanup(func() {
		select {
		case <-d.exited:
		default:
			d.signal(syscall.SIGKILL)
			<-d.exited
		}
	})
	d.eventually("ready", 2*time.Minute, func() bool { st, err := d.api.Status(context.Background()); return err == nil && st.Ready })
	return d
}

// Write takes what the process prints.
func (d *demo) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.printed.Write(p)
}

func (d *demo) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.printed.String()
}

func (d *demo) signal(sig syscall.Signal) { syscall.Kill(-d.cmd.Process.Pid, sig) }

// eventually polls until cond holds.
func (d *demo) eventually(what string, within time.Duration, cond func() bool) {
	d.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for !cond() {
		select {
		case <-tick.C:
		case <-d.exited:
			d.t.Fatalf("the demo exited (%v) before this was so: %s\n%s", d.err, what, d.output())
		case <-deadline:
			d.t.Fatalf("not so within %v: %s\n%s", within, what, d.output())
		}
	}
}

func (d *demo) waitExit() {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(soon):
		d.t.Fatalf("the demo has not exited\n%s", d.output())
	}
}

// TestGoRunDemo is what `make run` does, with another number of app servers.
func TestGoRunDemo(t *testing.T) {
	makefile, err := exec.Command("make", "-C", "..", "-n", "run").CombinedOutput()
	if err != nil || !strings.Contains(string(makefile), "go run ./cmd/tidegate demo") {
		t.Errorf("make run is %s (%v)", makefile, err)
	}
	d := startDemo(t, []string{"go", "run", "./cmd/tidegate"}, "--backends", "5")
	if out := d.output(); !strings.Contains(out, "https://localhost:"+d.port) {
		t.Errorf("it does not say what to open:\n%s", out)
	}
	pools, err := d.api.Pools(context.Background())
	if err != nil || len(pools) != 1 || len(pools[0].Backends) != 5 {
		t.Errorf("pools: %v, %v", pools, err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: insecure()}}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://localhost:" + d.port + "/")
	must(t, err)
	defer res.Body.Close()
	if page, _ := io.ReadAll(res.Body); res.StatusCode != 200 || !strings.Contains(string(page), "Tidegate demo") {
		t.Errorf("the page: %s\n%.200s", res.Status, page)
	}
	dialer := gorilla.Dialer{TLSClientConfig: insecure()}
	c, _, err := dialer.Dial("wss://localhost:"+d.port+"/ws", nil)
	must(t, err)
	defer c.Close()
	if _, p, err := c.ReadMessage(); err != nil || !strings.Contains(string(p), "welcome") {
		t.Errorf("got %q, %v", p, err)
	}
	d.signal(syscall.SIGTERM)
	if _, _, err := c.ReadMessage(); !gorilla.IsCloseError(err, gorilla.CloseGoingAway) {
		t.Errorf("got %v, want Close 1001", err)
	}
	c.Close()
	d.waitExit()
}

// TestDemoCertificate has a certificate for the name that is listened on.
func TestDemoCertificate(t *testing.T) {
	d := startDemo(t, []string{binary})
	conn, err := tls.Dial("tcp", "localhost:"+d.port, insecure())
	must(t, err)
	defer conn.Close()
	if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname("localhost"); err != nil {
		t.Error(err)
	}
	conn.Close()
	d.signal(syscall.SIGINT)
	d.waitExit()
	if d.err != nil {
		t.Errorf("exit: %v", d.err)
	}
}

// TestDemoHasNoFile: its status says so, and a reload is refused without being a failed one.
func TestDemoHasNoFile(t *testing.T) {
	d := startDemo(t, []string{binary})
	_, err := d.api.Reload(context.Background())
	if refusal, ok := errors.AsType[*admin.APIError](err); !ok || refusal.Status != http.StatusConflict {
		t.Errorf("got %v, want 409", err)
	}
	env := []string{"TIDEGATE_ADMIN=" + d.admin}
	code, stdout, stderr := tidegate(t, env, "reload")
	if code != 1 || stdout != "" || stderr != "tidegate: this edge has no configuration file\n" {
		t.Errorf("reload: exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = tidegate(t, env, "status")
	if code != 0 || !strings.Contains(stdout, "config      built in, loaded ") {
		t.Errorf("status: exit %d\n%s%s", code, stdout, stderr)
	}
	d.signal(syscall.SIGINT)
	d.waitExit()
}

// TestDemoPortInUse says so, and does not invite to somebody else's server.
func TestDemoPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, args := range [][]string{
		{"demo", "--listen", "localhost:" + port, "--admin", "127.0.0.1:0"},
		{"demo", "--listen", "localhost:0", "--admin", "127.0.0.1:" + port},
	} {
		code, stdout, stderr := tidegate(t, nil, args...)
		lines := nonEmptyLines(stderr)
		if last := lines[len(lines)-1]; code != 1 || stdout != "" || !strings.HasPrefix(last, "tidegate: ") || !strings.Contains(last, ":"+port) {
			t.Errorf("%q: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
}
