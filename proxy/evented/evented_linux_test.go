package evented

import (
	"context"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

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
	}, func(tally *engine.Tally) relay.Traffic { return g.Sum([]*engine.Tally{tally})[0] })
}

// startGroup runs two loops until the test ends.
func startGroup(t *testing.T) *Group {
	t.Helper()
	g, err := New(2, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return g
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

// TestIdleSessionIsSmall: a session that has nothing to do is its struct and two places in
// the loop's table, without buffers, timers or goroutines.
func TestIdleSessionIsSmall(t *testing.T) {
	const sessions, most = 500, 512
	g := startGroup(t)
	opt := &engine.Options{Tally: new(engine.Tally)}
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
