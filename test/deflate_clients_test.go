package test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// zipSizes are the lengths of the messages: below what anybody compresses, below and above
// what ws compresses, and more than one read, one frame and one window of 32 KiB.
var zipSizes = []int{0, 1, 200, 1000, 70_000, 1_000_000}

// TestDeflateClients: clients and servers of other people agree on compression with each
// other (passthrough), with the edge (terminate) or not at all (strip), use it, and
// whatever they say arrives as it was, in order.
func TestDeflateClients(t *testing.T) {
	browser := browserLibrary(t)
	eachEngine(t, func(t *testing.T, program string) {
		npm, gorilla := npmLibrary(t), library{"gorilla", dialGorilla, serveGorillaAnywhere}
		servers := []library{npm, gorilla}
		m := zipMeet(t, program, servers)
		for _, mode := range zipModes {
			for i, client := range []library{npm, gorilla, browser} {
				for j, server := range servers {
					for k, scheme := range []string{"ws", "wss"} {
						// Where the edge is between them, or a browser talks, half of the
						// pairs say as much as all.
						if (mode != "passthrough" || client.name == browser.name) && (i+j+k)%2 == 1 {
							continue
						}
						t.Run(mode+"/"+scheme+"/"+client.name+"-to-"+server.name, func(t *testing.T) {
							m.open(t, mode, scheme, client, server).converse(t)
						})
					}
				}
			}
		}
		m.e.eventually("no session is left", func() bool { return m.e.status().Sessions == 0 })
	})
}

// converse checks what was agreed on, and has both ends say everything.
func (z *zipSession) converse(t *testing.T) {
	z.agreed(t)
	up, down := z.front.take() // the handshake
	if z.scheme == "ws" && !speaksOfExtensions(up) {
		t.Errorf("the client offers nothing: %q", up.heads)
	}
	if z.scheme == "ws" && speaksOfExtensions(down) == (z.mode == "strip") {
		t.Errorf("the client is answered %q", down.heads)
	}
	up, down = z.back.take()
	for _, c := range []crossed{up, down} {
		if speaksOfExtensions(c) != (z.mode == "passthrough") || c.heads == "" {
			t.Errorf("edge and app server say %q", c.heads)
		}
	}
	said := z.echo(t, "text", zipTexts())
	z.compressed(t, said)
	said = z.echo(t, "binary", zipNoise())
	z.incompressible(t, said)
	must(t, z.c.close(1000, ""))
	expect(t, "server", z.s, event{kind: "close", code: 1000})
	expect(t, "client", z.c, event{kind: "close", code: 1000})
}

func speaksOfExtensions(c crossed) bool {
	return strings.Contains(strings.ToLower(c.heads), "\r\nsec-websocket-extensions:")
}

// agreed checks what the client was answered, and what the app server was offered.
func (z *zipSession) agreed(t *testing.T) {
	t.Helper()
	answer, offer := z.c.extensions(), z.s.extensions()
	name, _, _ := strings.Cut(answer, ";")
	if want := pickOf(z.mode == "strip", "permessage-deflate", ""); name != want {
		t.Errorf("the client was answered %q", answer)
	}
	if strings.HasPrefix(offer, "permessage-deflate") != (z.mode == "passthrough") || z.mode != "passthrough" && offer != "" {
		t.Errorf("the app server was offered %q", offer)
	}
	terms := parseTerms(answer)
	if z.mode == "terminate" && z.client.name != "npm" && // it tells no parameters
		(terms["server_no_context_takeover"] == "" || terms["client_no_context_takeover"] == "") {
		t.Errorf("the client was answered %q, which lets it keep a window", answer)
	}
}

// crossings are what a part of a conversation weighed in each direction of each cable, and
// what was said in one direction.
type crossings struct {
	frontUp, frontDown, backUp, backDown crossed
	said                                 int64
}

// echo has the client say messages, all at once, and the app server answer with the same.
func (z *zipSession) echo(t *testing.T, kind string, messages [][]byte) (x crossings) {
	t.Helper()
	z.front.take()
	z.back.take()
	sent, answered := make(chan error, 1), make(chan error, 1)
	go func() { sent <- sendAll(z.c, kind, messages) }()
	heard := make(chan []byte, len(messages))
	go func() {
		for p := range heard {
			if err := z.s.send(kind, p); err != nil {
				answered <- err
				return
			}
		}
		answered <- nil
	}()
	for i, want := range messages {
		wantMessage(t, "the app server", i, next(t, z.s), kind, want)
		heard <- want
		x.said += int64(len(want))
	}
	close(heard)
	for i, want := range messages {
		wantMessage(t, "the client", i, next(t, z.c), kind, want)
	}
	must(t, <-sent)
	must(t, <-answered)
	x.frontUp, x.frontDown = z.front.take()
	x.backUp, x.backDown = z.back.take()
	return x
}

func sendAll(p peer, kind string, messages [][]byte) error {
	for _, m := range messages {
		if err := p.send(kind, m); err != nil {
			return err
		}
	}
	return nil
}

func wantMessage(t *testing.T, who string, i int, got event, kind string, want []byte) {
	t.Helper()
	if got.kind != kind || !bytes.Equal(got.data, want) {
		t.Fatalf("message %d: %s got %v, want %s of %d bytes", i, who, got, kind, len(want))
	}
}

// compressed checks what texts weighed. ws leaves those below 1,024 bytes as they are, and
// the edge those below 256, so that three or more of the six are compressed by everybody.
func (z *zipSession) compressed(t *testing.T, x crossings) {
	t.Helper()
	for _, leg := range []struct {
		name       string
		c          crossed
		read, zips bool
		least      int // of the messages are compressed
	}{
		{"client to edge", x.frontUp, z.scheme == "ws", z.mode != "strip", 2},
		{"edge to client", x.frontDown, z.scheme == "ws", z.mode != "strip", pickOf(z.mode == "terminate", 2, 3)},
		{"edge to app server", x.backUp, true, z.mode == "passthrough", 2},
		{"app server to edge", x.backDown, true, z.mode == "passthrough", 2},
	} {
		if leg.zips && leg.c.bytes > x.said/4 {
			t.Errorf("%s: %d bytes of text took %d", leg.name, x.said, leg.c.bytes)
		}
		if !leg.zips && leg.c.bytes < x.said {
			t.Errorf("%s: %d bytes of text took %d, though nobody was to compress them", leg.name, x.said, leg.c.bytes)
		}
		if !leg.read {
			continue
		}
		if leg.c.messages != len(zipSizes) {
			t.Errorf("%s: %d messages, want %d", leg.name, leg.c.messages, len(zipSizes))
		}
		if got := leg.c.compressed; leg.zips && got < leg.least || !leg.zips && got > 0 {
			t.Errorf("%s: %d messages have RSV1", leg.name, got)
		}
		if !leg.zips && leg.c.payload != x.said {
			t.Errorf("%s: %d bytes of payload, want %d", leg.name, leg.c.payload, x.said)
		}
	}
	t.Logf("%d bytes of text took %d from the client, %d to it; %d to the app server, %d from it", x.said, x.frontUp.bytes, x.frontDown.bytes, x.backUp.bytes, x.backDown.bytes)
	if z.mode == "terminate" && z.scheme == "ws" && x.frontDown.compressed != 3 {
		t.Errorf("the edge compressed %d messages, want those of 1,000 bytes and more", x.frontDown.compressed)
	}
}

// incompressible checks what noise weighed: no more than itself, to a hundredth.
func (z *zipSession) incompressible(t *testing.T, x crossings) {
	t.Helper()
	for name, c := range map[string]crossed{"client to edge": x.frontUp, "edge to client": x.frontDown, "edge to app server": x.backUp, "app server to edge": x.backDown} {
		if c.bytes < x.said || c.bytes > x.said+x.said/100 {
			t.Errorf("%s: %d bytes of noise took %d", name, x.said, c.bytes)
		}
		if strings.Contains(name, "app server") && z.mode != "passthrough" && (c.compressed > 0 || c.payload != x.said) {
			t.Errorf("%s: %d messages have RSV1, %d bytes of payload of %d", name, c.compressed, c.payload, x.said)
		}
	}
}

// zipTexts are texts of the sizes, each its own.
func zipTexts() (list [][]byte) {
	for i, size := range zipSizes {
		list = append(list, chat(i, size))
	}
	return list
}

func zipNoise() (list [][]byte) {
	for _, size := range zipSizes {
		list = append(list, noise(size))
	}
	return list
}

// chat is valid UTF-8 of n bytes such as applications send, not all of it ASCII.
func chat(i, n int) []byte {
	p := fill(n, func(p *bytes.Buffer, k int) {
		fmt.Fprintf(p, `{"id":%d,"from":"Zoë","to":["Øyvind","Ελένη","李雷"],"text":"Gezeiten №%d — 潮が満ちる 🌊","score":%d.%d},`, i*1000+k, k%97, k*k%1000, i)
	})
	for !utf8.Valid(p) {
		p = p[:len(p)-1]
	}
	return append(p, "xxx"[:n-len(p)]...)
}
