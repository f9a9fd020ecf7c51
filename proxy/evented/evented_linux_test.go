package evented

import (
	"bytes"
	"compress/flate"
	"context"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/enginetest"
	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) { testEngine(t) }

// TestEngineStdlib is TestEngine with records by crypto/tls.
func TestEngineStdlib(t *testing.T) { testEngine(t) }

func testEngine(t *testing.T) {
	t.Helper()
	g := startGroup(t)
	enginetest.Run(t, func(t *testing.T, opt *engine.Options, obs engine.Observer, client, backend enginetest.Leg) engine.Session {
		s, err := g.Start(opt, obs, newLeg(t, client), newLeg(t, backend))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, func(t *testing.T, s engine.Session, backend enginetest.Leg) { s.(*Session).Move(newLeg(t, backend)) }, func(tally *engine.Tally) relay.Traffic { return g.Sum([]*engine.Tally{tally})[0] })
}

// startGroup runs two loops until the test ends.
func startGroup(t *testing.T) *Group {
	t.Helper()
	g, end := runGroup(t)
	t.Cleanup(end)
	return g
}

// runGroup runs two loops until end is called.
func runGroup(t *testing.T) (g *Group, end func()) {
	t.Helper()
	g, err := New(2, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(ctx); close(done) }()
	return g, func() { cancel(); <-done }
}

func newLeg(t *testing.T, l enginetest.Leg) Leg {
	t.Helper()
	out := Leg{FD: -1, Plain: l.Head}
	if l.Store != nil {
		conn, err := l.Store.Accept(context.Background(), l.Conn, engineOf(t))
		if err != nil {
			t.Fatal(err)
		}
		out.Codec, out.Wire, _ = conn.Detach()
	}
	raw, err := l.Conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { out.FD, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	l.Conn.Close()
	return out
}

// engineOf is who protects the records in this test.
func engineOf(t *testing.T) tls.Engine {
	if strings.HasPrefix(t.Name(), "TestEngineStdlib") {
		return tls.EngineStdlib
	}
	return tls.EngineAuto
}

// ended is the codec of a peer that had said its last before the connection came to the
// loop: there is nothing to read that would tell.
type ended struct{}

func (ended) Open(in, _, reply []byte) ([]byte, int, []byte, bool, error) {
	return nil, len(in), reply, false, io.EOF
}
func (ended) Seal(dst []byte, _ [][]byte) ([]byte, error) { return dst, nil }
func (ended) CloseNotify(dst []byte) []byte               { return dst }

// result is an observer that keeps the end.
type result chan engine.Result

func (result) Closing()                 {}
func (result) Lost(engine.Loss)         {}
func (result) Moved(engine.Moved)       {}
func (result) Ponged(time.Duration)     {}
func (r result) Done(res engine.Result) { r <- res }

// TestPeerThatEndedBefore: what a codec knows already is asked for when the session
// begins, without an event of the socket.
func TestPeerThatEndedBefore(t *testing.T) {
	g := startGroup(t)
	var near, far [2]int
	for i := range near {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		near[i], far[i] = fds[0], fds[1]
		defer unix.Close(fds[1])
	}
	done := make(result, 1)
	opt := &engine.Options{Tally: new(engine.Tally), Relay: relay.Options{CloseTimeout: 100 * time.Millisecond}}
	if _, err := g.Start(opt, done, Leg{FD: near[0], Codec: ended{}}, Leg{FD: near[1]}); err != nil {
		t.Fatal(err)
	}
	select {
	case res := <-done:
		if res.Cause != relay.ClientGone {
			t.Errorf("ended by %v, want %v", res.Cause, relay.ClientGone)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the session goes on without its client")
	}
}

// TestPlainBeforeWire: of what was read before the session came to its loop the relay may
// leave a part of the first half for later; the second stays behind that.
func TestPlainBeforeWire(t *testing.T) {
	frame := func(rsv bool, p []byte) []byte {
		f := ws.NewFrame(ws.OpBinary, true, p)
		f.Header.Rsv = ws.Rsv(rsv, false, false)
		return ws.MustCompileFrame(ws.MaskFrameInPlace(f))
	}
	var large bytes.Buffer
	w, err := flate.NewWriter(&large, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, 1<<20))
	w.Flush()
	g := startGroup(t)
	var legs [2]Leg
	var far [2]int
	for i := range legs {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.SetNonblock(fds[0], true)
		legs[i].FD, far[i] = fds[0], fds[1]
	}
	defer unix.Close(far[relay.Client])
	legs[relay.Client].Plain = append(frame(true, bytes.TrimSuffix(large.Bytes(), []byte{0, 0, 0xff, 0xff})), frame(false, []byte("one"))...)
	legs[relay.Client].Wire = frame(false, []byte("two"))
	done := make(result, 1)
	s, err := g.Start(&engine.Options{Tally: new(engine.Tally), Relay: relay.Options{Compression: relay.Compression{Mode: relay.Terminate, Level: 1}}},
		done, legs[relay.Client], legs[relay.Backend])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Kill(); <-done }()
	backend := os.NewFile(uintptr(far[relay.Backend]), "backend")
	defer backend.Close()
	next := func() (h ws.Header, payload []byte) {
		t.Helper()
		h, err := ws.ReadHeader(backend)
		if err != nil {
			t.Fatal(err)
		}
		payload = make([]byte, h.Length)
		if _, err := io.ReadFull(backend, payload); err != nil {
			t.Fatal(err)
		}
		ws.Cipher(payload, h.Mask, 0)
		return h, payload
	}
	size := 0
	for last := false; !last; {
		h, payload := next()
		size, last = size+len(payload), h.Fin
	}
	if size != 1<<20 {
		t.Fatalf("%d bytes", size)
	}
	for _, want := range []string{"one", "two"} {
		if _, got := next(); string(got) != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// TestIdleSessionIsSmall: a session that has nothing to do is its struct and two places in
// the loop's table, without buffers, timers or goroutines.
func TestIdleSessionIsSmall(t *testing.T) {
	t.Run("without policies", func(t *testing.T) {
		testIdleSession(t, &engine.Options{Tally: new(engine.Tally)}, 512)
	})
	t.Run("pinged", func(t *testing.T) {
		// As by default, but sooner; what a heartbeat has to remember, and a timer.
		testIdleSession(t, &engine.Options{Tally: new(engine.Tally), Relay: relay.Options{ValidateUTF8: true,
			ControlFrames: relay.Rate{PerSecond: 100, Burst: 100}, Ping: [2]bool{relay.Client: true}, PingInterval: 10 * time.Millisecond}}, 672)
	})
}

func testIdleSession(t *testing.T, opt *engine.Options, most uint64) {
	const sessions = 500
	g := startGroup(t)
	results := make(result, sessions)
	running, far := make([]engine.Session, 0, sessions), make([]int, 0, 2*sessions)
	defer func() {
		for _, fd := range far {
			unix.Close(fd)
		}
	}()
	held := func() uint64 {
		var m runtime.MemStats
		for range 2 { // the second without what pools had
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	open := func() {
		legs := [2]Leg{}
		for i := range legs {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			legs[i].FD, far = fds[0], append(far, fds[1])
		}
		s, err := g.Start(opt, results, legs[0], legs[1])
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, s)
	}
	goroutines := runtime.NumGoroutine()
	before := held()
	for range sessions {
		open()
	}
	for range 2 {
		g.Sum(nil) // a turn of each loop: what was posted before has run, and is let go of
	}
	if opt.Relay.PingInterval > 0 {
		for i := 0; i < len(far); i += 2 { // the clients
			var b [64]byte
			for n := 0; n <= 0; n, _ = unix.Read(far[i], b[:]) {
				runtime.Gosched() // the Ping is on its way
			}
		}
	}
	each := (held() - before) / sessions
	if each > most || each < uint64(unsafe.Sizeof(Session{})) {
		t.Errorf("an idle session holds %d bytes, want at most %d", each, most)
	}
	if n := runtime.NumGoroutine() - goroutines; n > len(g.shared) { // they may have begun since
		t.Errorf("%d goroutines more with %d sessions", n, sessions)
	}
	for _, s := range running {
		s.Kill()
	}
	for range running {
		<-results
	}
}

// chatty is a codec that answers every nine bytes with 27, as a TLS client may have it with
// small records and updates of keys, and finds no plaintext in any of them.
type chatty struct{ Codec }

func (chatty) Open(in, _, reply []byte) (plain []byte, used int, replyOut []byte, again bool, err error) {
	n := len(in) / 9
	return nil, n * 9, append(reply, make([]byte, n*27)...), false, nil
}

func (chatty) CloseNotify(dst []byte) []byte { return dst }

// TestRepliesAreTaken: a client that does not take what its own records make the edge answer is
// not read until it does.
func TestRepliesAreTaken(t *testing.T) {
	g := startGroup(t)
	near, client := enginetest.Pipe(t)
	nearBackend, _ := enginetest.Pipe(t)
	const room = 32 << 10
	done := make(result, 1)
	leg := newLeg(t, enginetest.Leg{Conn: near})
	leg.Codec = chatty{}
	s, err := g.Start(&engine.Options{Tally: new(engine.Tally), WriteTimeout: time.Minute, BufferBytes: room, Relay: relay.Options{CloseTimeout: time.Second}},
		done, leg, newLeg(t, enginetest.Leg{Conn: nearBackend}))
	if err != nil {
		t.Fatal(err)
	}
	const total = 9 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := client.Write(make([]byte, total))
		sent <- err
	}()
	for before := -1; ; { // until nothing more is taken
		time.Sleep(100 * time.Millisecond)
		held := s.Held()
		if held > 16*room {
			t.Fatalf("%d bytes of answers wait", held)
		}
		if held == before && held > 0 {
			break
		}
		before = held
	}
	select {
	case err := <-sent:
		t.Fatalf("all of %d bytes was taken: %v", total, err)
	default:
	}
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.CopyN(io.Discard, client, 3*total); err != nil {
		t.Errorf("%d bytes of answers, want %d: %v", n, 3*total, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	s.Kill()
	<-done
}

// TestLoopsEndWithQueue: a session for which bytes wait ends with its loop, and says so.
func TestLoopsEndWithQueue(t *testing.T) {
	g, end := runGroup(t)
	near, _ := enginetest.Pipe(t)
	nearBackend, backend := enginetest.Pipe(t)
	done := make(result, 1)
	s, err := g.Start(&engine.Options{Tally: new(engine.Tally), WriteTimeout: time.Minute, Relay: relay.Options{CloseTimeout: time.Minute}},
		done, newLeg(t, enginetest.Leg{Conn: near}), newLeg(t, enginetest.Leg{Conn: nearBackend}))
	if err != nil {
		t.Fatal(err)
	}
	go backend.Write(bytes.Repeat(ws.MustCompileFrame(ws.NewBinaryFrame(make([]byte, 60000))), 500))
	for s.Held() == 0 {
		time.Sleep(time.Millisecond)
	}
	end()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("nobody is told of its end")
	}
}
