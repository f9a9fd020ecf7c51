package test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/admin"
)

// chaosSeed names the seed of TestChaos, so that what is done, and in which order, can be
// had once more; what it meets is the machine's.
const chaosSeed = "TIDEGATE_CHAOS_SEED"

// chaosSettle is the shortest settle of chaosPools.
const chaosSettle = 100 * time.Millisecond

// chaosPools are what reloads change between. An app is quiet for settle soon: it speaks
// about twice a second.
var chaosPools = []string{`
    drain: {window: 1s}
    on_backend_failure: migrate
    migrate: {secret_file: KEY_FILE, settle: 100ms, timeout: 8s, redials_per_second: 500}
`, `
    drain: {rate: 100/s, order: idle}
    on_backend_failure: migrate
    migrate: {secret_file: KEY_FILE, settle: 200ms, timeout: 8s, redials_per_second: 200}
    balance: {policy: power_of_two_choices}
`, `
    drain: {window: 0s, order: random}
    on_backend_failure: migrate
    on_backend_removed: keep
    migrate: {secret_file: KEY_FILE, settle: 100ms, timeout: 8s, max_buffered: 64KiB, on_close_codes: [1012]}
    balance: {policy: round_robin}
`}

// chaos is a deployment where everything goes wrong. It belongs to the test's goroutine.
type chaos struct {
	*deployRig
	random     *rand.Rand
	yamls      []string
	launched   int
	serving    []string // registered, and their processes live
	dead       []string // registered still
	leaving    []string // deregistered; their processes live
	drained    []string // by the operator
	maintained []string
	down       bool // the agent
	did        map[string]int
}

// chaosServing is how many app servers there are to be, chaosLeast how few there may be.
const chaosServing, chaosLeast = 4, 2

func newChaos(t *testing.T) *chaos {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(chaosSeed); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("%s=%d", chaosSeed, seed)
	h := &chaos{random: rand.New(rand.NewPCG(seed, 0)), did: map[string]int{}}
	h.deployRig = newDeployRig(t, deploySettings{size: deploySize(300, 80), pace: 500 * time.Millisecond, rejoin: true, persistent: true,
		pool: chaosPools[0]}, false, true, false, true)
	h.launched, h.serving = chaosServing, []string{"a", "b", "c", "d"}
	for _, pool := range chaosPools {
		h.yamls = append(h.yamls, h.with(pool))
	}
	return h
}

// pick takes one of a list, "" of an empty one.
func (h *chaos) pick(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[h.random.IntN(len(list))]
}

func without(list []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == name })
}

// chaosAction is something that goes wrong, or is meant to. It reports whether it could be
// done.
type chaosAction struct {
	name   string
	weight int
	do     func(h *chaos) bool
}

var chaosActions = []chaosAction{
	{"drain", 4, (*chaos).drain},
	{"undrain", 4, (*chaos).undrain},
	{"maintain", 3, (*chaos).maintain},
	{"serve again", 3, (*chaos).serveAgain},
	{"kill", 2, (*chaos).crash},
	{"restart", 2, (*chaos).restart},
	{"deregister", 2, (*chaos).deregister},
	{"flap", 1, (*chaos).flap},
	{"launch", 6, (*chaos).start},
	{"forget", 4, (*chaos).forget},
	{"reload", 2, (*chaos).change},
	{"come and go", 3, (*chaos).comeAndGo},
}

// step does something.
func (h *chaos) step() {
	total := 0
	for _, a := range chaosActions {
		total += a.weight
	}
	at := h.random.IntN(total)
	for _, a := range chaosActions {
		if at -= a.weight; at < 0 {
			if a.do(h) {
				h.did[a.name]++
			}
			break
		}
	}
	time.Sleep(time.Duration(h.random.IntN(200)) * time.Millisecond) // what it is to meet
}

func (h *chaos) drain() bool {
	name := h.pick(h.serving)
	window := fmt.Sprintf("%dms", h.random.IntN(1500))
	if name == "" || slices.Contains(h.drained, name) {
		return false
	}
	if _, err := h.api.Drain(context.Background(), "apps", "dc1/node1/"+name, admin.DrainRequest{Window: window}); err != nil {
		return false // Consul has not told of it yet, or of its return
	}
	h.drained = append(h.drained, name)
	return true
}

func (h *chaos) undrain() bool {
	name := h.pick(h.drained)
	h.drained = without(h.drained, name)
	if name != "" {
		h.api.Undrain(context.Background(), "apps", "dc1/node1/"+name) // it may have gone meanwhile
	}
	return name != ""
}

func (h *chaos) maintain() bool {
	name := h.pick(h.serving)
	if h.down || name == "" || slices.Contains(h.maintained, name) {
		return false
	}
	h.agent.Maintenance(h.t, name, true)
	h.maintained = append(h.maintained, name)
	return true
}

func (h *chaos) serveAgain() bool {
	name := h.pick(h.maintained)
	if h.down || name == "" {
		return false
	}
	h.agent.Maintenance(h.t, name, false)
	h.maintained = without(h.maintained, name)
	return true
}

// alive is how many processes live that could have sessions moved to them.
func (h *chaos) alive() int { return len(h.serving) }

// crash has a process die; Consul does not notice yet.
func (h *chaos) crash() bool { return h.lose(func(a *deployApp) { a.kill() }) }

// restart has a process end by itself.
func (h *chaos) restart() bool { return h.lose((*deployApp).restart) }

func (h *chaos) lose(end func(*deployApp)) bool {
	name := h.pick(h.serving)
	if h.alive() <= chaosLeast {
		return false
	}
	h.serving, h.dead = without(h.serving, name), append(h.dead, name)
	end(h.apps[name])
	return true
}

// deregister takes an app out for good; its process goes when its sessions have gone.
func (h *chaos) deregister() bool {
	name := h.pick(h.serving)
	if h.down || h.alive() <= chaosLeast {
		return false
	}
	h.serving, h.leaving = without(h.serving, name), append(h.leaving, name)
	h.unregister(name)
	return true
}

func (h *chaos) unregister(name string) {
	h.agent.Deregister(h.t, name)
	h.maintained, h.drained = without(h.maintained, name), without(h.drained, name)
}

// flap takes an app out and back.
func (h *chaos) flap() bool {
	name := h.pick(h.serving)
	if h.down || name == "" {
		return false
	}
	h.unregister(name)
	time.Sleep(time.Duration(h.random.IntN(800)) * time.Millisecond) // within removal_grace or not
	h.register(h.t, h.apps[name])
	return true
}

// start launches an app where one is wanted.
func (h *chaos) start() bool {
	if h.down || h.alive() >= chaosServing {
		return false
	}
	name := fmt.Sprintf("x%d", h.launched)
	h.launched++
	h.register(h.t, h.launch(h.t, name, h.random.IntN(2) == 0))
	h.serving = append(h.serving, name)
	return true
}

// forget takes what is dead out of Consul.
func (h *chaos) forget() bool {
	name := h.pick(h.dead)
	if h.down || name == "" {
		return false
	}
	h.unregister(name)
	h.dead = without(h.dead, name)
	return true
}

func (h *chaos) change() bool {
	if _, err := h.reload(h.yamls[h.random.IntN(len(h.yamls))]); err != nil {
		h.t.Errorf("reload: %v", err)
	}
	return true
}

// comeAndGo has some clients leave of their own accord; others come for them.
func (h *chaos) comeAndGo() bool {
	live := h.live()
	for range min(5, len(live)) {
		c := live[h.random.IntN(len(live))]
		c.left.Store(true)
		c.close(1000)
	}
	return true
}

// withoutAgent lets the agent be down for some steps.
func (h *chaos) withoutAgent() {
	h.agent.Stop(h.t)
	h.down = true
	for range 8 {
		h.step()
	}
	h.agent.Start(h.t)
	h.down = false
	h.did["agent"]++
}

// calm puts everything right again, and waits until the edge knows.
func (h *chaos) calm() {
	h.t.Helper()
	begun := time.Now()
	for len(h.maintained) > 0 {
		h.serveAgain()
	}
	for len(h.dead) > 0 {
		h.forget()
	}
	for h.start() {
	}
	// Also those of which a list of ours has lost track.
	h.within(time.Minute, "what is registered is up, and nothing else is there", func() bool {
		up := 0
		for _, b := range h.pools()["apps"].Backends {
			name := b.ID[strings.LastIndexByte(b.ID, '/')+1:]
			switch {
			case !slices.Contains(h.serving, name):
				if b.Draining == nil && b.Sessions > 0 { // on_backend_removed: keep
					h.api.Drain(context.Background(), "apps", b.ID, admin.DrainRequest{})
				}
				return false
			case b.Draining != nil:
				h.api.Undrain(context.Background(), "apps", b.ID)
			case b.State == "up":
				up++
			}
		}
		return up == len(h.serving)
	})
	h.t.Logf("Consul and the edge agree after %v: %s", time.Since(begun).Round(time.Millisecond), h.whereabouts())
	h.drained = nil
	for _, name := range h.leaving {
		h.apps[name].restart()
	}
	h.leaving = nil
	h.within(time.Minute, "all clients are there", func() bool { return len(h.live()) == h.size && h.status().Sessions == int64(h.size) })
	h.flows("in the calm")
	h.t.Logf("all is calm after %v", time.Since(begun).Round(time.Millisecond))
}

// accounted checks that every session is accounted for.
func (h *chaos) accounted() {
	h.t.Helper()
	var why string
	h.eventually("all sessions are accounted for", func() bool { why = h.unaccounted(); return why == "" })
}

// unaccounted says what does not add up, "" if all does. Counters are read one after another
// while clients talk, so that it may have to be asked again.
func (h *chaos) unaccounted() string {
	sums, closed, m := map[string]int{}, map[string]int{}, h.metrics()
	for series, v := range m {
		name, labels, _ := strings.Cut(series, "{")
		switch name {
		case "tidegate_handshakes_total":
			if !strings.Contains(labels, `result="ok"`) {
				continue
			}
		case "tidegate_closes_total":
			_, code, _ := strings.Cut(labels, `code="`)
			code, _, _ = strings.Cut(code, `"`)
			closed[code] += int(v)
		}
		sums[name] += int(v)
	}
	told, left, ended := map[string]int{}, 0, 0
	for _, c := range h.all() {
		switch {
		case !c.over():
			continue
		case c.left.Load():
			left++
		default:
			told[strconv.Itoa(c.code)]++
		}
		ended++
	}
	opened, active, backends := sums["tidegate_handshakes_total"], sums["tidegate_sessions_active"], sums["tidegate_backend_sessions_active"]
	said := fmt.Sprintf("%d opened, closed %v, %d active, %d at backends; clients were told %v, and %d left", opened, closed, active, backends, told, left)
	switch {
	case opened != sums["tidegate_closes_total"]+active, active != backends, active != len(h.live()), sums["tidegate_session_ends_total"] != ended:
		return said
	case sums["tidegate_closes_total"] != ended, closed["1012"] < told["1012"], closed["1012"] > told["1012"]+left:
		return said
	case sums["tidegate_drain_remaining"] != 0 || len(slices.Collect(maps.Keys(told))) > 1:
		return said
	}
	return ""
}

// TestChaos: backends are drained, killed, restarted, taken out and put in, Consul goes away
// and the configuration changes, all at random. Afterwards every session is accounted for,
// no message came twice or out of order, what was lost was in doubt, and nothing is left.
func TestChaos(t *testing.T) {
	npmLibrary(t) // or there is no Node.js
	h := newChaos(t)
	idle := h.footprint()
	h.open()
	h.flows("at first")
	for more := soaking(t); ; {
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			h.step()
		}
		h.withoutAgent()
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			h.step()
		}
		h.calm()
		h.accounted()
		if t.Failed() || !more() {
			break
		}
	}
	t.Logf("done: %v; moves ended so: %v; handshakes failed so: %v; %s", h.did, h.moves(), h.refusals, h.whereabouts())
	doubt, moves := h.inDoubt(), h.moves()
	h.finish()
	sum := h.audit(chaosSettle)
	t.Logf("%d messages in doubt", doubt)
	if sum.gaps > doubt || sum.unanswered > doubt {
		t.Errorf("%d messages were lost, %d are without an answer, only %d are in doubt", sum.gaps, sum.unanswered, doubt)
	}
	if sum.gained < moves["ok"] || len(moves) == 1 && sum.gained != moves["ok"] {
		t.Errorf("moves ended so: %v; %d connections came of them", moves, sum.gained)
	}
	h.nothingLeft(idle)
}

// nothingLeft checks that the apps have seen the end of every connection, and that the edge
// holds no more than before there were sessions.
func (h *chaos) nothingLeft(idle footprint) {
	h.t.Helper()
	h.eventually("the apps have no connection", func() bool {
		for _, name := range h.serving {
			for _, x := range h.apps[name].read(h.t) {
				if !x.ended {
					return false
				}
			}
		}
		return h.status().Sessions == 0
	})
	var left footprint
	h.eventually("what the sessions held is let go", func() bool {
		left = h.footprint()
		return left.goroutines <= idle.goroutines+5 && left.fds <= idle.fds+5 && left.heap < idle.heap+4<<20
	})
	h.t.Logf("before and after: goroutines %d, %d; descriptors %d, %d; live heap %d, %d KiB", idle.goroutines, left.goroutines, idle.fds, left.fds,
		idle.heap>>10, left.heap>>10)
}
