package test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// libraries are those in Go; npm_test.go has another one.
var libraries = []library{
	{"gorilla", dialGorilla, serveGorilla},
	{"coder", dialCoder, serveCoder},
	{"gobwas", dialGobwas, serveGobwas},
}

// offeredDeflate is an offer of compression, for libraries that make none themselves.
const offeredDeflate = "permessage-deflate; client_max_window_bits"

// meeting is an edge between the clients and the app servers of several libraries.
type meeting struct {
	t      *testing.T
	e      *edge
	urls   map[string]string // by scheme
	peers  map[string]<-chan peer
	opened int // sessions
}

// meet starts the app servers of libraries and an edge before them, with a route of the
// library's name for each.
func meet(t *testing.T, servers []library) *meeting {
	m := &meeting{t: t, peers: map[string]<-chan peer{}}
	var routes, pools strings.Builder
	for _, l := range servers {
		addr, accepted := l.serve(t)
		m.peers[l.name] = accepted
		routes.WriteString("  - {name: " + l.name + ", match: {path: /" + l.name + "}, pool: " + l.name + "}\n")
		pools.WriteString("  - {name: " + l.name + ", backends: [{address: \"" + addr + "\"}]}\n")
	}
	m.e = start(t, `
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0"}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
`+routes.String()+"pools:\n"+pools.String())
	m.urls = map[string]string{"ws": "ws://" + m.e.addr("ws"), "wss": "wss://" + m.e.addr("wss")}
	return m
}

// open opens a session and returns both of its ends.
func (m *meeting) open(t *testing.T, scheme string, client, server library, protocols ...string) (c, s peer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	c, err := client.dial(ctx, m.urls[scheme]+"/"+server.name, protocols)
	must(t, err)
	t.Cleanup(c.cut)
	m.opened++
	select {
	case s = <-m.peers[server.name]:
	case <-time.After(soon):
		t.Fatal("the app server got nothing")
	}
	return c, s
}

// TestClients has the clients and servers of every library talk through an edge.
func TestClients(t *testing.T) {
	m := meet(t, libraries)
	for _, scheme := range []string{"ws", "wss"} {
		for _, client := range libraries {
			for _, server := range libraries {
				t.Run(scheme+"/"+client.name+"-to-"+server.name, func(t *testing.T) { m.converse(t, scheme, client, server) })
			}
		}
	}
	m.check(t)
}

// converse is all that two libraries have to say to each other.
func (m *meeting) converse(t *testing.T, scheme string, client, server library) {
	t.Run("messages", func(t *testing.T) { m.messages(t, scheme, client, server) })
	t.Run("subprotocol", func(t *testing.T) { m.subprotocol(t, scheme, client, server) })
	t.Run("close", func(t *testing.T) { m.closes(t, scheme, client, server) })
	t.Run("vanish", func(t *testing.T) { m.vanish(t, scheme, client, server) })
}

// messages sends messages of all kinds and sizes, and Pings, from both ends.
func (m *meeting) messages(t *testing.T, scheme string, client, server library) {
	c, s := m.open(t, scheme, client, server)
	if c.extensions() != "" || s.extensions() != "" {
		t.Errorf("extensions %q were offered to the server, and %q agreed", s.extensions(), c.extensions())
	}
	pass := func(from, to peer, kind string, parts ...[]byte) {
		t.Helper()
		sent := make(chan error, 1)
		go func() { sent <- from.send(kind, parts...) }()
		got := next(t, to)
		if want := bytes.Join(parts, nil); got.kind != kind || !bytes.Equal(got.data, want) {
			t.Fatalf("got %v, want %s of %d bytes", got, kind, len(want))
		}
		must(t, <-sent)
	}
	for _, size := range []int{0, 125, 126, 65535, 65536, 1 << 20} {
		for kind, p := range map[string][]byte{"text": text(size), "binary": noise(size)} {
			pass(c, s, kind, p) // an echo
			pass(s, c, kind, p)
		}
	}
	for _, ends := range [][2]peer{{c, s}, {s, c}} {
		pass(ends[0], ends[1], "text", text(5000), nil, text(1), text(70_000))
		pass(ends[0], ends[1], "binary", noise(1), noise(125), noise(5000), noise(65_536), nil)
		heartbeat(t, ends[0], ends[1])
	}
	must(t, c.close(1000, ""))
	expect(t, "server", s, event{kind: "close", code: 1000})
}

// heartbeat is a Ping that the other end itself answers.
func heartbeat(t *testing.T, from, to peer) {
	t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- from.ping("are you there?") }()
	ping := next(t, to)
	if ping.kind != "ping" || len(ping.data) == 0 {
		t.Fatalf("got %v, want a ping", ping)
	}
	expect(t, "who pinged", from, event{kind: "pong", data: ping.data})
	must(t, <-sent)
}

// subprotocol shows that the server chooses among what the client offers.
func (m *meeting) subprotocol(t *testing.T, scheme string, client, server library) {
	for _, offered := range [][]string{{"chat.v0", "chat.v1"}, {"chat.v2"}, {"chat.v0"}, nil} {
		want := ""
		for _, p := range offered {
			if p != "chat.v0" {
				want = p
			}
		}
		if want == "" && len(offered) > 0 && client.name == "npm" {
			continue // it refuses a server that chooses none
		}
		c, s := m.open(t, scheme, client, server, offered...)
		if c.protocol() != want || s.protocol() != want {
			t.Errorf("of %q: the client has %q, the server %q, want %q", offered, c.protocol(), s.protocol(), want)
		}
		must(t, c.close(1000, ""))
		expect(t, "server", s, event{kind: "close", code: 1000})
	}
}

// closes has each end begin the closing handshake: code and reason are what the other
// end gets, and its answer comes back.
func (m *meeting) closes(t *testing.T, scheme string, client, server library) {
	for _, want := range []event{{code: 1000, reason: "bye"}, {code: 1001, reason: "früh — 早"}, {code: 3000}, {code: 4999, reason: strings.Repeat("r", 123)}, {code: 1005}} {
		want.kind = "close"
		for _, who := range []string{"client", "server"} {
			c, s := m.open(t, scheme, client, server)
			from, to := c, s
			if who == "server" {
				from, to = s, c
			}
			must(t, from.close(want.code, want.reason))
			expect(t, "not the "+who, to, want)
			if answer := next(t, from); answer.kind != "close" || answer.code != want.code {
				t.Errorf("the %s closed with %d and got %v", who, want.code, answer)
			}
		}
	}
}

// vanish cuts the connection of each end.
func (m *meeting) vanish(t *testing.T, scheme string, client, server library) {
	c, s := m.open(t, scheme, client, server)
	c.cut()
	expect(t, "server", s, event{kind: "end"})

	c, s = m.open(t, scheme, client, server)
	s.cut()
	expect(t, "client", c, event{kind: "close", code: 1012, reason: "backend went away"})
}

// check holds the edge's account against what the test did.
func (m *meeting) check(t *testing.T) {
	m.e.eventually("no session is left", func() bool { return m.e.status().Sessions == 0 })
	if got := m.e.status().SessionsTotal; got != uint64(m.opened) {
		t.Errorf("the edge counts %d sessions, the test %d", got, m.opened)
	}
	for _, message := range []string{"session opened", "session ended"} {
		m.e.eventually(fmt.Sprintf("logged %d times: %s", m.opened, message), func() bool { // which is read behind
			return m.e.countLog(message) >= m.opened
		})
		if n := m.e.countLog(message); n != m.opened {
			t.Errorf("logged %d times: %s; there were %d sessions", n, message, m.opened)
		}
	}
	if strings.Contains(m.e.log(), "violation") {
		t.Errorf("the edge saw a violation:\n%s", m.e.log())
	}
}

// TestClientGivesUp cancels handshakes while the backend is silent: the backend sees the
// connection end, and the edge counts no session.
func TestClientGivesUp(t *testing.T) {
	backend := listenRaw(t, nil)
	e := start(t, withBackends(oneRoute, backend.addr()))
	for _, l := range libraries {
		if l.name == "gorilla" {
			continue // it looks at the context's deadline only
		}
		t.Run(l.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			dialed := make(chan error, 1)
			go func() {
				_, err := l.dial(ctx, "wss://"+e.addr("edge")+"/", nil)
				dialed <- err
			}()
			b := backend.accept(t)
			cancel()
			if err := <-dialed; err == nil {
				t.Fatal("dialed")
			}
			b.wantEnd()
		})
	}
	e.eventually("no handshake is left", func() bool { s := e.status(); return s.HandshakesInFlight == 0 && s.SessionsTotal == 0 })
}

// TestClientCancels ends a session as coder does when a Read's context is done.
func TestClientCancels(t *testing.T) {
	server := libraries[0]
	m := meet(t, []library{server})
	c, s := m.open(t, "wss", library{"coder", dialCoder, nil}, server)
	heartbeat(t, c, s) // which coder handles inside the Read that is then canceled
	c.(*coderPeer).cancel()
	expect(t, "server", s, event{kind: "end"})
	m.e.waitLog("session ended", func(l map[string]any) bool { return l["cause"] == "client_gone" && l["initiator"] == "client" })
}

// text is valid UTF-8 of n bytes, most of it not ASCII.
func text(n int) []byte {
	p := []byte(strings.Repeat("ä", n/2))
	return append(p, "x"[:n%2]...)
}

// noise is random bytes.
func noise(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), 7}).Read(p)
	return p
}
