package test

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// deployWays are the ways in which an operator takes a backend out.
var deployWays = []struct {
	name  string
	begin func(r *deployRig, name string)
}{
	{"maintenance", func(r *deployRig, name string) { r.agent.Maintenance(r.t, name, true) }},
	{"an operator's drain", func(r *deployRig, name string) { r.command("drain", "apps/dc1/node1/"+name) }},
	{"deregistration", func(r *deployRig, name string) { r.agent.Deregister(r.t, name) }},
}

// drainOf is what the edge logged when a drain began.
type drainOf struct {
	sessions  int
	perSecond float64
}

// replace drains an app, stops it when it has no sessions, and puts another one of its
// kind in its place.
func (r *deployRig) replace(name, next string, way int) (d drainOf) {
	r.t.Helper()
	begun := time.Now()
	deployWays[way].begin(r, name)
	line := r.waitLog("drain begins", func(l map[string]any) bool { return l["backend"] == "dc1/node1/"+name })
	d = drainOf{int(line["sessions"].(float64)), line["per_second"].(float64)}
	r.within(2*time.Minute, name+" has no sessions", func() bool { return r.backend(name).Sessions == 0 })
	r.t.Logf("%s: %d sessions of %s (%s), %.1f a second, have left after %v: %s", deployWays[way].name, d.sessions, name, r.apps[name].kind(),
		d.perSecond, time.Since(begun).Round(time.Millisecond), r.whereabouts())
	r.apps[name].restart()
	if way != 2 {
		r.agent.Deregister(r.t, name)
	}
	r.register(r.t, r.launch(r.t, next, r.apps[name].npm))
	r.isUp(next)
	return d
}

// TestRollingDeploy: three app servers are replaced one after another, in each of the ways,
// while their clients talk.
func TestRollingDeploy(t *testing.T) {
	npmLibrary(t) // or there is no Node.js
	t.Run("migrate", rollingMigration)
	t.Run("close", rollingClose)
}

// rollingMigration: nobody notices anything.
func rollingMigration(t *testing.T) {
	const settle = 300 * time.Millisecond
	r := newDeployRig(t, deploySettings{size: deploySize(2000, 200), pace: time.Duration(deploySize(3000, 500)) * time.Millisecond,
		pool: fmt.Sprintf(`
    drain: {window: %s}
    migrate: {secret_file: KEY_FILE, settle: 300ms, timeout: 30s, redials_per_second: 500}
`, pickOf(raceEnabled, 6*time.Second, 2*time.Second))}, false, true, false)
	r.open()
	r.flows("at first")
	old, moved := []string{"a", "b", "c"}, 0
	for more, round := soaking(t), 0; ; round++ {
		for way := range old {
			next := fmt.Sprintf("%c%d", 'a'+way, round)
			moved += r.replace(old[way], next, way).sessions
			old[way] = next
		}
		r.flows("after the round")
		if t.Failed() || !more() {
			break
		}
	}
	for _, c := range r.all() {
		if c.over() {
			t.Errorf("client %d was disconnected: %d %q, %v", c.number, c.code, c.reason, c.err)
		}
	}
	if doubt := r.inDoubt(); doubt != 0 {
		t.Errorf("%d messages are in doubt", doubt)
	}
	if got := r.moves(); len(got) != 1 || got["ok"] != moved {
		t.Errorf("moves ended so: %v, want %d ok", got, moved)
	}
	r.finish()
	sum := r.audit(settle)
	if sum.lost != 0 || sum.unanswered != 0 || sum.gained != moved || sum.codes[1000] != len(r.all()) {
		t.Errorf("%+v after %d moves", sum, moved)
	}
}

// rollingClose: without migration each client of a backend that drains gets one Close.
func rollingClose(t *testing.T) {
	window := pickOf(raceEnabled, 6*time.Second, 2*time.Second)
	r := newDeployRig(t, deploySettings{size: deploySize(2000, 200), pace: time.Duration(deploySize(3000, 500)) * time.Millisecond,
		rejoin: true, pool: fmt.Sprintf("    drain: {window: %s}\n", window)}, false, true, false)
	r.open()
	r.flows("at first")
	told := 0
	for way, name := range []string{"a", "b", "c"} {
		r.within(time.Minute, "all are there", func() bool {
			return len(r.live()) == r.size && r.status().Sessions == int64(r.size)
		})
		stall := stallMeter()
		begun := time.Now()
		d := r.replace(name, fmt.Sprintf("%c0", 'a'+way), way)
		told += d.sessions
		r.spread(begun, d, window, stall())
	}
	r.within(time.Minute, "all have come back", func() bool { return len(r.live()) == r.size })
	r.flows("after the round")
	r.finish()
	for _, c := range r.all() {
		if c.code != 1000 && (c.code != 1012 || c.reason != "service restart" || !c.boundary) {
			t.Errorf("client %d ended with %d %q, %v; between two messages: %v", c.number, c.code, c.reason, c.err, c.boundary)
		}
	}
	if sum := r.audit(0); sum.lost != 0 || sum.unanswered != 0 || sum.codes[1012] != told || sum.gained != 0 {
		t.Errorf("%+v; %d were told to leave", sum, told)
	}
}

// spread checks that in no second more than twice as many clients were told to leave as the
// pace says that the edge has logged, and that they were told over the whole window. What
// the clients see is late when the machine lets processes wait.
func (r *deployRig) spread(begun time.Time, d drainOf, window, stall time.Duration) {
	r.t.Helper()
	var times []time.Time
	r.eventually(fmt.Sprintf("%d clients were told to leave", d.sessions), func() bool {
		times = nil
		for _, c := range r.all() {
			if c.over() && c.code == 1012 && c.at.After(begun) {
				times = append(times, c.at)
			}
		}
		return len(times) == d.sessions
	})
	slices.SortFunc(times, time.Time.Compare)
	most := 0
	for i, from := range times {
		n, _ := slices.BinarySearchFunc(times, from.Add(time.Second), time.Time.Compare)
		most = max(most, n-i)
	}
	over := times[len(times)-1].Sub(times[0])
	allowed := 2 * d.perSecond * (1 + 2*stall.Seconds())
	r.t.Logf("%d closings over %v, %d in the fullest second; the mean is %.1f (stalls of %v)", len(times), over.Round(time.Millisecond), most,
		d.perSecond, stall.Round(time.Millisecond))
	if float64(most) > allowed {
		r.t.Errorf("%d closings in a second, want %.1f at most", most, allowed)
	}
	if over < window/2-2*stall {
		r.t.Errorf("all closings within %v, want them spread over %v", over, window)
	}
}

// TestBackendCrash: two app servers are killed. Their clients stay, and what is lost was
// in doubt.
func TestBackendCrash(t *testing.T) {
	npmLibrary(t) // or there is no Node.js
	const settle, timeout = 2 * time.Second, 20 * time.Second
	// A message of which a client has the beginning ends with its session: apps send none
	// that is cut.
	r := newDeployRig(t, deploySettings{size: deploySize(2000, 200), pace: time.Duration(deploySize(2000, 300)) * time.Millisecond, whole: true,
		pool: `
    on_backend_failure: migrate
    migrate: {secret_file: KEY_FILE, settle: 2s, timeout: 20s}
`}, false, true, false)
	r.open()
	r.flows("at first")
	moved := 0
	for _, name := range []string{"a", "b"} {
		lost := int(r.backend(name).Sessions)
		moved += lost
		begun := time.Now()
		r.apps[name].kill()
		r.within(timeout+10*time.Second, "all sessions are elsewhere", func() bool {
			return r.backend(name).Sessions == 0 && r.moves()["ok"] == moved
		})
		took := time.Since(begun)
		r.flows(name + " was killed")
		r.agent.Deregister(t, name) // or sessions that are lost next try it first
		r.eventually("it is gone", func() bool { return r.backend(name).ID == "" })
		t.Logf("%s (%s) was killed: %d sessions are elsewhere after %v, %d messages in doubt", name, r.apps[name].kind(), lost, took.Round(time.Millisecond), r.inDoubt())
	}
	longest := time.Duration(0)
	for _, c := range r.all() {
		longest = max(longest, time.Duration(c.longest.Load()))
		if c.over() {
			t.Errorf("client %d was disconnected: %d %q, %v", c.number, c.code, c.reason, c.err)
		}
	}
	t.Logf("no client heard nothing for longer than %v", longest.Round(time.Millisecond))
	if longest > timeout+5*time.Second {
		t.Errorf("a client heard nothing for %v", longest)
	}
	doubt := r.inDoubt()
	if got := r.moves(); len(got) != 1 || got["ok"] != moved {
		t.Errorf("moves ended so: %v, want %d ok", got, moved)
	}
	r.finish()
	sum := r.audit(settle)
	if sum.lost > doubt || sum.unanswered > doubt || sum.codes[1000] != len(r.all()) {
		t.Errorf("%+v, of which %d are in doubt", sum, doubt)
	}
	if doubt == 0 || doubt > sum.sent {
		t.Errorf("%d of %d messages are in doubt", doubt, sum.sent)
	}
}
