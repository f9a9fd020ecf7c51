package test

import (
	cryptotls "crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/gobwas/ws"
)

// goodbye is how an end leaves right behind what it has sent.
type goodbye struct {
	name  string
	leave func(r *rawEnd) error
	half  bool // it still reads
	late  bool // the other end reads nothing before
}

// halfClose ends our direction of TCP, behind a close_notify or not.
func (r *rawEnd) halfClose(notify bool) error {
	conn := r.Conn
	if secure, ok := conn.(*cryptotls.Conn); ok {
		conn = secure.NetConn()
		if notify {
			if err := secure.CloseWrite(); err != nil {
				return err
			}
		}
	}
	return conn.(*net.TCPConn).CloseWrite()
}

// TestLastWords: data and a Close, or no Close, right before the end of the connection
// reach the other side, whatever rates there are.
func TestLastWords(t *testing.T) {
	goodbyes := []goodbye{
		{name: "fin", leave: func(r *rawEnd) error { return r.halfClose(true) }, half: true},
		{name: "fin-alone", leave: func(r *rawEnd) error { return r.halfClose(false) }, half: true},
		{name: "fin-unread", leave: func(r *rawEnd) error { return r.halfClose(true) }, half: true, late: true},
		{name: "end", leave: func(r *rawEnd) error { return r.Conn.Close() }},
	}
	policies := map[string]string{
		"no-rate":       "",
		"rates":         "messages_per_second: 1000, bytes_per_second: 1MiB",
		"delay":         "messages_per_second: 1000, bytes_per_second: 1MiB, rate_action: delay",
		"delayed":       "messages_per_second: 30, message_burst: 10, rate_action: delay",
		"delayed-bytes": "bytes_per_second: 50KiB, rate_action: delay",
	}
	var sets []policySet
	for name, set := range policies {
		for _, g := range goodbyes {
			for _, from := range []string{"client", "backend"} {
				for _, how := range []string{"close", "gone"} {
					sets = append(sets, policySet{name: fmt.Sprintf("%s-%s-%s-%s", name, g.name, from, how), policies: set})
				}
			}
		}
	}
	onEngines(t, sets, func(t *testing.T, e *policyEdge) {
		var all []trial
		for name := range policies {
			for _, g := range goodbyes {
				for _, from := range []string{"client", "backend"} {
					for _, how := range []string{"close", "gone"} {
						route := fmt.Sprintf("%s-%s-%s-%s", name, g.name, from, how)
						all = append(all, onSchemes(route, func(t *testing.T, scheme string) {
							c, b := e.open(t, route, scheme)
							if from == "client" {
								g.lastOfClient(t, e, c, b, how == "close")
							} else {
								g.lastOfBackend(t, e, c, b, how == "close")
							}
						})...)
					}
				}
			}
		}
		together(t, all)
	})
}

// last sends messages and, if closes, a Close, leaves, and wants all of it at the other
// end.
func (g goodbye) last(t *testing.T, from, to *rawEnd, closes bool) {
	t.Helper()
	var said []byte
	for i := range 30 {
		said = append(said, from.frame(true, ws.OpBinary, noise(i*i*7))...)
		said = append(said, from.frame(true, ws.OpPing, nil)...)
		said = append(said, from.frame(false, ws.OpText, text(i))...)
		said = append(said, from.frame(true, ws.OpContinuation, nil)...)
	}
	if closes {
		said = append(said, closeBytes(1000, "last words", from.client)...)
	}
	speak := func() error {
		if _, err := from.Write(said); err != nil {
			return err
		}
		return g.leave(from)
	}
	if g.late {
		must(t, speak())
		to.want(said)
	} else {
		atOnce(t, speak, func() error { return to.match(said) })
	}
}

func (g goodbye) lastOfClient(t *testing.T, e *policyEdge, c, b *rawEnd, closes bool) {
	g.last(t, c, b, closes)
	if !closes {
		b.wantEOF()
		b.Close()
		if g.half {
			c.wantEnd()
		}
		e.ended(t, b, outcome{"client", "gone", "none", "client"})
		return
	}
	b.hangUp(1000, "and mine")
	if g.half {
		c.wantClose(1000, "and mine")
		c.wantEOF()
	}
	e.ended(t, b, outcome{"client", "closed", "1000", "client"})
}

func (g goodbye) lastOfBackend(t *testing.T, e *policyEdge, c, b *rawEnd, closes bool) {
	g.last(t, b, c, closes)
	if !closes {
		c.wantClose(1012, "backend went away")
		c.hangUp(1012, "")
		e.ended(t, b, outcome{"backend", "gone", "1012", "backend"})
		return
	}
	c.write(closeBytes(1000, "and mine", true))
	c.wantEOF()
	c.Close()
	if g.half {
		b.wantClose(1000, "and mine")
		b.wantEOF()
	}
	e.ended(t, b, outcome{"backend", "closed", "1000", "backend"})
}
