package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func readAnswer(t *testing.T, conn net.Conn, head bool) answer {
	t.Helper()
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

const sessionJSON = `{"id":"s1","route":"chat","listener":"edge","pool":"chat","backend":"b","client":"10.0.0.1:5000","client_ip":"192.0.2.1",` +
	`"state":"open","opened":"2025-06-01T12:00:00Z","duration_seconds":1.5,"subprotocol":"v2","host":"chat.example.com",` +
	`"path":"/ws","request_id":"r1","attempts":0,"upstream":{"messages":1,"bytes":2,"frames":3},"downstream":{"messages":4,"bytes":5,"frames":6}}`

const backendJSON = `{"id":"dc1/n1/chat-1","address":"10.0.0.5:9001","weight":1,"state":"up","sessions":1,"in_flight":2,` +
	`"picks":3,"failures":{"connect":1},"node":"n1","datacenter":"dc1","tags":["\u003cscript\u003e"],"meta":{"k":"v"}}`

const bareBackendJSON = `{"id":"b","address":"10.0.0.6:9001","weight":0,"state":"","sessions":0,"in_flight":0,"picks":0,` +
	`"failures":{},"tags":[],"meta":{}}`

const drainingJSON = `{"id":"c/drain","address":"","weight":0,"state":"draining","sessions":0,"in_flight":0,"picks":0,` +
	`"failures":{},"tags":[],"meta":{},"draining":{"by":"operator","remaining":5,"since":"2025-06-01T12:00:00Z",` +
	`"deadline":"2025-06-01T12:01:00Z","per_second":2.5,"waiting":false}}`

// TestAnswers has the whole text of every answer, so that no field moves unnoticed.
func TestAnswers(t *testing.T) {
	s := start(t, Options{})
	for _, tt := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /livez", 200, `{"status":"ok"}`},
		{"GET /readyz", 200, `{"status":"ok"}`},
		{"HEAD /readyz", 200, ``},
		{"GET /api/v1/status", 200, `{"version":"v1.2.3","uptime_seconds":90.5,"started":"2025-06-01T12:00:00Z","generation":4,` +
			`"ready":true,"shutting_down":false,"sessions":1,"handshakes_in_flight":2,"requests_in_flight":3,"sessions_total":10,` +
			`"listeners":[{"name":"edge","address":"127.0.0.1:8443","tls":true,"sessions":1}],` +
			`"routes":[{"name":"chat","pool":"chat","sessions":1}],` +
			`"config":{"path":"tidegate.yaml","last_reload":"2025-06-01T12:00:00Z","last_reload_ok":true}}`},
		{"GET /api/v1/pools", 200, `{"pools":[{"name":"chat","policy":"least_connections","stale":false,"panic":false,"index":7,"backends":[` +
			backendJSON + `,` + bareBackendJSON + `,` + drainingJSON + `],"rebalancing":{"remaining":3,"per_second":0.5,"waiting":true}}]}`},
		{"GET /api/v1/pools/chat/backends/b", 200, bareBackendJSON},
		{"GET /api/v1/pools/chat/backends/dc1/n1/chat-1", 200, backendJSON},
		{"GET /api/v1/pools/chat/backends/dc1%2Fn1%2Fchat-1", 200, backendJSON},
		{"GET /api/v1/pools/chat/backends/dc1%2fn1/chat%2D1", 200, backendJSON},
		{"GET /api/v1/pools/chat/backends/dc1/n1", 404, `{"error":"no such backend in this pool"}`},
		{"GET /api/v1/pools/chat/backends/c/drain", 200, drainingJSON},
		{"GET /api/v1/pools/chat/backends/b/drain", 404, `{"error":"no such backend in this pool"}`},
		{"POST /api/v1/pools/chat/backends/b/drain", 200, bareBackendJSON},
		{"POST /api/v1/pools/chat/backends/c/drain/drain", 200, drainingJSON},
		{"POST /api/v1/pools/chat/backends/c%2Fdrain/drain", 200, drainingJSON},
		{"POST /api/v1/pools/chat/backends/c%2Fdrain", 405, `{"error":"method not allowed"}`},
		{"POST /api/v1/pools/chat/backends/c/drain", 404, `{"error":"no such backend in this pool"}`},
		{"POST /api/v1/pools/chat/backends/drain", 405, `{"error":"method not allowed"}`},
		{"POST /api/v1/pools/chat/backends//drain", 404, `{"error":"there is nothing at this path"}`},
		{"POST /api/v1/pools/chat/backends/b/drain?rate=1", 400, `{"error":"unknown query parameter \"rate\""}`},
		{"POST /api/v1/pools/chat/backends/b/undrain?x=1", 400, `{"error":"unknown query parameter \"x\""}`},
		{"POST /api/v1/pools/chat/backends/dc1%2Fn1/chat-1/undrain", 200, backendJSON},
		{"POST /api/v1/pools/nope/backends/b/drain", 404, `{"error":"no such pool"}`},
		{"GET /api/v1/pools/nope/backends/b", 404, `{"error":"no such pool"}`},
		{"POST /api/v1/pools/chat/rebalance", 200, `{"remaining":412,"per_second":10,"waiting":false}`},
		{"POST /api/v1/pools/chat/rebalance?now=1", 400, `{"error":"unknown query parameter \"now\""}`},
		{"POST /api/v1/pools/chat/rebalance/x", 404, `{"error":"there is nothing at this path"}`},
		{"GET /api/v1/sessions", 200, `{"sessions":[` + sessionJSON + `],"next":""}`},
		{"GET /api/v1/sessions/s1", 200, sessionJSON},
		{"GET /api/v1/sessions/s%31", 200, sessionJSON},
		{"GET /api/v1/sessions/nope", 404, `{"error":"no such session"}`},
		{"DELETE /api/v1/sessions/s1", 200, `{"id":"s1","code":1008,"reason":""}`},
		{"DELETE /api/v1/sessions/s1?code=4000&reason=b%C3%BCe%20%22x%22", 200, `{"id":"s1","code":4000,"reason":"büe \"x\""}`},
		{"DELETE /api/v1/sessions/nope", 404, `{"error":"no such session: nope"}`},
		{"DELETE /api/v1/sessions/broken", 500, `{"error":"something else"}`},
		{"POST /api/v1/reload", 200, `{"generation":5}`},

		{"GET /", 404, `{"error":"there is nothing at this path"}`},
		{"GET /metrics", 404, `{"error":"there is nothing at this path"}`},
		{"GET /api/v1/sessions/", 404, `{"error":"there is nothing at this path"}`},
		{"GET /api/v1/sessions/s1/x", 404, `{"error":"there is nothing at this path"}`},
		{"GET /api/v1//status", 404, `{"error":"there is nothing at this path"}`},
		{"GET /api/v1/x/../status", 404, `{"error":"there is nothing at this path"}`},
		{"GET /api/v1/pools/chat/backends", 404, `{"error":"there is nothing at this path"}`},
		{"GET /api/v1/pools/chat/backends/", 404, `{"error":"no such backend in this pool"}`},
		{"GET /api/v2/status", 404, `{"error":"there is nothing at this path"}`},

		{"GET /api/v1/status?x=1", 400, `{"error":"unknown query parameter \"x\""}`},
		{"GET /api/v1/pools?x=1", 400, `{"error":"unknown query parameter \"x\""}`},
		{"GET /api/v1/pools/chat/backends/b?x=1", 400, `{"error":"unknown query parameter \"x\""}`},
		{"GET /api/v1/sessions/s1?x=1", 400, `{"error":"unknown query parameter \"x\""}`},
		{"POST /api/v1/reload?x=1", 400, `{"error":"unknown query parameter \"x\""}`},
		{"GET /api/v1/sessions?routes=chat", 400, `{"error":"unknown query parameter \"routes\""}`},
		{"GET /api/v1/sessions?pool=a&pool=b", 400, `{"error":"query parameter \"pool\" stands there 2 times"}`},
		{"GET /api/v1/sessions?pool=%zz", 400, `{"error":"reading the query: invalid URL escape \"%zz\""}`},
		{"GET /api/v1/sessions?limit=0", 400, `{"error":"limit: \"0\" is not a number from 1 to 1000"}`},
		{"GET /api/v1/sessions?limit=1001", 400, `{"error":"limit: \"1001\" is not a number from 1 to 1000"}`},
		{"GET /api/v1/sessions?limit=-1", 400, `{"error":"limit: \"-1\" is not a number from 1 to 1000"}`},
		{"GET /api/v1/sessions?limit=99999999999999999999", 400, `{"error":"limit: \"99999999999999999999\" is not a number from 1 to 1000"}`},
		{"GET /api/v1/sessions?ip=localhost", 400, `{"error":"ip: \"localhost\" is not an IP address"}`},
		{"GET /api/v1/sessions?cursor=forged", 400, `{"error":"bad cursor"}`},
		{"DELETE /api/v1/sessions/s1?cod=1000", 400, `{"error":"unknown query parameter \"cod\""}`},
		{"DELETE /api/v1/sessions/s1?code=abc", 400, `{"error":"bad close code \"abc\": it is not a number"}`},
		{"DELETE /api/v1/sessions/s1?code=1005", 400, `{"error":"bad close code 1005: want 1000-1003, 1007-1014 or 3000-4999"}`},
		{"DELETE /api/v1/sessions/s1?reason=" + strings.Repeat("x", 124), 400,
			`{"error":"bad close reason: 124 bytes, 123 fit into a Close frame"}`},
		{"DELETE /api/v1/sessions/s1?reason=%ff", 400, `{"error":"bad close reason: it is not UTF-8"}`},
	} {
		t.Run(tt.request, func(t *testing.T) {
			got := ask(t, s, tt.request)
			if got.status != tt.status || strings.TrimSuffix(got.body, "\n") != tt.body {
				t.Errorf("status %d\n%swant %d\n%s", got.status, got.body, tt.status, tt.body)
			}
			if ct := got.header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
			if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers %v", got.header)
			}
		})
	}
}

func TestWrongMethod(t *testing.T) {
	edge := newFakeEdge()
	s := start(t, Options{Edge: edge, Metrics: http.NotFoundHandler()})
	for _, tt := range []struct{ path, allow string }{
		{"/livez", "GET, HEAD"},
		{"/readyz", "GET, HEAD"},
		{"/metrics", "GET, HEAD"},
		{"/api/v1/status", "GET, HEAD"},
		{"/api/v1/pools", "GET, HEAD"},
		{"/api/v1/pools/chat/backends/b", "GET, HEAD"},
		{"/api/v1/pools/chat/backends/b/drain", "GET, HEAD, POST"},
		{"/api/v1/pools/chat/backends/b/undrain", "GET, HEAD, POST"},
		{"/api/v1/pools/chat/rebalance", "POST"},
		{"/api/v1/sessions", "GET, HEAD"},
		{"/api/v1/sessions/s1", "DELETE, GET, HEAD"},
		{"/api/v1/reload", "POST"},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			if strings.Contains(tt.allow, method) {
				continue
			}
			got := ask(t, s, method+" "+tt.path)
			if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != tt.allow {
				t.Errorf("%s %s: status %d, Allow %q, want 405 and %q", method, tt.path, got.status, got.header.Get("Allow"), tt.allow)
			}
			if method != "HEAD" && got.body != `{"error":"method not allowed"}`+"\n" {
				t.Errorf("%s %s: %s", method, tt.path, got.body)
			}
		}
	}
	if len(edge.closed) != 0 {
		t.Errorf("something was closed: %v", edge.closed)
	}
}

// TestDrainBody has what may be asked of a drain, and what may not.
func TestDrainBody(t *testing.T) {
	edge := newFakeEdge()
	s := start(t, Options{Edge: edge})
	for _, tt := range []struct{ body, want string }{
		{``, "drain chat b"},
		{" \n", "drain chat b"},
		{`{}`, "drain chat b"},
		{`{"rate":"10/s","window":"30s","deadline":"2m"}`, "drain chat b rate 10 window 30s deadline 2m0s"},
		{`{"rate":"30/m"}`, "drain chat b rate 0.5"},
		{`{"rate":2.5,"window":30,"deadline":0.25}`, "drain chat b rate 2.5 window 30s deadline 250ms"},
		{`{"rate":0,"window":"0","deadline":0}`, "drain chat b rate 0 window 0s deadline 0s"},
		{`{"rat":"10/s"}`, `400 unknown field "rat": rate, window and deadline are known`},
		{`{"rate":"10"}`, `400 rate: "10" has no unit (did you mean "10/s"?)`},
		{`{"rate":"-10/s"}`, `400 rate: "-10/s" must not be negative`},
		{`{"rate":-10}`, `400 rate: -10 must not be negative`},
		{`{"rate":1e7}`, `400 rate: "1e7" is out of range (0, or 0.001/h to 1000000/s)`},
		{`{"rate":null}`, `400 rate: it is neither a text nor a number`},
		{`{"window":true}`, `400 window: it is neither a text nor a number`},
		{`{"window":"30"}`, `400 window: "30" has no unit (did you mean "30s"?)`},
		{`{"window":-0.5}`, `400 window: -0.5 must not be negative`},
		{`{"deadline":"-1s"}`, `400 deadline: "-1s" must not be negative`},
		{`{"deadline":1e300}`, `400 deadline: 1e300 is out of range`},
		{`{"deadline":1e999}`, `400 deadline: 1e999 is out of range`},
		{`[]`, `400 the body is no JSON object`},
		{`null`, `400 the body is no JSON object`},
		{`{"rate":"1/s"} {}`, `400 the body is no JSON object`},
		{`{"rate":`, `400 the body is no JSON object`},
		{strings.Repeat(" ", 5000), `400 the body is longer than 4096 bytes`},
	} {
		edge.drains = nil
		got := post(t, s, DrainPath("chat", "b"), tt.body)
		if want, refused := strings.CutPrefix(tt.want, "400 "); refused {
			var a errorAnswer
			if err := json.Unmarshal([]byte(got.body), &a); err != nil || got.status != 400 || a.Error != want || len(edge.drains) > 0 {
				t.Errorf("%s: status %d %s, want %s", tt.body, got.status, got.body, want)
			}
		} else if got.status != 200 || got.body != bareBackendJSON+"\n" || !cmp.Equal(edge.drains, []string{tt.want}) {
			t.Errorf("%s: status %d %s: %q, want %s", tt.body, got.status, got.body, edge.drains, tt.want)
		}
	}
}

// post sends a request with a body.
func post(t *testing.T, s *Server, path, body string) answer {
	t.Helper()
	resp, err := http.Post("http://"+s.Addr()+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// TestDrainRefused has every error of an edge.
func TestDrainRefused(t *testing.T) {
	edge := newFakeEdge()
	s := start(t, Options{Edge: edge})
	for err, status := range map[error]int{
		ErrNoPool: 404, ErrNoBackend: 404, ErrNotDrained: 409, ErrMaintained: 409, ErrShuttingDown: 503,
		fmt.Errorf("%w: window 2m is longer than deadline 1m", ErrBadPace): 400, errors.New("else"): 500,
	} {
		edge.refuse = err
		for _, path := range []string{DrainPath("chat", "b"), UndrainPath("chat", "b")} {
			if got := post(t, s, path, ""); got.status != status || got.body != `{"error":"`+err.Error()+`"}`+"\n" {
				t.Errorf("%v: status %d: %s", err, got.status, got.body)
			}
		}
	}
}

// TestRebalanceRefused has every error of an edge.
func TestRebalanceRefused(t *testing.T) {
	edge := newFakeEdge()
	s := start(t, Options{Edge: edge})
	for err, status := range map[error]int{
		ErrNoPool: 404, ErrHashed: 409, ErrShuttingDown: 503, fmt.Errorf("%w: b is down", ErrUnsettled): 409, errors.New("else"): 500,
	} {
		edge.refuse = err
		if got := post(t, s, RebalancePath("chat"), ""); got.status != status || got.body != `{"error":"`+err.Error()+`"}`+"\n" {
			t.Errorf("%v: status %d: %s", err, got.status, got.body)
		}
	}
}

func TestSessionQuery(t *testing.T) {
	edge := newFakeEdge()
	s := start(t, Options{Edge: edge})
	for _, tt := range []struct {
		query string
		want  SessionQuery
	}{
		{"", SessionQuery{Limit: DefaultLimit}},
		{"?limit=1", SessionQuery{Limit: 1}},
		{"?limit=1000", SessionQuery{Limit: MaxLimit}},
		{"?pool=p%2Fq&backend=a/b&route=r+s&ip=192.0.2.1&limit=5&cursor=c%3D",
			SessionQuery{"p/q", "a/b", "r s", netip.MustParseAddr("192.0.2.1"), 5, "c="}},
		{"?ip=::ffff:192.0.2.1", SessionQuery{IP: netip.MustParseAddr("192.0.2.1"), Limit: DefaultLimit}},
		{"?ip=2001:db8::1", SessionQuery{IP: netip.MustParseAddr("2001:db8::1"), Limit: DefaultLimit}},
	} {
		if got := ask(t, s, "GET /api/v1/sessions"+tt.query); got.status != 200 {
			t.Errorf("%s: status %d: %s", tt.query, got.status, got.body)
		}
		edge.mu.Lock()
		if diff := cmp.Diff(tt.want, edge.query, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s:\n%s", tt.query, diff)
		}
		edge.mu.Unlock()
	}
}

func TestNotReady(t *testing.T) {
	edge := newFakeEdge()
	edge.ready = ErrShuttingDown
	s := start(t, Options{Edge: edge})
	if got := ask(t, s, "GET /readyz"); got.status != 503 || got.body != `{"error":"the edge is shutting down"}`+"\n" {
		t.Errorf("readyz: status %d: %s", got.status, got.body)
	}
	if got := ask(t, s, "GET /livez"); got.status != 200 {
		t.Errorf("livez: status %d: %s", got.status, got.body)
	}
}

func TestReloadFailures(t *testing.T) {
	edge := newFakeEdge()
	s := start(t, Options{Edge: edge})
	for _, tt := range []struct {
		err    error
		status int
		body   string
	}{
		{&Rejected{[]Diagnostic{{"a.yaml", 3, 9, "pools[0].name", "it is empty"}}}, 422,
			`{"error":"the configuration was rejected: 1 problem","diagnostics":[` +
				`{"file":"a.yaml","line":3,"column":9,"path":"pools[0].name","message":"it is empty"}]}`},
		{errors.Join(&Rejected{make([]Diagnostic, 2)}), 422,
			`{"error":"the configuration was rejected: 2 problems","diagnostics":[` +
				`{"file":"","line":0,"column":0,"path":"","message":""},{"file":"","line":0,"column":0,"path":"","message":""}]}`},
		{ErrNoFile, 409, `{"error":"this edge has no configuration file"}`},
		{ErrShuttingDown, 503, `{"error":"the edge is shutting down"}`},
		{errors.New("cannot bind"), 500, `{"error":"cannot bind"}`},
	} {
		edge.reload = func(context.Context) (uint64, error) { return 0, tt.err }
		if got := ask(t, s, "POST /api/v1/reload"); got.status != tt.status || strings.TrimSpace(got.body) != tt.body {
			t.Errorf("%v: status %d\n%swant %d\n%s", tt.err, got.status, got.body, tt.status, tt.body)
		}
	}
}

// A client that goes away ends its reload.
func TestReloadIsCancelled(t *testing.T) {
	edge := newFakeEdge()
	begun, ended := make(chan struct{}), make(chan error, 1)
	edge.reload = func(ctx context.Context) (uint64, error) {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, ctx.Err()
	}
	s := start(t, Options{Edge: edge})
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	conn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the reload ended with %v", err)
	}
}

func TestMetrics(t *testing.T) {
	s := start(t, Options{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "up 1\n")
	})})
	if got := ask(t, s, "GET /metrics"); got.status != 200 || got.body != "up 1\n" {
		t.Errorf("status %d: %s", got.status, got.body)
	}
}

func TestEmptyEdge(t *testing.T) {
	s := start(t, Options{Edge: &fakeEdge{pools: []Pool{{Name: "p"}}}})
	for path, want := range map[string]string{
		"/api/v1/status": `{"version":"","uptime_seconds":0,"started":"0001-01-01T00:00:00Z","generation":0,"ready":false,` +
			`"shutting_down":false,"sessions":0,"handshakes_in_flight":0,"requests_in_flight":0,"sessions_total":0,"listeners":[],"routes":[],` +
			`"config":{"path":"","last_reload_ok":false}}`,
		"/api/v1/pools":    `{"pools":[{"name":"p","policy":"","stale":false,"panic":false,"index":0,"backends":[]}]}`,
		"/api/v1/sessions": `{"sessions":[],"next":""}`,
	} {
		if got := ask(t, s, "GET "+path); strings.TrimSpace(got.body) != want {
			t.Errorf("%s: %s", path, got.body)
		}
	}
}

func TestUntrustedText(t *testing.T) {
	edge := newFakeEdge()
	tags := make([]string, 100)
	for i := range tags {
		tags[i] = strings.Repeat("é", 300)
	}
	tags[0] = "\x1b[2J\u009b31m\x7f\xff"
	meta := make(map[string]string)
	for i := range 100 {
		meta[strings.Repeat("k", i)] = strings.Repeat("v", 1000)
	}
	shared := Backend{ID: "b", Tags: tags, Meta: meta}
	edge.pools = []Pool{{Name: "p", Backends: []Backend{shared}}}
	edge.sessions[0].Path = "/" + strings.Repeat("p", 1<<16)
	s := start(t, Options{Edge: edge})

	got := ask(t, s, "GET /api/v1/pools/p/backends/b")
	for i := range len(got.body) {
		if c := got.body[i]; c == 0x7f || c < ' ' && c != '\n' || c == 0xc2 && got.body[i+1] < 0xa0 {
			t.Fatalf("a control character at %d of %q", i, got.body)
		}
	}
	var b Backend
	if err := json.Unmarshal([]byte(got.body), &b); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[2J\u009b31m\x7f\ufffd"; b.Tags[0] != want {
		t.Errorf("tag %q, want %q", b.Tags[0], want)
	}
	if want := strings.Repeat("é", 128) + "…"; b.Tags[1] != want {
		t.Errorf("a long tag came as %q", b.Tags[1])
	}
	if len(b.Tags) != maxTags || len(b.Meta) != maxMetaKeys || len(b.Meta["k"]) != maxMetaValue+len("…") {
		t.Errorf("%d tags, %d keys, value of %d bytes", len(b.Tags), len(b.Meta), len(b.Meta["k"]))
	}
	if len(tags) != 100 || len(tags[1]) != 600 || len(meta["k"]) != 1000 {
		t.Error("what the edge shares was changed")
	}
	if got := ask(t, s, "GET /api/v1/sessions"); len(got.body) > 4096 {
		t.Errorf("a page with one session has %d bytes", len(got.body))
	}
}

func TestEscapeControls(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{``, ``},
		{`{"a":"é"}`, `{"a":"é"}`},
		{"\"\x7f\"", `"\u007f"`},
		{"\"a\u0080b\u009fc\"", `"a\u0080b\u009fc"`},
		{"\"\u00a0\"", "\"\u00a0\""},
		{"\xc2", "\xc2"},
	} {
		if got := string(escapeControls([]byte(tt.in))); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzEscapeControls(f *testing.F) {
	f.Add("a\u0085\x7fb\xff\xc2\u00e9")
	f.Fuzz(func(t *testing.T, in string) {
		plain, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var want, got string
		if err := json.Unmarshal(plain, &want); err != nil {
			t.Fatal(err)
		}
		escaped := escapeControls(plain)
		if err := json.Unmarshal(escaped, &got); err != nil || got != want {
			t.Fatalf("%q: %v, %q instead of %q", escaped, err, got, want)
		}
		for _, r := range string(escaped) {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q holds %U", escaped, r)
			}
		}
	})
}

// What cannot be encoded must not become half an answer.
func TestNotANumber(t *testing.T) {
	edge := newFakeEdge()
	zero := 0.0
	edge.status.UptimeSeconds = zero / zero
	s := start(t, Options{Edge: edge})
	if got := ask(t, s, "GET /api/v1/status"); got.status != 500 || got.body != `{"error":"the answer cannot be encoded"}`+"\n" {
		t.Errorf("status %d: %s", got.status, got.body)
	}
}

func TestCheckClose(t *testing.T) {
	for code := -1; code <= 5001; code++ {
		want := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
		if err := CheckClose(code, ""); (err == nil) != want || err != nil && !errors.Is(err, ErrBadCode) {
			t.Errorf("%d: %v", code, err)
		}
	}
	for reason, ok := range map[string]bool{
		"":                            true,
		strings.Repeat("é", 61) + "x": true, // 123 bytes
		strings.Repeat("é", 62):       false,
		"\xe2\x82":                    false,
	} {
		if err := CheckClose(1000, reason); (err == nil) != ok || err != nil && !errors.Is(err, ErrBadReason) {
			t.Errorf("%q: %v", reason, err)
		}
	}
}

func TestDiagnosticString(t *testing.T) {
	for _, tt := range []struct {
		d    Diagnostic
		want string
	}{
		{Diagnostic{"a.yaml", 3, 9, "p[0].name", "it is empty"}, "a.yaml:3:9: p[0].name: it is empty"},
		{Diagnostic{"a.yaml", 0, 0, "p[0].name", "it is empty"}, "a.yaml: p[0].name: it is empty"},
		{Diagnostic{"a.yaml", 3, 9, "", "it is empty"}, "a.yaml:3:9: it is empty"},
		{Diagnostic{Message: "it is empty"}, "it is empty"},
	} {
		if got := tt.d.String(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
