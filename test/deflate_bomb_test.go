package test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
)

const bombConfig = `
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0"}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: bomb, match: {path: /bomb}, pool: apps, websocket: {compression: terminate}}
  - {name: small, match: {path: /small}, pool: apps, websocket: {compression: terminate, deflate: {max_inflated: 2MiB}}}
  - {name: echo, match: {path: /echo}, pool: echo, websocket: {compression: terminate}}
pools:
  - {name: apps, backends: [{address: %q}]}
  - {name: echo, backends: [{address: %q}]}
`

// maxInflated is the limit of the routes of bombConfig, of which the first has the default.
var maxInflated = map[string]int64{"bomb": 16 << 20, "small": 2 << 20}

// bombBytes is what a bomb inflates to.
const bombBytes = 1 << 30

// bomb is the payload of a compressed message: zeros, a MiB of which is a KiB. Each MiB
// refers to nothing before it, so that they may stand one behind the other.
var bomb = sync.OnceValue(func() []byte {
	var one bytes.Buffer
	w, _ := flate.NewWriter(&one, flate.BestCompression)
	w.Write(make([]byte, 1<<20))
	w.Flush()
	return bytes.TrimSuffix(bytes.Repeat(one.Bytes(), bombBytes>>20), []byte(deflateTail))
})

// TestBombIsOne: the bomb is one, before an edge is asked to survive it.
func TestBombIsOne(t *testing.T) {
	if n := len(bomb()); n < 900<<10 || n > 1200<<10 {
		t.Errorf("a bomb has %d bytes", n)
	}
	r := flate.NewReader(bytes.NewReader(append(slices.Clone(bomb()), deflateTail+"\x01\x00\x00\xff\xff"...)))
	n, p := 0, make([]byte, 1<<20)
	for {
		k, err := r.Read(p)
		if n += k; err != nil {
			break
		}
	}
	if n != bombBytes {
		t.Errorf("a bomb inflates to %d bytes", n)
	}
}

// bombing is an edge that gets bombs, beside a session that is to notice nothing.
type bombing struct {
	*edge
	lobby  *lobby
	next   *neighbour
	before memory
}

func newBombing(t *testing.T, program string) *bombing {
	l := openLobby(t)
	b := &bombing{lobby: l, edge: startProgram(t, program, []string{"GOGC=100"}, fmt.Sprintf(bombConfig, l.addr(), newApp(t, "echo").addr))}
	b.next = newNeighbour(t, "wss://"+b.addr("wss")+"/echo")
	for range 3 { // what the first messages leave is not the bombs'
		b.next.echoes(t, 50)
	}
	b.forgetPeak()
	b.before = b.memory()
	return b
}

// TestBomb: a message of one MiB that says it has a GiB ends its session at
// max_inflated, takes no memory to speak of, and keeps nobody else from talking.
func TestBomb(t *testing.T) {
	eachEngine(t, func(t *testing.T, program string) {
		for _, tt := range []struct {
			name, scheme, route string
			op                  ws.OpCode
			fragment            int
		}{
			{"text", "ws", "bomb", ws.OpText, len(bomb())},
			{"binary in fragments", "wss", "small", ws.OpBinary, 10_000},
		} {
			t.Run(tt.name, func(t *testing.T) {
				b := newBombing(t, program)
				x := b.arm(t, tt.scheme, tt.route, tt.op, tt.fragment)
				b.next.talk(t, func() { atOnce(t, x.throw, x.suffer) })
				b.settled(t, 1)
				// A message that grows by a quarter at a time has left five times its own
				// length to the collector, who lets a heap as small as this one double
				// before it comes. To that come 64 KiB of window and 64 KiB of a turn; of
				// the bound, 16 MiB, an edge that inflates at once would need all, and one
				// without a limit 64 times as much.
				b.bounded(t, 1, 16<<20)
			})
		}
	})
}

// TestBombs: fifty of them at once.
func TestBombs(t *testing.T) {
	const sessions = 50
	eachEngine(t, func(t *testing.T, program string) {
		b := newBombing(t, program)
		var all []func() error
		for i := range sessions {
			x := b.arm(t, []string{"ws", "wss"}[i%2], "small", []ws.OpCode{ws.OpText, ws.OpBinary}[i/2%2], []int{len(bomb()), 10_000}[i/4%2])
			all = append(all, x.throw, x.suffer)
		}
		b.next.talk(t, func() { atOnce(t, all...) })
		b.settled(t, sessions)
		b.bounded(t, sessions, bombEach)
	})
}

// bombEach is what each of many bombs may take: the message, with a quarter more in its
// array, and as much as the collector lets wait before it comes, which is once more all
// that is alive; twice that is what the message before its last growth and whatever a
// collection that goes on meanwhile finds may add.
const bombEach = 5 << 20

// TestBombsWait: fifty of them, while no app server reads. What they inflate to, 800 MiB
// within the limit, waits in the form in which it came.
func TestBombsWait(t *testing.T) {
	const sessions = 50
	eachEngine(t, func(t *testing.T, program string) {
		b := newBombing(t, program)
		thrown := make(chan error, sessions)
		var throws, rest []func() error
		for i := range sessions {
			x := b.arm(t, []string{"ws", "wss"}[i%2], "bomb", ws.OpBinary, len(bomb()))
			throws, rest = append(throws, x.throw), append(rest, x.suffer, func() error { return <-thrown })
		}
		b.next.talk(t, func() {
			for _, throw := range throws {
				go func() { thrown <- throw() }()
			}
			b.eventually("all of them are held", func() bool { return b.scrape("tidegate_buffered_bytes") >= sessions*float64(len(bomb())) })
			t.Logf("waiting: %v, %d MiB buffered", b.memory(), int(b.scrape("tidegate_buffered_bytes"))>>20)
			atOnce(t, rest...)
		})
		b.settled(t, sessions)
		b.bounded(t, sessions, bombEach)
	})
}

// bombSession is a session whose client has a bomb.
type bombSession struct {
	c, s  *rawEnd
	bytes []byte
	most  int64 // that may reach the app server
}

// arm opens a session for a bomb.
func (b *bombing) arm(t *testing.T, scheme, route string, op ws.OpCode, fragment int) *bombSession {
	t.Helper()
	to := entrance{b.lobby, b.addr(scheme), scheme == "wss"}
	c, s := to.request(t, "/"+route, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
	if offer := s.req.Header.Get("Sec-WebSocket-Extensions"); offer != "" {
		t.Errorf("the app server was offered %q", offer)
	}
	s.write([]byte(s.switching()))
	c.wantSwitching()
	x := &bombSession{c: c, s: s, most: maxInflated[route]}
	for i, f := range (fr{fin: true, op: op, body: bomb()}).fragments(fragment) {
		if i == 0 {
			f.rsv = 4
		}
		x.bytes = append(x.bytes, f.bytes(true)...)
	}
	return x
}

// throw sends the bomb and wants to be told off.
func (x *bombSession) throw() error {
	defer x.c.Close()
	if _, err := x.c.Write(x.bytes); err != nil {
		return err
	}
	if err := x.c.expect([]fr{closeFr(1009, "message inflates to too much")}); err != nil {
		return err
	}
	if _, err := x.c.Write(closeBytes(1009, "", true)); err != nil {
		return err
	}
	return x.c.end()
}

// suffer is the app server's part: zeros up to the limit, and a Close.
func (x *bombSession) suffer() error {
	defer x.s.Close()
	for n := int64(0); ; {
		f, begun, err := x.s.take()
		switch {
		case err != nil:
			return fmt.Errorf("the app server, after %d bytes: %w (inside a frame: %v)", n, err, begun)
		case f.op == ws.OpClose:
			if !f.equal(closeFr(1001, "")) {
				return fmt.Errorf("the app server got %v", f)
			}
			if n > x.most || n < x.most/2 {
				return fmt.Errorf("the app server got %d bytes, of at most %d", n, x.most)
			}
			_, err := x.s.Write(closeBytes(1001, "", false))
			return errors.Join(err, x.s.end())
		case f.rsv != 0 || f.fin || len(bytes.Trim(f.body, "\x00")) > 0:
			return fmt.Errorf("the app server got %v", f)
		}
		n += int64(len(f.body))
	}
}

// settled checks that every session ended for what it did.
func (b *bombing) settled(t *testing.T, sessions int) {
	t.Helper()
	sum := 0.0
	b.eventually("all bombs are counted", func() bool {
		sum = 0
		for series, v := range b.metrics() {
			if strings.HasPrefix(series, "tidegate_session_ends_total{") && strings.Contains(series, `by="client",cause="inflated_size"`) {
				sum += v
			}
		}
		return sum >= float64(sessions) && b.status().Sessions == 1 // the neighbour's
	})
	if sum != float64(sessions) {
		t.Errorf("%v sessions ended for what they inflate to, want %d", sum, sessions)
	}
}

// bounded holds the most that was ever resident against what each bomb may take.
func (b *bombing) bounded(t *testing.T, sessions int, each int64) {
	t.Helper()
	now := b.memory()
	grown := now.peak - b.before.resident
	t.Logf("before %v, then %v: %d KiB for each of %d", b.before, now, grown/int64(sessions)>>10, sessions)
	if most := int64(sessions) * each; !raceEnabled && grown > most {
		t.Errorf("%d bombs took %d KiB of memory, want %d at most", sessions, grown>>10, most>>10)
	}
}
