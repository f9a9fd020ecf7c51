package main

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/internal/load"
)

// TestProcess: a child runs on its core, is measured, and is gone when it is stopped.
func TestProcess(t *testing.T) {
	p, err := start("child", 0, "sh", "-c", "sleep 60 & wait")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := p.memory(); err != nil || m.rss <= 0 || m.slab <= 0 {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := load.CPUTime(p.pid()); err != nil {
		t.Error(err)
	}
	p.stop()
	if err := syscall.Kill(p.pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("after stop: %v", err)
	}
	syscall.Kill(-p.pid(), syscall.SIGKILL) // sh's own child
}

func TestProcessThatFails(t *testing.T) {
	p, err := start("child", 0, "sh", "-c", "echo no such thing >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	err = p.ready(t.Context(), ln.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Error(err)
	}
	p.stop()
}

func TestMachine(t *testing.T) {
	m := readMachine(t.Context(), &options{tidegate: "true", haproxy: "true", nginx: "true"})
	if m.Cores < 1 || m.Memory <= 0 || m.Kernel == "" || len(strings.Fields(m.Load)) != 3 {
		t.Errorf("%+v", m)
	}
	if c := readCores(); len(c.idle) != m.Cores {
		t.Errorf("%d cores, idle times of %d", m.Cores, len(c.idle))
	}
	if _, err := os.Stat("configs/haproxy.cfg.tmpl"); err != nil {
		t.Error(err)
	}
}
