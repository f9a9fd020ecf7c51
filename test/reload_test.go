package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/internal/admin"
	tgtls "github.com/tidegate/tidegate/tls"
)

// variant is one of many valid configurations of the same edge: each bit changes one
// thing. All of them have the listeners plain and secure and a route to the talkers.
type variant struct {
	bits int
	// unique is part of names that only this configuration has: whatever is kept for a
	// name shows as growth.
	unique int
}

const variants = 1 << 8

func (v variant) has(bit int) bool { return v.bits>>bit&1 == 1 }

func pickOf[T any](second bool, a, b T) T {
	if second {
		return b
	}
	return a
}

// yaml writes the configuration for talkers; of the last one some variants know nothing.
func (v variant) yaml(addrs []string) string {
	var b strings.Builder
	known := addrs
	if v.has(0) {
		known = addrs[:len(addrs)-1]
	}
	backends := func(weight int) (list []string) {
		for i, a := range known {
			w := 1
			if i == 0 {
				w = weight
			}
			list = append(list, fmt.Sprintf("{id: %s, address: %q, weight: %d}", string(rune('a'+i)), a, w))
		}
		return list
	}
	fmt.Fprintf(&b, "ADMIN\nshutdown: {drain_window: 0s, deadline: 5s}\nlisteners:\n")
	fmt.Fprintf(&b, "  - {name: plain, address: \"127.0.0.1:0\", limits: {max_sessions: %d}}\n", pickOf(v.has(1), 0, 5000))
	fmt.Fprintf(&b, "  - {name: secure, address: \"127.0.0.2:0\", tls: {certificates: [{cert: CERT, key: KEY}%s], min_version: %q}}\n",
		pickOf(v.has(2), "", ", {cert: second.crt, key: second.key}"), pickOf(v.has(3), "1.2", "1.3"))
	if v.has(4) {
		fmt.Fprintf(&b, "  - {name: extra%d, address: \"127.0.0.3:0\"%s}\n", v.unique, pickOf(v.has(2), "", ", tls: {certificates: [{cert: second.crt, key: second.key}]}"))
	}
	fmt.Fprintf(&b, "routes:\n  - {name: talk, match: {path: /talk}, pool: apps, websocket: {max_message_size: %s}}\n", v.maxMessage())
	if v.has(5) {
		fmt.Fprintf(&b, "  - {name: route%d, match: {path: /talk/more, headers: {X-A: b}}, pool: pool%d}\n", v.unique, v.unique)
	}
	policies := []string{"round_robin", "least_connections", "consistent_hash", "power_of_two_choices"}
	fmt.Fprintf(&b, "pools:\n  - {name: apps, backends: [%s], balance: {policy: %s}, removal_grace: 1h}\n", strings.Join(backends(pickOf(v.has(1), 1, 3)), ", "), policies[v.bits>>6])
	if v.has(5) {
		fmt.Fprintf(&b, "  - {name: pool%d, backends: [%s]}\n", v.unique, strings.Join(backends(2), ", "))
	}
	return b.String()
}

func (v variant) maxMessage() string { return pickOf(v.has(1), "1MiB", "100KiB") }

// writePair writes a fresh certificate and its key.
func (e *edge) writePair(name string) {
	e.t.Helper()
	cert, key, err := tgtls.NewDevelopmentCertificate("localhost", "127.0.0.1", name+".test")
	if err != nil {
		e.t.Fatal(err)
	}
	e.writeFile(name+".crt", string(cert))
	e.writeFile(name+".key", string(key))
}

// awaitGeneration waits for a generation, and fails if the edge went past it.
func (e *edge) awaitGeneration(want uint64) {
	e.t.Helper()
	e.eventually(fmt.Sprintf("generation %d", want), func() bool { return e.status().Generation >= want })
	if got := e.status().Generation; got != want {
		e.t.Fatalf("generation %d, want %d", got, want)
	}
}

// TestReloads changes the configuration a thousand times, by every way there is, under
// live sessions. None of them may notice, and nothing may pile up.
func TestReloads(t *testing.T) {
	const sessions, warmUp, reloads = 500, 100, 1000
	talkers := []*talker{newTalker(t, "a"), newTalker(t, "b"), newTalker(t, "c")}
	var addrs []string
	for _, b := range talkers {
		addrs = append(addrs, b.addr)
	}
	e := start(t, variant{}.yaml(addrs))
	e.writePair("second")
	plain, secure := e.addr("plain"), e.addr("secure")
	f := newFleet(t, 400*time.Millisecond)
	f.open(sessions, func(i int) string {
		if i%5 == 0 {
			return fmt.Sprintf("wss://%s/talk/%d", secure, i)
		}
		return fmt.Sprintf("ws://%s/talk/%d", plain, i)
	})
	f.flows("before")

	generation := e.status().Generation
	content := 0
	change := func(i int, v variant) {
		if i%10 == 7 {
			e.writePair("edge") // the same files with other content
		}
		yaml := e.expand(v.yaml(addrs))
		generation++
		switch {
		case i%200 == 150: // nobody says anything: the content is looked at
			content++
			e.writeFile("tidegate.yaml", yaml)
			e.awaitGeneration(generation)
		case i%5 == 3:
			e.writeFile("tidegate.yaml", yaml)
			e.signal(syscall.SIGHUP)
			e.awaitGeneration(generation)
		default:
			got, err := e.reload(yaml)
			if err != nil || got != generation {
				t.Fatalf("reload %d: generation %d, want %d: %v%s", i, got, generation, err, details(err))
			}
		}
	}
	visit := func(i int, v variant) {
		urls := []string{"ws://" + plain, "wss://" + secure}
		if v.has(4) {
			urls = append(urls, pickOf(v.has(2), "ws://", "wss://")+e.addr(fmt.Sprintf("extra%d", v.unique)))
		}
		for _, url := range urls {
			if where := landings(t, 1, url+"/talk"); where["a"]+where["b"]+where["c"] != 1 {
				t.Fatalf("after reload %d (%+v) a new session at %s landed at %v", i, v, url, where)
			}
		}
		if got := len(e.status().Listeners); got != pickOf(v.has(4), 2, 3) {
			t.Fatalf("after reload %d (%+v) there are %d listeners", i, v, got)
		}
	}
	rounds := func(from, to int) time.Duration {
		begun := time.Now()
		for i := from; i < to; i++ {
			v := variant{bits: i * 89 % variants, unique: i}
			change(i, v)
			if i%20 == 11 {
				visit(i, v)
				f.untouched(fmt.Sprintf("after reload %d (%+v)", i, v))
			}
		}
		change(1, variant{}) // what is measured is the same each time
		visit(to, variant{})
		f.flows(fmt.Sprintf("after %d reloads", to))
		f.untouched(fmt.Sprintf("after %d reloads", to))
		return time.Since(begun)
	}
	rounds(0, warmUp)
	before := e.footprint()
	took, done := time.Duration(0), warmUp
	for more := soaking(t); ; {
		took += rounds(done, done+reloads)
		done += reloads
		if !more() {
			break
		}
	}
	t.Logf("%d reloads in %v, %v each", done-warmUp, took.Round(time.Millisecond), (took / time.Duration(done-warmUp)).Round(time.Microsecond))
	e.flat(before, done-warmUp)

	m := e.metrics()
	if got := m[`tidegate_config_reloads_total{result="ok"}`]; got != float64(generation) || m["tidegate_config_generation"] != got {
		t.Errorf("config_reloads_total has %v, config_generation %v, the generation is %d", got, m["tidegate_config_generation"], generation)
	}
	if got := e.countLog("the configuration file has changed"); got != content {
		t.Errorf("%d changes of content were noticed, %d were made", got, content)
	}
	e.agrees(f, talkers)
	up, down := f.end()
	t.Logf("%d messages up, %d down", up, down)
	e.over(talkers)
}

// details are the diagnostics behind an error.
func details(err error) string {
	if api, ok := errors.AsType[*admin.APIError](err); ok {
		return fmt.Sprintf(" %v", api.Diagnostics)
	}
	return ""
}

// flat compares what the edge holds with what it held n reloads ago, under the same
// configuration and with the same sessions. What lasts of one reload would be there n
// times: a goroutine, a descriptor and a series once are 1,000 of each, and a generation
// with its certificate is more than 10 KiB. So the bounds, which leave room for what an
// idle HTTP connection or a pooled buffer is, catch one leak in a hundred reloads, or of
// memory 2 KiB for each.
func (e *edge) flat(before footprint, n int) {
	e.t.Helper()
	var after footprint
	e.eventually("goroutines and descriptors are as before", func() bool {
		after = e.footprint()
		return after.goroutines <= before.goroutines+n/100 && after.fds <= before.fds+n/100
	})
	e.t.Logf("%d reloads: goroutines %d → %d, descriptors %d → %d, live heap %d → %d KiB, runtime %d → %d KiB, resident %d → %d KiB, series %d → %d", n,
		before.goroutines, after.goroutines, before.fds, after.fds, before.heap>>10, after.heap>>10, before.held>>10, after.held>>10,
		before.rss>>10, after.rss>>10, before.series, after.series)
	if grown := after.heap - before.heap; grown > int64(n)*2<<10 {
		e.t.Errorf("the live heap has grown by %d bytes, %d a reload", grown, grown/int64(n))
	}
	// What the collector gives back, and when, is the runtime's; growth without end is not.
	if after.held > before.held+before.held/2 {
		e.t.Errorf("the runtime's memory has grown from %d to %d bytes", before.held, after.held)
	}
	// The race detector does not give back the memory that it keeps beside the heap.
	if !raceEnabled && after.rss > before.rss+before.rss/2 {
		e.t.Errorf("resident memory has grown from %d to %d bytes", before.rss, after.rss)
	}
	if after.series != before.series {
		e.t.Errorf("%d series were shown, now %d are", before.series, after.series)
	}
}

// agrees compares the sessions that the edge says it has with what clients and talkers
// have.
func (e *edge) agrees(f *fleet, talkers []*talker) {
	e.t.Helper()
	clients := f.byApp()
	e.eventually("the edge's counts are those of its clients and backends", func() bool {
		counted := map[string]int{}
		for _, p := range e.pools() {
			for _, b := range p.Backends {
				counted[b.ID[strings.LastIndexByte(b.ID, '/')+1:]] += int(b.Sessions)
			}
		}
		for _, b := range talkers {
			if b.dead {
				continue
			}
			if live := int(b.stats().Live); counted[b.name] != live || clients[b.name] != live {
				return false
			}
		}
		return e.status().Sessions == int64(len(f.live()))
	})
}

// over checks that nothing is left of the sessions, and what the talkers found.
func (e *edge) over(talkers []*talker) {
	e.t.Helper()
	e.eventually("no session is left", func() bool {
		for _, b := range talkers {
			if !b.dead && b.stats().Live > 0 {
				return false
			}
		}
		for series, v := range e.metrics() {
			if (strings.HasPrefix(series, "tidegate_sessions_active") || strings.HasPrefix(series, "tidegate_backend_sessions_active")) && v != 0 {
				return false
			}
		}
		s := e.status()
		return s.Sessions == 0 && s.HandshakesInFlight == 0
	})
	for _, b := range talkers {
		if b.dead {
			continue
		}
		if s := b.stats(); len(s.Wrong) > 0 {
			e.t.Errorf("talker %s:\n%s", b.name, strings.Join(s.Wrong, "\n"))
		}
	}
	var opened, ended int
	e.eventually("each session that opened has ended in the log too", func() bool { // which is read behind
		opened, ended = e.countLog("session opened"), e.countLog("session ended")
		return opened == ended
	})
	if opened == 0 {
		e.t.Error("the log has no session")
	}
}

// TestReloadTakesEffectAtOnce: when a reload is answered, the next session follows it.
func TestReloadTakesEffectAtOnce(t *testing.T) {
	a, b := newApp(t, "a"), newApp(t, "b")
	e := start(t, withBackends(oneRoute, a.addr))
	for i := range 100 {
		app := []*app{b, a}[i%2]
		yaml := withBackends(oneRoute, app.addr)
		if i%4 > 1 { // a pool of another name
			yaml = strings.NewReplacer("pool: apps", "pool: others", "name: apps", "name: others").Replace(yaml)
		}
		if _, err := e.reload(yaml); err != nil {
			t.Fatal(err, details(err))
		}
		if where := landings(t, 1, "wss://"+e.addr("edge")+"/"); where[app.name] != 1 {
			t.Fatalf("reload %d to %s: the next session landed at %v", i, app.name, where)
		}
	}
}

// TestReloadsRefuseNobody: while pools and routes come and go under other names, and the
// listener changes its settings and its certificate, everybody who connects gets a session.
func TestReloadsRefuseNobody(t *testing.T) {
	const reloads, clients = 100, 4
	a := newApp(t, "a")
	e := start(t, withBackends(oneRoute, a.addr))
	url := "wss://" + e.addr("edge") + "/"
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var opened atomic.Int64
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, res, err := dialer.Dial(url, nil)
				if err != nil {
					status := 0
					if res != nil {
						status = res.StatusCode
					}
					t.Errorf("refused with %d: %v", status, err)
					return
				}
				opened.Add(1)
				c.Close()
			}
		})
	}
	for i := range reloads {
		yaml := strings.NewReplacer("pool: apps", fmt.Sprintf("pool: apps%d", i), "name: apps", fmt.Sprintf("name: apps%d", i),
			"name: all", fmt.Sprintf("name: all%d", i), "name: edge", fmt.Sprintf("name: edge, limits: {max_sessions: %d}", 1000+i)).Replace(withBackends(oneRoute, a.addr))
		if i%3 == 0 {
			e.writePair("edge")
		}
		before := opened.Load()
		if _, err := e.reload(yaml); err != nil {
			t.Error(err, details(err))
			break
		}
		e.eventually("somebody connected since the reload", func() bool { return t.Failed() || opened.Load() >= before+clients })
	}
	close(stop)
	wg.Wait()
	t.Logf("%d sessions opened", opened.Load())
}

// TestOpenSessionsKeepTheirSettings: a limit holds for the sessions that open under it.
func TestOpenSessionsKeepTheirSettings(t *testing.T) {
	a := newApp(t, "a")
	limited := func(size string) string {
		return withBackends(strings.Replace(oneRoute, "pool: apps}", "pool: apps, websocket: {max_message_size: "+size+"}}", 1), a.addr)
	}
	e := start(t, limited("10KiB"))
	dial := func() *websocket.Conn {
		t.Helper()
		c, _, err := dialer.Dial("wss://"+e.addr("edge")+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	echo := func(c *websocket.Conn, size int) error {
		if err := c.WriteMessage(websocket.BinaryMessage, make([]byte, size)); err != nil {
			return err
		}
		_, p, err := c.ReadMessage()
		if err == nil && len(p) != size {
			err = fmt.Errorf("%d bytes came back", len(p))
		}
		return err
	}
	old := dial()
	if _, err := e.reload(limited("1KiB")); err != nil {
		t.Fatal(err)
	}
	narrow := dial()
	if _, err := e.reload(limited("100KiB")); err != nil {
		t.Fatal(err)
	}
	wide := dial()
	for name, c := range map[string]struct {
		conn     *websocket.Conn
		fits     int
		tooLarge int
	}{"old": {old, 10 << 10, 10<<10 + 1}, "narrow": {narrow, 1 << 10, 1<<10 + 1}, "wide": {wide, 100 << 10, 100<<10 + 1}} {
		if err := echo(c.conn, c.fits); err != nil {
			t.Errorf("%s: %d bytes: %v", name, c.fits, err)
		}
		if err := echo(c.conn, c.tooLarge); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
			t.Errorf("%s: %d bytes: %v, want Close 1009", name, c.tooLarge, err)
		}
	}
}

// TestRejectedReloads: a file with a problem of any kind changes nothing, and says all
// that is wrong with it.
func TestRejectedReloads(t *testing.T) {
	a := newApp(t, "a")
	good := withBackends(oneRoute, a.addr)
	e := start(t, good)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c, _, err := dialer.Dial("wss://"+e.addr("edge")+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before, pools := e.status(), e.pools()
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(good) }
	extra := "\n  - {name: two, address: \"" + taken.Addr().String() + "\"}\n  - {name: three, address: \"127.0.0.3:0\"}\nroutes:"
	invalid, failed := 0.0, 0.0
	for _, c := range []struct {
		name, yaml string
		result     *float64
		want       []string // one for each diagnostic, in order: a part of it
	}{
		{"not YAML", replace("listeners:", "listeners: ["), &invalid, []string{"tidegate.yaml:"}},
		{"tab", replace("  - {name: edge", "\t- {name: edge"), &invalid, []string{"tidegate.yaml:5:"}},
		{"empty", "", &invalid, []string{"tidegate.yaml:"}},
		{"dangling pool", replace("pool: apps", "pool: appz"), &invalid, []string{`tidegate.yaml:7:41: routes[0].pool: `}},
		{"missing certificate", replace("cert: CERT", "cert: nowhere.crt"), &invalid, []string{"tidegate.yaml:5:70: listeners[0].tls.certificates[0].cert: "}},
		{"unknown key", replace("path: /", "pth: /"), &invalid, []string{"tidegate.yaml:7:25: routes[0].match: unknown key \"pth\""}},
		{"three at once", replace("drain_window: 100ms", "drain_window: soon", "pool: apps", "pool: appz", "127.0.0.1:0\", tls", "nowhere\", tls"),
			&invalid, []string{"tidegate.yaml:3:26: shutdown.drain_window: ", "tidegate.yaml:5:27: listeners[0].address: ", "tidegate.yaml:7:41: routes[0].pool: "}},
		{"address in use", replace("\nroutes:", extra), &failed, []string{"tidegate.yaml: listener two: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := e.reload(c.yaml)
			*c.result++
			rejection, ok := errors.AsType[*admin.APIError](err)
			if !ok || rejection.Status != http.StatusUnprocessableEntity {
				t.Fatalf("got %v, want 422", err)
			}
			if len(rejection.Diagnostics) != len(c.want) {
				t.Errorf("%d diagnostics, want %d: %v", len(rejection.Diagnostics), len(c.want), rejection.Diagnostics)
			}
			for i, d := range rejection.Diagnostics {
				if i < len(c.want) && !strings.Contains(d.String(), c.want[i]) {
					t.Errorf("%s\nwant %s", d, c.want[i])
				}
			}
			code, _, stderr := e.cli("reload")
			*c.result++
			if code != 1 || strings.Count(stderr, "\n") != len(c.want)+1 {
				t.Errorf("tidegate reload: exit %d\n%s", code, stderr)
			}
			s := e.status()
			if s.Generation != before.Generation || s.Config.LastReloadOK || s.Config.LastReloadError == "" || len(s.Listeners) != 1 || s.Listeners[0].Address != before.Listeners[0].Address {
				t.Errorf("status is now %+v", s)
			}
			if p := e.pools(); p["apps"].Backends[0].Sessions != 1 || p["apps"].Backends[0].ID != pools["apps"].Backends[0].ID {
				t.Errorf("pools are now %+v", p)
			}
		})
	}
	m := e.metrics()
	for series, want := range map[string]float64{
		`tidegate_config_reloads_total{result="invalid"}`: invalid, `tidegate_config_reloads_total{result="failed"}`: failed,
		`tidegate_config_reloads_total{result="ok"}`: 1, "tidegate_config_last_reload_success": 0, "tidegate_config_generation": float64(before.Generation),
	} {
		if m[series] != want {
			t.Errorf("%s is %v, want %v", series, m[series], want)
		}
	}
	// The sockets of a configuration that was not applied are closed again.
	if ln, err := net.Listen("tcp", "127.0.0.3:0"); err != nil {
		t.Error(err)
	} else {
		ln.Close()
	}
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", e.cmd.Process.Pid)); err == nil && len(fds) > 40 {
		t.Errorf("%d descriptors are open", len(fds))
	}
	if got, err := e.reload(good); err != nil || got != before.Generation+1 {
		t.Errorf("the good file again: generation %d, %v", got, err)
	}
	if m := e.metrics(); m["tidegate_config_last_reload_success"] != 1 || m[`tidegate_config_reloads_total{result="ok"}`] != 2 {
		t.Errorf("success is %v, ok %v", m["tidegate_config_last_reload_success"], m[`tidegate_config_reloads_total{result="ok"}`])
	}
	stillThere(t, c) // from before all this
}

// TestContentIsFollowed: a changed file needs no signal, and a bad one is reported once.
func TestContentIsFollowed(t *testing.T) {
	a := newApp(t, "a")
	good := withBackends(oneRoute, a.addr)
	e := start(t, good)
	count := func() int { return e.countLog("configuration rejected; the running one stays in force") }

	e.writeFile("tidegate.yaml", "nonsense")
	e.eventually("the bad file was reported", func() bool { return count() == 1 })
	rejected := time.Now()
	// It is looked at once a second. What must not happen cannot be waited for: it gets
	// three seconds to happen in, of which the first two go to things that may.
	path := filepath.Join(e.dir, "tidegate.yaml")
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil { // touched, but the same
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil { // written, but the same
		t.Fatal(err)
	}
	<-time.After(time.Until(rejected.Add(3 * time.Second)))
	if n := count(); n != 1 {
		t.Errorf("a file that was rejected was reported %d times", n)
	}
	e.signal(syscall.SIGHUP) // asked for, it is tried again
	e.eventually("the bad file was reported again", func() bool { return count() == 2 })

	if err := os.Remove(path); err != nil { // as editors do
		t.Fatal(err)
	}
	e.writeFile("tidegate.yaml", e.expand(strings.Replace(good, "name: all", "name: every", 1)))
	e.awaitGeneration(2)
	if s := e.status(); s.Routes[0].Name != "every" || !s.Config.LastReloadOK {
		t.Errorf("status is now %+v", s)
	}
	if count() != 2 {
		t.Error("something else was rejected")
	}
}

// TestReloadWithTheFileGone answers with what is wrong.
func TestReloadWithTheFileGone(t *testing.T) {
	a := newApp(t, "a")
	e := start(t, withBackends(oneRoute, a.addr))
	if err := os.Remove(e.config); err != nil {
		t.Fatal(err)
	}
	_, err := e.api.Reload(context.Background())
	if rejection, ok := errors.AsType[*admin.APIError](err); !ok || rejection.Status != http.StatusUnprocessableEntity ||
		!slices.ContainsFunc(rejection.Diagnostics, func(d admin.Diagnostic) bool { return strings.Contains(d.String(), "no such file") }) {
		t.Errorf("got %v%s", err, details(err))
	}
	if where := landings(t, 1, "wss://"+e.addr("edge")+"/"); where["a"] != 1 {
		t.Errorf("a new session landed at %v", where)
	}
}
