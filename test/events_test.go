package test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEventSource has clients of the package eventsource read numbered events through an edge.
// Reloads disturb nobody; when their server drains they go on at another one behind the last
// event that they have. None is lost.
func TestEventSource(t *testing.T) {
	r := startRealtime(t, "")
	goesOn := soaking(t)
	r.url += "/events?every=5"
	clients := r.open(t, 12, "eventsource", nil)
	r.more(t, clients, 50)
	for round := 1; round <= 4 || goesOn(); round++ {
		yaml := r.yaml(fmt.Sprintf(", headers: {set: {X-Round: %q}}", fmt.Sprint(round)))
		if round%2 == 0 {
			yaml = strings.ReplaceAll(yaml, "round_robin", "least_connections")
		}
		_, err := r.reload(yaml)
		must(t, err)
		r.more(t, clients, 50)
	}
	var leaving []*realtimeClient
	r.mu.Lock()
	for _, c := range clients {
		if len(c.opens) != 1 || len(c.closes) != 0 {
			t.Errorf("a reload ended a stream: opens %q, closes %q", c.opens, c.closes)
		}
		if c.backend == "b1" {
			leaving = append(leaving, c)
		}
	}
	begun := len(r.streams)
	r.mu.Unlock()
	if len(leaving) == 0 || len(leaving) == len(clients) {
		t.Fatalf("%d of %d clients are with b1", len(leaving), len(clients))
	}

	r.command("drain", "app/b1", "--window", "1s")
	r.until(t, "the clients of b1 are with others", func() bool {
		return all(leaving, func(c *realtimeClient) bool { return len(c.opens) == 2 && c.backend != "b1" })
	})
	r.more(t, clients, 50)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range clients {
		if want := 1 + min(1, len(c.closes)); len(c.errors) != 0 || len(c.opens) != want || slices.Contains(leaving, c) != (want == 2) {
			t.Errorf("opens %q, closes %q, errors %q", c.opens, c.closes, c.errors)
		}
	}
	for _, s := range r.streams[begun:] {
		if s.behind < 50 || s.backend == "b1" {
			t.Errorf("a stream of %s began behind event %d", s.backend, s.behind)
		}
	}
	if got := len(r.streams) - begun; got != len(leaving) {
		t.Errorf("%d streams began for %d clients", got, len(leaving))
	}
}

// more waits until each client has so many more events.
func (r *realtime) more(t *testing.T, clients []*realtimeClient, n int) {
	t.Helper()
	r.mu.Lock()
	want := map[*realtimeClient]int{}
	for _, c := range clients {
		want[c] = c.event + n
	}
	r.mu.Unlock()
	r.until(t, "events go on", func() bool { return all(clients, func(c *realtimeClient) bool { return c.event >= want[c] }) })
}

// TestAbortedPoll has a client give up its long polls, by the end of a connection or, where the
// edge speaks HTTP/2, of a stream: their servers hear of it at once.
func TestAbortedPoll(t *testing.T) {
	r := startRealtime(t, "")
	for i := 1; i <= 8; i++ {
		transport := &http.Transport{TLSClientConfig: insecure(), ForceAttemptHTTP2: i > 4}
		defer transport.CloseIdleConnections()
		method, body := http.MethodGet, io.Reader(nil)
		if i%2 == 0 {
			method, body = http.MethodPost, strings.NewReader("something to think about")
		}
		ctx, abort := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, method, r.url+"/poll", body)
		must(t, err)
		ended := make(chan error, 1)
		go func() {
			res, err := transport.RoundTrip(req)
			if err == nil {
				res.Body.Close()
			}
			ended <- err
		}()
		r.until(t, "a server has the poll", func() bool { return len(r.polls) == 2*i-1 })
		aborted := time.Now()
		abort()
		if err := <-ended; err == nil {
			t.Fatal("somebody answered")
		}
		r.until(t, "the server notices", func() bool { return len(r.polls) == 2*i })
		if took := time.Since(aborted); took > 5*time.Second { // less than any timeout of the edge or the server
			t.Errorf("the server noticed after %v", took)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 0; i < len(r.polls); i += 2 {
		polled, aborted := strings.Fields(r.polls[i]), strings.Fields(r.polls[i+1])
		if polled[0] != "polled" || aborted[0] != "aborted" || polled[1] != aborted[1] {
			t.Errorf("polls: %q", r.polls)
		}
	}
}

// TestCrossOrigin has pages of other origins ask what browsers ask: the answers to preflights
// are the application's, where the route's origins let them pass.
func TestCrossOrigin(t *testing.T) {
	r := startRealtime(t, `, origins: ["https://page.example.com"]`)
	transport := &http.Transport{TLSClientConfig: insecure()}
	defer transport.CloseIdleConnections()
	for _, path := range []string{"/socket.io/?EIO=4&transport=polling", "/sockjs/info", "/sockjs/000/abcdefgh/xhr"} {
		for origin, want := range map[string]int{"https://page.example.com": 204, "https://other.example.com": 403, "null": 403} {
			req, err := http.NewRequest(http.MethodOptions, r.url+path, nil)
			must(t, err)
			req.Header.Set("Origin", origin)
			req.Header.Set("Access-Control-Request-Method", "POST")
			req.Header.Set("Access-Control-Request-Headers", "content-type")
			res, err := transport.RoundTrip(req)
			must(t, err)
			res.Body.Close()
			allowed := res.Header.Get("Access-Control-Allow-Origin")
			if res.StatusCode != want || (allowed == origin) != (want == 204) {
				t.Errorf("%s from %s: %d, allowed %q", path, origin, res.StatusCode, allowed)
			}
		}
	}
}
