package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/admin"
)

// TestAdminGarbage asks the admin API of a running edge for what it must refuse. Every
// refusal is JSON with an error, none of them does anything, and the edge goes on.
func TestAdminGarbage(t *testing.T) {
	app := newApp(t, "app")
	e := start(t, withBackends(hasty, app.addr))
	w := newWitness(t, "wss://"+e.addr("wss"))
	var page admin.SessionPage
	e.eventually("the session is listed", func() (ok bool) {
		var err error
		page, err = e.api.Sessions(t.Context(), admin.SessionQuery{})
		return err == nil && len(page.Sessions) == 1
	})
	session := "/api/v1/sessions/" + page.Sessions[0].ID
	long := strings.Repeat("a", 10_000)

	for _, tt := range []struct {
		name, method, target string
		header               http.Header // Host too
		status               int
	}{
		{"Host of a web page", "GET", "/api/v1/status", http.Header{"Host": {"evil.example"}}, 403},
		{"Host with the right port", "DELETE", session, http.Header{"Host": {"evil.example:9901"}}, 403},
		{"Host that begins well", "GET", "/metrics", http.Header{"Host": {"127.0.0.1.evil.example"}}, 403},
		{"Host that is long", "GET", "/livez", http.Header{"Host": {long}}, 403},
		{"Origin of a web page", "DELETE", session, http.Header{"Origin": {"https://evil.example"}}, 403},
		{"Origin null", "POST", "/api/v1/reload", http.Header{"Origin": {"null"}}, 403},
		{"another site", "DELETE", session, http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"PUT", "PUT", session, nil, 405},
		{"POST of a session", "POST", session, nil, 405},
		{"GET of a reload", "GET", "/api/v1/reload", nil, 405},
		{"DELETE of all sessions", "DELETE", "/api/v1/sessions", nil, 405},
		{"TRACE", "TRACE", "/api/v1/status", nil, 405},
		{"a method that is none", "BREW", "/api/v1/pools", nil, 405},
		{"nothing there", "GET", "/api/v2/status", nil, 404},
		{"dot segments", "GET", "/api/v1/../../etc/passwd", nil, 404},
		{"escaped dot segments", "GET", "/api/v1/sessions/%2e%2e/%2e%2e/x", nil, 404},
		{"double slashes", "GET", "//api//v1//status", nil, 404},
		{"an unknown session", "DELETE", "/api/v1/sessions/0000000000000", nil, 404},
		{"a long id", "GET", "/api/v1/sessions/" + long, nil, 404},
		{"an id of nulls", "DELETE", "/api/v1/sessions/%00%00", nil, 404},
		{"an id of other bytes", "GET", "/api/v1/sessions/%ff%fe%20%0a", nil, 404},
		{"an unknown backend", "GET", "/api/v1/pools/apps/backends/none", nil, 404},
		{"an unknown pool", "GET", "/api/v1/pools/none/backends/none", nil, 404},
		{"an unknown parameter", "GET", "/api/v1/sessions?pol=apps", nil, 400},
		{"a parameter twice", "GET", "/api/v1/sessions?pool=apps&pool=none", nil, 400},
		{"a long query", "GET", "/api/v1/sessions?cursor=" + long, nil, 400},
		{"a cursor that is no ID", "GET", "/api/v1/sessions?cursor=ZZZZZZZZZZZZZ", nil, 400},
		{"a cursor beyond all IDs", "GET", "/api/v1/sessions?cursor=zzzzzzzzzzzzz", nil, 400},
		{"a query of bad escapes", "GET", "/api/v1/sessions?pool=%zz", nil, 400},
		{"limit 0", "GET", "/api/v1/sessions?limit=0", nil, 400},
		{"limit of 10^18", "GET", "/api/v1/sessions?limit=1000000000000000000", nil, 400},
		{"an ip that is none", "GET", "/api/v1/sessions?ip=localhost", nil, 400},
		{"a code that is none", "DELETE", session + "?code=many", nil, 400},
		{"a code that is never sent", "DELETE", session + "?code=1006", nil, 400},
		{"a code over 4999", "DELETE", session + "?code=5000", nil, 400},
		{"a reason over 123 bytes", "DELETE", session + "?reason=" + strings.Repeat("r", 124), nil, 400},
		{"a reason that is not UTF-8", "DELETE", session + "?reason=%ff", nil, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := e.ask(t, tt.method, tt.target, tt.header)
			var answer struct{ Error string }
			if err := json.Unmarshal(body, &answer); err != nil || answer.Error == "" || status != tt.status {
				t.Errorf("got %d %.200q (%v), want %d and an error", status, body, err, tt.status)
			}
		})
	}

	for _, r := range noRequests() {
		if strings.HasPrefix(r.name, "half") || strings.HasSuffix(r.name, "a byte at a time") {
			continue // the admin API waits 5 s
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := dialRaw(t, e.adminAddress(), false)
			said := make(chan struct{})
			go func() { r.say(c); close(said) }()
			answer, err := io.ReadAll(c.r)
			c.Close()
			<-said
			if timedOut(err) || len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.") {
				t.Errorf("answered %.100q, %v", answer, err)
			}
		})
	}
	t.Cleanup(func() { // when the parallel ones are through
		w.moves(e)
		w.end(t)
		if e.countLog("session closed through the admin API") != 0 || e.countLog("reload asked for through the admin API") != 0 {
			t.Error("something was done")
		}
		if status, _ := e.ask(t, "GET", "/livez", nil); status != 200 {
			t.Errorf("livez: %d", status)
		}
	})
}

func (e *edge) adminAddress() string { return e.waitLog("running", nil)["admin"].(string) }

// ask sends one request to the admin API with the target as it stands.
func (e *edge) ask(t *testing.T, method, target string, header http.Header) (status int, body []byte) {
	t.Helper()
	c := dialRaw(t, e.adminAddress(), false)
	defer c.Close()
	head := http.Header{"Host": {e.adminAddress()}, "Connection": {"close"}}
	maps.Copy(head, header)
	var request bytes.Buffer
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\n", method, target)
	head.Write(&request)
	c.write(append(request.Bytes(), "\r\n"...))
	res, err := http.ReadResponse(c.r, nil)
	must(t, err)
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, body
}
