package load

import (
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// cutAfter leads to addr, and carries so many bytes of each connection in either direction,
// then nothing more, until the test ends.
func cutAfter(t *testing.T, addr string, n int64) string {
	return listen(t, func(conn net.Conn) {
		to, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		down := make(chan struct{})
		go func() {
			defer close(down)
			io.CopyN(conn, to, n)
		}()
		go io.CopyN(to, conn, n)
		<-t.Context().Done()
		to.Close()
		<-down
	})
}

// TestStallToTheEnd: what was due while a server stood still until the end shows, though it
// never got onto the wire.
func TestStallToTheEnd(t *testing.T) {
	addr := serve(t, &Server{})
	t.Run("echo", func(t *testing.T) {
		t.Parallel()
		const size = 256 << 10 // more than fits in a socket, soon
		r, err := Run(t.Context(), Options{URL: cutAfter(t, addr, 20*size), Connections: 2, Size: size, Rate: 400, Duration: time.Second,
			Grace: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		m := r.Messages
		if m.Due != 400 || m.Unsent < 100 || m.Sent+m.Unsent != m.Due || m.Received > 40 {
			t.Errorf("messages %+v", m)
		}
		if got := table(t, r); !strings.Contains(got, "of 400 due never sent") {
			t.Error(got)
		}
	})
	t.Run("push", func(t *testing.T) {
		t.Parallel()
		r, err := Run(t.Context(), Options{URL: cutAfter(t, addr, 100*100), Mode: Push, Connections: 4, Size: 100, Rate: 4000, Duration: 500 * time.Millisecond,
			Grace: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		// Of each connection 500 are due.
		if m := r.Messages; m.Due < 1990 || m.Due > 2000 || m.Sent > 400 || m.Unsent != m.Due-m.Sent {
			t.Errorf("messages %+v", m)
		}
		if got := table(t, r); !strings.Contains(got, "due never came") {
			t.Error(got)
		}
	})
}

func table(t *testing.T, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestEndedConnectionsAreDue: so does what was due on connections that ended, or were never
// there.
func TestEndedConnectionsAreDue(t *testing.T) {
	t.Parallel()
	url := listenNumbered(t, func(n int, conn net.Conn) {
		if n == 0 {
			refuse(conn)
			return
		}
		if _, err := ws.Upgrade(conn); err != nil {
			return
		}
		for k := 0; n > 1 || k < 5; k++ {
			f, err := readFrame(conn)
			if err != nil || f.Header.OpCode == ws.OpClose {
				return
			}
			ws.WriteFrame(conn, ws.NewBinaryFrame(ws.UnmaskFrameInPlace(f).Payload))
		}
		ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusGoingAway, "")))
		io.Copy(io.Discard, conn)
	})
	r, err := Run(t.Context(), Options{URL: url, Connections: 4, Size: 64, Rate: 100, Duration: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	// Fifty are due on each: the first was never opened, the second ends behind its fifth.
	if m := r.Messages; m.Due != 200 || m.Unsent <= 50 || m.Sent+m.Unsent != m.Due || m.Received != 105 {
		t.Errorf("messages %+v", m)
	}
}

// TestThroughput counts what comes in the measured time, and no answers after it.
func TestThroughput(t *testing.T) {
	slow := wsServer(t, func(conn net.Conn, n int, f ws.Frame) bool {
		if n == 100 {
			<-time.After(time.Second)
		}
		return ws.WriteFrame(conn, ws.NewBinaryFrame(f.Payload)) == nil
	})
	r, err := Run(t.Context(), Options{URL: slow, Connections: 1, Size: 64, Rate: 400, Duration: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Messages; m.Received != 200 || m.PerSecond > 200 {
		t.Errorf("messages %+v: 100 came in half a second", m)
	}
}

// TestNothingMeasured: a run that measures nothing says so.
func TestNothingMeasured(t *testing.T) {
	silent := func(t *testing.T) string { return listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }) }
	for _, c := range []struct {
		name string
		o    Options
		says string
	}{
		{"no echo", Options{URL: wsServer(t, func(net.Conn, int, ws.Frame) bool { return true })}, "no message came back"},
		{"no push", Options{Mode: Push, URL: wsServer(t, func(net.Conn, int, ws.Frame) bool { return true })}, "no message came: "},
		{"nothing due", Options{Rate: 0.001, Warmup: time.Millisecond, URL: "ws://" + serve(t, &Server{})}, "no message was due"},
		{"no handshake", Options{Mode: Connect, URL: silent(t)}, "no connection could be opened: not done"},
		{"no handshake at a rate", Options{Mode: Connect, Rate: 100, URL: silent(t)}, "no connection could be opened: not done"},
		{"no handshake due", Options{Mode: Connect, Rate: 0.001, Warmup: time.Millisecond, URL: "ws://" + serve(t, &Server{})}, "no connection was due"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.o.Connections, c.o.Size, c.o.Duration, c.o.Grace = 2, 64, 100*time.Millisecond, 50*time.Millisecond
			if _, err := Run(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// TestStalledHandshakes: connections that a stall held up are due, and it is not the
// generator that was late.
func TestStalledHandshakes(t *testing.T) {
	t.Parallel()
	url := listenNumbered(t, func(n int, conn net.Conn) {
		if n >= 10 {
			io.Copy(io.Discard, conn)
			return
		}
		if _, err := ws.Upgrade(conn); err != nil {
			return
		}
		if f, err := readFrame(conn); err == nil {
			ws.WriteFrame(conn, ws.NewCloseFrame(ws.UnmaskFrameInPlace(f).Payload))
		}
	})
	r, err := Run(t.Context(), Options{URL: url, Mode: Connect, Connections: 2, Rate: 100, Duration: 4 * time.Second, Timeout: 2 * time.Second,
		Grace: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// Behind the tenth, two at a time wait for two seconds each.
	h := r.Handshakes
	if h.Due != 400 || h.Completed != 10 || h.Unstarted < 380 || h.Failed+h.Completed+int(h.Unstarted) != 400 || h.Failed != h.Attempted-10 {
		t.Errorf("handshakes %+v, errors %+v", h, r.Errors)
	}
	if r.Schedule.Held == 0 {
		t.Errorf("schedule %+v: nothing was held up", r.Schedule)
	}
	if got := table(t, r); !strings.Contains(got, "of 400 due never begun") {
		t.Error(got)
	}
}

// TestScheduleCounts compares with counting one by one.
func TestScheduleCounts(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		s := newSchedule(random.Int64N(1e9), []float64{0.3, 7, 1000, 50_000, 3e5}[random.IntN(5)], random.IntN(9), 9)
		from := random.Int64N(3e9)
		until := from + random.Int64N(1e8)
		want := uint64(0)
		for k := s.first(from); s.at(k) < until; k++ {
			want++
		}
		if got := s.count(from, until); got != want {
			t.Fatalf("%+v from %d until %d: %d, want %d", s, from, until, got, want)
		}
		if k := s.first(from); s.at(k) < from || k > 0 && s.at(k-1) >= from {
			t.Fatalf("%+v: the first from %d on is not the %dth", s, from, k)
		}
	}
	if n := (schedule{}).count(0, 1e9); n != 0 {
		t.Errorf("without a rate %d are due", n)
	}
	if at := newSchedule(0, 1e-9, 1, maxConnections).at(3); at != never {
		t.Errorf("in centuries: %d", at)
	}
}

// TestPhase: connections of a run take turns, whenever each of them came.
func TestPhase(t *testing.T) {
	const of = 8
	var first []int64
	every := int64(0)
	for i := range of {
		came := int64(1e9) + rand.Int64N(1e9)
		s := newSchedule(0, 500, 0, 1).from(came, float64(i)/of)
		every = int64(s.every)
		if s.at(0) < came || s.at(0) >= came+every {
			t.Errorf("came at %d, first is due at %d", came, s.at(0))
		}
		first = append(first, s.at(0)%every)
	}
	slices.Sort(first)
	for i := range first {
		if want := int64(i) * every / of; first[i] != want {
			t.Fatalf("turns at %v of %d", first, every)
		}
	}
}
