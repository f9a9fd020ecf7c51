package test

import (
	"bytes"
	cryptotls "crypto/tls"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// overHTTP2 is how many sessions of an edge have been opened over HTTP/2.
func (e *edge) overHTTP2() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.logs {
		if l["msg"] == "session opened" && l["http"] == "HTTP/2.0" {
			n++
		}
	}
	return n
}

// TestHTTP2NPM has streams of Node.js's HTTP/2 talk through an edge to servers of every
// library, as WebSockets over TCP do.
func TestHTTP2NPM(t *testing.T) {
	node := npmScript(t, "npm-http2", "http2.js", nil)
	m := meet(t, libraries)
	for _, server := range libraries {
		t.Run(server.name, func(t *testing.T) { m.converse(t, "wss", node, server) })
	}
	t.Run("many", func(t *testing.T) { m.many(t, node, libraries[0]) })
	m.check(t)
	if n := m.e.overHTTP2(); n != m.opened {
		t.Errorf("%d of %d sessions were over HTTP/2", n, m.opened)
	}
}

// many opens a hundred streams; one of them stops reading, and the others go on.
func (m *meeting) many(t *testing.T, client, server library) {
	var ends [100][2]peer
	for i := range ends {
		ends[i][0], ends[i][1] = m.open(t, "wss", client, server)
	}
	stopped := ends[0][0].(*npmPeer)
	must(t, stopped.n.tell(map[string]any{"id": stopped.id, "command": "pause"}))
	const floods, size = 40, 100_000 // more than all windows and buffers in between
	flooded := make(chan error, 1)
	go func() {
		for range floods {
			if err := ends[0][1].send("binary", noise(size)); err != nil {
				flooded <- err
				return
			}
		}
		flooded <- nil
	}()
	for round := range 3 {
		for i, p := range ends[1:] {
			must(t, p[0].send("text", fmt.Appendf(nil, "%d of %d", i, round)))
		}
		for i, p := range ends[1:] {
			want := event{kind: "text", data: fmt.Appendf(nil, "%d of %d", i, round)}
			expect(t, "server", p[1], want)
			must(t, p[1].send("text", want.data))
			expect(t, "client", p[0], want)
		}
	}
	must(t, stopped.n.tell(map[string]any{"id": stopped.id, "command": "resume"}))
	for range floods {
		expect(t, "who reads again", stopped, event{kind: "binary", data: noise(size)})
	}
	must(t, <-flooded)
	for _, p := range ends {
		must(t, p[0].close(1000, ""))
		expect(t, "server", p[1], event{kind: "close", code: 1000})
		expect(t, "client", p[0], event{kind: "close", code: 1000})
	}
}

// TestHTTP2Browser: once Chromium has a connection of HTTP/2 to a host that allows it, it
// opens its WebSockets there.
func TestHTTP2Browser(t *testing.T) {
	server := libraries[0]
	m := meet(t, []library{server})
	browser := browserAt(t, "https://"+m.e.addr("wss")+"/") // 404: its status does not matter
	for range 3 {
		c, s := m.open(t, "wss", browser, server)
		for _, size := range []int{0, 1, 65536, 1 << 20} {
			must(t, c.send("binary", noise(size)))
			expect(t, "server", s, event{kind: "binary", data: noise(size)})
			must(t, s.send("text", text(size)))
			expect(t, "page", c, event{kind: "text", data: text(size)})
		}
		must(t, c.close(3001, "why"))
		expect(t, "server", s, event{kind: "close", code: 3001, reason: "why"})
		expect(t, "page", c, event{kind: "close", code: 3001}) // gorilla's answer has no reason
	}
	c, s := m.open(t, "wss", browser, server)
	must(t, s.close(4001, "because"))
	expect(t, "page", c, event{kind: "close", code: 4001, reason: "because"})
	c, s = m.open(t, "wss", browser, server)
	s.cut()
	expect(t, "page", c, event{kind: "close", code: 1012, reason: "backend went away"})
	m.check(t)
	if n := m.e.overHTTP2(); n != m.opened {
		t.Errorf("%d of %d sessions were over HTTP/2", n, m.opened)
	}
}

// TestHTTP2Switch: extended CONNECT is on, and off where GODEBUG says so.
func TestHTTP2Switch(t *testing.T) {
	for _, tt := range []struct {
		godebug, answer string
		announced       bool
	}{
		{"", "502", true}, // nobody is behind the edge
		{"http2xconnect=1", "502", true},
		{"gctrace=0", "502", true},
		{"http2xconnect=0", "RST_STREAM PROTOCOL_ERROR", false},
	} {
		e := startWith(t, []string{"GODEBUG=" + tt.godebug}, withBackends(oneRoute, "127.0.0.1:1"))
		conn, err := cryptotls.Dial("tcp", e.addr("edge"), &cryptotls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		must(t, err)
		defer conn.Close()
		announced, answer := extendedConnect(t, conn)
		if announced != tt.announced || answer != tt.answer {
			t.Errorf("GODEBUG=%s: announced %v, answered %s; want %v, %s", tt.godebug, announced, answer, tt.announced, tt.answer)
		}
	}
}

// extendedConnect asks for a WebSocket, and returns whether the server says that one may,
// and the status, or how the stream was reset.
func extendedConnect(t *testing.T, conn *cryptotls.Conn) (announced bool, answer string) {
	t.Helper()
	_, err := conn.Write([]byte(http2.ClientPreface))
	must(t, err)
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(t, f.WriteSettings())
	var block bytes.Buffer
	coder := hpack.NewEncoder(&block)
	for _, line := range []string{":method CONNECT", ":protocol websocket", ":scheme https", ":authority localhost", ":path /", "sec-websocket-version 13"} {
		name, value, _ := strings.Cut(line, " ")
		coder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	must(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	for {
		x, err := f.ReadFrame()
		must(t, err)
		switch x := x.(type) {
		case *http2.SettingsFrame:
			if v, ok := x.Value(http2.SettingEnableConnectProtocol); ok {
				announced = v == 1
			}
		case *http2.MetaHeadersFrame:
			return announced, x.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return announced, "RST_STREAM " + x.ErrCode.String()
		case *http2.GoAwayFrame:
			return announced, "GOAWAY " + x.ErrCode.String()
		}
	}
}
