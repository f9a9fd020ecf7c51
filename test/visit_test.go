package test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gobwas/ws"
)

// ending is how a visit ends, and who sees to it.
type ending string

const (
	clientCloses      ending = "client closes"      // after both have said all
	backendCloses     ending = "backend closes"     // likewise
	clientLeaves      ending = "client leaves"      // a Close in the middle
	clientResets      ending = "client resets"      // RST between two messages
	clientVanishes    ending = "client vanishes"    // RST inside a frame
	clientHalfCloses  ending = "client half closes" // FIN, and it reads on
	backendResets     ending = "backend resets"
	backendVanishes   ending = "backend vanishes"
	backendHalfCloses ending = "backend half closes"
	clientHurries     ending = "client hurries" // RST right behind the request
	clientStrays      ending = "client strays"  // it never asks for a session
)

// shares is how often visits end each way, of a hundred.
var shares = [...]struct {
	ending
	share int
}{{clientCloses, 34}, {backendCloses, 18}, {clientLeaves, 8}, {clientResets, 8}, {clientVanishes, 4}, {clientHalfCloses, 5},
	{backendResets, 6}, {backendVanishes, 3}, {backendHalfCloses, 5}, {clientHurries, 4}, {clientStrays, 5}}

// byBackend reports whether the backend brings the end about.
func (e ending) byBackend() bool {
	switch e {
	case backendCloses, backendResets, backendVanishes, backendHalfCloses:
		return true
	}
	return false
}

// whole reports whether everything that is said arrives before the end.
func (e ending) whole() bool { return e == clientCloses || e == backendCloses }

// habit is how one end reads.
type habit struct {
	pause  time.Duration // after each message, at most
	stopAt int           // the message behind which it stops reading
	stop   time.Duration // for how long
}

// visit is what one client and its backend are going to do. Both ends make it of the seed
// and the number, so each knows what the other one says.
type visit struct {
	*day
	number    uint64
	plain     bool // ws, not wss
	tls12     bool
	secure    bool          // TLS to the backend
	up, down  int           // messages of the client, and of the backend's own accord; the first come back
	pause     time.Duration // before each message, at most
	idle      time.Duration // before the last one
	fragments bool
	client    habit
	backend   habit
	end       ending
	after     int // messages of the client before the end, where it is not whole
}

func (d *day) visit(number uint64) *visit {
	r := rand.New(rand.NewPCG(d.seed, number))
	v := &visit{day: d, number: number, plain: r.IntN(2) == 0, tls12: r.IntN(4) == 0, secure: r.IntN(3) == 0,
		up: 1 + r.IntN(24), down: r.IntN(24), pause: time.Duration(r.IntN(40)) * time.Millisecond, fragments: r.IntN(3) == 0}
	switch r.IntN(8) {
	case 0: // hardly says anything, and stays
		v.up, v.down, v.idle = 1+r.IntN(2), r.IntN(2), time.Duration(500+r.IntN(1500))*time.Millisecond
	case 1: // says all at once
		v.pause = 0
	}
	habits := func(messages int) (h habit) {
		switch r.IntN(6) {
		case 0:
			h.pause = time.Duration(5+r.IntN(20)) * time.Millisecond
		case 1:
			h.stopAt, h.stop = 1+r.IntN(max(messages, 1)), time.Duration(100+r.IntN(700))*time.Millisecond
		}
		return h
	}
	v.client, v.backend = habits(v.up+v.down), habits(v.up)
	v.after = 1 + r.IntN(v.up)
	left := r.IntN(100)
	for _, s := range shares {
		if left -= s.share; left < 0 {
			v.end = s.ending
			break
		}
	}
	return v
}

// lastWord is the message behind all others of a side. Those have letters.
const lastWord = "0"

// said is message n of the client, or of the backend's own accord, which is never empty
// and has other letters: whatever comes down is recognised by its first byte.
func (v *visit) said(n int, byClient bool) (op ws.OpCode, p []byte) {
	r := rand.New(rand.NewPCG(v.seed^v.number<<1, uint64(n)<<1|uint64(pickOf(byClient, 0, 1))))
	size := int(math.Exp(r.Float64()*math.Log(64<<10+1))) - 1 // 0 to 64 KiB, small ones mostly
	letters := v.lower
	if !byClient {
		letters, size = v.upper, max(size, 1)
	}
	at := r.IntN(len(letters) - size)
	return pickOf(r.IntN(2) == 0, ws.OpBinary, ws.OpText), letters[at : at+size]
}

// voice is one end of a visit's session.
type voice struct {
	rawEnd
	mu     sync.Mutex // for writing
	silent bool       // no more is written
}

var errSilent = errors.New("nothing more may be written")

// patience bounds a session, so that nothing hangs.
const patience = time.Minute

func newVoice(conn net.Conn, client bool) *voice {
	conn.SetDeadline(time.Now().Add(patience))
	return &voice{rawEnd: rawEnd{Conn: conn, r: bufio.NewReaderSize(conn, 4<<10), client: client}}
}

// say sends a message in one frame or in several.
func (o *voice) say(op ws.OpCode, p []byte, fragments bool) error {
	var frames []byte
	for fragments && len(p) > 1 {
		k := 1 + len(p)/3
		frames = append(frames, frameBytes(false, op, p[:k], o.client)...)
		op, p = ws.OpContinuation, p[k:]
	}
	return o.put(append(frames, frameBytes(true, op, p, o.client)...), false)
}

// put writes; last says that nothing may follow.
func (o *voice) put(p []byte, last bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent {
		return errSilent
	}
	o.silent = last
	_, err := o.Write(p)
	return err
}

// hear reads a message, or a Close.
func (o *voice) hear() (op ws.OpCode, p []byte, err error) {
	for {
		h, part, err := o.readFrame()
		if err != nil || h.OpCode == ws.OpClose {
			return h.OpCode, part, err
		}
		if h.OpCode != ws.OpContinuation {
			op = h.OpCode
		}
		if p = append(p, part...); h.Fin {
			return op, p, nil
		}
	}
}

// cut ends a session without a Close. What the other writers of this end had to say stays
// behind: the cut falls between two messages, or inside one where that is asked for.
func (o *voice) cut(e ending) {
	switch e {
	case clientVanishes, backendVanishes:
		p := o.frame(true, ws.OpBinary, make([]byte, 5000))
		o.put(p[:100], true)
	default:
		o.put(nil, true)
	}
	if e == clientHalfCloses || e == backendHalfCloses {
		o.Conn.(interface{ CloseWrite() error }).CloseWrite()
		return
	}
	o.reset()
}

// wait passes time of a visit.
func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// wander waits for up to d.
func wander(d time.Duration) {
	if d > 0 {
		wait(rand.N(d))
	}
}

// rest is what a reader does behind message n.
func (h habit) rest(n int) {
	wander(h.pause)
	if n == h.stopAt {
		wait(h.stop)
	}
}

// come is the client's side of a visit.
func (v *visit) come() {
	conn, err := v.dial()
	if err != nil {
		v.fault(v, "client: %v", err)
		return
	}
	defer conn.Close()
	switch v.end {
	case clientStrays:
		v.beStrange(conn)
		return
	case clientHurries:
		c := newVoice(conn, true)
		c.Write([]byte(opening(v.path())))
		c.reset()
		v.count(clientHurries)
		return
	}
	c := newVoice(conn, true)
	if _, err := c.Write([]byte(opening(v.path()))); err != nil {
		v.fault(v, "client: %v", err)
		return
	}
	if err := c.switched(); err != nil {
		v.fault(v, "%v", err)
		return
	}
	v.count(v.end)
	var speaking sync.WaitGroup
	speaking.Go(func() { v.speak(c) })
	v.listen(c)
	conn.Close()
	speaking.Wait()
}

// dial connects. A client that does not read all the time has a small window, so that the
// edge notices.
func (v *visit) dial() (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if v.client != (habit{}) {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10) })
		}
	}
	conn, err := d.Dial("tcp", pickOf(v.plain, v.wss, v.ws))
	if err != nil || v.plain || v.end == clientStrays {
		return conn, err
	}
	cfg := insecure()
	if v.tls12 {
		cfg.MaxVersion = tls.VersionTLS12
	}
	return tls.Client(conn, cfg), nil
}

func (v *visit) path() string {
	return fmt.Sprintf("%s?visit=%d", pickOf(v.secure, "/plain", "/secure"), v.number)
}

// beStrange talks to a listener without getting a session.
func (v *visit) beStrange(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(patience))
	request := opening("/nowhere")
	switch v.up % 4 {
	case 0: // nothing
	case 1: // part of a request, or no TLS
		conn.Write([]byte(request[:len(request)/2]))
	case 2: // a route that is not there, or no TLS
		conn.Write([]byte(request))
		io.CopyN(io.Discard, conn, 1)
	case 3: // bytes that are not even that
		conn.Write([]byte(string(v.lower[:1000]) + "\r\n\r\n"))
		io.CopyN(io.Discard, conn, 1)
	}
	if v.down%2 == 0 {
		conn.(*net.TCPConn).SetLinger(0)
	}
}

// speak is the client's writing.
func (v *visit) speak(c *voice) {
	for n := 1; n <= v.up; n++ {
		wander(v.pause)
		op, p := v.said(n, true)
		if c.say(op, p, v.fragments) != nil {
			return // the reader knows why
		}
		if n == v.after && !v.end.whole() && !v.end.byBackend() {
			if v.end == clientLeaves {
				c.put(closeBytes(1001, "", true), true)
			} else {
				c.cut(v.end)
			}
			return
		}
	}
	wait(v.idle)
	c.say(ws.OpText, []byte(lastWord), false)
}

// listen is the client's reading, which checks all that comes.
func (v *visit) listen(c *voice) {
	echoes, own, over := 0, 0, false
	for {
		op, p, err := c.hear()
		switch {
		case err != nil || op == ws.OpClose:
			v.ended(c, echoes, over, p, err)
			return
		case over:
			v.fault(v, "client: %.40q came behind the last word", p)
		case string(p) == lastWord:
			if over = true; echoes != v.up || own != v.down {
				v.fault(v, "client: %d of %d messages came back and %d of %d came by themselves", echoes, v.up, own, v.down)
			}
			if v.end == clientCloses {
				c.put(closeBytes(1000, "bye", true), true)
			}
		case len(p) > 0 && p[0] < 'a':
			own++
			v.check("client", own, false, op, p)
		default:
			echoes++
			v.check("client", echoes, true, op, p)
		}
		v.client.rest(echoes + own)
	}
}

// check compares what came with what was said.
func (v *visit) check(who string, n int, byClient bool, op ws.OpCode, p []byte) {
	wantOp, want := v.said(n, byClient)
	if op != wantOp || !bytes.Equal(p, want) {
		v.fault(v, "%s: message %d (of the client: %v) is %v of %d bytes %.20q, want %v of %d bytes %.20q", who, n, byClient, op, len(p), p, wantOp, len(want), want)
	}
}

// ended checks how the session ended for the client.
func (v *visit) ended(c *voice, echoes int, over bool, body []byte, err error) {
	code, text := 0, ""
	if err == nil {
		status, reason := ws.ParseCloseFrameData(body)
		code, text = int(status), reason
		c.put(closeBytes(code, "", true), true)
	}
	right := false
	switch v.end {
	case clientCloses:
		right = over && code == 1000 && text == "bye"
	case backendCloses:
		right = over && code == 4001 && text == "enough"
	case clientLeaves:
		right = code == 1001
	case clientResets, clientVanishes, clientHalfCloses:
		right = code == 0
	case backendResets, backendVanishes: // an RST overtakes what was said before it, maybe the head of a frame
		right = code == 1012 || code == 0
	case backendHalfCloses:
		right = code == 1012 && echoes == v.after
	}
	if !right || errors.Is(err, os.ErrDeadlineExceeded) {
		v.fault(v, "client: after %d of %d echoes it ended with %d %q, %v", echoes, v.up, code, text, err)
	}
	if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
		v.fault(v, "client: %d bytes came behind the Close", len(rest))
	}
}

// serve is the backend's side of a visit.
func (d *day) serve(conn net.Conn) {
	defer conn.Close()
	b := newVoice(conn, false)
	var err error
	if b.req, err = http.ReadRequest(b.r); err != nil {
		return // the edge gave the connection up: a hasty client
	}
	var number uint64
	if _, err := fmt.Sscan(b.req.URL.Query().Get("visit"), &number); err != nil {
		d.fault(nil, "backend: a request for %s", b.req.URL)
		return
	}
	v := d.visit(number)
	if _, err := b.Write([]byte(b.switching())); err != nil {
		return
	}
	var speaking sync.WaitGroup
	speaking.Go(func() {
		for n := 1; n <= v.down; n++ {
			wander(v.pause)
			op, p := v.said(n, false)
			if b.say(op, p, v.fragments) != nil {
				return
			}
		}
	})
	v.answer(b, &speaking)
	conn.Close()
	speaking.Wait()
}

// answer is the backend's reading, and its echo.
func (v *visit) answer(b *voice, speaking *sync.WaitGroup) {
	for heard := 0; ; {
		op, p, err := b.hear()
		switch {
		case err != nil:
			if v.end.whole() || v.end == clientLeaves {
				v.fault(v, "backend: after %d of %d messages: %v", heard, v.up, err)
			}
			return
		case op == ws.OpClose:
			if b.put(frameBytes(true, ws.OpClose, p, false), true) == nil && (v.end.byBackend() || v.end == clientResets) {
				v.fault(v, "backend: got Close %q", p)
			}
			return
		case string(p) == lastWord:
			if heard != v.up {
				v.fault(v, "backend: the last word came behind %d of %d messages", heard, v.up)
			}
			speaking.Wait()
			b.say(ws.OpText, []byte(lastWord), false)
			if v.end == backendCloses {
				b.put(closeBytes(4001, "enough", false), true)
			}
		default:
			heard++
			v.check("backend", heard, true, op, p)
			if b.say(op, p, v.fragments) != nil {
				continue // the cut is noticed by reading
			}
			if heard == v.after && !v.end.whole() && v.end.byBackend() {
				b.cut(v.end)
			}
		}
		v.backend.rest(heard)
	}
}

// String tells a visit in messages.
func (v *visit) String() string {
	return strings.TrimSpace(fmt.Sprintf("visit %d (%+v)", v.number, struct {
		plain, tls12, secure, fragments bool
		up, down, after                 int
		end                             ending
		client, backend                 habit
	}{v.plain, v.tls12, v.secure, v.fragments, v.up, v.down, v.after, v.end, v.client, v.backend}))
}
