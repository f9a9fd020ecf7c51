package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// realtimeBackends are the app servers of a realtime.
var realtimeBackends = []string{"b1", "b2", "b3"}

// realtime is three app servers of npm's realtime packages, an edge before them and clients of
// those packages.
type realtime struct {
	*edge
	url     string
	secret  string         // file for cookies
	ports   map[string]int // of the servers that listen, by name
	servers *script
	scripts *script // the clients

	mu      sync.Mutex
	refused []string // what servers said of requests that they had no session for
	polls   []string // what became of the polls that nobody answers
	streams []feed   // of events, which servers have begun
	clients map[int]*realtimeClient
	wake    chan struct{} // closed and replaced whenever something is heard
}

// realtimeClient is what is known of a client.
type realtimeClient struct {
	id       int
	kind     string
	opens    []string // the transport of each of its connections
	upgraded bool     // the newest one
	closes   []string // why they ended
	errors   []string
	heard    []saying // since the newest connection
	event    int      // the number of the newest one
	backend  string   // that it came from
}

// saying is a text of a server: who said it, over which transport.
type saying struct{ backend, transport, text string }

// feed is a stream of numbered events: who began it, behind which.
type feed struct {
	backend string
	behind  int
}

// realtimeEvent is a line of a script.
type realtimeEvent struct {
	ID                              int
	Event, Backend, Transport, Text string
	Port, Number                    int
}

// realtimeYAML is the edge of a realtime. In it, STICKY stands for more keys of the route and
// BACKENDS for the servers.
const realtimeYAML = `
ADMIN
listeners: [{name: edge, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}]
routes: [{name: app, pool: app STICKY}]
pools: [{name: app, backends: [BACKENDS], balance: {policy: round_robin}}]
`

// cookieSticky and headerSticky are what the route has besides.
const (
	cookieSticky = `, sticky: {cookie: {secret_file: SECRET}}`
	headerSticky = `, sticky: {header: X-Session}`
)

func startRealtime(t *testing.T, sticky string) *realtime {
	t.Helper()
	needNPM(t, "socket.io", "socket.io-client", "engine.io", "engine.io-client", "sockjs", "sockjs-client", "eventsource")
	r := &realtime{ports: map[string]int{}, clients: map[int]*realtimeClient{}, wake: make(chan struct{})}
	hear := func(line []byte) {
		var e realtimeEvent
		if err := json.Unmarshal(line, &e); err != nil {
			t.Errorf("a script wrote %.100q: %v", line, err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hear(e)
		close(r.wake)
		r.wake = make(chan struct{})
	}
	r.servers = startScript(t, hear, nil, append([]string{"realtime-servers.js"}, realtimeBackends...)...)
	r.until(t, "the servers listen", func() bool { return len(r.ports) == len(realtimeBackends) })
	r.secret = filepath.Join(t.TempDir(), "sticky.key")
	must(t, os.WriteFile(r.secret, []byte(strings.Repeat("0123456789", 5)), 0o600))
	r.edge = start(t, r.yaml(sticky))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.logTail())
		}
	})
	trust := "NODE_EXTRA_CA_CERTS=" + filepath.Join(r.dir, "edge.crt")
	r.scripts = startScript(t, hear, []string{trust, "NODE_NO_WARNINGS=1"}, "realtime-clients.js")
	r.url = "https://" + r.addr("edge")
	return r
}

func (r *realtime) yaml(sticky string) string {
	var backends []string
	for _, name := range realtimeBackends {
		backends = append(backends, fmt.Sprintf(`{address: "127.0.0.1:%d", id: %s}`, r.ports[name], name))
	}
	return strings.NewReplacer("STICKY", strings.ReplaceAll(sticky, "SECRET", r.secret), "BACKENDS", strings.Join(backends, ", ")).Replace(realtimeYAML)
}

// needNPM skips the test, or fails it in CI, without Node.js or some package.
func needNPM(t *testing.T, packages ...string) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "no Node.js")
	}
	for _, name := range packages {
		if _, err := os.Stat("npm/node_modules/" + name); err != nil {
			missing(t, "the packages of test/npm are not installed")
		}
	}
}

// hear takes an event. The mutex is held.
func (r *realtime) hear(e realtimeEvent) {
	c := r.clients[e.ID]
	switch e.Event {
	case "listening":
		r.ports[e.Backend] = e.Port
	case "stopped":
		delete(r.ports, e.Backend)
	case "refused":
		r.refused = append(r.refused, e.Backend+": "+e.Text)
	case "polled", "aborted":
		r.polls = append(r.polls, e.Event+" "+e.Backend)
	case "streams":
		r.streams = append(r.streams, feed{e.Backend, e.Number})
	case "open":
		c.opens = append(c.opens, e.Transport)
		c.heard, c.upgraded = nil, false
	case "upgrade":
		c.upgraded = true
	case "close":
		c.closes = append(c.closes, e.Text)
	case "error":
		c.errors = append(c.errors, e.Text)
	case "text":
		c.heard = append(c.heard, saying{e.Backend, e.Transport, e.Text})
	case "event":
		if e.Number != c.event+1 {
			c.errors = append(c.errors, fmt.Sprintf("event %d came behind %d", e.Number, c.event))
		}
		c.event, c.backend = e.Number, e.Backend
	}
}

// until waits until cond holds, which is asked with the mutex held.
func (r *realtime) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(2 * soon) // for dozens of clients that reconnect
	for {
		r.mu.Lock()
		done, wake := cond(), r.wake
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-wake:
		case <-deadline:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("not so within %v: %s\n%s\nrefused: %q", 2*soon, what, r.report(), r.refused)
		}
	}
}

// report says what is known of the clients.
func (r *realtime) report() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(r.clients)) {
		c := r.clients[id]
		fmt.Fprintf(&b, "%d %s: opens %q, upgraded %t, closes %q, errors %q, heard %q\n", id, c.kind, c.opens, c.upgraded, c.closes, c.errors, c.heard)
	}
	return b.String()
}

// open makes clients of a kind, each with a header of its own where the edge goes by that.
func (r *realtime) open(t *testing.T, n int, kind string, options map[string]any) (opened []*realtimeClient) {
	t.Helper()
	for range n {
		r.mu.Lock()
		c := &realtimeClient{id: len(r.clients) + 1, kind: kind}
		r.clients[c.id] = c
		r.mu.Unlock()
		command := map[string]any{"command": "open", "id": c.id, "kind": kind, "url": r.url}
		maps.Copy(command, options)
		if _, ok := options["header"]; ok {
			command["header"] = map[string]string{"X-Session": fmt.Sprint("client-", c.id)}
		}
		must(t, r.scripts.tell(command))
		opened = append(opened, c)
	}
	return opened
}

// say has each client say a text, and waits until its server has said it too, behind all else.
func (r *realtime) say(t *testing.T, clients []*realtimeClient, text string) {
	t.Helper()
	for _, c := range clients {
		must(t, r.scripts.tell(map[string]any{"command": "say", "id": c.id, "text": text}))
	}
	r.until(t, "every client hears "+text, func() bool { return all(clients, func(c *realtimeClient) bool { return c.last().text == text }) })
}

// lose has clients say something that nobody answers, so that they notice that their servers do
// not take it any more.
func (r *realtime) lose(t *testing.T, clients []*realtimeClient) {
	t.Helper()
	for _, c := range clients {
		must(t, r.scripts.tell(map[string]any{"command": "say", "id": c.id, "text": "lost"}))
	}
}

// last is what a client has heard last.
func (c *realtimeClient) last() saying {
	if len(c.heard) == 0 {
		return saying{}
	}
	return c.heard[len(c.heard)-1]
}

// greeted reports whether the newest connection of a client is open and has been answered.
func (c *realtimeClient) greeted() bool {
	return len(c.opens) > len(c.closes) && len(c.heard) >= 2
}

// of returns the clients of a server.
func (r *realtime) of(clients []*realtimeClient, backend string) (its []*realtimeClient) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range clients {
		if c.last().backend == backend {
			its = append(its, c)
		}
	}
	return its
}

func all(clients []*realtimeClient, cond func(*realtimeClient) bool) bool {
	return !slices.ContainsFunc(clients, func(c *realtimeClient) bool { return !cond(c) })
}
