package test

import (
	"testing"

	"github.com/gobwas/ws"
)

// TestEnds ends one side without a closing handshake in every way that TCP and TLS have.
// Each case says what the other side sees; a client that vanishes is no Close for the
// backend, and a backend that vanishes is a Close 1012 for the client.
func TestEnds(t *testing.T) {
	e := startRaw(t)
	message := []byte("a message")
	closes := map[string]float64{}
	for _, tt := range []struct {
		name  string
		end   func(c, b *rawEnd)
		cause string
		code  int    // as logged
		label string // of the metric
	}{
		{"client resets", func(c, b *rawEnd) {
			c.reset()
			b.wantEnd()
		}, "client_gone", 1006, `code="none",initiator="client"`},
		{"client half closes", func(c, b *rawEnd) {
			c.finish()
			b.wantEnd()
			c.wantEnd()
		}, "client_gone", 1006, `code="none",initiator="client"`},
		{"client vanishes inside a frame", func(c, b *rawEnd) {
			p := c.frame(true, ws.OpText, message)
			c.write(p[:8])
			b.want(p[:8])
			c.reset()
			b.wantEnd()
		}, "client_gone", 1006, `code="none",initiator="client"`},
		{"client vanishes inside a header", func(c, b *rawEnd) {
			c.write(c.frame(true, ws.OpText, message)[:1])
			c.finish()
			b.wantEnd()
		}, "client_gone", 1006, `code="none",initiator="client"`},
		{"backend resets", func(c, b *rawEnd) {
			b.reset()
			c.wantClose(1012, "backend went away")
		}, "backend_gone", 1012, `code="1012",initiator="backend"`},
		{"backend half closes", func(c, b *rawEnd) {
			b.finish()
			c.wantClose(1012, "backend went away")
			c.write(closeBytes(1012, "", true))
			c.wantEnd()
			b.wantEnd()
		}, "backend_gone", 1012, `code="1012",initiator="backend"`},
		{"backend vanishes behind a message", func(c, b *rawEnd) {
			p := b.frame(true, ws.OpBinary, noise(200_000))
			b.write(p)
			b.finish()
			c.want(p)
			c.wantClose(1012, "backend went away")
		}, "backend_gone", 1012, `code="1012",initiator="backend"`},
		{"backend vanishes inside a message", func(c, b *rawEnd) {
			p := b.frame(false, ws.OpText, message)
			b.write(p)
			c.want(p)
			b.reset()
			c.wantClose(1012, "backend went away")
		}, "backend_gone", 1012, `code="1012",initiator="backend"`},
		{"backend vanishes inside a frame", func(c, b *rawEnd) {
			p := b.frame(true, ws.OpText, message)
			b.write(p[:5])
			c.want(p[:5])
			b.reset()
			c.wantEnd() // no Close fits into a frame
		}, "backend_gone", 1006, `code="none",initiator="backend"`},
		{"client closes and resets", func(c, b *rawEnd) {
			p := closeBytes(1000, "bye", true)
			c.write(p)
			b.want(p)
			c.reset()
			b.write(closeBytes(1000, "", false))
		}, "client_closed", 1000, `code="1000",initiator="client"`},
		{"backend closes and ends at once", func(c, b *rawEnd) {
			p := closeBytes(4000, "bye", false)
			b.write(p)
			b.finish()
			c.want(p)
			answer := closeBytes(4000, "bye", true)
			c.write(answer)
			c.wantEnd()
			b.want(answer)
			b.wantEnd()
		}, "backend_closed", 4000, `code="4xxx",initiator="backend"`},
		{"client closes and its backend ends without an answer", func(c, b *rawEnd) {
			p := closeBytes(3000, "", true)
			c.write(p)
			b.want(p)
			b.finish()
			c.wantClose(3000, "")
			c.wantEnd()
		}, "client_closed", 3000, `code="3xxx",initiator="client"`},
	} {
		for _, w := range e.ways {
			t.Run(w.name+"/"+tt.name, func(t *testing.T) {
				c, b := w.connect(t)
				tt.end(c, b)
				c.Close()
				b.Close()
				end := e.endOf(b)
				if end["cause"] != tt.cause || end["code"] != float64(tt.code) {
					t.Errorf("logged %v, want %s with %d", end, tt.cause, tt.code)
				}
				closes[tt.label+`,route="`+w.path[1:]+`"`]++
			})
		}
	}
	for labels, want := range closes {
		if got := e.scrape("tidegate_closes_total{" + labels + "}"); got != want {
			t.Errorf("closes_total{%s} is %v, want %v", labels, got, want)
		}
	}
}

// TestCloseTimeout has an end that neither answers a Close nor ends its stream: it is
// given up.
func TestCloseTimeout(t *testing.T) {
	e := startRaw(t)
	w := e.ways[1]
	w.path = "/hasty"
	t.Run("backend", func(t *testing.T) {
		c, b := w.connect(t)
		p := closeBytes(1000, "", true)
		c.write(p)
		c.wantClose(1000, "")
		c.wantEnd()
		b.want(p)
		b.wantEnd()
	})
	t.Run("client", func(t *testing.T) {
		c, b := w.connect(t)
		p := closeBytes(1000, "", false)
		b.write(p)
		b.wantEnd()
		c.want(p)
		c.wantEnd()
	})
}
