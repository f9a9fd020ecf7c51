package test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// slowBuffered is max_buffered of the routes in slowConfig.
const slowBuffered = 32 << 10

// slowPolicy is what a value of slow_consumer promises.
type slowPolicy struct {
	name  string
	paths []string
	// buffered is what tidegate_buffered_bytes may say of a session, on loops, while it is
	// stuck.
	buffered int
	resume   func(r *slowRig, list []*pushed)
}

// slowQueue is the buffer in which a loop keeps what a socket did not take of one read. A
// read is max_buffered at most; under TLS the records around it make the next power of two
// of it.
const slowQueue = 2 * slowBuffered

var slowPolicies = []slowPolicy{
	{"backpressure", []string{"/backpressure"}, slowQueue, resumeAfterBackpressure},
	// Behind what the socket was given there is only the rest of one frame.
	{"close", []string{"/close", "/coded"}, slowQueue + 4<<10, resumeAfterClose},
	{"drop_oldest", []string{"/drop_oldest"}, slowQueue + slowBuffered, resumeAfterDrops},
}

// slowHeap is what a stuck session may have of the heap beyond what it says it holds:
// a chunk for small frames that is not full and one that has been drained in part, 4 KiB
// each; the list of frames, which grows by half, and frames that the allocator rounds up,
// together a fifth of max_buffered; and its clocks.
const slowHeap = 8<<10 + slowBuffered/5 + 1<<10

// TestSlowConsumers has a thousand clients stop reading while their backend pushes, with
// each policy: what the edge holds is bounded, it does nothing for them while they are
// stuck, its other sessions notice nothing, and once they read again each gets what its
// policy says.
func TestSlowConsumers(t *testing.T) {
	sessions := pickOf(raceEnabled || testing.Short(), 1000, 500)
	for again := soaking(t); ; {
		r, yaml := startSlow(t, binary, "25%", slowBuffered)
		other := startWith(t, slowEnv, strings.Replace(yaml, "level: warn", "level: info", 1))
		r.settleDown(20)
		for _, p := range slowPolicies {
			t.Run(p.name, func(t *testing.T) { r.within(t, func() { r.stop(p, sessions, other) }) })
		}
		t.Run("given up", func(t *testing.T) { r.within(t, r.givenUp) })
		r.kill()
		other.kill()
		if !again() {
			return
		}
	}
}

// TestSlowConsumersOnGoroutines is the same on the other engine, with fewer.
func TestSlowConsumersOnGoroutines(t *testing.T) {
	r, _ := startSlow(t, goroutineBinary(t), "25%", slowBuffered)
	r.settleDown(20)
	for _, p := range slowPolicies {
		t.Run(p.name, func(t *testing.T) { r.within(t, func() { r.stop(p, 100, nil) }) })
	}
	t.Run("given up", func(t *testing.T) { r.within(t, r.givenUp) })
}

// TestFickleConsumers has clients that stop reading and begin again at random while their
// backends push at random: with backpressure nothing is missing, with drop_oldest what is
// counted, and with close what comes before the Close is without a gap.
func TestFickleConsumers(t *testing.T) {
	programs := []string{binary, goroutineBinary(t)}
	for again := soaking(t); ; {
		for i, name := range []string{"loops", "goroutines"} {
			t.Run(name, func(t *testing.T) { fickle(t, programs[i]) })
		}
		if !again() {
			return
		}
	}
}

func fickle(t *testing.T, program string) {
	const sessions = 60
	r, _ := startSlow(t, program, "25%", slowBuffered)
	before := r.live()
	list := r.open(4*sessions, "/backpressure", "/close", "/drop_oldest", "/coded")
	var missing, closed atomic.Int64
	each(t, list, func(x *pushed) error {
		x.fickle = true
		go func() { x.poured <- x.push(0, pushes) }()
		policy := x.number % 4
		err := x.readAll(policy == 2)
		if code := map[int]int{1: 1008, 3: 4008}[policy]; code != 0 && x.closed == fmt.Sprint(code, " slow consumer") {
			closed.Add(1)
			_, err := x.client.Write(closeBytes(code, "", true))
			return errors.Join(err, <-x.poured, x.awaitClose(1001, "slow consumer"), x.client.Close())
		}
		missing.Add(int64(pushes - x.messages))
		return errors.Join(err, <-x.poured, x.leave())
	})
	t.Logf("%d of %d sessions were closed, %d messages were dropped", closed.Load(), 2*sessions, missing.Load())
	r.eventually("no session is left", func() bool { return r.status().Sessions == 0 })
	m := r.metrics()
	if dropped := sumOf(m, "tidegate_messages_dropped_total{"); dropped != float64(missing.Load()) {
		t.Errorf("%d messages are missing, %v were counted as dropped", missing.Load(), dropped)
	}
	if ends := m[`tidegate_session_ends_total{by="edge",cause="slow_consumer",route="close"}`] +
		m[`tidegate_session_ends_total{by="edge",cause="slow_consumer",route="coded"}`]; ends != float64(closed.Load()) {
		t.Errorf("%d sessions were closed, %v were counted", closed.Load(), ends)
	}
	if held := m[bufferedSeries]; held != 0 {
		t.Errorf("%v bytes are buffered", held)
	}
	if after := r.live(); after > before+int64(runtime.NumCPU())*slowKept {
		t.Errorf("the live heap was %d KiB before, and is %d KiB afterwards", before>>10, after>>10)
	}
}

// within runs f with the test that the edge's failures are.
func (r *slowRig) within(t *testing.T, f func()) {
	outer := r.t
	r.t = t
	defer func() { r.t = outer }()
	f()
}

// stop opens sessions, has them stop reading while their backend pushes, looks at the
// edge, and has them read again. The neighbours talk while it gets tight and while it
// loosens; other, if not nil, is an edge whose sessions all read.
func (r *slowRig) stop(p slowPolicy, sessions int, other *edge) {
	start := r.live()
	list := r.open(sessions, p.paths...)
	idle, idlers := r.live(), r.metrics()["go_goroutines"]
	var m map[string]float64
	r.beside(func() {
		stuck := make(chan struct{})
		for _, x := range list {
			go func() {
				err := x.push(0, pushes*5/6)
				<-stuck // what comes now comes behind what waits
				x.poured <- errors.Join(err, x.push(pushes*5/6, pushes))
			}()
		}
		r.settle(list)
		close(stuck)
		m = r.settle(list)
	})
	buffered := int64(m["tidegate_buffered_bytes"])
	full := r.live()
	r.t.Logf("a session has %d bytes buffered, and %d of the heap", buffered/int64(sessions), (full-idle)/int64(sessions))
	if most := int64(sessions * p.buffered); buffered > most {
		r.t.Errorf("%d sessions have %d bytes buffered, want %d at most", sessions, buffered, most)
	}
	if other != nil {
		if full-idle > buffered+int64(sessions*slowHeap) {
			r.t.Errorf("the live heap has grown from %d to %d KiB, with %d KiB buffered", idle>>10, full>>10, buffered>>10)
		}
		if now := m["go_goroutines"]; now > idlers+4 {
			r.t.Errorf("%v goroutines were there, now %v are", idlers, now)
		}
	}
	before := r.cpu()
	<-time.After(time.Second)
	if used := r.cpu() - before; used > 100*time.Millisecond {
		r.t.Errorf("with nothing to do the edge used %v of CPU time in a second", used)
	}
	if other != nil {
		r.compare(other)
	}
	r.beside(func() { p.resume(r, list) })
	r.eventually("nothing is buffered, and no session is left but the neighbours'", func() bool {
		return r.metrics()["tidegate_buffered_bytes"] == 0 && r.status().Sessions == int64(len(r.echoers))
	})
	end := r.live()
	r.t.Logf("the live heap was %d KiB before, and is %d KiB afterwards", start>>10, end>>10)
	if end > start+int64(runtime.NumCPU())*slowKept {
		r.t.Errorf("the live heap was %d KiB before, and is %d KiB afterwards", start>>10, end>>10)
	}
}

// slowKept is how much a loop may have kept in the end: a mebibyte of buffers of each size
// from 1 KiB to slowQueue for reuse.
const slowKept = 7 << 20

// slowCollector makes the collector run often, as scraping is the garbage that drives it.
const slowCollector = 25

var slowEnv = []string{fmt.Sprint("GOGC=", slowCollector)}

// live is what the collector finds alive. It is the least of some collections, behind
// those that let go of what finalisers and pools held: what is allocated during a
// collection counts as alive.
func (r *slowRig) live() (bytes int64) {
	r.t.Helper()
	const collections = "go_gc_duration_seconds_count"
	for m, from := r.metrics(), 0.0; from == 0 || m[collections] < from+4; m = r.metrics() {
		if from == 0 {
			from = m[collections]
		}
		if alive := int64(m["go_memstats_next_gc_bytes"] * 100 / (100 + slowCollector)); bytes == 0 || alive < bytes {
			bytes = alive
		}
	}
	return bytes
}

// compare wants quick sessions as quick as on an edge whose sessions all read: see
// TestStoppedReadersNeighbours.
func (r *slowRig) compare(other *edge) {
	r.t.Helper()
	const ratio, floor = 4, 20 * time.Millisecond
	windows := pickOf(raceEnabled, 3, 5) // the detector's are slow enough to be spoiled more often
	var p99 [2][]time.Duration
	edges := [2]*edge{r.edge, other}
	for i := range 2 * windows {
		e := edges[i%2]
		w := e.window(pickOf(i%4 < 2, "wss://"+e.addr("wss"), "ws://"+e.addr("ws")) + "/echo")
		p99[i%2] = append(p99[i%2], time.Duration(w.Latency.P99*1e9))
	}
	r.t.Logf("p99 beside them %v, without %v", p99[0], p99[1])
	if beside, without := median(p99[0]), median(p99[1]); beside > max(ratio*without, floor) {
		r.t.Errorf("p99 is %v beside sessions that do not read, %v without", beside, without)
	}
}

// resumeAfterBackpressure: each gets all of it.
func resumeAfterBackpressure(r *slowRig, list []*pushed) {
	for _, x := range list {
		if len(x.poured) > 0 {
			r.t.Fatalf("session %d: %d KiB went into the edge with nobody reading them (%v)", x.number, x.written.Load()>>10, <-x.poured)
		}
	}
	each(r.t, list, func(x *pushed) error { return x.readAll(false) })
	each(r.t, list, func(x *pushed) error { return <-x.poured })
	each(r.t, list, (*pushed).leave)
}

// resumeAfterClose: each gets messages without a gap and then the Close of its route, and
// its backend learns of it when it has answered.
func resumeAfterClose(r *slowRig, list []*pushed) {
	before := r.metrics()
	each(r.t, list, func(x *pushed) error { return <-x.poured })
	each(r.t, list, (*pushed).readToClose)
	each(r.t, list, func(x *pushed) error { return x.awaitClose(1001, "slow consumer") })
	all := map[string]int{}
	for _, x := range list {
		all[x.closed]++
		if x.messages == 0 || x.messages == pushes {
			r.t.Errorf("session %d got %d messages", x.number, x.messages)
		}
		x.client.Close()
	}
	if want := map[string]int{"1008 slow consumer": len(list) / 2, "4008 slow consumer": len(list) / 2}; fmt.Sprint(all) != fmt.Sprint(want) {
		r.t.Errorf("the clients got %v, want %v", all, want)
	}
	r.grows(before, map[string]int{
		`tidegate_session_ends_total{by="edge",cause="slow_consumer",route="close"}`: len(list) / 2,
		`tidegate_session_ends_total{by="edge",cause="slow_consumer",route="coded"}`: len(list) / 2,
		`tidegate_closes_total{code="1008",initiator="edge",route="close"}`:          len(list) / 2,
		`tidegate_closes_total{code="4xxx",initiator="edge",route="coded"}`:          len(list) / 2,
	})
}

// grows waits until counters have grown by so much.
func (r *slowRig) grows(before map[string]float64, want map[string]int) {
	r.t.Helper()
	for series, n := range want {
		r.eventually(fmt.Sprintf("%s grows by %d", series, n), func() bool { return r.metrics()[series] == before[series]+float64(n) })
	}
}

// resumeAfterDrops: each gets messages with gaps, the last one among them. What is missing
// is what was counted as dropped. Pings have passed what waited.
func resumeAfterDrops(r *slowRig, list []*pushed) {
	const dropped = `tidegate_messages_dropped_total{direction="downstream",route="drop_oldest"}`
	each(r.t, list, func(x *pushed) error { return <-x.poured })
	before := r.metrics()[dropped]
	each(r.t, list, func(x *pushed) error { return x.readAll(true) })
	missing := 0
	for _, x := range list {
		missing += pushes - x.messages
		if x.messages == pushes {
			r.t.Errorf("session %d misses nothing", x.number)
		}
		if x.passed != pushes/pushesPerPing {
			r.t.Errorf("session %d: %d of %d Pings came before the last message", x.number, x.passed, pushes/pushesPerPing)
		}
	}
	if after := r.metrics()[dropped]; after != float64(missing) || before != after {
		r.t.Errorf("%d messages are missing, %v were counted as dropped, %v of them while nobody read", missing, after, before)
	}
	each(r.t, list, (*pushed).leave)
}

// givenUp: a client that does not come back is not waited for longer than close_timeout.
func (r *slowRig) givenUp() {
	list := r.open(20, "/hasty")
	for _, x := range list {
		go func() { x.poured <- x.push(0, pushes) }()
	}
	each(r.t, list, func(x *pushed) error { return x.awaitClose(1001, "slow consumer") })
	each(r.t, list, func(x *pushed) error { return <-x.poured })
	r.eventually("nothing is buffered, and no session is left but the neighbours'", func() bool {
		return r.metrics()["tidegate_buffered_bytes"] == 0 && r.status().Sessions == int64(len(r.echoers))
	})
	// The kernel may have had all of the rest.
	for _, x := range list {
		err := x.readToClose()
		torn := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
		if x.closed != "1008 slow consumer" && !torn || x.messages == pushes {
			r.t.Errorf("session %d got %d messages and Close %q, %v", x.number, x.messages, x.closed, err)
		}
	}
}
