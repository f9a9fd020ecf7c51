package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fakeEdge is behind a real admin server; the commands reach it through real sockets.
type fakeEdge struct {
	status   admin.Status
	pools    []admin.Pool
	sessions []admin.Session
	stuck    bool // every page has the same cursor
	reload   error

	mu      sync.Mutex
	queries []admin.SessionQuery
	closed  []admin.Closing
	drains  []string
}

func (f *fakeEdge) Status() admin.Status { return f.status }
func (f *fakeEdge) Ready() error         { return nil }

func (f *fakeEdge) Pools() []admin.Pool {
	pools := slices.Clone(f.pools)
	for i := range pools {
		pools[i].Backends = slices.Clone(pools[i].Backends)
	}
	return pools
}

// Sessions pages by the number of sessions that came before.
func (f *fakeEdge) Sessions(q admin.SessionQuery) (admin.SessionPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries = append(f.queries, q)
	from := 0
	if q.Cursor != "" {
		var err error
		if from, err = strconv.Atoi(q.Cursor); err != nil {
			return admin.SessionPage{}, admin.ErrBadCursor
		}
	}
	to := min(from+q.Limit, len(f.sessions))
	page := admin.SessionPage{Sessions: append([]admin.Session(nil), f.sessions[from:to]...)}
	switch {
	case f.stuck:
		page.Next = "0"
	case to < len(f.sessions):
		page.Next = strconv.Itoa(to)
	}
	return page, nil
}

func (f *fakeEdge) Session(string) (admin.Session, bool) { return admin.Session{}, false }

func (f *fakeEdge) CloseSession(id string, code int, reason string) error {
	if strings.HasPrefix(id, "gone") {
		return fmt.Errorf("%w: %s", admin.ErrNoSession, id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = append(f.closed, admin.Closing{ID: id, Code: code, Reason: reason})
	return nil
}

func (f *fakeEdge) Drain(pool, id string, p admin.Pace) error {
	line := "drain " + pool + " " + id
	if p.Rate != nil {
		line += fmt.Sprintf(" rate %v", *p.Rate)
	}
	if p.Window != nil {
		line += fmt.Sprintf(" window %v", *p.Window)
	}
	if p.Deadline != nil {
		line += fmt.Sprintf(" deadline %v", *p.Deadline)
	}
	return f.act(line, id, nil)
}

func (f *fakeEdge) Undrain(pool, id string) error {
	return f.act("undrain "+pool+" "+id, id, admin.ErrNotDrained)
}

func (f *fakeEdge) Rebalance(pool string) (admin.Rebalancing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drains = append(f.drains, "rebalance "+pool)
	if pool == "rooms" {
		return admin.Rebalancing{}, admin.ErrHashed
	}
	return admin.Rebalancing{Remaining: 412, PerSecond: 10}, nil
}

// act notes what is done to a backend. err is for one that is not drained.
func (f *fakeEdge) act(line, id string, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drains = append(f.drains, line)
	for _, b := range f.pools[0].Backends {
		if b.ID == id && b.Draining != nil {
			return nil
		} else if b.ID == id {
			return err
		}
	}
	return admin.ErrNoBackend
}

func (f *fakeEdge) Reload(context.Context) (uint64, error) { return 5, f.reload }

var began = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)

// hostile is what somebody who registers a backend or opens a session could send to
// the terminal of whoever looks.
const hostile = "\x1b]0;owned\x07a\u009b31m\r\nb\u202ec\td"

func newFakeEdge() *fakeEdge {
	return &fakeEdge{
		status: admin.Status{
			Version: "v1.2.3", UptimeSeconds: 7425, Started: began, Generation: 4, Ready: true,
			Sessions: 12, HandshakesInFlight: 2, RequestsInFlight: 3, SessionsTotal: 4711,
			Listeners: []admin.Listener{{Name: "edge", Address: "[::]:8443", TLS: true, Sessions: 11}, {Name: "plain", Address: "127.0.0.1:8080", Sessions: 1}},
			Routes:    []admin.Route{{Name: "chat", Pool: "chat", Sessions: 12}, {Name: "feed-of-news", Pool: "feed"}},
			Config:    admin.Config{Path: "/etc/tidegate.yaml", LastReload: began, LastReloadOK: true},
		},
		pools: []admin.Pool{
			{Name: "chat", Policy: "least_connections", Backends: []admin.Backend{
				{ID: "dc1/node-1/chat-1", Address: "10.0.0.5:9001", Weight: 10, State: "up", Sessions: 7, InFlight: 1, Picks: 4000,
					Failures: map[string]uint64{"timeout": 1, "connect": 20, "refused": 0}},
				{ID: hostile, Address: "10.0.0.6:9001", Weight: 1, State: "ejected", Reason: "probe: " + hostile, Sessions: 5, Picks: 711,
					Draining: &admin.Draining{By: "operator", Remaining: 5, Since: began, Deadline: began.Add(5 * time.Minute), PerSecond: 2.5}},
			}},
			{Name: "feed", Policy: "round_robin", Stale: true, Panic: true, Rebalancing: &admin.Rebalancing{Remaining: 3, PerSecond: 0.5}},
		},
		sessions: []admin.Session{
			{ID: "s1", Route: "chat", Listener: "edge", Pool: "chat", Backend: "dc1/node-1/chat-1", Client: "192.0.2.1:50123", ClientIP: "192.0.2.1", State: "open",
				DurationSeconds: 201.7, Upstream: admin.Traffic{Messages: 3, Bytes: 512}, Downstream: admin.Traffic{Messages: 40000, Bytes: 1536 << 10}},
			{ID: "s2", Route: "chat", Listener: "edge", Pool: "chat", Backend: hostile, Client: "[2001:db8::1]:50123", State: "closing", DurationSeconds: 0.25},
			{ID: "s3", Route: "chat", Listener: "edge", Pool: "chat", Backend: "dc1/node-1/chat-1", Client: "10.0.0.1:40404", ClientIP: "2001:db8::7",
				State: "open", DurationSeconds: 62},
		},
	}
}

// serve runs an admin server until the test ends and returns its address.
func serve(t *testing.T, opts admin.Options) string {
	t.Helper()
	if opts.Address == "" {
		opts.Address = "127.0.0.1:0"
	}
	s := admin.New(opts)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s.Addr()
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "tidegate"}
	root.AddCommand(Commands()...)
	return root
}

func run(args ...string) result {
	var stdout, stderr bytes.Buffer
	code := Run(newRoot(), args, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// golden compares got to a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s:\n%s", file, diff)
	}
}

// brokenPipe is a stdout that nobody reads.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
