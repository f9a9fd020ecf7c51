package loop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startGroup runs n loops until the test ends.
func startGroup(t testing.TB, n int) *Group {
	t.Helper()
	g, err := NewGroup(n)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return g
}

// socketPair returns a descriptor for a loop and the other end as a net.Conn.
func socketPair(t testing.TB) (fd int, far net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "far")
	far, err = net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	far.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { far.Close() })
	return fds[0], far
}

// funcs is a handler of functions.
type funcs struct {
	data  func(c *Conn, p []byte) int
	ended func(c *Conn, err error)
	wrote func(c *Conn, err error)
}

func (f *funcs) Data(c *Conn, p []byte) int { return f.data(c, p) }
func (f *funcs) Ended(c *Conn, err error) {
	if f.ended != nil {
		f.ended(c, err)
	} else {
		c.Close()
	}
}
func (f *funcs) Wrote(c *Conn, err error) {
	if f.wrote != nil {
		f.wrote(c, err)
	}
}

// on runs f on a loop and waits for it.
func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if err := l.Post(func() { f(); close(done) }); err != nil {
		t.Fatal(err)
	}
	<-done
}

// adopt brings a new connection to a loop.
func adopt(t testing.TB, l *Loop, h Handler) (c *Conn, far net.Conn) {
	t.Helper()
	fd, far := socketPair(t)
	c = new(Conn)
	on(t, l, func() {
		if err := l.Adopt(c, fd, h); err != nil {
			t.Error(err)
		}
	})
	return c, far
}

func echo() *funcs {
	return &funcs{data: func(c *Conn, p []byte) int { c.Write(p); return len(p) }}
}

func TestEcho(t *testing.T) {
	l := startGroup(t, 1).Pick()
	_, far := adopt(t, l, echo())
	for _, size := range []int{1, 100, ScratchBytes - 1, ScratchBytes, ScratchBytes + 1, 1 << 20} {
		want := bytes.Repeat([]byte{byte(size), 7}, size/2+1)[:size]
		go far.Write(want)
		got := make([]byte, size)
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
}

// What a handler leaves comes again in front of what follows, at any split.
func TestKeptBytes(t *testing.T) {
	l := startGroup(t, 1).Pick()
	var got [][]byte
	records := make(chan struct{}, 100)
	h := &funcs{data: func(_ *Conn, p []byte) (used int) {
		for len(p)-used >= 5 {
			got = append(got, bytes.Clone(p[used:used+5]))
			used += 5
			records <- struct{}{}
		}
		return used
	}}
	c, far := adopt(t, l, h)
	stream := []byte("aaaaabbbbbcccccdddddeeeee")
	for _, n := range []int{1, 3, 2, 7, 4, 8} {
		far.Write(stream[:n])
		stream = stream[n:]
		on(t, l, func() {})
	}
	for range 5 {
		<-records
	}
	on(t, l, func() {
		if want := "aaaaa bbbbb ccccc ddddd eeeee"; string(bytes.Join(got, []byte(" "))) != want {
			t.Errorf("got %q, want %q", got, want)
		}
		c.hold().kept = append(c.hold().kept, "xy"...)
		c.Inject([]byte("z12345"))
		if last := string(bytes.Join(got[5:], nil)); last != "xyz12" || string(c.held.kept) != "345" {
			t.Errorf("injected: got %q and kept %q", last, c.held.kept)
		}
	})
}

// A reader that has stopped fills the queue; the handler pauses the source, and all of it
// arrives once the reader goes on.
func TestQueueAndResume(t *testing.T) {
	l := startGroup(t, 1).Pick()
	var source, sink *Conn
	most := 0
	paused := make(chan struct{}, 1)
	in := &funcs{data: func(c *Conn, p []byte) int {
		sink.Write(p)
		if most = max(most, sink.Queued()); sink.Queued() > 0 {
			c.Pause()
			select {
			case paused <- struct{}{}:
			default:
			}
		}
		return len(p)
	}, ended: func(c *Conn, _ error) { sink.CloseWrite() }}
	out := &funcs{data: func(_ *Conn, p []byte) int { return len(p) }, wrote: func(c *Conn, err error) {
		if c.Queued() == 0 {
			source.Resume()
		}
	}}
	a, to := adopt(t, l, out)
	b, from := adopt(t, l, in)
	on(t, l, func() { sink, source = a, b })
	const total = 16 << 20
	go func() {
		from.Write(make([]byte, total))
		from.(*net.UnixConn).CloseWrite()
	}()
	<-paused
	n, err := io.Copy(io.Discard, to)
	if err != nil || n != total {
		t.Errorf("%d bytes of %d arrived, %v", n, total, err)
	}
	on(t, l, func() {
		if most > ScratchBytes {
			t.Errorf("the queue held up to %d bytes, more than one read", most)
		}
		if sink.held != nil || source.held != nil {
			t.Error("an idle connection holds a buffer")
		}
	})
}

func TestLimitReads(t *testing.T) {
	l := startGroup(t, 1).Pick()
	most, total := 0, 0
	done := make(chan struct{})
	c, far := adopt(t, l, &funcs{data: func(_ *Conn, p []byte) int {
		most = max(most, len(p))
		if total += len(p); total == 100<<10 {
			close(done)
		}
		return len(p)
	}})
	on(t, l, func() { c.LimitReads(1000) })
	far.Write(make([]byte, 100<<10))
	<-done
	on(t, l, func() {
		if most != 1000 {
			t.Errorf("read up to %d bytes at a time, want 1000", most)
		}
	})
}

// A connection that always has more does not keep the others from their turn.
func TestFairness(t *testing.T) {
	l := startGroup(t, 1).Pick()
	var order []string
	busy := &funcs{data: func(_ *Conn, p []byte) int { order = append(order, "busy"); return len(p) }}
	quiet := &funcs{data: func(_ *Conn, p []byte) int { order = append(order, "quiet"); return len(p) }}
	a, flood := adopt(t, l, busy)
	_, single := adopt(t, l, quiet)
	on(t, l, func() { a.Pause() })
	go flood.Write(make([]byte, 64*ScratchBytes))
	filled := make([]byte, 1)
	for filled[0] == 0 { // until the flood's socket is full
		on(t, l, func() {
			if n, _ := unix.IoctlGetInt(int(a.fd), unix.SIOCINQ); n > 2*readsPerTurn*ScratchBytes/4 {
				filled[0] = 1
			}
		})
	}
	single.Write([]byte("x"))
	on(t, l, func() { a.Resume() })
	for seen := false; !seen; {
		on(t, l, func() {
			for i, who := range order {
				if who == "quiet" {
					seen = true
					if i > 2*readsPerTurn {
						t.Errorf("the quiet one had its turn after %d reads of the busy one", i)
					}
					break
				}
			}
		})
	}
}

func TestEnds(t *testing.T) {
	l := startGroup(t, 1).Pick()
	result := make(chan error, 1)
	h := &funcs{data: func(_ *Conn, p []byte) int { return len(p) }, ended: func(c *Conn, err error) { c.Write([]byte("last")); c.Close(); result <- err }}
	t.Run("orderly, with bytes before", func(t *testing.T) {
		_, far := adopt(t, l, h)
		far.Write([]byte("bye"))
		far.(*net.UnixConn).CloseWrite()
		if err := <-result; !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want end of stream", err)
		}
		if b, err := io.ReadAll(far); err != nil || string(b) != "last" {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("writing to one that is gone", func(t *testing.T) {
		broken := make(chan error, 1)
		c, far := adopt(t, l, &funcs{data: func(_ *Conn, p []byte) int { return len(p) }, ended: func(*Conn, error) {},
			wrote: func(_ *Conn, err error) { broken <- err }})
		far.Close()
		on(t, l, func() {
			for range 3 {
				c.Write([]byte("x"))
			}
		})
		if err := <-broken; !errors.Is(err, unix.EPIPE) {
			t.Errorf("got %v, want %v", err, unix.EPIPE)
		}
		on(t, l, c.Close)
	})
	t.Run("no call after Close", func(t *testing.T) {
		c, far := adopt(t, l, &funcs{data: func(c *Conn, p []byte) int { c.Close(); return len(p) },
			ended: func(*Conn, error) { t.Error("told of the end after Close") }})
		far.Write([]byte("x"))
		if _, err := io.ReadAll(far); err != nil {
			t.Error(err)
		}
		on(t, l, c.Close)
	})
}

func TestLoopEndClosesConnections(t *testing.T) {
	g, err := NewGroup(2)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(ctx); close(done) }()
	ended := make(chan error, 1)
	l := g.Pick()
	_, far := adopt(t, l, &funcs{data: func(_ *Conn, p []byte) int { return len(p) }, ended: func(_ *Conn, err error) { ended <- err }})
	cancel()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
	if _, err := io.ReadAll(far); err != nil {
		t.Error(err)
	}
	<-done
	if err := l.Post(func() {}); !errors.Is(err, ErrClosed) {
		t.Errorf("Post to a loop that has ended: %v", err)
	}
}

// TestCloseGivesBack what waits in both directions, and is no longer counted as held.
func TestCloseGivesBack(t *testing.T) {
	l := startGroup(t, 1).Pick()
	came := make(chan struct{})
	c, far := adopt(t, l, &funcs{data: func(c *Conn, p []byte) int {
		c.Write(make([]byte, 8<<20)) // more than a socket takes
		close(came)
		return 0 // half of something
	}})
	if _, err := io.WriteString(far, "half"); err != nil {
		t.Fatal(err)
	}
	<-came
	on(t, l, func() {
		if c.Queued() == 0 || c.held.kept == nil || l.pool.lent == 0 {
			t.Errorf("%d bytes queued, %d kept, %d lent", c.Queued(), len(c.held.kept), l.pool.lent)
		}
		if c.Close(); l.pool.lent != 0 || c.Held() != 0 {
			t.Errorf("%d bytes are still lent, %d held", l.pool.lent, c.Held())
		}
	})
}

func TestPostKeepsOrder(t *testing.T) {
	l := startGroup(t, 1).Pick()
	const n, each = 4, 1000
	var wg sync.WaitGroup
	var got [n][]int
	for i := range n {
		wg.Go(func() {
			for k := range each {
				l.Post(func() { got[i] = append(got[i], k) })
			}
		})
	}
	wg.Wait()
	on(t, l, func() {
		for i := range got {
			if len(got[i]) != each {
				t.Fatalf("%d of %d ran", len(got[i]), each)
			}
			for k, v := range got[i] {
				if k != v {
					t.Fatalf("out of order at %d: %d", k, v)
				}
			}
		}
	})
}

// Only the first of what is posted between two turns wakes the loop.
func TestPostWakesOnce(t *testing.T) {
	var m mailbox
	for range 3 {
		for i := range 5 {
			if wake, err := m.put(func() {}); err != nil || wake != (i == 0) {
				t.Errorf("post %d wakes: %v, %v", i, wake, err)
			}
		}
		if n := len(m.take()); n != 5 || m.any.Load() {
			t.Errorf("took %d of 5", n)
		}
	}
	m.close()
	if wake, err := m.put(func() {}); wake || err != ErrClosed {
		t.Errorf("post to a loop that has ended: %v, %v", wake, err)
	}
	done := make(chan struct{})
	go func() { m.quiet(); close(done) }()
	for range 3 {
		select {
		case <-done:
			t.Fatal("it ends before all have woken it")
		case <-time.After(5 * time.Millisecond):
		}
		m.woken()
	}
	<-done
}

func TestPlacement(t *testing.T) {
	g := startGroup(t, 3)
	for range 30 {
		g.Pick().Reserve(1)
	}
	for _, l := range g.loops {
		if n := l.load.Load(); n != 10 {
			t.Errorf("loop %d has %d, want 10", l.index, n)
		}
	}
}

// A loop that is kept busy holds its processor while it waits, and stops all the same when
// the collector asks; one that has little to do gives its processor up.
func TestPace(t *testing.T) {
	l := startGroup(t, 1).Pick()
	_, far := adopt(t, l, echo())
	var pace time.Duration
	read := func() time.Duration {
		on(t, l, func() { pace = l.pace })
		return pace
	}
	p := make([]byte, 64)
	for deadline := time.Now().Add(20 * time.Second); ; {
		for range 100 {
			far.Write(p)
			io.ReadFull(far, p)
		}
		if read() < busyPace {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v from turn to turn: still not busy", pace)
		}
	}
	var yielded time.Duration
	for deadline := time.Now().Add(20 * time.Second); yielded == 0; {
		far.Write(p)
		io.ReadFull(far, p)
		on(t, l, func() { yielded = l.yielded })
		if time.Now().After(deadline) {
			t.Fatal("does not yield while busy")
		}
	}
	runtime.GC() // returns once every goroutine was stopped
	silent := make(chan struct{})
	timer := &Timer{}
	left := 5
	timer.To = expire(func() {
		if left--; left == 0 {
			close(silent)
			return
		}
		l.Set(timer, l.Now()+2*maxPace)
	})
	on(t, l, func() { l.Set(timer, l.Now()+2*maxPace) })
	<-silent
	if read() < busyPace {
		t.Errorf("%v from turn to turn after a silence: still busy", pace)
	}
	if on(t, l, func() { yielded = l.now - l.yielded }); yielded < 2*maxPace {
		t.Errorf("yielded %v ago, while calm", yielded)
	}
}

// TestParking has bytes, functions and timers come while the loop parks, while it does not,
// and while it goes from one to the other and back: none is overlooked.
func TestParking(t *testing.T) {
	t.Parallel()
	l := startGroup(t, 1).Pick()
	_, far := adopt(t, l, echo())
	fired := make(chan time.Duration)
	timer := &Timer{}
	timer.To = expire(func() { fired <- l.Now() - timer.at })
	p := make([]byte, 64)
	rounds := 0
	round := func() (parked bool) {
		t.Helper()
		far.Write(p)
		if _, err := io.ReadFull(far, p); err != nil {
			t.Fatalf("after %d rounds: %v", rounds, err)
		}
		rounds++
		timed := rounds%20 == 0
		on(t, l, func() {
			parked = l.parking.in
			if timed {
				l.Set(timer, l.Now()+3*time.Millisecond)
			}
		})
		if timed {
			select {
			case late := <-fired:
				if late < 0 {
					t.Errorf("round %d: the timer fired %v early", rounds, -late)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("round %d: the timer did not fire", rounds)
			}
		}
		return parked
	}
	if !round() {
		t.Fatal("the loop does not begin parked")
	}
	deadline := time.Now().Add(20 * time.Second)
	goOn := func(what string) bool {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		return true
	}
	for goOn("with one message behind the other the loop parks") && round() {
	}
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for goOn("with few messages the loop does not park") && !round() {
		<-pause.C
	}
	for range 100 {
		round()
		<-pause.C
	}
}

// The steady state of a connection allocates nothing.
func TestEchoDoesNotAllocate(t *testing.T) {
	l := startGroup(t, 1).Pick()
	_, far := adopt(t, l, echo())
	p := make([]byte, 64)
	round := func() {
		far.Write(p)
		io.ReadFull(far, p)
	}
	round()
	if n := testing.AllocsPerRun(200, round); n != 0 {
		t.Errorf("%v allocations a round, want 0", n)
	}
}

func BenchmarkEcho(b *testing.B) {
	l := startGroup(b, 1).Pick()
	fd, far := socketPair(b)
	far.SetDeadline(time.Time{})
	on(b, l, func() { l.Adopt(new(Conn), fd, echo()) })
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		far.Write(p)
		io.ReadFull(far, p)
	}
}
