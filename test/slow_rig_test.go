package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

const (
	// pushes is how many messages a backend pushes, a little more than a kilobyte each on
	// average: more than the edge and the kernel hold of one direction.
	pushes = 360
	// pushesPerPing is how many messages there are for each Ping of the backend, and
	// pushesPerFragmented for each that comes in two frames.
	pushesPerPing, pushesPerFragmented = 60, 45
)

func fragmented(n int) bool { return n%pushesPerFragmented == 7 }

var filler = noise(4 << 10)

// pushSizes are the lengths of messages in turn: packed together by the outbox, or each
// for itself, and with both forms of the header.
var pushSizes = []int{40, 100, 900, 1500, 3000}

// pushed is a session whose backend pushes messages that say to whom they go and which
// they are.
type pushed struct {
	client, backend *rawEnd
	number          int
	written         atomic.Int64
	poured          chan error

	messages, last int // that the client has read, and the number of the last one; -1: none
	pings          int // that the client has read and answered
	passed         int // of them, before the last message
	closed         string
	fickle         bool // it stops now and then, and so does its backend
}

// hesitate stops one in so many times, if it is of that kind.
func (x *pushed) hesitate(times int) {
	if x.fickle && rand.IntN(times) == 0 {
		wander(100 * time.Millisecond)
	}
}

// message is the payload of message n.
func (x *pushed) message(n int) []byte {
	return append(fmt.Appendf(nil, "%d %d ", x.number, n), filler[n:n+pushSizes[n%len(pushSizes)]]...)
}

// bytes are what the backend sends for message n.
func (x *pushed) bytes(n int) (p []byte) {
	m := x.message(n)
	if fragmented(n) {
		at := len(m) / 3
		p = append(frameBytes(false, ws.OpBinary, m[:at], false), frameBytes(true, ws.OpContinuation, m[at:], false)...)
	} else {
		p = frameBytes(true, ws.OpBinary, m, false)
	}
	if n%pushesPerPing == pushesPerPing-1 {
		p = append(p, frameBytes(true, ws.OpPing, fmt.Append(nil, n/pushesPerPing), false)...)
	}
	return p
}

// push sends the messages from one number to below another, as fast as the edge takes
// them.
func (x *pushed) push(from, to int) error {
	var p []byte
	for n := from; n < to; n++ {
		if p = append(p, x.bytes(n)...); len(p) < 8<<10 && n < to-1 {
			continue
		}
		k, err := x.backend.Write(p)
		if x.written.Add(int64(k)); err != nil {
			return fmt.Errorf("session %d: pushing message %d: %w", x.number, n, err)
		}
		p = p[:0]
		x.hesitate(8)
	}
	return nil
}

// next reads at the client to the end of a message or of a control frame. It checks that
// the message is what the backend sent under its number, and in as many frames, and
// answers Pings.
func (x *pushed) next() (op ws.OpCode, n int, err error) {
	x.hesitate(30)
	h, p, err := x.client.readFrame()
	if err != nil {
		return 0, 0, fmt.Errorf("session %d behind message %d: %w", x.number, x.last, err)
	}
	if h.OpCode.IsControl() {
		return h.OpCode, 0, x.control(h.OpCode, p)
	}
	whole := h.Fin
	for !h.Fin {
		var rest []byte
		if h, rest, err = x.client.readFrame(); err != nil {
			return 0, 0, fmt.Errorf("session %d inside a message behind %d: %w", x.number, x.last, err)
		}
		if h.OpCode.IsControl() { // which may come between the frames of a message (RFC 6455 §5.4)
			if err := x.control(h.OpCode, rest); err != nil || h.OpCode == ws.OpClose {
				return h.OpCode, 0, err
			}
			x.passed++
			h.Fin = false
			continue
		}
		p = append(p, rest...)
	}
	to := 0
	if _, err := fmt.Sscan(string(p[:min(20, len(p))]), &to, &n); err != nil || to != x.number || n < 0 || n > pushes ||
		string(p) != string(x.message(n)) || whole == fragmented(n) {
		return 0, 0, fmt.Errorf("session %d behind message %d: got %d bytes %.30q (%v), in one frame: %v", x.number, x.last, len(p), p, err, whole)
	}
	return ws.OpBinary, n, nil
}

// control answers a Ping, of which none may be missing, and notes a Close.
func (x *pushed) control(op ws.OpCode, p []byte) error {
	if op == ws.OpClose {
		code, reason := ws.ParseCloseFrameData(p)
		x.closed = fmt.Sprint(int(code), " ", reason)
		return nil
	}
	if op != ws.OpPing || string(p) != fmt.Sprint(x.pings) {
		return fmt.Errorf("session %d: got %v %q behind %d Pings", x.number, op, p, x.pings)
	}
	x.pings++
	_, err := x.client.Write(frameBytes(true, ws.OpPong, p, true))
	return err
}

// readAll reads until the last message and the last Ping have come, and wants every
// message in order; with gaps, messages may be missing, but none that is fragmented.
func (x *pushed) readAll(gaps bool) error {
	for x.last < pushes-1 || x.pings < pushes/pushesPerPing {
		op, n, err := x.next()
		switch {
		case err != nil:
			return err
		case op == ws.OpClose:
			return fmt.Errorf("session %d behind message %d: Close %s", x.number, x.last, x.closed)
		case op == ws.OpPing:
			if x.last < pushes-1 {
				x.passed++
			}
			continue
		case n <= x.last || !gaps && n != x.last+1:
			return fmt.Errorf("session %d: message %d behind message %d", x.number, n, x.last)
		}
		for k := x.last + 1; k < n; k++ {
			if fragmented(k) {
				return fmt.Errorf("session %d: message %d is missing, which was fragmented", x.number, k)
			}
		}
		x.last = n
		x.messages++
	}
	return nil
}

// readToClose reads every message in order up to a Close, answers it, and reads to the
// end of the stream.
func (x *pushed) readToClose() error {
	for {
		op, n, err := x.next()
		switch {
		case err != nil:
			return err
		case op == ws.OpClose:
			var code int
			fmt.Sscan(x.closed, &code)
			_, err := x.client.Write(closeBytes(code, "", true))
			return err
		case op == ws.OpBinary && n != x.last+1:
			return fmt.Errorf("session %d: message %d behind message %d", x.number, n, x.last)
		case op == ws.OpBinary:
			x.last = n
			x.messages++
		}
	}
}

// awaitClose reads at the backend, past Pongs, to a Close, and answers it.
func (x *pushed) awaitClose(code int, reason string) error {
	for pongs := 0; ; pongs++ {
		h, p, err := x.backend.readFrame()
		if err != nil {
			return fmt.Errorf("session %d: the backend got %d Pongs and then: %w", x.number, pongs, err)
		}
		switch h.OpCode {
		case ws.OpPong:
			if string(p) != fmt.Sprint(pongs) || pongs >= x.pings {
				return fmt.Errorf("session %d: the backend got Pong %q behind %d, the client has answered %d", x.number, p, pongs, x.pings)
			}
		case ws.OpClose:
			if got, text := ws.ParseCloseFrameData(p); int(got) != code || text != reason {
				return fmt.Errorf("session %d: the backend got Close %d %q", x.number, got, text)
			}
			if pongs != x.pings {
				return fmt.Errorf("session %d: the client answered %d Pings, the backend got %d Pongs", x.number, x.pings, pongs)
			}
			_, err := x.backend.Write(closeBytes(code, "", false))
			return errors.Join(err, x.backend.Close())
		default:
			return fmt.Errorf("session %d: the backend got %v", x.number, h)
		}
	}
}

// leave wants that one more message arrives, and has the client end the session.
func (x *pushed) leave() error {
	if _, err := x.backend.Write(x.bytes(pushes)); err != nil {
		return err
	}
	if op, n, err := x.next(); err != nil || op != ws.OpBinary || n != pushes {
		return fmt.Errorf("session %d: got %v %d, %v, want one more message", x.number, op, n, err)
	}
	if _, err := x.client.Write(closeBytes(1000, "bye", true)); err != nil {
		return err
	}
	if err := x.awaitClose(1000, "bye"); err != nil {
		return err
	}
	if op, _, err := x.next(); err != nil || op != ws.OpClose {
		return fmt.Errorf("session %d: got %v, %v, want a Close", x.number, op, err)
	}
	return x.client.Close()
}

// slowRig is an edge whose backend pushes, and neighbours on it that echo.
type slowRig struct {
	*edge
	backend  *rawBackend
	echoers  []*echoer
	sessions []*pushed
	most     float64 // bytes that were buffered while it settled
}

// slowConfig has a route for each policy; of ways to close a consumer that is slow there
// are two, as the code can be chosen.
const slowConfig = `
ADMIN
log: {level: info}
memory: {max_buffered: MEMORY}
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: ws, address: "127.0.0.1:0", tcp: {receive_buffer: 32KiB, send_buffer: 32KiB}}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}, tcp: {receive_buffer: 32KiB, send_buffer: 32KiB}}
routes:
  - {name: backpressure, match: {path: /backpressure}, pool: push, websocket: {slow_consumer: backpressure, SLOW}}
  - {name: close, match: {path: /close}, pool: push, websocket: {slow_consumer: close, SLOW}}
  - {name: coded, match: {path: /coded}, pool: push, websocket: {slow_consumer: close, slow_consumer_code: 4008, SLOW}}
  - {name: drop_oldest, match: {path: /drop_oldest}, pool: push, websocket: {slow_consumer: drop_oldest, SLOW}}
  - {name: hasty, match: {path: /hasty}, pool: push, websocket: {slow_consumer: close, ping: none, max_buffered: 32KiB, close_timeout: 200ms}}
  - {name: echo, match: {path: /echo}, pool: echo, websocket: {ping: none}}
pools:
  - {name: push, backends: [{address: PUSH}]}
  - {name: echo, backends: [{address: ECHO}]}
`

func slowYAML(backend, echo, memory string, maxBuffered int) string {
	return strings.NewReplacer("MEMORY", memory, "PUSH", fmt.Sprintf("%q", backend), "ECHO", fmt.Sprintf("%q", echo),
		"SLOW", fmt.Sprintf("max_buffered: %d, write_timeout: 10m, close_timeout: 10m, ping: none", maxBuffered)).Replace(slowConfig)
}

func startSlow(t *testing.T, program, memory string, maxBuffered int) (r *slowRig, yaml string) {
	t.Helper()
	ln, err := (&net.ListenConfig{Control: smallBuffers}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	r = &slowRig{backend: &rawBackend{ln}}
	yaml = slowYAML(r.backend.addr(), newApp(t, "echo").addr, memory, maxBuffered)
	r.edge = startProgram(t, program, slowEnv, yaml)
	// Without the lines of thousands of sessions.
	yaml = strings.Replace(yaml, "level: info", "level: warn", 1)
	if _, err := r.reload(yaml); err != nil {
		t.Fatal(err, details(err))
	}
	return r, yaml
}

// open opens sessions, each tenth over TLS, on one of the paths in turn.
func (r *slowRig) open(sessions int, paths ...string) (list []*pushed) {
	r.t.Helper()
	addrs := []string{r.addr("ws"), r.addr("wss")}
	for i := range sessions {
		secure := i%10 == 9
		conn, err := (&net.Dialer{Control: smallBuffers}).Dial("tcp", pickOf(secure, addrs[0], addrs[1]))
		must(r.t, err)
		if secure {
			conn = tls.Client(conn, insecure())
		}
		x := &pushed{client: newRawEnd(r.t, conn, true), number: len(r.sessions), last: -1, poured: make(chan error, 1)}
		x.client.write([]byte(opening(paths[i%len(paths)])))
		x.backend = r.backend.accept(r.t)
		x.backend.write([]byte(x.backend.switching()))
		x.client.wantSwitching()
		for _, end := range []*rawEnd{x.client, x.backend} {
			end.SetDeadline(time.Now().Add(15 * time.Minute))
		}
		r.sessions = append(r.sessions, x)
		list = append(list, x)
	}
	return list
}

// settle waits until nothing has moved for a while: neither into the edge nor inside.
func (r *slowRig) settle(list []*pushed) (m map[string]float64) {
	r.t.Helper()
	type state struct {
		written           int64
		buffered, dropped float64
		messages          float64
	}
	var last state
	since := time.Now()
	r.eventually("nothing moves", func() bool {
		var s state
		for _, x := range list {
			s.written += x.written.Load()
		}
		m = r.metrics()
		s.buffered = m["tidegate_buffered_bytes"]
		r.most = max(r.most, s.buffered)
		s.messages, s.dropped = sumOf(m, "tidegate_messages_total{"), sumOf(m, "tidegate_messages_dropped_total{")
		if s != last {
			last, since = s, time.Now()
		}
		return s.written > 0 && time.Since(since) > 300*time.Millisecond
	})
	return m
}

// sumOf adds the series that begin so, but for the neighbours'.
func sumOf(m map[string]float64, prefix string) (sum float64) {
	for series, v := range m {
		if strings.HasPrefix(series, prefix) && !strings.Contains(series, `route="echo"`) {
			sum += v
		}
	}
	return sum
}

// each runs f for all sessions at once.
func each(t *testing.T, list []*pushed, f func(*pushed) error) {
	t.Helper()
	var fs []func() error
	for _, x := range list {
		fs = append(fs, func() error { return f(x) })
	}
	atOnce(t, fs...)
}

// echoer is a session that wants back what it sends.
type echoer struct {
	end  *rawEnd
	sent int
}

// settleDown opens the neighbours.
func (r *slowRig) settleDown(neighbours int) {
	r.t.Helper()
	for i := range neighbours {
		secure := i%2 == 1
		e := &echoer{end: dialRaw(r.t, r.addr(pickOf(secure, "ws", "wss")), secure)}
		e.end.write([]byte(opening("/echo")))
		e.end.wantSwitching()
		e.end.SetDeadline(time.Now().Add(15 * time.Minute))
		r.echoers = append(r.echoers, e)
	}
}

// beside has the neighbours talk as long as f takes. Each of them wants its own back, in
// order.
func (r *slowRig) beside(f func()) {
	r.t.Helper()
	stop := make(chan struct{})
	var talking sync.WaitGroup
	for i, e := range r.echoers {
		talking.Go(func() {
			pause := time.NewTicker(20 * time.Millisecond)
			defer pause.Stop()
			for {
				p := fmt.Appendf(nil, "%d %d ", i, e.sent)
				e.sent++
				p = append(p, filler[:e.sent*37%3000]...)
				_, err := e.end.Write(frameBytes(true, ws.OpBinary, p, true))
				if err == nil {
					err = e.end.match(frameBytes(true, ws.OpBinary, p, false))
				}
				if err != nil {
					r.t.Errorf("neighbour %d, round trip %d: %v", i, e.sent, err)
					return
				}
				select {
				case <-stop:
					return
				case <-pause.C:
				}
			}
		})
	}
	defer talking.Wait()
	defer close(stop)
	f()
}
