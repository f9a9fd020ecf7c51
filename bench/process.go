package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// process is a child on one core. It is ended by its process id (and its group's, which
// is its own), never by name.
type process struct {
	what   string
	cmd    *exec.Cmd
	stderr tail
	exited chan struct{}
	err    error // once exited is closed
}

// start runs a program on a core. The program is exec'd by taskset, so its process id
// is the child's.
func start(name string, core int, args ...string) (*process, error) {
	p := &process{what: name, exited: make(chan struct{})}
	p.cmd = exec.Command("taskset", append([]string{"-c", strconv.Itoa(core)}, args...)...)
	p.cmd.Stderr, p.cmd.Stdout = &p.stderr, &p.stderr
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { // nobody's settings but the proxies' own
		return strings.HasPrefix(s, "GOGC=") || strings.HasPrefix(s, "GOMEMLIMIT=") || strings.HasPrefix(s, "GODEBUG=")
	})
	// A group of its own: Ctrl-C is for this program, which ends its children in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process and waits for it.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return
	case <-time.After(5 * time.Second):
	}
	syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.exited
}

// ready waits until all addresses take connections.
func (p *process) ready(ctx context.Context, addrs ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, addr := range addrs {
		for {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			select {
			case <-p.exited:
				return fmt.Errorf("%s has exited (%v): %s", p.what, p.err, p.stderr.String())
			case <-ctx.Done():
				return fmt.Errorf("%s does not listen on %s: %s", p.what, addr, p.stderr.String())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// worker is the process that serves: the first child, if there is one (nginx), or p.
func (p *process) worker() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid(), p.pid()))
	if children := strings.Fields(string(b)); len(children) > 0 {
		if pid, err := strconv.Atoi(children[0]); err == nil {
			return pid
		}
	}
	return p.pid()
}

// cpuTime is what the serving process has used so far; without a proxy it is nothing.
func (p *proxy) cpuTime() (time.Duration, error) {
	if p.process == nil {
		return 0, nil
	}
	return load.CPUTime(p.worker())
}

// tail keeps the last of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 4096 {
		t.b = t.b[len(t.b)-4096:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// freeAddr is an address of loopback that nobody listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// field returns the number behind name in a file of /proc such as smaps_rollup or
// meminfo, in bytes.
func field(b []byte, name string) (int64, error) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte(name+":"))
		if !ok {
			continue
		}
		words := strings.Fields(string(rest))
		if len(words) != 2 || words[1] != "kB" {
			return 0, fmt.Errorf("%q is not in kB", line)
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		return n << 10, err
	}
	return 0, fmt.Errorf("no %s: %w", name, io.ErrUnexpectedEOF)
}

// memory is what the proxy and the kernel hold, in bytes.
type memory struct {
	rss, pss int64 // of the process and its children
	sockets  int64 // buffers of all TCP sockets of the machine
	slab     int64 // the kernel's own objects, sockets among them
}

func (m memory) minus(o memory) memory {
	return memory{m.rss - o.rss, m.pss - o.pss, m.sockets - o.sockets, m.slab - o.slab}
}

func (p *process) memory() (m memory, err error) {
	pids := []int{p.pid()}
	if w := p.worker(); w != p.pid() {
		pids = append(pids, w)
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, err
		}
		rss, err1 := field(b, "Rss")
		pss, err2 := field(b, "Pss")
		if err := errors.Join(err1, err2); err != nil {
			return m, err
		}
		m.rss, m.pss = m.rss+rss, m.pss+pss
	}
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return m, err
	}
	if m.sockets, err = socketPages(b); err != nil {
		return m, err
	}
	m.sockets *= int64(os.Getpagesize())
	if b, err = os.ReadFile("/proc/meminfo"); err != nil {
		return m, err
	}
	m.slab, err = field(b, "Slab")
	return m, err
}

// socketPages is what /proc/net/sockstat says of TCP's memory, in pages.
func socketPages(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) == 0 || words[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(words); i += 2 {
			if words[i] == "mem" {
				return strconv.ParseInt(words[i+1], 10, 64)
			}
		}
	}
	return 0, errors.New("sockstat tells nothing of TCP's memory")
}
