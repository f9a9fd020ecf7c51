package test

import (
	"context"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/admin"
)

// soaking returns whether a loop of an endurance test goes on: while TIDEGATE_SOAK, a
// duration, has not passed since the first call. Without it the answer is no.
func soaking(t *testing.T) func() bool {
	t.Helper()
	text := os.Getenv("TIDEGATE_SOAK")
	if text == "" {
		return func() bool { return false }
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TIDEGATE_SOAK: %v", err)
	}
	end := time.Now().Add(d)
	return func() bool { return time.Now().Before(end) }
}

// get asks the admin address for a path.
func (e *edge) get(path string) (status int, body string) {
	e.t.Helper()
	res, err := http.Get("http://" + e.adminAddr() + path)
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.logTail())
	}
	defer res.Body.Close()
	p, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return res.StatusCode, string(p)
}

func (e *edge) adminAddr() string { return e.waitLog("running", nil)["admin"].(string) }

// logTail is the end of the log, for messages.
func (e *edge) logTail() string {
	all := e.log()
	return all[max(0, len(all)-8<<10):]
}

// metrics scrapes: a value by series, which is written as in the scrape.
func (e *edge) metrics() map[string]float64 {
	e.t.Helper()
	status, body := e.get("/metrics")
	if status != http.StatusOK {
		e.t.Fatalf("/metrics: %d", status)
	}
	m := map[string]float64{}
	for l := range strings.Lines(body) {
		l = strings.TrimSpace(l)
		at := strings.LastIndexByte(l, ' ')
		if at < 0 || l[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(l[at+1:], 64)
		if err != nil {
			e.t.Fatalf("metric %q: %v", l, err)
		}
		m[l[:at]] = v
	}
	return m
}

// footprint is what a process holds.
type footprint struct {
	goroutines, fds int
	heap            int64 // bytes that the collector finds alive
	held            int64 // bytes that the Go runtime has from the system and has not given back
	rss             int64 // resident bytes, with the shadow memory of the race detector
	series          int   // of tidegate_ metrics but those of byCause
}

// byCause are metrics of which a series appears with the first session that ends in its
// way, or handshake that fails in it. There is a fixed number of ways, and some are rare.
var byCause = []string{"tidegate_closes_total", "tidegate_session_ends_total", "tidegate_handshakes_total"}

// footprint measures after collections, the first of which let go of what finalisers and
// pools held. The process collects by itself: scraping is the garbage that drives it. GOGC
// being 100 (see start), the next collection is due when the heap, with stacks and globals, is twice
// of what was alive; what was allocated during a collection counts as alive, so the least
// of several says most.
func (e *edge) footprint() footprint {
	e.t.Helper()
	const collections = "go_gc_duration_seconds_count"
	m := e.metrics()
	last := m[collections] + 5
	var f footprint
	for m[collections] < last {
		m = e.metrics()
		if alive := int64(m["go_memstats_next_gc_bytes"] / 2); f.heap == 0 || alive < f.heap {
			f.heap = alive
		}
	}
	f.goroutines, f.fds = int(m["go_goroutines"]), int(m["process_open_fds"])
	f.held = int64(m["go_memstats_sys_bytes"] - m["go_memstats_heap_released_bytes"])
	f.rss = int64(m["process_resident_memory_bytes"])
	for series := range m {
		name, _, _ := strings.Cut(series, "{")
		if strings.HasPrefix(name, "tidegate_") && !slices.Contains(byCause, name) {
			f.series++
		}
	}
	return f
}

// pools asks for the pools, by name.
func (e *edge) pools() map[string]admin.Pool {
	e.t.Helper()
	list, err := e.api.Pools(context.Background())
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.logTail())
	}
	m := map[string]admin.Pool{}
	for _, p := range list {
		m[p.Name] = p
	}
	return m
}

// backendOf finds a backend of a pool by the last part of its ID.
func backendOf(p admin.Pool, name string) (admin.Backend, bool) {
	for _, b := range p.Backends {
		if b.ID == name || strings.HasSuffix(b.ID, "/"+name) {
			return b, true
		}
	}
	return admin.Backend{}, false
}
