package test

import (
	"crypto/tls"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	tgtls "github.com/tidegate/tidegate/tls"
)

const dayConfig = `
ADMIN
log: {level: info}
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: ws, address: "127.0.0.1:0", tcp: {receive_buffer: 32KiB, send_buffer: 32KiB}}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}, tcp: {receive_buffer: 32KiB, send_buffer: 32KiB}}
routes:
  - {name: plain, match: {path: /plain}, pool: plain}
  - {name: secure, match: {path: /secure}, pool: secure}
pools:
  - {name: plain, backends: [{id: a, address: %q}, {id: b, address: %q}]}
  - {name: secure, backends: [{id: c, address: %q}], upstream: {tls: {skip_verify: true}}}
`

// daySeed names the seed of TestDay, so that a day can be had once more. What the clients
// and backends do is the same then; when, is the machine's.
const daySeed = "TIDEGATE_DAY_SEED"

// day is the traffic of TestDay.
type day struct {
	seed         uint64
	ws, wss      string // addresses of the edge
	lower, upper []byte // letters, of which messages are cut

	mu     sync.Mutex
	next   uint64         // number of the next visit
	ends   map[ending]int // how many sessions were to end each way
	faults []string
}

func newDay(t *testing.T) *day {
	t.Helper()
	d := &day{seed: rand.Uint64(), ends: map[ending]int{}}
	if text := os.Getenv(daySeed); text != "" {
		var err error
		if d.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", daySeed, err)
		}
	}
	t.Logf("%s=%d", daySeed, d.seed)
	r := rand.New(rand.NewPCG(d.seed, 0))
	d.lower, d.upper = make([]byte, 1<<20), make([]byte, 1<<20)
	for i := range d.lower {
		letter := byte(r.IntN(26))
		d.lower[i], d.upper[i] = 'a'+letter, 'Z'-letter
	}
	return d
}

func (d *day) count(e ending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends[e]++
}

// fault notes what went wrong in a visit.
func (d *day) fault(v *visit, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.faults) < 20 {
		d.faults = append(d.faults, fmt.Sprintf("%v: ", v)+fmt.Sprintf(format, args...))
	}
}

// backend is an app server of the day, with TLS if secure. It ends with the test, once
// all that it serves has ended.
func (d *day) backend(t *testing.T, secure bool) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr = ln.Addr().String()
	if secure {
		certPEM, keyPEM, err := tgtls.NewDevelopmentCertificate("localhost", "127.0.0.1")
		must(t, err)
		cert, err := tls.X509KeyPair(certPEM, keyPEM)
		must(t, err)
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { d.serve(conn) })
		}
	})
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	return addr
}

// pass has clients come and go for a time, and waits until all have gone.
func (d *day) pass(clients int, length time.Duration) {
	end := time.Now().Add(length)
	var coming sync.WaitGroup
	for range clients {
		coming.Go(func() {
			for {
				wander(200 * time.Millisecond)
				if !time.Now().Before(end) {
					return
				}
				d.mu.Lock()
				number := d.next
				d.next++
				d.mu.Unlock()
				d.visit(number).come()
			}
		})
	}
	coming.Wait()
}

// TestDay compresses a day: clients come at random, talk, read slowly or not at all for a
// while, say nothing, close, vanish or are left by their backends. Nothing is lost, doubled
// or reordered in a session that was not cut, each end is put down to whoever brought it
// about, and at night nothing is left of the day.
func TestDay(t *testing.T) {
	const clients, morning, length = 250, 2 * time.Second, 6 * time.Second
	d := newDay(t)
	yaml := fmt.Sprintf(dayConfig, d.backend(t, false), d.backend(t, false), d.backend(t, true))
	e := start(t, yaml)
	// Without the lines of sessions, of which a soak has hundreds of thousands.
	if _, err := e.reload(strings.Replace(yaml, "level: info", "level: warn", 1)); err != nil {
		t.Fatal(err, details(err))
	}
	d.ws, d.wss = e.addr("ws"), e.addr("wss")
	// The first hours fill what is kept for good: the loops' buffers, caches, connections
	// of whoever watches.
	d.pass(clients, morning)
	e.night(d)
	before := e.footprint()
	for more := soaking(t); ; {
		d.pass(clients, length)
		e.night(d)
		e.asBefore(before)
		if t.Failed() || !more() {
			break
		}
	}
	t.Logf("%d sessions ended in these ways: %v", d.sessions(), d.ends)
}

// sessions is how many the clients had. Of the hasty ones nobody knows: what became of
// their requests is up to timing.
func (d *day) sessions() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e, count := range d.ends {
		if e != clientHurries {
			n += count
		}
	}
	return n
}

// night checks that no session is left, and what the clients and the backends noted.
func (e *edge) night(d *day) {
	e.t.Helper()
	e.eventually("no session is left", func() bool {
		for series, v := range e.metrics() {
			if (strings.HasPrefix(series, "tidegate_sessions_active") || strings.HasPrefix(series, "tidegate_backend_sessions_active")) && v != 0 {
				return false
			}
		}
		s := e.status()
		return s.Sessions == 0 && s.HandshakesInFlight == 0
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		e.t.Error(f)
	}
	want := map[string]int{}
	for end, n := range d.ends {
		if end != clientHurries {
			want[pickOf(end.byBackend(), "client", "backend")] += n
		}
	}
	got := map[string]int{}
	for series, v := range e.metrics() {
		if _, labels, ok := strings.Cut(series, "tidegate_closes_total{"); ok {
			_, initiator, _ := strings.Cut(labels, `initiator="`)
			initiator, _, _ = strings.Cut(initiator, `"`)
			got[initiator] += int(v)
		}
	}
	hastened := got["client"] - want["client"]
	if got["client"] = want["client"]; hastened < 0 || hastened > d.ends[clientHurries] || !maps.Equal(got, want) {
		e.t.Errorf("sessions ended by %v, want %v; besides, of %d hasty clients %d had one", got, want, d.ends[clientHurries], hastened)
	}
}

// asBefore compares what the edge holds with what it held before, both without a session.
//
// Of goroutines and descriptors it may hold the few that watching takes, which are the
// connections of this process to the admin address. Of memory, some of what loops keep
// for reuse: between two days that differs by up to 1.2 MiB a loop. A session is 0.6 KiB,
// with TLS 2.5 KiB and more while it moves something, so that one short day only shows when
// most of its 3,000 sessions stay. The bounds do not grow with the number of days: a soak
// of ten minutes finds one in a hundred.
func (e *edge) asBefore(before footprint) {
	e.t.Helper()
	const watching, buffers = 4, 2 << 20
	var after footprint
	e.eventually("goroutines and descriptors are as before", func() bool {
		after = e.footprint()
		return after.goroutines <= before.goroutines+watching && after.fds <= before.fds+watching
	})
	e.t.Logf("goroutines %d → %d, descriptors %d → %d, live heap %d → %d KiB, runtime %d → %d KiB, resident %d → %d KiB, series %d → %d",
		before.goroutines, after.goroutines, before.fds, after.fds, before.heap>>10, after.heap>>10, before.held>>10, after.held>>10,
		before.rss>>10, after.rss>>10, before.series, after.series)
	if grown := after.heap - before.heap; grown > int64(runtime.NumCPU())*buffers {
		e.t.Errorf("the live heap has grown by %d KiB", grown>>10)
	}
	if after.held > before.held+before.held/2 {
		e.t.Errorf("the runtime's memory has grown from %d to %d KiB", before.held>>10, after.held>>10)
	}
	if !raceEnabled && after.rss > before.rss+before.rss/2 {
		e.t.Errorf("resident memory has grown from %d to %d KiB", before.rss>>10, after.rss>>10)
	}
	if after.series != before.series {
		e.t.Errorf("%d series were shown, now %d are", before.series, after.series)
	}
}
