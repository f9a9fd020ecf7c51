package test

import (
	"strings"
	"testing"
)

// TestDeflateNotOffered: a client that offers no compression talks plain, with whatever
// the route would do about it.
func TestDeflateNotOffered(t *testing.T) {
	eachEngine(t, func(t *testing.T, program string) {
		server := library{"gorilla", dialGorilla, serveGorillaAnywhere}
		m := zipMeet(t, program, []library{server})
		npm := npmOffering(t, false)
		for _, mode := range zipModes {
			for _, scheme := range []string{"ws", "wss"} {
				t.Run(mode+"/"+scheme, func(t *testing.T) {
					z := m.open(t, mode, scheme, npm, server)
					up, down := z.front.take()
					backUp, backDown := z.back.take()
					for _, c := range []crossed{up, down, backUp, backDown} {
						if speaksOfExtensions(c) {
							t.Errorf("nobody is to compress, and somebody said %q", c.heads)
						}
					}
					if c, s := z.c.extensions(), z.s.extensions(); c != "" || s != "" {
						t.Errorf("the client was answered %q, the app server offered %q", c, s)
					}
					z.mode = "strip" // from here on it is the same
					z.compressed(t, z.echo(t, "text", zipTexts()))
					must(t, z.c.close(1000, ""))
					expect(t, "server", z.s, event{kind: "close", code: 1000})
				})
			}
		}
	})
}

// TestDeflateOwnWindow shows what docs/websocket.md says of ws with clientNoContextTakeover:
// false. It breaks the handshake off where the edge compresses, and the app server sees it
// vanish; where the app server does, the two agree.
func TestDeflateOwnWindow(t *testing.T) {
	eachEngine(t, func(t *testing.T, program string) {
		npm := npmOffering(t, map[string]any{"clientNoContextTakeover": false})
		m := zipMeet(t, program, []library{npm})

		z := m.open(t, "passthrough", "wss", npm, npm)
		z.compressed(t, z.echo(t, "text", zipTexts()))
		must(t, z.c.close(1000, ""))
		expect(t, "server", z.s, event{kind: "close", code: 1000})

		front := m.entries["ws"]
		front.take()
		_, err := dialVia(t, "ws://"+front.addr()+"/terminate/npm", npm)
		if err == nil || !strings.Contains(err.Error(), "Invalid Sec-WebSocket-Extensions header") {
			t.Errorf("the client says: %v", err)
		}
		expect(t, "server", m.accepted(t, npm), event{kind: "end"})
		m.e.waitLog("session ended", func(l map[string]any) bool { return l["cause"] == "client_gone" && l["route"] == "terminate-npm" })
		if up, _ := front.take(); strings.Contains(up.heads, "no_context_takeover") {
			t.Errorf("the client said that it would: %q", up.heads)
		}
	})
}
