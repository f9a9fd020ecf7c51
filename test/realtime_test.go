package test

import (
	"slices"
	"strings"
	"testing"
)

// TestRealtime has clients of Socket.IO, Engine.IO and SockJS with three servers behind an edge
// that keeps each with one of them: they poll, upgrade, lose their servers and come back.
func TestRealtime(t *testing.T) {
	t.Run("cookie", func(t *testing.T) {
		r := startRealtime(t, cookieSticky)
		r.jars(t)
		r.live(t, map[string]any{"browser": true})
	})
	t.Run("header", func(t *testing.T) {
		r := startRealtime(t, headerSticky)
		r.live(t, map[string]any{"header": true})
	})
}

// jars has clients of Socket.IO keep cookies by their own means: as long as a connection lasts.
func (r *realtime) jars(t *testing.T) {
	t.Helper()
	clients := r.open(t, 12, "socket.io", map[string]any{"credentials": true})
	r.until(t, "clients with jars of their own have upgraded", func() bool {
		return all(clients, func(c *realtimeClient) bool { return c.greeted() && c.upgraded })
	})
	r.say(t, clients, "second")
	r.steady(t, clients)
}

// live is the life of all clients.
func (r *realtime) live(t *testing.T, options map[string]any) {
	upgrading, staying := r.everyKind(t, options)
	clients := slices.Concat(upgrading, staying)
	r.until(t, "every client has been answered", func() bool { return all(clients, (*realtimeClient).greeted) })
	r.until(t, "what can upgrade has", func() bool { return all(upgrading, func(c *realtimeClient) bool { return c.upgraded }) })
	r.began(t, upgrading)
	for _, text := range []string{"second", "third"} {
		r.say(t, clients, text)
	}
	r.steady(t, clients)
	r.overWebSocket(t, upgrading)

	r.drained(t, upgrading, staying)
	r.closed(t, clients)
	r.stopped(t, upgrading, staying)
}

// began fails the test unless clients began by polling. The package engine.io says something
// while it does that; a client of socket.io first has to be welcomed, and may have upgraded.
func (r *realtime) began(t *testing.T, clients []*realtimeClient) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	polled := map[string]int{}
	for _, c := range clients {
		if c.heard[1].transport == "polling" {
			polled[c.kind]++
		}
		if c.opens[0] != "polling" || c.heard[0].text != "hello" || c.heard[1].text != "first" {
			t.Errorf("%s began with %q, %q", c.kind, c.opens, c.heard)
		}
	}
	if polled["engine.io"] != len(clients)/2 || polled["socket.io"] == 0 {
		t.Errorf("clients that said something by polling: %v of %d", polled, len(clients))
	}
}

// overWebSocket fails the test unless that is how clients heard what they heard last.
func (r *realtime) overWebSocket(t *testing.T, clients []*realtimeClient) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range clients {
		if last := c.last(); last.transport != "websocket" {
			t.Errorf("%s upgraded, and heard %q", c.kind, last)
		}
	}
}

// everyKind opens clients of every kind. Those of upgrading begin by polling and go on by
// WebSocket; those of staying have one transport each.
func (r *realtime) everyKind(t *testing.T, options map[string]any) (upgrading, staying []*realtimeClient) {
	t.Helper()
	over := func(transports ...string) map[string]any {
		o := map[string]any{"transports": transports}
		for k, v := range options {
			o[k] = v
		}
		return o
	}
	for _, kind := range []string{"socket.io", "engine.io"} {
		upgrading = append(upgrading, r.open(t, 24, kind, options)...)
		staying = append(staying, r.open(t, 12, kind, over("polling"))...)
	}
	staying = append(staying, r.open(t, 12, "sockjs", options)...) // by WebSocket at once
	for _, transport := range []string{"xhr-polling", "xhr-streaming", "eventsource"} {
		staying = append(staying, r.open(t, 12, "sockjs", over(transport))...)
	}
	return upgrading, staying
}

// steady fails the test unless each client has had one connection to one server so far, and no
// server a request of another one's.
func (r *realtime) steady(t *testing.T, clients []*realtimeClient) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	served := map[string]int{}
	for _, c := range clients {
		server := c.last().backend
		served[server]++
		strange := slices.ContainsFunc(c.heard, func(s saying) bool { return s.backend != server })
		if len(c.opens) != 1 || len(c.closes) != 0 || len(c.errors) != 0 || strange {
			t.Errorf("%s: opens %q, closes %q, errors %q, heard %q", c.kind, c.opens, c.closes, c.errors, c.heard)
		}
	}
	if len(served) != len(realtimeBackends) {
		t.Errorf("clients by server: %v", served)
	}
	if len(r.refused) != 0 {
		t.Errorf("a server had no session for a request: %q", r.refused)
	}
}

// drained drains the first server: its clients go on with the others, which keep theirs.
func (r *realtime) drained(t *testing.T, upgrading, staying []*realtimeClient) {
	t.Helper()
	leaving := r.of(slices.Concat(upgrading, staying), "b1")
	remaining := append(r.of(slices.Concat(upgrading, staying), "b2"), r.of(slices.Concat(upgrading, staying), "b3")...)
	r.command("drain", "app/b1", "--window", "1s")
	r.lose(t, leaving) // a poll that waits is left to wait
	r.until(t, "the clients of b1 are answered by others", func() bool {
		return all(leaving, func(c *realtimeClient) bool { return c.greeted() && c.last().backend != "b1" })
	})
	// A server that closes a session in the middle of its upgrade leaves the client in doubt.
	r.until(t, "what can upgrade has", func() bool { return all(upgrading, func(c *realtimeClient) bool { return c.upgraded }) })
	r.say(t, slices.Concat(leaving, remaining), "elsewhere")
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range remaining {
		if len(c.opens) != 1 {
			t.Errorf("%s was at another server, and was disturbed: %q", c.kind, c.closes)
		}
	}
}

// closed has the second server close its sessions: the clients come back to it.
func (r *realtime) closed(t *testing.T, clients []*realtimeClient) {
	t.Helper()
	its := r.of(clients, "b2")
	before := map[*realtimeClient]int{}
	r.mu.Lock()
	for _, c := range its {
		before[c] = len(c.opens)
	}
	r.mu.Unlock()
	must(t, r.servers.tell(map[string]any{"command": "close", "backend": "b2"}))
	r.until(t, "the clients of b2 have connected again", func() bool {
		return all(its, func(c *realtimeClient) bool { return len(c.opens) > before[c] && c.greeted() })
	})
	r.say(t, its, "again")
	if got := r.of(its, "b2"); len(got) != len(its) {
		t.Errorf("%d of %d clients of b2 came back to it", len(got), len(its))
	}
}

// stopped ends the third server: the second one, the last that takes sessions, has everybody.
func (r *realtime) stopped(t *testing.T, upgrading, staying []*realtimeClient) {
	t.Helper()
	clients := slices.Concat(upgrading, staying)
	must(t, r.servers.tell(map[string]any{"command": "stop", "backend": "b3"}))
	r.until(t, "b3 has ended", func() bool { return r.ports["b3"] == 0 })
	r.lose(t, r.of(staying, "b3")) // SockJS in Node.js overlooks a stream that ends so
	r.until(t, "every client is answered by b2", func() bool {
		return all(clients, func(c *realtimeClient) bool { return c.greeted() && c.last().backend == "b2" })
	})
	r.until(t, "what can upgrade has", func() bool {
		return all(upgrading, func(c *realtimeClient) bool { return c.upgraded })
	})
	r.say(t, clients, "at the end")
	r.overWebSocket(t, upgrading)
}

// TestRealtimeStraying shows what stickiness is for: without it, polls reach servers that know
// nothing of their sessions.
func TestRealtimeStraying(t *testing.T) {
	r := startRealtime(t, "")
	clients := r.open(t, 24, "socket.io", nil)
	r.until(t, "servers do not know sessions", func() bool { return len(r.refused) >= len(clients) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.ContainsFunc(r.refused, func(why string) bool { return strings.Contains(why, "Session ID unknown") }) {
		t.Errorf("servers refused: %q", r.refused)
	}
}
