package test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestRealtimeBrowser opens a page of an app server in Chromium, through an edge that keeps the
// browser with that server by a cookie. The page has clients of Socket.IO and SockJS and an
// EventSource; when its server drains they go on at another one, together.
func TestRealtimeBrowser(t *testing.T) {
	ctx := openBrowser(t)
	r := startRealtime(t, cookieSticky)
	must(t, chromedp.Do(ctx, chromedp.Navigate(strings.Replace(r.url, "127.0.0.1", "localhost", 1)+"/")))
	b := &realtimePage{t, ctx, r}

	first := b.settled("")
	state := b.state()
	if got := state["socket.io"].Opens; len(got) != 1 || got[0] != "polling" {
		t.Errorf("socket.io began with %q", got)
	}
	for name, want := range map[string]string{"sockjs": "websocket", "xhr-streaming": "xhr-streaming", "jsonp-polling": "jsonp-polling"} {
		if got := state[name].Opens; len(got) != 1 || got[0] != want {
			t.Errorf("%s uses %q", name, got)
		}
	}
	b.say("second")
	b.wait("everybody hears it", func(name string, c realtimePart) bool {
		return name == "eventsource" || c.last() == "second"
	})
	for name, c := range b.state() {
		if len(c.Opens) != 1 || len(c.Closes) != 0 || c.backend() != first {
			t.Errorf("%s of %s: %+v", name, first, c)
		}
	}
	r.mu.Lock()
	if len(r.refused) != 0 {
		t.Errorf("a server had no session for a request: %q", r.refused)
	}
	r.mu.Unlock()

	r.command("drain", "app/"+first, "--window", "1s")
	b.say("lost") // those that poll notice
	second := b.settled(first)
	b.say("third")
	b.wait("everybody hears it", func(name string, c realtimePart) bool {
		return c.backend() == second && (name == "eventsource" || c.last() == "third")
	})
	for name, c := range b.state() {
		if len(c.Opens) < 2 || len(c.Lost) != 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// realtimePage is the page in the browser.
type realtimePage struct {
	t   *testing.T
	ctx context.Context
	r   *realtime
}

// realtimePart is a client in the page. Heard has its server, the transport and a text each.
type realtimePart struct {
	Opens, Closes, Heard, Lost []string
	Upgraded                   bool
}

func (c *realtimePart) backend() string {
	server, _, _ := strings.Cut(c.newest(), " ")
	return server
}

func (c *realtimePart) last() string { return c.newest()[strings.LastIndexByte(c.newest(), ' ')+1:] }

func (c *realtimePart) newest() string {
	if len(c.Heard) == 0 {
		return ""
	}
	return c.Heard[len(c.Heard)-1]
}

func (b *realtimePage) state() map[string]realtimePart {
	b.t.Helper()
	state, err := chromedp.Run(b.ctx, chromedp.Evaluate[map[string]realtimePart](`globalThis.document.readyState === "complete" ? clients : {}`))
	must(b.t, err)
	return state
}

func (b *realtimePage) say(text string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Evaluate[int](`Object.values(clients).map((c) => c.say("`+text+`")).length`))
	must(b.t, err)
}

// settled waits until all clients are open and have been answered, by one server and not by
// that of before, and returns its name.
func (b *realtimePage) settled(before string) (server string) {
	b.t.Helper()
	b.wait("one server has answered everybody", func(name string, c realtimePart) bool {
		if name == "socket.io" {
			server = c.backend()
		}
		return len(c.Heard) >= 2 && c.backend() != before && (c.Upgraded || name != "socket.io")
	})
	for name, c := range b.state() {
		if c.backend() != server {
			b.t.Errorf("%s is with %s, socket.io with %s", name, c.backend(), server)
		}
	}
	return server
}

// wait polls until cond holds for every client.
func (b *realtimePage) wait(what string, cond func(name string, c realtimePart) bool) {
	b.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * soon)
	for {
		state := b.state()
		done := len(state) == 5
		for name, c := range state {
			done = cond(name, c) && done
		}
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("not so within %v: %s\n%+v\n%s", 2*soon, what, state, b.r.logTail())
		}
	}
}
