package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// app is an HTTP app server.
func app(t *testing.T, f http.HandlerFunc) (addr string) {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// browser is an HTTP client with connections of its own.
func browser(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (e *testEdge) http(path string) string { return "http://" + e.addr() + path }

func ask(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPlainRequest has every part of a request and of its answer arrive as it was sent, but
// what is of one connection.
func TestPlainRequest(t *testing.T) {
	t.Parallel()
	var seen *http.Request
	var seenBody string
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen, seenBody = r, string(b)
		h := w.Header()
		h["X-Answer"] = []string{"1", "2"}
		h.Set("Connection", "X-Hop")
		h.Set("X-Hop", "1")
		h.Set("Keep-Alive", "timeout=5")
		h["Content-Type"] = nil
		h["Date"] = nil
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "<html>answer")
	}))
	settings.Routes[0].SetHeaders = map[string]string{"X-Edge": "eu1"}
	settings.Routes[0].RemoveHeaders = []string{"X-Secret"}
	e := startEdge(t, settings)
	r := request(t, "PATCH", e.http("/a%2Fb//c;d?q=%20&&x;y=1&"), strings.NewReader("payload"))
	r.Header = http.Header{"X-Many": {"1", "2"}, "X-Secret": {"s"}, "X-Edge": {"mine"}, "X-Forwarded-For": {"1.2.3.4"}, "Forwarded": {"for=1.2.3.4"},
		"Connection": {"X-Gone"}, "X-Gone": {"1"}, "Te": {"gzip"}, "Tidegate-Session": {"forged"}, "User-Agent": nil, "Proxy-Authorization": {"x"},
		"X-Forwarded-Proto": {"https"}, "X-Request-Id": {"mine"}}
	r.Host = "chat.test:1234"
	res, body := ask(t, browser(t), r)

	if seen.RequestURI != "/a%2Fb//c;d?q=%20&&x;y=1&" || seen.Method != "PATCH" || seen.Host != "chat.test:1234" || seenBody != "payload" {
		t.Errorf("the backend saw %s %s of %s with %q", seen.Method, seen.RequestURI, seen.Host, seenBody)
	}
	got := maps.Clone(seen.Header)
	if id := got["X-Request-Id"]; len(id) != 1 || len(id[0]) != 32 {
		t.Errorf("X-Request-Id is %q", id)
	}
	delete(got, "X-Request-Id")
	want := http.Header{"X-Many": {"1", "2"}, "X-Edge": {"eu1"}, "X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"},
		"X-Forwarded-Host": {"chat.test:1234"}, "Content-Length": {"7"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the backend saw\n%v, want\n%v", got, want)
	}
	if res.StatusCode != http.StatusTeapot || body != "<html>answer" || !slices.Equal(res.Header["X-Answer"], []string{"1", "2"}) {
		t.Errorf("the client saw %s %v %q", res.Status, res.Header, body)
	}
	for _, name := range []string{"X-Hop", "Keep-Alive", "Connection", "Content-Type"} {
		if v, ok := res.Header[name]; ok {
			t.Errorf("%s: %v came through", name, v)
		}
	}
	if n := e.route("all").Requests[http.StatusTeapot]; n != 1 {
		t.Errorf("%d requests counted", n)
	}
	e.idle()
}

// TestPlainFromTrustedProxy keeps what a trusted proxy says, and adds to it.
func TestPlainFromTrustedProxy(t *testing.T) {
	t.Parallel()
	var seen http.Header
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) { seen = r.Header }))
	settings.Listeners[0].TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	e := startEdge(t, settings)
	r := request(t, "GET", e.http("/"), nil)
	r.Header = http.Header{"X-Forwarded-For": {"6.6.6.6", "192.0.2.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"a.test"}, "X-Request-Id": {"id"}}
	ask(t, browser(t), r)
	for name, want := range map[string]string{"X-Forwarded-For": "6.6.6.6, 192.0.2.1, 127.0.0.1", "X-Forwarded-Proto": "https",
		"X-Forwarded-Host": "a.test", "X-Request-Id": "id"} {
		if got := seen[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestPlainPath has the pool's own path prefix.
func TestPlainPath(t *testing.T) {
	t.Parallel()
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI+" "+r.Host) }))
	settings.Routes[0].Path = "/chat"
	settings.Pools[0].Upstream.Path, settings.Pools[0].Upstream.Host = "/v1", "app.internal"
	e := startEdge(t, settings)
	if _, body := ask(t, browser(t), request(t, "GET", e.http("/chat/%2e%20x?y"), nil)); body != "/v1/%2e%20x?y app.internal" {
		t.Errorf("the backend saw %q", body)
	}
}

// TestPlainStreams has answers arrive as they are written, whatever is known of their length.
func TestPlainStreams(t *testing.T) {
	t.Parallel()
	for name, header := range map[string][2]string{
		"events":       {"Content-Type", "text/event-stream; charset=utf-8"},
		"chunked":      {"Content-Type", "text/plain"},
		"known length": {"Content-Length", "15"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := make(chan string)
			e := startEdge(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(header[0], header[1])
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				for s := range next {
					io.WriteString(w, s)
					w.(http.Flusher).Flush()
				}
			})))
			res, err := browser(t).Do(request(t, "GET", e.http("/"), nil)) // returns with the head
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			for _, s := range []string{"data1", "data2", "data3"} {
				next <- s
				got := make([]byte, 5)
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != s {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			close(next)
			if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
				t.Errorf("behind it came %q, %v", rest, err)
			}
			e.idle()
		})
	}
}

// TestPlainUpload has a body arrive while it is being sent, and its trailers, and those of the
// answer, announced or not.
func TestPlainUpload(t *testing.T) {
	t.Parallel()
	heard := make(chan string)
	e := startEdge(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		part := make([]byte, 5)
		for {
			n, err := io.ReadFull(r.Body, part)
			if n > 0 {
				heard <- string(part[:n])
			}
			if err != nil {
				break
			}
		}
		w.Header().Set("Trailer", "X-Announced")
		w.WriteHeader(200)
		fmt.Fprint(w, r.TransferEncoding, r.Trailer)
		w.Header().Set("X-Announced", "1")
		w.Header().Set(http.TrailerPrefix+"X-Late", "2")
	})))
	out, in := io.Pipe()
	r := request(t, "POST", e.http("/"), out)
	r.Trailer = http.Header{"X-Sum": nil}
	go func() {
		for _, s := range []string{"part1", "part2"} {
			io.WriteString(in, s)
			if got := <-heard; got != s {
				t.Errorf("heard %q, want %q", got, s)
			}
		}
		r.Trailer.Set("X-Sum", "abc")
		in.Close()
	}()
	res, body := ask(t, browser(t), r)
	if body != "[chunked] map[X-Sum:[abc]]" {
		t.Errorf("the backend saw %s", body)
	}
	if got := fmt.Sprint(res.Trailer); got != "map[X-Announced:[1] X-Late:[2]]" {
		t.Errorf("the client saw the trailers %s", got)
	}
}

// TestPlainInformational passes 103 and 100 on, and a refusal in place of the latter before any
// of the body was sent.
func TestPlainInformational(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})))
	t.Run("hints", func(t *testing.T) {
		var hints textproto.MIMEHeader
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = h
			return nil
		}})
		res, body := ask(t, browser(t), request(t, "POST", e.http("/"), strings.NewReader("12345")).WithContext(ctx))
		if hints.Get("Link") == "" || res.Header.Get("Link") != "" || body != "5" {
			t.Errorf("got hints %v, then %v %q", hints, res.Header, body)
		}
	})
	for path, want := range map[string]string{"/yes": "100 Continue", "/no": "417 Expectation Failed"} {
		t.Run(path, func(t *testing.T) {
			c := dialRaw(t, e.addr())
			c.send("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			res := c.response()
			for res.StatusCode == http.StatusEarlyHints {
				res = c.response()
			}
			if res.Status != want {
				t.Fatalf("got %s, want %s", res.Status, want)
			}
			if path == "/yes" {
				c.send("12345")
				if res := c.response(); res.StatusCode != 200 {
					t.Errorf("got %s", res.Status)
				}
			}
		})
	}
}

// TestPlainDuplex has an answer that begins before its request has ended, and goes on with it.
func TestPlainDuplex(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(startRaw(t, func(c *rawConn, r *http.Request) {
		part := make([]byte, 5)
		io.ReadFull(c.in, part)
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + string(part))
		io.CopyN(io.Discard, c.in, 32<<10-5)
		io.ReadFull(c.in, part)
		c.send(string(part))
	}).addr))
	c := dialRaw(t, e.addr())
	// As much as a transport collects, and more.
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat("hello...", 4<<10))
	res := c.response()
	half := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, half); err != nil || string(half) != "hello" {
		t.Fatalf("got %q, %v", half, err)
	}
	c.send(strings.Repeat("world...", 4<<10))
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "world" || !res.Close {
		t.Errorf("got %q, %v, close %v", rest, err, res.Close)
	}
	e.idle()
}

// TestPlainEarlyAnswer to a body that never comes: the answer does not wait for it, and neither
// does the end.
func TestPlainEarlyAnswer(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(startRaw(t, func(c *rawConn, r *http.Request) {
		c.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
	}).addr))
	c := dialRaw(t, e.addr())
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	if res := c.response(); res.StatusCode != 413 || !res.Close {
		t.Errorf("got %s, close %v", res.Status, res.Close)
	}
	c.wantEnd()
	e.idle()
}

// TestPlainHints: what comes before the answer changes nothing of it, and is not for HTTP/1.0.
func TestPlainHints(t *testing.T) {
	t.Parallel()
	e := startEdge(t, defaults(startRaw(t, func(c *rawConn, r *http.Request) {
		c.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nKeep-Alive: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
	}).addr))
	c := dialRaw(t, e.addr())
	c.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	hint := c.response()
	if hint.StatusCode != 103 || hint.Header.Get("Link") == "" || hint.Header.Get("Keep-Alive") != "" {
		t.Errorf("got %s %v", hint.Status, hint.Header)
	}
	res := c.response()
	if _, typed := res.Header["Content-Type"]; res.StatusCode != 200 || typed || !res.Close {
		t.Errorf("got %s %v, close %v", res.Status, res.Header, res.Close)
	}
	old := dialRaw(t, e.addr())
	old.send("GET / HTTP/1.0\r\n\r\n")
	if res := old.response(); res.StatusCode != 200 {
		t.Errorf("a client of HTTP/1.0 got %s", res.Status)
	}
	e.idle()
}

// TestPlainBackendThatReadsNothing is given up after its response_timeout.
func TestPlainBackendThatReadsNothing(t *testing.T) {
	t.Parallel()
	released := make(chan bool)
	settings := defaults(startRaw(t, func(c *rawConn, r *http.Request) { <-released }).addr)
	settings.Pools[0].Upstream.ResponseTimeout = 300 * time.Millisecond
	e := startEdge(t, settings)
	defer close(released)
	c := dialRaw(t, e.addr())
	go io.CopyN(io.MultiWriter(c), io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 67108864\r\n\r\n"), zeros{}), 64<<20)
	if res := c.response(); res.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("got %s", res.Status)
	}
	e.idle()
}

// TestPlainAborts have the other side of the edge notice at once who has gone.
func TestPlainAborts(t *testing.T) {
	t.Parallel()
	began, gone := make(chan bool, 1), make(chan bool, 1)
	e := startEdge(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut":
			io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/stream":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		began <- true
		<-r.Context().Done()
		gone <- true
	})))
	for _, path := range []string{"/poll", "/stream"} {
		ctx, cancel := context.WithCancel(t.Context())
		head := make(chan bool, 1)
		go func() {
			res, err := browser(t).Do(request(t, "GET", e.http(path), nil).WithContext(ctx))
			head <- err == nil
			if err == nil {
				io.Copy(io.Discard, res.Body)
			}
		}()
		<-began
		if path == "/stream" {
			<-head
		}
		cancel()
		select {
		case <-gone:
		case <-time.After(patience):
			t.Fatalf("%s: the backend does not see that the client is gone", path)
		}
		e.idle()
	}
	for _, version := range []string{"1.1", "1.0"} {
		c := dialRaw(t, e.addr())
		c.send("GET /cut HTTP/" + version + "\r\nHost: x\r\n\r\n")
		res := c.response()
		if b, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("an answer that was cut came as a whole: %q", b)
		}
	}
	if n := e.route("all").Requests[499]; n != 1 {
		t.Errorf("%d clients that had no answer yet are counted as gone, want 1", n)
	}
	e.idle()
}

// TestPlainAnswersThatLie have no client take for whole what is not.
func TestPlainAnswersThatLie(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string
		status int // 0: the answer begins and is cut
	}{
		"length that is not kept":    {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 0},
		"chunks without an end":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0},
		"chunk size that is none":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n", 0},
		"chunk longer than its size": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n", 0},
		"negative chunk size":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", 0},
		"two lengths":                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 502},
		"no HTTP":                    {"hello\r\n\r\n", 502},
		"nothing":                    {"", 502},
		"half a head":                {"HTTP/1.1 200 OK\r\nX-A", 502},
		"unasked switch":             {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 502},
		"too large a head":           {"HTTP/1.1 200 OK\r\nX-Big: " + strings.Repeat("x", maxAnswerHead) + "\r\n\r\n", 502},
		"unknown coding":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := defaults(startRaw(t, func(c *rawConn, r *http.Request) { c.send(tt.answer) }).addr)
			settings.Pools[0].Upstream.Retries = 0
			e := startEdge(t, settings)
			c := dialRaw(t, e.addr())
			c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
			res, err := http.ReadResponse(c.in, nil)
			if err != nil && tt.status == 0 {
				return // cut before it began
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if tt.status == 0 && (res.StatusCode != 200 || err == nil) || tt.status != 0 && (res.StatusCode != tt.status || err != nil) {
				t.Errorf("got %s, %q, %v", res.Status, b, err)
			}
			e.idle()
		})
	}
}

// TestPlainRetries asks another backend where that can do no harm.
func TestPlainRetries(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	dies := startRaw(t, func(c *rawConn, r *http.Request) {
		asked.Add(1)
		io.Copy(io.Discard, r.Body)
	}).addr
	well := app(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "well %s", b)
	})
	refuses := deadAddr(t)
	for _, tt := range []struct {
		name, bad, method, body string
		want                    int
	}{
		{"GET, lost", dies, "GET", "", 200},
		{"HEAD, lost", dies, "HEAD", "", 200},
		{"POST, lost", dies, "POST", "", 502},
		{"POST with a body, lost", dies, "POST", "x", 502},
		{"DELETE, lost", dies, "DELETE", "", 502},
		{"GET with a body, lost", dies, "GET", "x", 502},
		{"POST with a body, refused", refuses, "POST", "x", 200},
		{"DELETE, refused", refuses, "DELETE", "", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked.Store(0)
			e := startEdge(t, defaults(tt.bad, well))
			statuses := map[int]int{}
			for range 2 { // in turn
				res, body := ask(t, browser(t), request(t, tt.method, e.http("/"), strings.NewReader(tt.body)))
				statuses[res.StatusCode]++
				if want := "well " + tt.body; res.StatusCode == 200 && tt.method != "HEAD" && body != want {
					t.Errorf("got %q, want %q", body, want)
				}
			}
			want := map[int]int{200: 1, tt.want: 1}
			if tt.want == 200 {
				want = map[int]int{200: 2}
			}
			if !maps.Equal(statuses, want) {
				t.Errorf("got %v, want %v", statuses, want)
			}
			if n := asked.Load(); tt.bad == dies && (n < 1 || n > 2 || n > 1 && tt.want != 200) {
				t.Errorf("the backend that dies was asked %d times", n)
			}
			e.idle()
		})
	}
}

// TestPlainNobody has no backend that could answer.
func TestPlainNobody(t *testing.T) {
	t.Parallel()
	hangs := app(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for name, tt := range map[string]struct {
		addrs  []string
		change func(*Settings)
		want   int
	}{
		"none":     {nil, func(*Settings) {}, 503},
		"refused":  {[]string{deadAddr(t), deadAddr(t)}, func(*Settings) {}, 502},
		"too late": {[]string{hangs}, func(s *Settings) { s.Pools[0].Upstream.ResponseTimeout = 50 * time.Millisecond }, 504},
		"origin":   {[]string{hangs}, func(s *Settings) { s.Routes[0].Origins = []string{"https://other.test"} }, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := defaults(tt.addrs...)
			tt.change(&settings)
			e := startEdge(t, settings)
			r := request(t, "GET", e.http("/"), nil)
			r.Header.Set("Origin", "https://evil.test")
			res, _ := ask(t, browser(t), r)
			if res.StatusCode != tt.want || (res.Header.Get("Retry-After") != "") != (tt.want == 503) {
				t.Errorf("got %s %v, want %d", res.Status, res.Header, tt.want)
			}
			if n := e.route("all").Requests[tt.want]; n != 1 {
				t.Errorf("%d counted", n)
			}
			e.idle()
		})
	}
}

// TestPlainFailuresEject a backend that gives no answers; statuses are the application's own.
func TestPlainFailuresEject(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		if !broken.Load() {
			c.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
		}
	})
	settings := defaults(b.addr, app(t, func(w http.ResponseWriter, r *http.Request) {}))
	settings.Pools[0].Health.Passive.ConsecutiveFailures, settings.Pools[0].Health.Passive.EjectionTime = 3, time.Minute
	settings.Pools[0].Health.Passive.MaxEjected = 1
	e := startEdge(t, settings)
	state := func() balance.State {
		for _, x := range e.Pools()[0].Backends {
			if x.ID == b.addr {
				return x.Live.State()
			}
		}
		return 0
	}
	c := browser(t)
	for range 12 {
		ask(t, c, request(t, "GET", e.http("/"), nil))
	}
	if s := state(); s != balance.StateUp {
		t.Fatalf("answers with 500 made it %v", s)
	}
	broken.Store(true)
	for range 12 {
		ask(t, c, request(t, "GET", e.http("/"), nil))
	}
	if s := state(); s != balance.StateEjected {
		t.Errorf("it is %v", s)
	}
}

// TestPlainKeepsConnections to backends, also over reloads that have nothing to do with them.
func TestPlainKeepsConnections(t *testing.T) {
	t.Parallel()
	var ports sync.Map
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) { ports.Store(r.RemoteAddr, true) }))
	e := startEdge(t, settings)
	c := browser(t)
	for range 5 {
		ask(t, c, request(t, "GET", e.http("/"), nil))
		settings.Routes = slices.Clone(settings.Routes)
		settings.Routes[0].SetHeaders = map[string]string{"X-A": rand.Text()}
		e.apply(settings)
	}
	n := 0
	ports.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("5 requests took %d connections", n)
	}
}

// TestPlainBodyTimeout ends a body that stands still, and no other.
func TestPlainBodyTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	whole := make(chan bool, 10)
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		whole <- err == nil
		if r.URL.Path == "/later" {
			<-time.After(2 * timeout)
		}
	}))
	settings.Listeners[0].Limits.RequestBodyTimeout = timeout
	e := startEdge(t, settings)

	stops := dialRaw(t, e.addr())
	stops.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	if res := stops.response(); res.StatusCode != http.StatusRequestTimeout || !res.Close {
		t.Errorf("got %s, close %v", res.Status, res.Close)
	}
	if <-whole {
		t.Error("the backend took half a body for a whole one")
	}
	slow := dialRaw(t, e.addr())
	slow.send("POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	for range 10 {
		<-time.After(timeout / 3)
		slow.send("x")
	}
	if res := slow.response(); res.StatusCode != http.StatusOK || !<-whole {
		t.Errorf("got %s", res.Status)
	}
	e.idle()
}

// TestEventStreamsDrain has the streams of a backend end with its drain, in order.
func TestEventStreamsDrain(t *testing.T) {
	t.Parallel()
	events := func(name string) string {
		return app(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: %s\n\n", name)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
	}
	settings := defaults(events("a"), events("b"))
	settings.Pools[0].Drain = DrainSettings{Window: 200 * time.Millisecond, Deadline: time.Minute, Code: 1012}
	e := startEdge(t, settings)
	ends := map[string]chan error{"a": make(chan error, 8), "b": make(chan error, 8)}
	for range 8 {
		res, err := browser(t).Do(request(t, "GET", e.http("/"), nil))
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(res.Body)
		line, _ := in.ReadString('\n')
		go func() {
			_, err := io.Copy(io.Discard, in)
			ends[strings.TrimSpace(line[6:])] <- err
		}()
	}
	first := e.Pools()[0].Backends[0]
	if err := e.Drain("apps", first.ID, DrainPace{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("the streams of the first backend have ended", func() bool { return first.Live.Load() == 0 && len(ends["a"])+len(ends["b"]) >= 4 })
	left, stay := ends["a"], ends["b"]
	if len(left) == 0 {
		left, stay = stay, left
	}
	if len(left) != 4 || len(stay) != 0 {
		t.Fatalf("%d streams of the drained backend ended, and %d others", len(left), len(stay))
	}
	for range 4 {
		if err := <-left; err != nil {
			t.Errorf("a stream did not end in order: %v", err)
		}
	}
	e.Shutdown(t.Context(), 0, patience)
	for range 4 {
		if err := <-stay; err != nil {
			t.Errorf("a stream did not end in order: %v", err)
		}
	}
}

// TestEventStreamSurvivesReloads of everything about its listener, route and pool.
func TestEventStreamSurvivesReloads(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		for s := range next {
			io.WriteString(w, s)
			w.(http.Flusher).Flush()
		}
	}))
	e := startEdge(t, settings)
	res, err := browser(t).Do(request(t, "GET", e.http("/"), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for i := range 5 {
		settings.Listeners = slices.Clone(settings.Listeners)
		settings.Listeners[0].Limits.MaxSessions = 100 + i
		settings.Routes = slices.Clone(settings.Routes)
		settings.Routes[0].Name = fmt.Sprint("route", i)
		settings.Pools = slices.Clone(settings.Pools)
		settings.Pools[0].Upstream.ResponseTimeout = time.Duration(i+1) * time.Minute
		e.apply(settings)
		want := fmt.Sprintf("data: %d\n\n", i)
		next <- want
		got := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	close(next)
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Error(err)
	}
	e.idle()
}

// TestPlainStuckClient gives up a client that takes nothing of its answer.
func TestPlainStuckClient(t *testing.T) {
	t.Parallel()
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, zeros{}, 64<<20) }))
	settings.Routes[0].WebSocket.WriteTimeout = 300 * time.Millisecond
	e := startEdge(t, settings)
	c := dialRaw(t, e.addr())
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	e.eventually("the request is under way", func() bool { return e.Totals().Requests == 1 })
	e.eventually("it is given up", func() bool { return e.Totals().Requests == 0 })
	e.idle()
}

// TestPlainAtTheEnd: requests under way are finished while the edge ends, and new ones on their
// connections are refused.
func TestPlainAtTheEnd(t *testing.T) {
	t.Parallel()
	began, end := make(chan bool), make(chan bool)
	e := startEdge(t, defaults(app(t, func(w http.ResponseWriter, r *http.Request) {
		began <- true
		<-end
	})))
	c := dialRaw(t, e.addr())
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	over := make(chan bool)
	go func() {
		e.Shutdown(context.Background(), 0, patience)
		close(over)
	}()
	e.eventually("the edge is ending", e.Stopping)
	end <- true
	if res := c.response(); res.StatusCode != 200 {
		t.Errorf("a request under way got %s", res.Status)
	}
	// The next one was behind it: it is refused, if the connection has not ended before.
	if res, err := http.ReadResponse(c.in, nil); err == nil && res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the next got %s", res.Status)
	}
	select {
	case <-began:
		t.Error("a backend got the next one")
	case <-over:
	}
}

// TestPlainHidesLoads that backends report.
func TestPlainHidesLoads(t *testing.T) {
	t.Parallel()
	settings := defaults(app(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Tidegate-Load", "0.5") }))
	settings.Pools[0].LoadHeader = "Tidegate-Load"
	e := startEdge(t, settings)
	if res, _ := ask(t, browser(t), request(t, "GET", e.http("/"), nil)); res.Header.Get("Tidegate-Load") != "" {
		t.Errorf("the client sees %v", res.Header)
	}
}
