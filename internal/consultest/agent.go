package consultest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	startTimeout = 60 * time.Second // a persistent agent on a busy machine
	stopTimeout  = 10 * time.Second
	startTries   = 5
)

// errPortTaken ends a start whose ports another process was faster to bind.
var errPortTaken = errors.New("a port was taken")

// Agent is a Consul agent, a server on its own. Stop and Start exclude every other call;
// apart from them its methods may be used from several goroutines, as tests that share
// an agent do.
type Agent struct {
	// Node is the name of its node.
	Node string
	// Token is the management token of an agent with ACLs, else "".
	Token string

	binary, dir string
	options     Options
	ports       ports
	client      *api.Client
	transport   *http.Transport

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended

	mu       sync.Mutex
	services map[string]Service // by ID, as registered last
}

// Start starts an agent and returns when it takes registrations. It is killed when the
// test ends; if the test failed, the end of its log is part of the test's.
func Start(t testing.TB, options Options) *Agent {
	t.Helper()
	a, err := launch(Binary(t), t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("consul agent %s, end of its log:\n%s", a.Node, a.logTail())
		}
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// launch starts an agent on new ports, and on others if one of them is taken.
func launch(binary, dir string, options Options) (*Agent, error) {
	a := &Agent{Node: "node1", binary: binary, dir: dir, options: options, services: make(map[string]Service)}
	if options.ACL {
		a.Token = "c0ffee00-0000-4000-8000-000000000000"
	}
	var err error
	for range startTries {
		if a.ports, err = options.newPorts(); err != nil {
			return nil, err
		}
		if err = a.configure(); err != nil {
			return nil, err
		}
		if err = a.start(); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// configure writes the agent's configuration for its ports and makes a client.
func (a *Agent) configure() error {
	raw, err := a.options.file(a.ports, a.Node, filepath.Join(a.dir, "data"), a.Token)
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.path("agent.json"), raw, 0o600); err != nil {
		return err
	}
	a.transport = &http.Transport{}
	a.client, err = api.NewClient(&api.Config{
		Address: a.Address(), Scheme: "http", Token: a.Token, HttpClient: &http.Client{Transport: a.transport},
	})
	return err
}

func (a *Agent) path(name string) string { return filepath.Join(a.dir, name) }

// Address returns host:port of the agent's HTTP API.
func (a *Agent) Address() string { return "127.0.0.1:" + strconv.Itoa(a.ports.http) }

// HTTPSAddress returns host:port of its HTTPS API, which it has with [Options.TLS].
func (a *Agent) HTTPSAddress() string { return "127.0.0.1:" + strconv.Itoa(a.ports.https) }

// Client returns a client that may do everything.
func (a *Agent) Client() *api.Client { return a.client }

// Stop ends the agent's process as an operator would. Its ports and directory stay
// reserved for [Agent.Start].
func (a *Agent) Stop(t testing.TB) {
	t.Helper()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
}

// Start starts a stopped agent again, at the same address. Without
// [Options.Persistent] it has forgotten everything, its index included.
func (a *Agent) Start(t testing.TB) {
	t.Helper()
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
}

func (a *Agent) start() error {
	log, err := os.OpenFile(a.path("agent.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"agent", "-config-file", a.path("agent.json")}
	if !a.options.Persistent {
		args = append(args, "-dev")
	}
	cmd := exec.Command(a.binary, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, dieWithParent()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting consul: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	a.cmd, a.exited = cmd, exited
	if err := a.ready(); err != nil {
		tail := a.logTail()
		_ = a.stop()
		return fmt.Errorf("%w; the end of its log:\n%s", err, tail)
	}
	return nil
}

// ready waits until the agent has a leader and is in its own catalog.
func (a *Agent) ready() error {
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	for {
		checks, _, err := a.client.Health().Node(a.Node, nil)
		// An agent that comes back may have services that are in maintenance.
		checks = slices.DeleteFunc(checks, func(c *api.HealthCheck) bool { return c.ServiceID != "" })
		if err == nil && len(checks) > 0 && checks.AggregatedStatus() == api.HealthPassing {
			return nil
		}
		select {
		case <-again.C:
		case <-a.exited:
			if bytes.Contains(a.logTail(), []byte("address already in use")) {
				return errPortTaken
			}
			return errors.New("consul ended while starting")
		case <-deadline.C:
			return fmt.Errorf("consul is not ready after %v: %d checks, %v", startTimeout, len(checks), err)
		}
	}
}

// stop ends the process, if there is one, politely first.
func (a *Agent) stop() error {
	if a.cmd == nil {
		return nil
	}
	cmd, exited := a.cmd, a.exited
	a.cmd = nil
	a.transport.CloseIdleConnections()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-exited:
		return nil
	case <-timer.C:
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing consul: %w", err)
	}
	<-exited
	return nil
}

// close ends the process for good and removes its directory.
func (a *Agent) close() error {
	if a.cmd != nil {
		_ = a.cmd.Process.Kill() // nobody will miss its data
	}
	return errors.Join(a.stop(), os.RemoveAll(a.dir))
}

// logTail returns the last lines of the agent's log.
func (a *Agent) logTail() []byte {
	raw, err := os.ReadFile(a.path("agent.log"))
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-60):], nil)
}
