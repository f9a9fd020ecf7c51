package test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// memory is what the kernel says of a process (proc_pid_status(5)), in bytes.
type memory struct{ resident, peak int64 }

func (m memory) String() string {
	return fmt.Sprintf("%d KiB resident, at most %d", m.resident>>10, m.peak>>10)
}

func (e *edge) memory() (m memory) {
	e.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
	must(e.t, err)
	for l := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(l, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			m.resident = kib << 10
		case "VmHWM":
			m.peak = kib << 10
		}
	}
	if m.resident == 0 || m.peak == 0 {
		e.t.Fatalf("/proc says %s", status)
	}
	return m
}

// forgetPeak makes the peak what is resident now (proc_pid_clear_refs(5)).
func (e *edge) forgetPeak() {
	e.t.Helper()
	must(e.t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", e.cmd.Process.Pid), []byte("5"), 0))
}

// neighbour is a session that echoes, one message after another.
type neighbour struct {
	c     *gorilla.Conn
	said  int
	times []time.Duration
}

func newNeighbour(t *testing.T, url string) *neighbour {
	t.Helper()
	d := gorilla.Dialer{TLSClientConfig: insecure(), EnableCompression: true}
	c, res, err := d.Dial(url, nil)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	if answer := res.Header.Get("Sec-WebSocket-Extensions"); !strings.HasPrefix(answer, "permessage-deflate") {
		t.Fatalf("the neighbour was answered %q", answer)
	}
	return &neighbour{c: c}
}

// echo says one message and waits for it.
func (n *neighbour) echo() error {
	n.said++
	want := chat(n.said, 1000+n.said%3000)
	began := time.Now()
	n.c.SetReadDeadline(began.Add(soon))
	if err := n.c.WriteMessage(gorilla.TextMessage, want); err != nil {
		return err
	}
	_, got, err := n.c.ReadMessage()
	n.times = append(n.times, time.Since(began))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("message %d came back as %.40q", n.said, got)
	}
	return err
}

func (n *neighbour) echoes(t *testing.T, count int) {
	t.Helper()
	for range count {
		must(t, n.echo())
	}
}

// talk echoes without a pause while something happens. The times that it prints have in
// them what this process does for the others; they are to be compared, not believed.
func (n *neighbour) talk(t *testing.T, while func()) {
	t.Helper()
	n.times = nil
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			if err := n.echo(); err != nil {
				ended <- err
				return
			}
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
		}
	}()
	began := time.Now()
	while()
	took := time.Since(began)
	close(stop)
	if err := <-ended; err != nil {
		t.Errorf("the neighbour, after %d messages: %v", n.said, err)
	}
	slices.Sort(n.times)
	t.Logf("within %v the neighbour said %d messages: median %v, p99 %v, at most %v", took.Round(time.Millisecond), len(n.times),
		n.times[len(n.times)/2], n.times[len(n.times)*99/100], n.times[len(n.times)-1])
}
