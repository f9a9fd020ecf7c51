package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/consultest"
)

// deploySize is how many clients a test of deploys has: fewer with the race detector.
func deploySize(full, raced int) int { return pickOf(raceEnabled, full, raced) }

// deploySettings are what the tests of deploys differ in.
type deploySettings struct {
	size       int           // how many clients
	pace       time.Duration // mean time between two messages, each way
	whole      bool          // apps send no message in several frames
	rejoin     bool          // a client whose session has ended comes back as another one
	persistent bool          // the agent can be stopped and started
	pool       string        // YAML of the pool; KEY_FILE stands for a key
}

const deployConfig = `
ADMIN
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: talk, pool: apps, websocket: {close_timeout: 30s}}
pools:
  - name: apps
    consul: {address: "http://CONSUL", service: talk}
    removal_grace: 500ms
`

// deployRig is an edge with clients that talk to apps that a Consul agent announces.
type deployRig struct {
	*edge
	deploySettings
	key     string // path of the key
	agent   *consultest.Agent
	address string
	apps    map[string]*deployApp // all that there ever were, by name

	mu       sync.Mutex
	number   int // of the next client
	clients  []*deployClient
	refusals map[string]int // handshakes that failed, by error
	closing  chan struct{}  // closed: nobody comes back
	joining  sync.WaitGroup

	stalled func() time.Duration // ends watching how late this process is woken; at worst so late
}

// newDeployRig starts apps named a, b and so on, and opens the clients' sessions.
func newDeployRig(t *testing.T, s deploySettings, npm ...bool) *deployRig {
	t.Helper()
	r := &deployRig{deploySettings: s, apps: map[string]*deployApp{}, refusals: map[string]int{}, closing: make(chan struct{})}
	r.stalled = sync.OnceValue(stallMeter())
	t.Cleanup(func() { r.stalled() })
	r.agent = consultest.Start(t, consultest.Options{Persistent: s.persistent})
	r.key = filepath.Join(t.TempDir(), "migrate.key")
	must(t, os.WriteFile(r.key, []byte("0123456789abcdef0123456789abcdef"), 0o600))
	for i, npm := range npm {
		r.register(t, r.launch(t, string(rune('a'+i)), npm))
	}
	r.edge = start(t, r.with(s.pool))
	r.address = r.addr("wss")
	r.eventually("the backends are up", func() bool { return len(r.pools()["apps"].Backends) == len(npm) })
	t.Cleanup(r.hangUp)
	return r
}

// with is the configuration with YAML of the pool.
func (r *deployRig) with(pool string) string {
	return strings.NewReplacer("CONSUL", r.agent.Address(), "KEY_FILE", r.key).Replace(deployConfig + pool)
}

func (r *deployRig) launch(t *testing.T, name string, npm bool) *deployApp {
	t.Helper()
	a := newDeployApp(t, name, npm)
	r.apps[name] = a
	return a
}

func (r *deployRig) register(t *testing.T, a *deployApp) {
	t.Helper()
	r.agent.Register(t, consultest.Service{ID: a.name, Name: "talk", Address: "127.0.0.1", Port: a.port})
}

// open has all clients join, a few at a time.
func (r *deployRig) open() {
	r.t.Helper()
	slots := make(chan struct{}, maxDials)
	for range r.size {
		slots <- struct{}{}
		r.joining.Go(func() { r.join(); <-slots })
	}
	for range maxDials {
		slots <- struct{}{}
	}
	if n := len(r.live()); n != r.size {
		r.t.Fatalf("%d of %d clients have joined: %v\n%s", n, r.size, r.refusals, r.logTail())
	}
}

// join opens a session for a client, a while later once more if that is refused and clients
// come back.
func (r *deployRig) join() {
	query := pickOf(r.whole, "", "&whole")
	r.mu.Lock()
	number := r.number
	r.number++
	r.mu.Unlock()
	for {
		c, err := dialDeploy(r.address, number, r.pace, query)
		r.mu.Lock()
		if err == nil {
			r.clients = append(r.clients, c)
		} else {
			r.refusals[err.Error()]++
		}
		r.mu.Unlock()
		if err == nil && r.rejoin {
			r.joining.Go(func() { <-c.ended; r.comeBack() })
		}
		if err == nil || !r.rejoin || !r.pause() {
			return
		}
	}
}

func (r *deployRig) comeBack() {
	if r.pause() {
		r.join()
	}
}

// pause waits as clients do before they come back, and reports whether they still do.
func (r *deployRig) pause() bool {
	select {
	case <-time.After(rand.N(500 * time.Millisecond)):
		return true
	case <-r.closing:
		return false
	}
}

// stay ends the coming back of clients.
func (r *deployRig) stay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.closing:
	default:
		close(r.closing)
	}
}

// all returns all clients that there ever were.
func (r *deployRig) all() []*deployClient {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.clients)
}

func (r *deployRig) live() []*deployClient {
	return slices.DeleteFunc(r.all(), (*deployClient).over)
}

func (r *deployRig) hangUp() {
	r.stay()
	for _, c := range r.all() {
		c.end.Close()
	}
	r.joining.Wait()
}

// flows waits until each live client has had an answer to a message that it sent after this
// call, and something that its app said of its own accord.
func (r *deployRig) flows(when string) {
	r.t.Helper()
	type mark struct{ sent, said uint64 }
	marks := map[*deployClient]mark{}
	for _, c := range r.live() {
		marks[c] = mark{c.sent.Load(), c.said.Load()}
	}
	r.within(time.Minute, when+": each client has an answer and a push", func() bool {
		for c, m := range marks {
			if c.over() || c.reply.Load() > m.sent && c.said.Load() > m.said {
				delete(marks, c)
			}
		}
		return len(marks) == 0
	})
}

// finish has all live clients finish in good order.
func (r *deployRig) finish() {
	r.t.Helper()
	r.stay()
	live := r.live()
	for _, c := range live {
		c.finish()
	}
	patience := time.After(time.Minute)
	for _, c := range live {
		select {
		case <-c.ended:
		case <-patience:
			r.t.Fatalf("client %d has not finished: %d sent, %d answered\n%s", c.number, c.sent.Load(), c.reply.Load(), r.logTail())
		}
		if !c.agreed || c.code != 1000 {
			r.t.Errorf("client %d ended with %d %q, %v; %d sent, %d answered", c.number, c.code, c.reason, c.err, c.sent.Load(), c.reply.Load())
		}
	}
}

// backend is how the edge shows an app, nothing if it does not.
func (r *deployRig) backend(name string) admin.Backend {
	b, _ := backendOf(r.pools()["apps"], name)
	return b
}

// isUp waits until new sessions may land on an app.
func (r *deployRig) isUp(name string) {
	r.t.Helper()
	r.eventually(name+" is up", func() bool { return r.backend(name).State == "up" })
}

// moves returns what tidegate_migrations_total says, by result, without zeros.
func (r *deployRig) moves() map[string]int {
	results := map[string]int{}
	for series, v := range r.metrics() {
		if labels, ok := strings.CutPrefix(series, "tidegate_migrations_total{"); ok && v != 0 {
			_, result, _ := strings.Cut(labels, `result="`)
			results[strings.TrimRight(result, `"}`)] = int(v)
		}
	}
	return results
}

func (r *deployRig) inDoubt() int {
	return int(r.metrics()[`tidegate_messages_in_doubt_total{pool="apps"}`])
}

// whereabouts counts sessions by app, for messages.
func (r *deployRig) whereabouts() string {
	var parts []string
	for _, b := range r.pools()["apps"].Backends {
		parts = append(parts, fmt.Sprintf("%s %s %d", b.ID[strings.LastIndexByte(b.ID, '/')+1:], b.State, b.Sessions))
	}
	return strings.Join(parts, ", ")
}
