package test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/consul/api"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/consultest"
)

// consulConfig has two pools of one service: apps for the sessions that last, even, which
// takes turns, for those that show where new ones go. Draining is for TestConsulDrains: here
// it is so slow that nobody leaves.
const consulConfig = `
ADMIN
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: secure, address: "127.0.0.2:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: talk, match: {path: /talk}, pool: apps}
  - {name: turns, match: {path: /turns}, pool: even}
pools:
  - {name: apps, consul: {address: "CONSUL", service: talk}, drain: {window: 100000h, deadline: 0}, on_backend_removed: keep}
  - {name: even, consul: {address: "CONSUL", service: talk}, balance: {policy: round_robin}}
`

// consulRig is an edge that follows a real agent, with live sessions.
type consulRig struct {
	*edge
	agent   *consultest.Agent
	control *control
	talkers map[string]*talker
	fleet   *fleet
	turns   string // URL of the route whose pool takes turns
	slowest time.Duration
}

// promise is how soon after Consul announces it new sessions follow a change.
const promise = time.Second

func newConsulRig(t *testing.T, names ...string) *consulRig {
	t.Helper()
	r := &consulRig{agent: consultest.Start(t, consultest.Options{Persistent: true}), talkers: map[string]*talker{}}
	for _, name := range names {
		r.talkers[name] = newTalker(t, name)
	}
	for _, name := range names[:3] {
		r.register(t, name)
	}
	r.control = startControl(t, r.agent, "talk")
	r.edge = start(t, strings.ReplaceAll(consulConfig, "CONSUL", "http://"+r.agent.Address()))
	r.turns = "ws://" + r.addr("plain") + "/turns"
	r.fleet = newFleet(t, 400*time.Millisecond)
	return r
}

func (r *consulRig) register(t *testing.T, name string) {
	t.Helper()
	r.agent.Register(t, consultest.Service{ID: name, Name: "talk", Address: "127.0.0.1", Port: r.talkers[name].port})
}

// standing is what takes part in a service: state and weight by the last part of the ID.
type standing map[string]string

// abcd is the standing of the talkers a to d with weight 1; "" is one that is not there.
func abcd(states ...string) standing {
	s := standing{}
	for i, state := range states {
		if state != "" {
			s[string(rune('a'+i))] = state + "*1"
		}
	}
	return s
}

func (s standing) with(name, value string) standing {
	s = maps.Clone(s)
	s[name] = value
	return s
}

// standing is what the edge shows of a pool. A removed backend takes no part any more.
func (r *consulRig) standing(pool string) standing {
	s := standing{}
	for _, b := range r.pools()[pool].Backends {
		if b.State != "removed" {
			s[b.ID[strings.LastIndexByte(b.ID, '/')+1:]] = fmt.Sprintf("%s*%d", b.State, b.Weight)
		}
	}
	return s
}

func (r *consulRig) shows(want standing) bool {
	return maps.Equal(r.standing("apps"), want) && maps.Equal(r.standing("even"), want)
}

// change makes a change in Consul and waits until the edge shows it. The promise is
// counted from when Consul announced it, which another client of the agent notes: what the
// agent takes for it is not the edge's. A machine that lets processes wait is allowed for
// by what the tests themselves had to wait, once for each of the hands that it goes
// through.
func (r *consulRig) change(what string, do func(), want standing) {
	r.t.Helper()
	stall := stallMeter()
	begun := time.Now()
	do()
	told := time.Since(begun)
	announced := r.control.await(r.t, begun, want).Sub(begun)
	r.eventually(fmt.Sprintf("%s: %v", what, want), func() bool { return r.shows(want) })
	shown, worst := time.Since(begun), stall()
	r.t.Logf("%-28s Consul answers after %4d ms, announces it after %4d ms, the edge shows it after %4d ms (stalls of %d ms)", what,
		told.Milliseconds(), announced.Milliseconds(), shown.Milliseconds(), worst.Milliseconds())
	r.slowest = max(r.slowest, shown-announced)
	if shown-announced > promise+5*worst {
		r.t.Errorf("%s: the edge shows it %v after Consul, promised are %v", what, shown-announced, promise)
	}
}

// control follows a service as the edge does and notes when the agent announced what.
type control struct {
	mu      sync.Mutex
	history []announcement
}

type announcement struct {
	at time.Time
	standing
}

func startControl(t *testing.T, agent *consultest.Agent, service string) *control {
	c := &control{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for index := uint64(0); ctx.Err() == nil; {
			entries, meta, err := agent.Client().Health().Service(service, "", false,
				(&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute, AllowStale: true}).WithContext(ctx))
			if err != nil {
				index = 0
				select {
				case <-time.After(50 * time.Millisecond): // the agent is down: it is not asked in a tight loop
				case <-ctx.Done():
				}
				continue
			}
			index = meta.LastIndex
			c.mu.Lock()
			c.history = append(c.history, announcement{time.Now(), standingOf(entries)})
			c.mu.Unlock()
		}
	}()
	return c
}

// standingOf reads health entries as FIELD says they are meant.
func standingOf(entries []*api.ServiceEntry) standing {
	words := map[string]string{api.HealthMaint: "draining", api.HealthCritical: "down", api.HealthPassing: "up"}
	s := standing{}
	for _, e := range entries {
		s[e.Service.ID] = fmt.Sprintf("%s*%d", words[e.Checks.AggregatedStatus()], e.Service.Weights.Passing)
	}
	return s
}

// await returns when, since a time, want was announced first.
func (c *control) await(t *testing.T, since time.Time, want standing) time.Time {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c.mu.Lock()
		at := slices.IndexFunc(c.history, func(a announcement) bool { return a.at.After(since) && maps.Equal(a.standing, want) })
		if at >= 0 {
			defer c.mu.Unlock()
			return c.history[at].at
		}
		c.mu.Unlock()
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("Consul has not announced %v within 60 s", want)
		}
	}
}

// stallMeter begins to watch how late this process is woken; the returned function ends
// that and says how late it was at worst.
func stallMeter() func() time.Duration {
	const every = 5 * time.Millisecond
	stop, worst := make(chan struct{}), make(chan time.Duration)
	go func() {
		var late time.Duration
		for {
			due := time.Now().Add(every)
			select {
			case <-time.After(every):
				late = max(late, time.Since(due))
			case <-stop:
				worst <- late
				return
			}
		}
	}()
	return func() time.Duration { close(stop); return <-worst }
}

// land opens as many new sessions as want has in all, and compares where they went. A
// count may be off by two: whatever a set is rebuilt for, the turns begin anew.
func (r *consulRig) land(when string, want map[string]int) {
	r.t.Helper()
	n := 0
	for _, k := range want {
		n += k
	}
	got := landings(r.t, n, r.turns)
	if !maps.EqualFunc(got, want, func(a, b int) bool { return a >= b-2 && a <= b+2 }) {
		r.t.Errorf("%s: new sessions landed at %v, want %v", when, got, want)
	}
}

// settled checks that the sessions that last go on as if nothing had happened, and that
// API, CLI and metrics agree on the states of the backends.
func (r *consulRig) settled(when string, states map[string]string) {
	r.t.Helper()
	r.fleet.flows(when)
	r.fleet.untouched(when)
	code, table, stderr := r.cli("pools")
	if code != 0 {
		r.t.Errorf("%s: tidegate pools: exit %d: %s", when, code, stderr)
	}
	m, pools := r.metrics(), r.pools()
	for name, state := range states {
		b, ok := backendOf(pools["apps"], name)
		if !ok || b.State != state {
			r.t.Errorf("%s: backend %s is %+v, want %s", when, name, b, state)
			continue
		}
		for _, s := range []string{"up", "draining", "down", "removed", "ejected", "slow_start"} {
			series := fmt.Sprintf(`tidegate_backend_state{backend=%q,pool="apps",state=%q}`, b.ID, s)
			if v, ok := m[series]; !ok || v != map[bool]float64{true: 1}[s == state] {
				r.t.Errorf("%s: %s is %v", when, series, v)
			}
		}
		if !slices.ContainsFunc(strings.Split(table, "\n"), func(row string) bool {
			return strings.HasPrefix(row, "apps ") && strings.Contains(row, b.ID+" ") && strings.Contains(row, " "+state+" ")
		}) {
			r.t.Errorf("%s: tidegate pools does not show %s %s:\n%s", when, b.ID, state, table)
		}
	}
}

// open opens sessions that last, a fifth of them with TLS.
func (r *consulRig) open(n int) {
	r.t.Helper()
	plain, secure, before := r.addr("plain"), r.addr("secure"), len(r.fleet.talks)
	r.fleet.open(n, func(i int) string {
		return pickOf(i%5 == 0, "ws://"+plain, "wss://"+secure) + fmt.Sprintf("/talk/%d", before+i)
	})
}

// TestConsul: 500 sessions go on talking while their service changes in every way. Only
// the sessions of a backend that really dies are closed, and new ones follow within the
// promise.
func TestConsul(t *testing.T) {
	r := newConsulRig(t, "a", "b", "c", "d")
	r.eventually("three backends are up", func() bool { return r.shows(abcd("up", "up", "up")) })
	r.land("at first", map[string]int{"a": 4, "b": 4, "c": 4})
	idle := r.footprint()
	r.open(500)
	// Nothing has finished: the counts differ by one at most.
	for name, n := range r.fleet.byApp() {
		if n < 500/3 || n > 500/3+1 {
			t.Errorf("%d of 500 sessions are on %s", n, name)
		}
	}
	r.fleet.flows("at first")
	for more := soaking(t); ; {
		r.cycle(t)
		if !more() {
			break
		}
	}
	t.Logf("the slowest change was shown %v after Consul had announced it", r.slowest.Round(time.Millisecond))
	r.killOne(t)
	r.agrees(r.fleet, slices.Collect(maps.Values(r.talkers)))
	up, down := r.fleet.end()
	t.Logf("%d messages up, %d down", up, down)
	r.over(slices.Collect(maps.Values(r.talkers)))
	var left footprint
	r.eventually("what the sessions held is let go", func() bool {
		left = r.footprint()
		return left.goroutines <= idle.goroutines+5 && left.fds <= idle.fds+5 && left.heap < idle.heap+4<<20
	})
	t.Logf("before and after: goroutines %d, %d; descriptors %d, %d; live heap %d, %d KiB", idle.goroutines, left.goroutines,
		idle.fds, left.fds, idle.heap>>10, left.heap>>10)
}

// cycle goes through all that can happen to a service and its agent. At its begin and end
// a, b and c are registered and d is not.
func (r *consulRig) cycle(t *testing.T) {
	agent := r.agent
	r.change("register a fourth", func() { r.register(t, "d") }, abcd("up", "up", "up", "up"))
	r.land("four", map[string]int{"a": 4, "b": 4, "c": 4, "d": 4})
	before := r.fleet.byApp()
	if before["d"] == 0 {
		r.open(20) // it has none, so that it gets all
		if got := r.fleet.byApp(); got["d"] != 20 {
			t.Errorf("with none on d before, 20 new sessions made %v of %v", got, before)
		}
	}
	r.settled("four", map[string]string{"a": "up", "b": "up", "c": "up", "d": "up"})

	r.change("weight 3", func() { agent.SetWeight(t, "a", 3, 1) }, abcd("up", "up", "up", "up").with("a", "up*3"))
	r.land("weight 3", map[string]int{"a": 12, "b": 4, "c": 4, "d": 4})
	r.change("weight 1 again", func() { agent.SetWeight(t, "a", 1, 1) }, abcd("up", "up", "up", "up"))
	r.land("weight 1 again", map[string]int{"a": 4, "b": 4, "c": 4, "d": 4})

	r.change("maintenance of one", func() { agent.Maintenance(t, "b", true) }, abcd("up", "draining", "up", "up"))
	r.land("maintenance of one", map[string]int{"a": 4, "c": 4, "d": 4})
	r.settled("maintenance of one", map[string]string{"b": "draining", "a": "up"})
	r.change("end of it", func() { agent.Maintenance(t, "b", false) }, abcd("up", "up", "up", "up"))
	r.land("end of maintenance", map[string]int{"a": 4, "b": 4, "c": 4, "d": 4})

	r.change("maintenance of the node", func() { agent.NodeMaintenance(t, true) }, abcd("draining", "draining", "draining", "draining"))
	r.land("maintenance of the node", map[string]int{"503": 4})
	r.settled("maintenance of the node", map[string]string{"a": "draining", "d": "draining"})
	r.change("end of it", func() { agent.NodeMaintenance(t, false) }, abcd("up", "up", "up", "up"))

	r.change("a critical check", func() { agent.SetCheck(t, "c", api.HealthCritical) }, abcd("up", "up", "down", "up"))
	r.land("a critical check", map[string]int{"a": 4, "b": 4, "d": 4})
	r.settled("a critical check", map[string]string{"c": "down", "b": "up"})
	r.change("it passes again", func() { agent.SetCheck(t, "c", api.HealthPassing) }, abcd("up", "up", "up", "up"))

	r.change("deregister one that lives", func() { agent.Deregister(t, "d") }, abcd("up", "up", "up", ""))
	r.land("deregister one that lives", map[string]int{"a": 4, "b": 4, "c": 4})
	r.settled("deregister one that lives", map[string]string{"d": "removed", "a": "up"})
	r.restartAgent(t)
}

// restartAgent stops the agent, for which nothing changes but the word that it is so.
func (r *consulRig) restartAgent(t *testing.T) {
	stale := func(want bool) func() bool {
		return func() bool {
			p := r.pools()
			return p["apps"].Stale == want && p["even"].Stale == want
		}
	}
	quiet := map[string]string{"a": "up", "b": "up", "c": "up", "d": "removed"}
	before := len(r.backendLog())
	begun := time.Now()
	r.agent.Stop(t)
	r.eventually("the pools are stale", stale(true))
	t.Logf("the agent stopped; the edge says stale after %v", time.Since(begun).Round(time.Millisecond))
	r.land("without Consul", map[string]int{"a": 4, "b": 4, "c": 4})
	r.settled("without Consul", quiet)
	if m := r.metrics(); m[`tidegate_discovery_stale{pool="apps"}`] != 1 || m[`tidegate_consul_errors_total{pool="apps"}`] == 0 {
		t.Errorf("stale is %v after %v errors", m[`tidegate_discovery_stale{pool="apps"}`], m[`tidegate_consul_errors_total{pool="apps"}`])
	}
	if _, table, _ := r.cli("pools"); !strings.Contains(table, "pool apps is stale") {
		t.Errorf("tidegate pools does not say stale:\n%s", table)
	}
	begun = time.Now()
	r.agent.Start(t)
	started := time.Now()
	r.eventually("Consul is followed again", stale(false))
	t.Logf("the agent started in %v; the edge follows it again %v later", started.Sub(begun).Round(time.Millisecond), time.Since(started).Round(time.Millisecond))
	r.land("with Consul again", map[string]int{"a": 4, "b": 4, "c": 4})
	r.settled("with Consul again", quiet)
	if lines := r.backendLog()[before:]; len(lines) != 0 {
		t.Errorf("a restart of the agent changed backends:\n%v", lines)
	}
	if v := r.metrics()[`tidegate_discovery_stale{pool="apps"}`]; v != 0 {
		t.Errorf("discovery_stale is %v", v)
	}
}

// backendLog is what the edge has logged of changes of backends, and of Consul.
func (r *consulRig) backendLog() (lines []map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		if l["msg"] == "backend" || l["msg"] == "backend removed" {
			lines = append(lines, l)
		}
	}
	return lines
}

// killOne kills a backend's process. Its sessions get Close 1012, nobody else notices, and
// new sessions go elsewhere though Consul still says that it is well.
func (r *consulRig) killOne(t *testing.T) {
	r.fleet.untouched("before the kill")
	total := len(r.fleet.talks)
	var doomed []*talk
	for _, k := range r.fleet.talks {
		if k.app == "c" {
			doomed = append(doomed, k)
		}
	}
	if wrong := r.talkers["c"].stats().Wrong; len(wrong) > 0 {
		t.Errorf("talker c: %v", wrong)
	}
	ended := r.countLog("session ended")
	r.talkers["c"].kill()
	slow := time.After(20 * time.Second)
	for _, k := range doomed {
		select {
		case <-k.ended:
		case <-slow:
			t.Fatalf("%s: its backend is dead, it still lives", k.url)
		}
		if k.code != websocket.CloseServiceRestart || k.wrong != "" {
			t.Errorf("%s: its backend was killed, it ended with %v; %s", k.url, k.err, k.wrong)
		}
	}
	r.land("after the kill", map[string]int{"a": 6, "b": 6})
	r.eventually("the counts are right", func() bool { return r.status().Sessions == int64(total-len(doomed)) })
	r.fleet.flows("after the kill")
	if live := len(r.fleet.live()); live != total-len(doomed) {
		t.Errorf("%d of %d sessions are left, %d were on the killed backend", live, total, len(doomed))
	}
	r.eventually("all ends are logged", func() bool { return r.countLog("session ended") >= ended+len(doomed)+12 })
	b, _ := backendOf(r.pools()["apps"], "c")
	if b.State != "ejected" || b.Sessions != 0 || b.Failures["aborted"] != uint64(len(doomed)) {
		t.Errorf("the killed backend is %+v, want %d aborted", b, len(doomed))
	}
	if n := int(r.metrics()[`tidegate_closes_total{code="1012",initiator="backend",route="talk"}`]); n != len(doomed) {
		t.Errorf("closes_total has %d with 1012, want %d:\n%v", n, len(doomed), closes(r.metrics()))
	}
	t.Logf("killed: %d of %d sessions closed", len(doomed), total)
	r.change("its check turns critical", func() { r.agent.SetCheck(t, "c", api.HealthCritical) }, abcd("up", "up", "down"))
	r.pagesAgree(t)
}

// closes are the series of ended sessions, for messages.
func closes(m map[string]float64) map[string]float64 {
	maps.DeleteFunc(m, func(series string, _ float64) bool { return !strings.HasPrefix(series, "tidegate_closes_total") })
	return m
}

// pagesAgree reads all sessions page by page and compares them with what the clients
// know.
func (r *consulRig) pagesAgree(t *testing.T) {
	want := map[string]int{}
	for _, k := range r.fleet.live() {
		path := k.url[strings.Index(k.url, "/talk"):]
		want[path+" "+k.app]++
	}
	got := map[string]int{}
	for q := (admin.SessionQuery{Limit: 97, Pool: "apps"}); ; {
		page, err := r.api.Sessions(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Sessions {
			got[s.Path+" "+s.Backend[strings.LastIndexByte(s.Backend, '/')+1:]]++
			if s.Upstream.Messages == 0 || s.Downstream.Messages == 0 {
				t.Errorf("%+v has not counted", s)
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the API lists %d sessions, the clients have %d", len(got), len(want))
	}
}
