package test

import (
	"fmt"
	"testing"

	"github.com/gobwas/ws"
)

const quietConfig = `
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0"}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: delay, match: {path: /delay}, pool: apps, websocket: {messages_per_second: 200, message_burst: 5, rate_action: delay}}
  - {name: heartbeat, match: {path: /heartbeat}, pool: apps, websocket: {ping: both, ping_interval: 100ms, pong_timeout: 10s}}
  - {name: terminate, match: {path: /terminate}, pool: apps, websocket: {compression: terminate}}
pools:
  - {name: apps, backends: [BACKENDS]}
`

// TestNothingIsBuffered: what the other policies hold for a while is in
// tidegate_buffered_bytes as long as they do, and is out of it afterwards.
func TestNothingIsBuffered(t *testing.T) {
	l := openLobby(t)
	e := start(t, withBackends(quietConfig, l.addr()))
	for _, scheme := range []string{"ws", "wss"} {
		to := entrance{l, e.addr(scheme), scheme == "wss"}
		t.Run(scheme+"/delay", func(t *testing.T) { e.delays(t, to) })
		t.Run(scheme+"/heartbeat", func(t *testing.T) { e.beats(t, to) })
		t.Run(scheme+"/terminate", func(t *testing.T) { e.collects(t, to) })
	}
}

// holds waits until between least and most bytes are held.
func (e *edge) holds(what string, least, most int) {
	e.t.Helper()
	e.eventually(fmt.Sprintf("%s: between %d and %d bytes are buffered", what, least, most), func() bool {
		held := int(e.metrics()[bufferedSeries])
		return least <= held && held <= most
	})
}

// open begins a session below a path.
func (to entrance) open(t *testing.T, path, lines string) (c, b *rawEnd) {
	t.Helper()
	c, b = to.request(t, path, lines)
	b.write([]byte(b.switching()))
	c.wantSwitching()
	return c, b
}

// quietEnd ends a session in order.
func quietEnd(c, b *rawEnd) {
	c.t.Helper()
	c.write(closeBytes(1000, "", true))
	b.wantClose(1000, "*")
	b.write(closeBytes(1000, "", false))
	c.wantClose(1000, "*")
	b.Close()
	c.Close()
}

// delays: what was read of a client that is over its rate waits, one read at most in each
// of the two forms that it may have.
func (e *edge) delays(t *testing.T, to entrance) {
	c, b := to.open(t, "/delay", "")
	var p []byte
	const messages, size = 200, 100
	for i := range messages {
		p = append(p, c.frame(true, ws.OpText, fmt.Appendf(nil, "%0*d", size, i))...)
	}
	c.write(p)
	e.holds("over the rate", size, 2*(64<<10))
	for i := range messages {
		h, got, err := b.readFrame()
		if err != nil || h.OpCode != ws.OpText || string(got) != fmt.Sprintf("%0*d", size, i) {
			t.Fatalf("message %d: got %v %.40q, %v", i, h, got, err)
		}
	}
	e.holds("all of it has gone on", 0, 0)
	quietEnd(c, b)
}

// beats: Pings of the edge's own are not held.
func (e *edge) beats(t *testing.T, to entrance) {
	c, b := to.open(t, "/heartbeat", "")
	for range 3 {
		for _, end := range []*rawEnd{c, b} {
			h, p, err := end.readFrame()
			if err != nil || h.OpCode != ws.OpPing {
				t.Fatalf("%s: got %v, %v, want a Ping", end.who(), h, err)
			}
			if held := e.metrics()[bufferedSeries]; held != 0 {
				t.Errorf("%v bytes are buffered", held)
			}
			end.write(end.frame(true, ws.OpPong, p))
		}
	}
	c.reset()
	b.Close()
	e.holds("the session has ended", 0, 0)
}

// collects: a compressed message is held until it is whole, or its client has gone.
func (e *edge) collects(t *testing.T, to entrance) {
	const size = 100 << 10
	message := noise(size)
	d := newDeflation("permessage-deflate; client_no_context_takeover; server_no_context_takeover", true)
	packed := d.deflate(message)
	begin := frameBytes(false, ws.OpBinary, packed[:size*3/4], true)
	begin[0] |= 0x40 // compressed (RFC 7692 §6)
	end := frameBytes(true, ws.OpContinuation, packed[size*3/4:], true)

	c, b := to.open(t, "/terminate", "Sec-WebSocket-Extensions: permessage-deflate\r\n")
	for range 2 {
		c.write(begin)
		e.holds("a message that is not whole", size*3/4, 2*size)
		c.write(end)
		var got []byte
		for fin := false; !fin; {
			h, p, err := b.readFrame()
			must(t, err)
			got, fin = append(got, p...), h.Fin
		}
		if string(got) != string(message) {
			t.Fatalf("the backend got %d bytes, which are not what was sent", len(got))
		}
		e.holds("the message has gone on", 0, 0)
	}
	c.write(begin)
	e.holds("another one", size*3/4, 2*size)
	c.reset()
	b.wantEnd()
	b.Close()
	e.holds("its client has gone", 0, 0)
}
