package test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/gobwas/ws"
)

const (
	memoryLimit = 8 << 20
	// holderBuffered is max_buffered of the sessions in TestMemoryLimit.
	holderBuffered = 1 << 20
	// holderRound is how much a backend pushes to a large holder at a time.
	holderRound, holderMessage = 64 << 10, 8 << 10
)

// TestMemoryLimit: when all sessions together hold more than memory.max_buffered, those
// that hold the most are closed, and no others; new ones are refused until it is less.
// The limit may be a size, a share or none, and a reload changes it.
func TestMemoryLimit(t *testing.T) {
	const smalls, larges = 10, 16
	r, yaml := startSlow(t, binary, "0", holderBuffered)
	limitTo := func(limit string) {
		t.Helper()
		if _, err := r.reload(strings.Replace(yaml, "max_buffered: 0}", "max_buffered: "+limit+"}", 1)); err != nil {
			t.Fatal(err, details(err))
		}
	}
	// Some hold a quarter of a mebibyte, others several times as much.
	small := r.open(smalls, "/drop_oldest")
	each(t, small, func(x *pushed) error { return x.push(0, pushes) })
	r.settle(small)
	large := r.open(larges, "/drop_oldest")
	rounds := 0
	push := func() {
		each(t, large, func(x *pushed) error { return x.pushHolder(rounds) })
		rounds++
		r.settle(large)
	}

	// Without a limit nobody is closed.
	for r.metrics()[bufferedSeries] < memoryLimit+2<<20 {
		push()
	}
	r.wantShed(0)
	r.wantAccepted()

	// A share of what there is, of which the same limit comes.
	total, err := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
	must(t, err)
	percent := float64(memoryLimit) * 100 / float64(total)
	limitTo("25%")
	r.wantShed(0)
	limitTo(fmt.Sprintf("%.6f%%", percent))
	r.eventually("the largest are closed", func() bool { return r.metrics()[bufferedSeries] <= memoryLimit })
	told := r.waitLog("buffered bytes over memory.max_buffered: closing the largest holders", nil)
	if got := told["limit"].(float64); got < memoryLimit*0.999 || got > memoryLimit*1.001 {
		t.Errorf("%.6f%% of %d bytes: the edge's limit is %v, want %d", percent, total, got, memoryLimit)
	}
	limitTo("8MiB")

	// More comes, all of it in rounds which begin below the limit: beyond it there is never
	// more than a round, with some 40 bytes for each frame.
	const bound = memoryLimit + larges*(holderRound+holderRound/holderMessage*48)
	r.most = 0
	for range 8 {
		push()
		r.eventually("less than the limit is held", func() bool { return r.metrics()[bufferedSeries] <= memoryLimit })
	}
	t.Logf("%v bytes were held at most, with a limit of %d", r.most, memoryLimit)
	if r.most > bound {
		t.Errorf("%v bytes were held, want %d at most", r.most, bound)
	}
	r.wantAccepted()

	// Who was closed are large ones; each that reads on sees it.
	shed, kept := 0, 0
	each(t, large, func(x *pushed) error { return x.readHolder(rounds) })
	for _, x := range large {
		switch {
		case x.closed == "":
			kept++
		case x.closed == "1013 out of memory":
			shed++
			if err := x.awaitClose(1001, "out of memory"); err != nil {
				t.Error(err)
			}
			x.client.Close()
		default:
			t.Errorf("session %d: Close %s", x.number, x.closed)
		}
	}
	t.Logf("%d of %d large holders were closed", shed, larges)
	if shed == 0 || kept == 0 {
		t.Errorf("%d large holders were closed, %d were not, want some of both", shed, kept)
	}
	r.wantShed(shed)
	// None of the small ones misses anything.
	each(t, small, func(x *pushed) error { return x.readAll(false) })
	each(t, small, (*pushed).leave)
	for _, x := range large {
		x.client.Close()
		x.backend.Close()
	}
	r.eventually("nothing is held", func() bool { return r.metrics()[bufferedSeries] == 0 && r.status().Sessions == 0 })

	// What waits for a socket is given back with the connection only: until then new
	// sessions are refused.
	stuck := r.open(40, "/backpressure")
	for _, x := range stuck {
		go func() { x.poured <- x.push(0, pushes) }()
	}
	r.settle(stuck)
	before := r.metrics()
	limitTo("64KiB")
	r.wantRefused()
	// Some hold less than others, and stay: a session holds a read and its frames at most.
	const most = 40 << 10
	least := (before[bufferedSeries] - 64<<10) / most
	r.eventually("as many are closed as it takes", func() bool { return r.metrics()[memoryShed] >= before[memoryShed]+least })
	each(t, stuck, func(x *pushed) error {
		if err := x.readAll(false); x.closed != "1013 out of memory" {
			return err
		}
		_, err := x.client.Write(closeBytes(1013, "", true))
		return errors.Join(err, x.awaitClose(1001, "out of memory"), x.client.Close())
	})
	closed := 0
	for _, x := range stuck {
		if <-x.poured; x.closed == "" {
			must(t, x.leave())
		} else {
			closed++
		}
	}
	r.eventually("nothing is held", func() bool { return r.metrics()[bufferedSeries] == 0 && r.status().Sessions == 0 })
	r.wantAccepted()
	r.grows(before, map[string]int{memoryEnds("backpressure"): closed, memoryShed: closed + 1})
}

// memoryEnds counts the sessions of a route that were closed for the memory they held.
func memoryEnds(route string) string {
	return `tidegate_session_ends_total{by="edge",cause="memory",route="` + route + `"}`
}

const (
	bufferedSeries = "tidegate_buffered_bytes"
	memoryShed     = `tidegate_shed_total{reason="memory"}`
)

// wantShed wants so many sessions closed and no handshake refused.
func (r *slowRig) wantShed(n int) {
	r.t.Helper()
	r.eventually(fmt.Sprint(n, " sessions have ended"), func() bool {
		return r.metrics()[memoryEnds("drop_oldest")] == float64(n)
	})
	if got := r.metrics()[memoryShed]; got != float64(n) {
		r.t.Errorf("%s is %v, want %d", memoryShed, got, n)
	}
}

// wantAccepted opens a session and ends it.
func (r *slowRig) wantAccepted() {
	r.t.Helper()
	c := dialRaw(r.t, r.addr("wss"), true)
	c.write([]byte(opening("/echo")))
	c.wantSwitching()
	c.write(closeBytes(1000, "", true))
	c.wantClose(1000, "*")
	c.Close()
}

// wantRefused wants a 503 that says when to come again.
func (r *slowRig) wantRefused() {
	r.t.Helper()
	c := dialRaw(r.t, r.addr("ws"), false)
	defer c.Close()
	c.write([]byte(opening("/echo")))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	must(r.t, err)
	if seconds, err := time.ParseDuration(res.Header.Get("Retry-After") + "s"); res.StatusCode != http.StatusServiceUnavailable || err != nil || seconds <= 0 {
		r.t.Errorf("got %s, Retry-After %q (%v), want a 503", res.Status, res.Header.Get("Retry-After"), err)
	}
}

// pushHolder pushes the messages of a round.
func (x *pushed) pushHolder(round int) error {
	const each = holderRound / holderMessage
	var p []byte
	for n := round * each; n < (round+1)*each; n++ {
		p = append(p, frameBytes(true, ws.OpBinary, fmt.Appendf(nil, "%0*d", holderMessage, n), false)...)
	}
	n, err := x.backend.Write(p)
	x.written.Add(int64(n))
	return err
}

// readHolder reads at the client, in order, to the last message of all rounds or to a
// Close, which it answers.
func (x *pushed) readHolder(rounds int) error {
	for last := -1; last < rounds*holderRound/holderMessage-1; {
		h, p, err := x.client.readFrame()
		if err != nil {
			return fmt.Errorf("session %d behind message %d: %w", x.number, last, err)
		}
		if h.OpCode == ws.OpClose {
			code, reason := ws.ParseCloseFrameData(p)
			x.closed = fmt.Sprint(int(code), " ", reason)
			_, err := x.client.Write(closeBytes(int(code), "", true))
			return err
		}
		n := 0
		if _, err := fmt.Sscanf(string(p), "%d", &n); err != nil || len(p) != holderMessage || n <= last {
			return fmt.Errorf("session %d behind message %d: got %d bytes, number %d (%v)", x.number, last, len(p), n, err)
		}
		last = n
	}
	return nil
}
