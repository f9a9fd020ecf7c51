package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

// fakeEdge answers with what the test put into it and records what it was asked.
type fakeEdge struct {
	mu       sync.Mutex
	status   Status
	ready    error
	pools    []Pool
	sessions []Session
	reload   func(context.Context) (uint64, error)

	query  SessionQuery
	closed []Closing
	drains []string
	refuse error // a drain, its end, and a rebalancing
}

func (f *fakeEdge) Status() Status { return f.status }
func (f *fakeEdge) Ready() error   { f.mu.Lock(); defer f.mu.Unlock(); return f.ready }

func (f *fakeEdge) Pools() []Pool {
	pools := append([]Pool(nil), f.pools...)
	for i := range pools {
		pools[i].Backends = append([]Backend(nil), pools[i].Backends...)
	}
	return pools
}

func (f *fakeEdge) Sessions(q SessionQuery) (SessionPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.query = q
	if q.Cursor == "forged" {
		return SessionPage{}, ErrBadCursor
	}
	var page SessionPage
	page.Sessions = append(page.Sessions, f.sessions...)
	return page, nil
}

func (f *fakeEdge) Session(id string) (Session, bool) {
	for _, s := range f.sessions {
		if s.ID == id {
			return s, true
		}
	}
	return Session{}, false
}

func (f *fakeEdge) CloseSession(id string, code int, reason string) error {
	if id == "broken" {
		return errors.New("something else")
	}
	if _, ok := f.Session(id); !ok {
		return fmt.Errorf("%w: %s", ErrNoSession, id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = append(f.closed, Closing{id, code, reason})
	return nil
}

func (f *fakeEdge) Drain(pool, id string, p Pace) error {
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
	return f.act(line)
}

func (f *fakeEdge) Undrain(pool, id string) error { return f.act("undrain " + pool + " " + id) }

func (f *fakeEdge) Rebalance(pool string) (Rebalancing, error) {
	return Rebalancing{Remaining: 412, PerSecond: 10}, f.act("rebalance " + pool)
}

func (f *fakeEdge) act(line string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drains = append(f.drains, line)
	return f.refuse
}

func (f *fakeEdge) Reload(ctx context.Context) (uint64, error) { return f.reload(ctx) }

// opened is when everything in the fake edge began.
var opened = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)

func newFakeEdge() *fakeEdge {
	return &fakeEdge{
		status: Status{
			Version: "v1.2.3", UptimeSeconds: 90.5, Started: opened, Generation: 4, Ready: true,
			Sessions: 1, HandshakesInFlight: 2, RequestsInFlight: 3, SessionsTotal: 10,
			Listeners: []Listener{{"edge", "127.0.0.1:8443", true, 1}},
			Routes:    []Route{{"chat", "chat", 1}},
			Config:    Config{Path: "tidegate.yaml", LastReload: opened, LastReloadOK: true},
		},
		pools: []Pool{{Name: "chat", Policy: "least_connections", Index: 7, Backends: []Backend{
			{ID: "dc1/n1/chat-1", Address: "10.0.0.5:9001", Weight: 1, State: "up", Sessions: 1, InFlight: 2, Picks: 3,
				Failures: map[string]uint64{"connect": 1}, Node: "n1", Datacenter: "dc1",
				Tags: []string{"<script>"}, Meta: map[string]string{"k": "v"}},
			{ID: "b", Address: "10.0.0.6:9001"},
			{ID: "c/drain", State: "draining", Draining: &Draining{By: "operator", Remaining: 5, Since: opened, Deadline: opened.Add(time.Minute), PerSecond: 2.5}},
		}, Rebalancing: &Rebalancing{Remaining: 3, PerSecond: 0.5, Waiting: true}}},
		sessions: []Session{{
			ID: "s1", Route: "chat", Listener: "edge", Pool: "chat", Backend: "b", Client: "10.0.0.1:5000", ClientIP: "192.0.2.1",
			State: "open", Opened: opened, DurationSeconds: 1.5, Subprotocol: "v2", Host: "chat.example.com",
			Path: "/ws", RequestID: "r1",
			Upstream: Traffic{1, 2, 3}, Downstream: Traffic{4, 5, 6},
		}},
		reload: func(context.Context) (uint64, error) { return 5, nil },
	}
}

// start runs a server until the test ends.
func start(t *testing.T, opts Options) *Server {
	t.Helper()
	if opts.Address == "" {
		opts.Address = "127.0.0.1:0"
	}
	if opts.Edge == nil {
		opts.Edge = newFakeEdge()
	}
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	s := New(opts)
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
	return s
}

// answer is what came back to one request.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request on a connection of its own, exactly as it is given: the test
// and not net/http decides about Host, path and headers.
func ask(t *testing.T, s *Server, request string) answer {
	t.Helper()
	network, address := "tcp", s.Addr()
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		network, address = "unix", path
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head := strings.ReplaceAll(strings.TrimSpace(request), "\n", "\r\n")
	if !strings.Contains(head, "HTTP/1.") {
		line, rest, _ := strings.Cut(head, "\r\n")
		head = line + " HTTP/1.1\r\n" + rest
		if !strings.Contains(strings.ToLower(rest), "host:") {
			head = strings.TrimSuffix(head, "\r\n") + "\r\nHost: " + "127.0.0.1"
		}
	}
	if _, err := io.WriteString(conn, head+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, conn, strings.HasPrefix(request, "HEAD"))
}
