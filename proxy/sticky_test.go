package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/proxy/relay"
)

// byCookie are settings of a route with a cookie as it is by default.
func byCookie(addrs ...string) Settings {
	s := defaults(addrs...)
	s.Routes[0].Sticky = &StickySettings{Cookie: stickyCookie("tg")}
	return s
}

func stickyCookie(name string) *StickyCookie {
	return &StickyCookie{Name: name, MaxAge: 24 * time.Hour, Secure: true, SameSite: http.SameSiteLaxMode,
		Secret: []byte("0123456789abcdef0123456789abcdef")}
}

// echoes are the addresses of backends that echo.
func echoes(t *testing.T, n int) (addrs []string) {
	for range n {
		addrs = append(addrs, echoBackend(t))
	}
	return addrs
}

// visit opens a session and returns its backend and the cookie that its client got: empty if
// none.
func (e *testEdge) visit(lines ...string) (backend, cookie string) {
	e.t.Helper()
	c := dialRaw(e.t, e.addr())
	defer c.Close()
	c.send(upgradeRequest("/", lines...))
	res := c.upgraded()
	return e.session(c).Backend().ID, cookieOf(e.t, res)
}

// cookieOf returns the cookie of an answer as a client sends it; empty: there is none.
func cookieOf(t *testing.T, res *http.Response) string {
	t.Helper()
	switch all := res.Cookies(); len(all) {
	case 0:
		return ""
	case 1:
		return all[0].Name + "=" + all[0].Value
	default:
		t.Fatalf("got cookies %v, want one at most", all)
		return ""
	}
}

// says returns what a cookie says.
func says(t *testing.T, c *StickyCookie, cookie string) ticket {
	t.Helper()
	_, value, _ := strings.Cut(cookie, "=")
	said, ok := c.parse(value)
	if !ok {
		t.Fatalf("cookie %q is not one of %s", cookie, c.Name)
	}
	return said
}

// set marks a backend of the first pool, or takes the mark away.
func (e *testEdge) set(id string, m balance.Mark, on bool) {
	e.t.Helper()
	for _, b := range e.Pools()[0].Backends {
		if b.ID == id {
			b.Live.Set(m, on)
			return
		}
	}
	e.t.Fatalf("no backend %q", id)
}

// A client without a cookie gets one, and with it always the same backend and no other cookie.
func TestStickyCookie(t *testing.T) {
	t.Parallel()
	settings := byCookie(echoes(t, 3)...)
	e := startEdge(t, settings)
	res, _ := e.ask(upgradeRequest("/"))
	line := res.Header.Get("Set-Cookie")
	if want := "; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Lax"; !strings.HasPrefix(line, "tg=1") || !strings.HasSuffix(line, want) {
		t.Errorf("Set-Cookie: %s", line)
	}
	var backends []string
	keys := map[[16]byte]bool{}
	for range 3 {
		first, cookie := e.visit()
		said := says(t, settings.Routes[0].Sticky.Cookie, cookie)
		keys[said.key] = true
		backends = append(backends, first)
		if said.backend != balance.HashString(first) {
			t.Error("the cookie names another backend than the one that answered")
		}
		for range 4 {
			if again, renewed := e.visit("Cookie: a=1; " + cookie); again != first || renewed != "" {
				t.Errorf("with a cookie for %s to %s, cookie %q", first, again, renewed)
			}
		}
	}
	slices.Sort(backends)
	if len(slices.Compact(backends)) != 3 || len(keys) != 3 {
		t.Errorf("the policy gave 3 new clients %v, with %d keys", backends, len(keys))
	}
}

// The attributes are those of the settings.
func TestStickyCookieAttributes(t *testing.T) {
	t.Parallel()
	settings := byCookie(echoBackend(t))
	c := settings.Routes[0].Sticky.Cookie
	c.Name, c.MaxAge, c.Secure, c.SameSite = "__Host-at", 0, false, http.SameSiteStrictMode
	e := startEdge(t, settings)
	res, _ := e.ask(upgradeRequest("/"))
	if line := res.Header.Get("Set-Cookie"); !strings.HasPrefix(line, "__Host-at=1") || !strings.HasSuffix(line, "; Path=/; HttpOnly; SameSite=Strict") {
		t.Errorf("Set-Cookie: %s", line)
	}
	old := says(t, c, cookieOf(t, res))
	old.issued = time.Now().Add(-10000 * time.Hour).Unix()
	if _, renewed := e.visit("Cookie: __Host-at=" + c.value(old)); renewed != "" {
		t.Error("a cookie without an end was renewed")
	}
}

// The backend never sees the edge's cookie, and everybody else's as it came.
func TestStickyCookieIsStripped(t *testing.T) {
	t.Parallel()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.untilClose()
	})
	settings := byCookie(b.addr)
	e := startEdge(t, settings)
	_, cookie := e.visit()
	<-b.heads
	for _, tt := range []struct{ sent, want []string }{
		{[]string{cookie}, nil},
		{[]string{"a=1; " + cookie + "; b=2"}, []string{"a=1; b=2"}},
		{[]string{cookie + ";b=\"2\";  c"}, []string{"b=\"2\";  c"}},
		{[]string{"a=1;" + cookie}, []string{"a=1"}},
		{[]string{"tg=forged; tg = 2;tga=1; atg=tg; " + cookie}, []string{"tga=1; atg=tg"}},
		{[]string{"odd ;; = ;tgx"}, []string{"odd ;; = ;tgx"}},
		{[]string{"a=1", cookie, "b=2"}, []string{"a=1", "b=2"}},
	} {
		var lines []string
		for _, s := range tt.sent {
			lines = append(lines, "Cookie: "+s)
		}
		if _, renewed := e.visit(lines...); strings.Contains(strings.Join(tt.sent, " "), cookie) && renewed != "" {
			t.Errorf("%q was not recognised", tt.sent)
		}
		var got []string
		for line := range strings.SplitSeq(<-b.heads, "\r\n") {
			if v, ok := strings.CutPrefix(line, "Cookie: "); ok {
				got = append(got, v)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("sent %q: the backend got %q, want %q", tt.sent, got, tt.want)
		}
	}
}

// Nor do the backends of other routes see it, to which browsers send it as well.
func TestStickyCookieIsStrippedElsewhere(t *testing.T) {
	t.Parallel()
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		if asksWebSocket(r) {
			c.send(switching(r))
			c.untilClose()
			return
		}
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	settings := byCookie(b.addr)
	sticky := settings.Routes[0]
	plain, other := sticky, sticky
	plain.Name, plain.Path, plain.Sticky = "plain", "/plain", nil
	other.Name, other.Path, other.Sticky = "other", "/other", &StickySettings{Cookie: stickyCookie("og")}
	settings.Routes = []RouteSettings{sticky, plain, other}
	e := startEdge(t, settings)
	_, cookie := e.visit()
	<-b.heads
	for _, path := range []string{"/", "/plain", "/other"} {
		for _, request := range []string{upgradeRequest(path, "Cookie: "+cookie+"; a=b; og=1"),
			"GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: " + cookie + "; a=b; og=1\r\n\r\n"} {
			c := dialRaw(t, e.addr())
			c.send(request)
			c.response()
			if head := <-b.heads; !strings.Contains(head, "\r\nCookie: a=b\r\n") {
				t.Errorf("%s: the backend got\n%s", path, head)
			}
			c.Close()
		}
	}
}

// What the edge has not made itself, or too long ago, is no cookie; what is about to end is
// made anew.
func TestStickyCookieForged(t *testing.T) {
	t.Parallel()
	settings := byCookie(echoes(t, 2)...)
	c := settings.Routes[0].Sticky.Cookie
	e := startEdge(t, settings)
	backend, cookie := e.visit()
	said := says(t, c, cookie)
	aged := func(age time.Duration) string {
		old := said
		old.issued -= int64(age / time.Second)
		return "tg=" + c.value(old)
	}
	foreign := *c
	foreign.Secret = []byte("another secret of thirty-two byte")
	flipped := []byte(cookie)
	flipped[len(flipped)-1] ^= 1
	for name, forged := range map[string]string{
		"nonsense": "tg=1", "empty": "tg=", "another version": "tg=2" + cookie[4:], "cut": cookie[:len(cookie)-1],
		"longer": cookie + "A", "a bit flipped": string(flipped), "another secret": "tg=" + foreign.value(said),
		"another name": "x" + cookie, "too old": aged(24*time.Hour + 10*time.Second),
	} {
		_, fresh := e.visit("Cookie: " + forged)
		if fresh == "" || says(t, c, fresh).key == said.key {
			t.Errorf("%s: %q was believed: %q", name, forged, fresh)
		}
		if got, fresh := e.visit("Cookie: "+forged, "Cookie: a=1; "+cookie); got != backend || fresh != "" {
			t.Errorf("%s before a good one: to %s with %q", name, got, fresh)
		}
	}
	if got, renewed := e.visit("Cookie: " + aged(11*time.Hour)); got != backend || renewed != "" {
		t.Errorf("young enough: to %s with %q", got, renewed)
	}
	got, renewed := e.visit("Cookie: " + aged(13*time.Hour))
	if got != backend || renewed == "" {
		t.Fatalf("over half of its age: to %s with %q", got, renewed)
	}
	if again := says(t, c, renewed); again.key != said.key || again.backend != said.backend || again.issued < said.issued {
		t.Errorf("renewed: %+v of %+v", again, said)
	}
}

// Whose backend takes no sessions goes where the key says, which is the same on each edge with
// this secret and these backends, and the cookie follows.
func TestStickyCookieMovesOn(t *testing.T) {
	t.Parallel()
	addrs := echoes(t, 4)
	settings := byCookie(addrs...)
	c := settings.Routes[0].Sticky.Cookie
	e, other := startEdge(t, settings), startEdge(t, byCookie(addrs...))
	for range 4 {
		backend, cookie := e.visit()
		said := says(t, c, cookie)
		if got, _ := other.visit("Cookie: " + cookie); got != backend {
			t.Errorf("another edge gives the cookie of %s to %s", backend, got)
		}
		var moved []string
		for _, edge := range []*testEdge{e, other} {
			edge.set(backend, balance.Drained, true)
			next, renewed := edge.visit("Cookie: " + cookie)
			if next == backend || renewed == "" {
				t.Fatalf("from a drained %s to %s with %q", backend, next, renewed)
			}
			if s := says(t, c, renewed); s.key != said.key || s.backend != balance.HashString(next) {
				t.Errorf("the new cookie is not that of the old key for %s", next)
			}
			if again, _ := edge.visit("Cookie: " + cookie); again != next {
				t.Errorf("the old cookie leads to %s, then to %s", next, again)
			}
			edge.set(backend, balance.Drained, false)
			if again, fresh := edge.visit("Cookie: " + renewed); again != next || fresh != "" {
				t.Errorf("the backend is back, and the new cookie leads to %s with %q", again, fresh)
			}
			moved = append(moved, next)
		}
		if moved[0] != moved[1] {
			t.Errorf("two edges move the clients of %s to %v", backend, moved)
		}
	}
}

// A backend that flaps keeps its sessions, and so its clients keep their cookies: once it is back
// they come back. If it was drained, or does not come back in time, they get new ones.
func TestStickyCookieOutlastsFlapping(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			t.Parallel()
			addrs, source := echoes(t, 3), newSource()
			settings := byCookie()
			settings.Pools[0].Sources = []SourceSettings{{Slot: "test", Key: "k", Source: source}}
			settings.Pools[0].RemovalGrace = time.Hour
			settings.Routes[0].Sticky.Strict = strict
			c := settings.Routes[0].Sticky.Cookie
			e := startEdge(t, settings)
			say := func(but string) {
				t.Helper()
				var list []discovery.Instance
				for _, a := range addrs {
					if a != but {
						list = append(list, discovery.Instance{ID: a, Addr: a, Weight: 1})
					}
				}
				source.say(t, list...)
			}
			say("")
			backend, cookie := e.visit()
			holder := e.open("/", "Cookie: "+cookie)
			defer holder.Close()
			renewed := func(when string) {
				t.Helper()
				if got, fresh := e.visit("Cookie: " + cookie); got == backend || fresh == "" || says(t, c, fresh).backend != balance.HashString(got) {
					t.Errorf("%s: to %s with %q", when, got, fresh)
				}
			}
			var stand string
			for range 2 {
				say(backend)
				for range 2 {
					got, fresh := e.visit("Cookie: " + cookie)
					if got == backend || stand != "" && got != stand || fresh != "" {
						t.Errorf("away: from %s to %s, before that to %q, with %q", backend, got, stand, fresh)
					}
					stand = got
				}
				if _, fresh := e.visit(); fresh == "" {
					t.Error("away: a new client got no cookie")
				}
				say("")
				if got, fresh := e.visit("Cookie: " + cookie); got != backend || fresh != "" {
					t.Errorf("back: to %s with %q, want %s", got, fresh, backend)
				}
			}
			e.set(backend, balance.Drained, true)
			say(backend)
			renewed("drained and away")
			say("")
			e.set(backend, balance.Drained, false)
			settings.Pools = slices.Clone(settings.Pools)
			settings.Pools[0].RemovalGrace = 0
			e.apply(settings)
			if got, fresh := e.visit("Cookie: " + cookie); got != backend || fresh != "" {
				t.Errorf("undrained: to %s with %q, want %s", got, fresh, backend)
			}
			say(backend)
			renewed("given up")
		})
	}
}

// The cookie names the backend that has answered, not those that were tried before it.
func TestStickyCookieSurvivesRetries(t *testing.T) {
	t.Parallel()
	dead, alive := deadAddr(t), echoBackend(t)
	settings := byCookie(dead, alive)
	settings.Pools[0].Balance.Policy = "random"
	c := settings.Routes[0].Sticky.Cookie
	e := startEdge(t, settings)
	for range 8 { // of which some try the dead one first
		if got, cookie := e.visit(); got != alive || says(t, c, cookie).backend != balance.HashString(alive) {
			t.Fatalf("a new client came to %s with %q", got, cookie)
		}
	}
	said := ticket{key: [16]byte{1, 2, 3}, backend: balance.HashString(dead), issued: time.Now().Unix()}
	got, cookie := e.visit("Cookie: tg=" + c.value(said))
	if s := says(t, c, cookie); got != alive || s.key != said.key || s.backend != balance.HashString(alive) {
		t.Errorf("from a dead backend to %s with %+v", got, s)
	}
}

// A full backend passes its clients on, unless the route is strict.
func TestStickyFull(t *testing.T) {
	t.Parallel()
	settings := byCookie(echoes(t, 2)...)
	settings.Pools[0].Balance.MaxSessions = 1
	e := startEdge(t, settings)
	backend, cookie := e.visit()
	e.idle()
	holder := e.open("/", "Cookie: "+cookie)
	next, renewed := e.visit("Cookie: " + cookie)
	if next == backend || renewed == "" {
		t.Errorf("from a full backend to %s with %q", next, renewed)
	}
	e.eventually("it has ended", func() bool { return e.load() == 1 })
	settings.Routes = slices.Clone(settings.Routes)
	settings.Routes[0].Sticky = &StickySettings{Cookie: stickyCookie("tg"), Strict: true}
	e.apply(settings)
	res, text := e.ask(upgradeRequest("/", "Cookie: "+cookie))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.HasPrefix(text, "the backend of this client has as many") || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("strict: %s %v %q", res.Status, res.Header, text)
	}
	holder.Close()
	e.idle()
	if got, _ := e.visit("Cookie: " + cookie); got != backend {
		t.Errorf("free again: to %s", got)
	}
}

// A strict client has one backend, as long as there is that.
func TestStickyStrict(t *testing.T) {
	t.Parallel()
	dead, addrs := deadAddr(t), echoes(t, 3)
	settings := byCookie(addrs[0], addrs[1], dead)
	settings.Routes[0].Sticky.Strict = true
	c := settings.Routes[0].Sticky.Cookie
	e := startEdge(t, settings)
	of := func(addr string) string {
		return "Cookie: tg=" + c.value(ticket{key: [16]byte{7}, backend: balance.HashString(addr), issued: time.Now().Unix()})
	}
	if got, renewed := e.visit(of(addrs[0])); got != addrs[0] || renewed != "" {
		t.Errorf("to %s with %q", got, renewed)
	}
	e.set(addrs[0], balance.Drained, true)
	res, text := e.ask(upgradeRequest("/", of(addrs[0])))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || text != "the backend of this client takes no new sessions\n" {
		t.Errorf("a draining backend: %s %v %q", res.Status, res.Header, text)
	}
	if got, _ := e.visit(of(addrs[1])); got != addrs[1] {
		t.Errorf("the client of another one came to %s", got)
	}
	if res, _ := e.ask(upgradeRequest("/", of(dead))); res.StatusCode != 502 {
		t.Errorf("a backend that cannot be reached: %s", res.Status)
	}
	if got, cookie := e.visit(); got == addrs[0] || cookie == "" {
		t.Errorf("a new client came to %s with %q", got, cookie)
	}
	// A backend that is gone for good is nobody's any more, also while the winner of the key
	// takes none.
	settings.Pools = []PoolSettings{pool1("apps", addrs[1], addrs[2])}
	e.apply(settings)
	winner, renewed := e.visit(of(addrs[0]))
	if winner == addrs[0] || renewed == "" {
		t.Errorf("its backend is gone: to %s with %q", winner, renewed)
	}
	e.set(winner, balance.Drained, true)
	if got, renewed := e.visit(of(addrs[0])); got == winner || got == addrs[0] || renewed == "" {
		t.Errorf("its backend is gone and the winner is drained: to %s with %q", got, renewed)
	}
}

// By a part of the request, two edges agree, also when a backend is out; who has no such thing
// goes where the policy says.
func TestStickyByPartOfTheRequest(t *testing.T) {
	for name, tt := range map[string]struct {
		on   HashOn
		line string
	}{
		"header": {HashOn{HashHeader, "X-Session"}, "X-Session: %d"},
		"cookie": {HashOn{HashCookie, "sid"}, "Cookie: a=b; sid=s%d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addrs := echoes(t, 3)
			start := func(strict bool) *testEdge {
				settings := defaults(addrs...)
				settings.Routes[0].Sticky = &StickySettings{On: tt.on, Strict: strict}
				return startEdge(t, settings)
			}
			e, strict := start(false), start(true)
			used := map[string]bool{}
			for k := range 8 {
				line := fmt.Sprintf(tt.line, k)
				backend, cookie := e.visit(line)
				used[backend] = true
				if again, _ := strict.visit(line); again != backend || cookie != "" {
					t.Errorf("%s: to %s and to %s, with %q", line, backend, again, cookie)
				}
				e.set(backend, balance.Failing, true)
				strict.set(backend, balance.Failing, true)
				if next, _ := e.visit(line); next == backend {
					t.Errorf("%s: to %s, which is out", line, next)
				}
				if res, _ := strict.ask(upgradeRequest("/", line)); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
					t.Errorf("%s, strict: %s", line, res.Status)
				}
				e.set(backend, balance.Failing, false)
				strict.set(backend, balance.Failing, false)
				if again, _ := e.visit(line); again != backend {
					t.Errorf("%s: back to %s, not to %s", line, again, backend)
				}
			}
			if len(used) < 2 {
				t.Error("all keys came to one backend")
			}
			var free []string
			for range 3 {
				backend, _ := strict.visit()
				free = append(free, backend)
			}
			slices.Sort(free)
			if len(slices.Compact(free)) != 3 {
				t.Errorf("without a value: %v, want round robin", free)
			}
		})
	}
}

// A backend's own answer ties its client to it, unless it is a failure.
func TestStickyAnswer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 403, 500, 503} {
		b := startRaw(t, func(c *rawConn, r *http.Request) {
			c.send(fmt.Sprintf("HTTP/1.1 %d X\r\nSet-Cookie: app=1\r\nContent-Length: 0\r\n\r\n", status))
		})
		e := startEdge(t, byCookie(b.addr))
		res, _ := e.ask(upgradeRequest("/"))
		var names []string
		for _, c := range res.Cookies() {
			names = append(names, c.Name)
		}
		want := []string{"app", "tg"}
		if status >= 500 {
			want = want[:1]
		}
		if res.StatusCode != status || !slices.Equal(names, want) {
			t.Errorf("%s: cookies %v, want %v", res.Status, names, want)
		}
	}
}

// What shared caches give to others sets no cookie; the next answer does.
func TestStickyCookieIsNotForAll(t *testing.T) {
	t.Parallel()
	settings := byCookie(app(t, func(w http.ResponseWriter, r *http.Request) {
		for _, line := range r.Header["X-Wants"] {
			w.Header().Add("Cache-Control", line)
		}
		if r.Header.Get("Upgrade") != "" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	e := startEdge(t, settings)
	for _, tt := range []struct {
		lines []string
		want  bool
	}{
		{nil, true},
		{[]string{"public"}, false},
		{[]string{"max-age=60, Public"}, false},
		{[]string{"max-age=60", "S-MaxAge=5"}, false},
		{[]string{"s-maxage = 5"}, false},
		{[]string{"private, max-age=60"}, true},
		{[]string{"no-store"}, true},
		{[]string{"publicity, x=public"}, true},
	} {
		var wants []string
		for _, line := range tt.lines {
			wants = append(wants, "X-Wants: "+line)
		}
		head := "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		for _, line := range wants {
			head += line + "\r\n"
		}
		for _, request := range []string{head + "\r\n", upgradeRequest("/", wants...)} {
			res, _ := e.ask(request)
			if got := cookieOf(t, res); (got != "") != tt.want || !slices.Equal(res.Header["Cache-Control"], tt.lines) {
				t.Errorf("%s with %q: cookie %q", res.Status, res.Header["Cache-Control"], got)
			}
		}
	}
	// A 101 is for nobody else, whatever it says.
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r, "Cache-Control: public"))
		c.untilClose()
	})
	if _, cookie := startEdge(t, byCookie(b.addr)).visit(); cookie == "" {
		t.Error("a 101 set no cookie")
	}
}

// A request that another site has made does not replace a cookie that the browser has kept back.
func TestStickyCookieFromElsewhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode http.SameSite
		site string
		want bool
	}{
		{http.SameSiteLaxMode, "", true},
		{http.SameSiteLaxMode, "none", true},
		{http.SameSiteLaxMode, "same-origin", true},
		{http.SameSiteLaxMode, "same-site", true},
		{http.SameSiteLaxMode, "cross-site", false},
		{http.SameSiteStrictMode, "cross-site", false},
		{http.SameSiteNoneMode, "cross-site", true},
	} {
		settings := byCookie(echoes(t, 2)...)
		settings.Routes[0].Sticky.Cookie.SameSite = tt.mode
		c := settings.Routes[0].Sticky.Cookie
		e := startEdge(t, settings)
		line := "Sec-Fetch-Site: " + tt.site
		if tt.site == "" {
			line = "X-Other: 1"
		}
		if _, cookie := e.visit(line); (cookie != "") != tt.want {
			t.Errorf("%v, %q: cookie %q", tt.mode, tt.site, cookie)
		}
		// One that did come is renewed.
		old := ticket{key: [16]byte{1}, backend: balance.HashString("gone"), issued: time.Now().Unix()}
		if _, cookie := e.visit(line, "Cookie: tg="+c.value(old)); cookie == "" || says(t, c, cookie).key != old.key {
			t.Errorf("%v, %q: renewed as %q", tt.mode, tt.site, cookie)
		}
	}
}

// A session that is drained comes to the backend to which its client's next request comes, with
// the cookie of the old one, on this edge and on another; also where the route is strict.
func TestStickyMigration(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			t.Parallel()
			apps := movingApps(t, "a", "b", "c", "d", "e")
			start := func(strict bool) *testEdge {
				settings := moving(apps...)
				settings.Routes[0].Sticky = &StickySettings{Cookie: stickyCookie("tg"), Strict: strict}
				settings.Pools[0].Drain = promptly
				return startEdge(t, settings)
			}
			e, other := start(strict), start(false)
			c := dialRaw(t, e.addr())
			c.send(upgradeRequest("/"))
			cookie := cookieOf(t, c.upgraded())
			s := e.session(c)
			for range 3 { // each time from another one
				from := s.Backend().ID
				if err := e.Drain("apps", from, DrainPace{}); err != nil {
					t.Fatal(err)
				}
				other.set(from, balance.Drained, true)
				e.eventually("the session has moved", func() bool { return s.Backend().ID != from })
				c.send(clientFrame(ws.OpText, "x"))
				if _, got := c.frame(); !strings.HasSuffix(got, ":x") {
					t.Errorf("got %q", got)
				}
				for _, edge := range []*testEdge{e, other} {
					if strict && edge == e {
						continue // refused: its backend is draining
					}
					if next, _ := edge.visit("Cookie: " + cookie); next != s.Backend().ID {
						t.Errorf("the session is with %s, and its client's next request came to %s", s.Backend().ID, next)
					}
				}
			}
		})
	}
}

// By a header it is the same, and so is a move that follows a failure.
func TestStickyMigrationOnFailure(t *testing.T) {
	t.Parallel()
	apps := movingApps(t, "a", "b", "c", "d")
	settings := moving(apps...)
	settings.Routes[0].Sticky = &StickySettings{On: HashOn{HashHeader, "X-Session"}}
	e := startEdge(t, settings)
	c := e.open("/", "X-Session: 7")
	s := e.session(c)
	from := s.Backend().ID
	i := slices.IndexFunc(apps, func(a *movingApp) bool { return a.addr() == from })
	e.set(from, balance.Failing, true)
	apps[i].crash()
	e.eventually("the session has moved", func() bool { return s.Backend().ID != from })
	if next, _ := e.visit("X-Session: 7"); next != s.Backend().ID {
		t.Errorf("the session is with %s, and the next request came to %s", s.Backend().ID, next)
	}
}

// Without a value, the policy picks for sessions that move too.
func TestStickyMigrationWithoutAKey(t *testing.T) {
	t.Parallel()
	settings := moving(movingApps(t, "a", "b")...)
	settings.Routes[0].Sticky = &StickySettings{On: HashOn{HashHeader, "X-Session"}, Strict: true}
	e := startEdge(t, settings)
	s := e.session(e.open("/"))
	from := s.Backend().ID
	if result := s.Move(t.Context(), "test"); result != relay.MoveDone || s.Backend().ID == from {
		t.Errorf("%s, with %s", result, s.Backend().ID)
	}
}

// Polls and the WebSocket of a client meet, with a cookie and by a header: at first, while one is
// drained from under them, and afterwards.
func TestStickyPolling(t *testing.T) {
	for _, cookie := range []bool{true, false} {
		t.Run(fmt.Sprintf("cookie=%v", cookie), func(t *testing.T) {
			t.Parallel()
			settings := moving(movingApps(t, "a", "b", "c", "d")...)
			settings.Pools[0].Drain = promptly
			settings.Routes[0].Sticky = &StickySettings{On: HashOn{HashHeader, "X-Session"}}
			if cookie {
				c := stickyCookie("tg")
				c.Secure = false // for the jar
				settings.Routes[0].Sticky = &StickySettings{Cookie: c}
			}
			e := startEdge(t, settings)
			client := browser(t)
			jar, _ := cookiejar.New(nil)
			client.Jar = jar
			where, _ := url.Parse(e.http("/"))
			picks := func() map[string]uint64 {
				all := map[string]uint64{}
				for _, b := range e.Pools()[0].Backends {
					all[b.ID] = b.Live.Picks()
				}
				return all
			}
			poll := func(method string) (backend string) { // app servers refuse it, each of its own accord
				t.Helper()
				before := picks()
				r := request(t, method, e.http("/"), nil)
				r.Header.Set("X-Session", "5")
				if res, _ := ask(t, client, r); res.StatusCode != 400 {
					t.Fatalf("got %s", res.Status)
				}
				for id, n := range picks() {
					if n != before[id] {
						backend += id
					}
				}
				return backend
			}
			first := poll("GET")
			if again := poll("POST"); again != first {
				t.Errorf("polls came to %s and to %s", first, again)
			}
			lines := []string{"X-Session: 5"}
			for _, c := range jar.Cookies(where) {
				lines = append(lines, "Cookie: "+c.String())
			}
			if cookie != (len(lines) == 2) {
				t.Fatalf("cookies %v", lines)
			}
			s := e.session(e.open("/", lines...))
			if s.Backend().ID != first {
				t.Errorf("the WebSocket came to %s, not to %s", s.Backend().ID, first)
			}
			if err := e.Drain("apps", first, DrainPace{}); err != nil {
				t.Fatal(err)
			}
			e.eventually("the session has moved", func() bool { return s.Backend().ID != first })
			for range 2 {
				if next := poll("GET"); next != s.Backend().ID {
					t.Errorf("the session is with %s, and a poll came to %s", s.Backend().ID, next)
				}
			}
		})
	}
}

// Plain requests have their cookie taken out, and a strict one its own words.
func TestStickyPlain(t *testing.T) {
	t.Parallel()
	got := make(chan []string, 10)
	backend := app(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header["Cookie"]
		status, _ := strconv.Atoi(r.URL.Query().Get("status"))
		w.WriteHeader(status)
	})
	settings := byCookie(backend)
	settings.Routes[0].Sticky.Strict = true
	e := startEdge(t, settings)
	visit := func(status int, cookie string) *http.Response {
		t.Helper()
		r := request(t, "GET", e.http(fmt.Sprintf("/?status=%d", status)), nil)
		r.Header.Set("Cookie", cookie)
		res, _ := ask(t, browser(t), r)
		return res
	}
	if res := visit(500, "a=1"); res.StatusCode != 500 || len(res.Cookies()) != 0 {
		t.Errorf("a failure: %s %v", res.Status, res.Cookies())
	}
	<-got
	res := visit(404, "a=1")
	cookie := cookieOf(t, res)
	<-got
	if res := visit(200, "a=1; "+cookie); res.StatusCode != 200 || len(res.Cookies()) != 0 {
		t.Errorf("with the cookie: %s %v", res.Status, res.Cookies())
	}
	if lines := <-got; !slices.Equal(lines, []string{"a=1"}) {
		t.Errorf("the backend got %q", lines)
	}
	e.set(backend, balance.Drained, true)
	res, text := e.ask("GET / HTTP/1.1\r\nHost: x\r\nCookie: " + cookie + "\r\n\r\n")
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || text != "the backend of this client takes no requests\n" {
		t.Errorf("draining: %s %q", res.Status, text)
	}
}

// A rebalancer leaves sessions of sticky routes where they are, and takes the others.
func TestStickyIsNotRebalanced(t *testing.T) {
	rebalanced(t, byDefault, func(r *drainRig) {
		r.place.sticky = true
		r.open("a", 100)
		r.sleep(time.Hour)
		r.ended("sticky", 0, 0)
		if v, err := r.Rebalance("apps"); err != nil || v.Remaining != 0 {
			t.Errorf("asked for: %+v, %v", v, err)
		}
		other := *r.place
		other.sticky = false
		r.place = &other
		free := r.open("a", 10)
		r.sleep(time.Hour)
		r.ended("ten that are not", 10, 10)
		for _, e := range r.ends {
			if !slices.Contains(free, e.sham) {
				t.Error("a sticky one has left")
			}
		}
	})
}

func TestStrictlyStickyRefusesRebalance(t *testing.T) {
	settings := byCookie("127.0.0.1:1")
	settings.Pools[0].Rebalance = byDefault
	s := NewServer(zap.NewNop())
	defer s.Shutdown(context.Background(), 0, 0)
	next, err := s.Prepare(settings)
	if err != nil {
		t.Fatal(err)
	}
	next.Discard()
	settings.Routes[0].Sticky.Strict = true
	if _, err := s.Prepare(settings); !errors.Is(err, ErrStrict) || !strings.Contains(err.Error(), "route all: ") {
		t.Errorf("got %v", err)
	}
}

// Two routes have their own cookies.
func TestStickyRoutes(t *testing.T) {
	t.Parallel()
	settings := byCookie(echoes(t, 2)...)
	other := settings.Routes[0]
	other.Name, other.Path, other.Sticky = "other", "/other", &StickySettings{Cookie: stickyCookie("og")}
	settings.Routes = append(settings.Routes, other)
	e := startEdge(t, settings)
	_, cookie := e.visit()
	res, _ := e.ask(upgradeRequest("/other", "Cookie: "+cookie))
	if got := cookieOf(t, res); !strings.HasPrefix(got, "og=") {
		t.Errorf("got %q", got)
	}
	io.Copy(io.Discard, res.Body)
}
