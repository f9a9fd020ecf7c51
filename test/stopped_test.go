package test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/internal/load"
)

const stoppedConfig = `
ADMIN
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: ws, address: "127.0.0.1:0", tcp: {receive_buffer: 32KiB, send_buffer: 32KiB}}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}, tcp: {receive_buffer: 32KiB, send_buffer: 32KiB}}
routes:
  - {name: stopped, match: {path: /stopped}, pool: stopped, websocket: {max_buffered: %d, write_timeout: 10m}}
  - {name: echo, match: {path: /echo}, pool: echo}
pools:
  - {name: stopped, backends: [{address: %q}]}
  - {name: echo, backends: [{address: %q}]}
`

// transfer is one direction of a session: what is sent to an end that does not read.
type transfer struct {
	client, backend *rawEnd
	upstream        bool
	frames          [][]byte
	first           int // of the frames: no two neighbours say the same
	written         atomic.Int64
	poured          chan error
	read            int // frames that the reader has read
}

// frame is what comes at place k.
func (x *transfer) frame(k int) []byte { return x.frames[(x.first+k)%len(x.frames)] }

// pour sends everything, as fast as the edge takes it.
func (x *transfer) pour() {
	from := pickOf(x.upstream, x.backend, x.client)
	for k := range x.frames {
		n, err := from.Write(x.frame(k))
		x.written.Add(int64(n))
		if err != nil {
			x.poured <- err
			return
		}
	}
	x.poured <- nil
}

// next reads one frame.
func (x *transfer) next() error {
	if err := pickOf(x.upstream, x.client, x.backend).match(x.frame(x.read)); err != nil {
		return fmt.Errorf("frame %d: %w", x.read, err)
	}
	x.read++
	return nil
}

// rest reads what is left.
func (x *transfer) rest() error {
	for x.read < len(x.frames) {
		if err := x.next(); err != nil {
			return err
		}
	}
	return <-x.poured
}

// stoppedRig is an edge with many sessions of which one end sends and the other does not
// read: in turn the client and the backend, on ws and on wss.
type stoppedRig struct {
	*rawEdge
	yaml      string
	transfers []*transfer
}

// stoppedFrames of 16 KiB each are more than the edge and the kernel hold of one
// direction, some 250 KiB with the buffers of this test.
const stoppedFrames = 48

func newStoppedRig(t *testing.T, sessions, maxBuffered int) *stoppedRig {
	t.Helper()
	ln, err := (&net.ListenConfig{Control: smallBuffers}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	backend := &rawBackend{ln}
	yaml := fmt.Sprintf(stoppedConfig, maxBuffered, backend.addr(), newApp(t, "echo").addr)
	r := &stoppedRig{rawEdge: &rawEdge{edge: start(t, yaml)}, yaml: yaml}
	addrs := []string{r.addr("ws"), r.addr("wss")}
	var up, down [][]byte
	for range stoppedFrames {
		p := noise(16 << 10)
		up, down = append(up, frameBytes(true, ws.OpBinary, p, true)), append(down, frameBytes(true, ws.OpBinary, p, false))
	}
	for i := range sessions {
		secure, upstream := i%2 == 1, i%4 > 1
		conn, err := (&net.Dialer{Control: smallBuffers}).Dial("tcp", addrs[i%2])
		must(t, err)
		if secure {
			conn = tls.Client(conn, insecure())
		}
		x := &transfer{client: newRawEnd(t, conn, true), upstream: upstream, frames: pickOf(upstream, down, up), first: i, poured: make(chan error, 1)}
		x.client.write([]byte(opening("/stopped")))
		x.backend = backend.accept(t)
		x.backend.write([]byte(x.backend.switching()))
		x.client.wantSwitching()
		for _, end := range []*rawEnd{x.client, x.backend} {
			end.SetDeadline(time.Now().Add(5 * time.Minute))
		}
		r.transfers = append(r.transfers, x)
	}
	return r
}

// smallBuffers bounds what the kernel holds for a socket of ours, and with segments as
// they are on Ethernet, of which it plans for ten, what it holds for the edge's.
func smallBuffers(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 32<<10),
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 32<<10),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400))
	}), err)
}

// stall has all senders send until the edge takes no more.
func (r *stoppedRig) stall() {
	r.t.Helper()
	for _, x := range r.transfers {
		go x.pour()
	}
	last, since := int64(0), time.Now()
	r.eventually("nothing moves", func() bool {
		n := int64(0)
		for _, x := range r.transfers {
			n += x.written.Load()
		}
		if n != last {
			last, since = n, time.Now()
		}
		return last > 0 && time.Since(since) > 300*time.Millisecond
	})
	most := int64(0)
	for i, x := range r.transfers {
		most = max(most, x.written.Load())
		if len(x.poured) > 0 {
			r.t.Fatalf("session %d: %d KiB went into the edge with nobody reading them (%v)", i, x.written.Load()>>10, <-x.poured)
		}
	}
	r.t.Logf("%d sessions took %d KiB each, at most %d", len(r.transfers), last/int64(len(r.transfers))>>10, most>>10)
}

// drain reads everything, wants all that was sent, and ends the sessions in order.
func (r *stoppedRig) drain() {
	r.t.Helper()
	var reads []func() error
	for _, x := range r.transfers {
		reads = append(reads, x.rest)
	}
	atOnce(r.t, reads...)
	for _, x := range r.transfers {
		r.finish(r.t, x.client, x.backend)
	}
	r.eventually("no session is left", func() bool { return r.status().Sessions == 0 })
}

// TestStoppedReaders: what the edge holds for ends that do not read is bounded by
// max_buffered, it does nothing for them, and nothing is lost when they read again.
func TestStoppedReaders(t *testing.T) {
	const sessions = 300
	for _, tt := range []struct {
		maxBuffered int
		// What a session may cost in bytes, of which one direction is in use. Live is
		// max_buffered and, under TLS, a record that is not whole yet; of the default a
		// loop needs a read only, 34 KiB in a buffer of 64. Resident is what the collector
		// makes of it, who lets the heap double first, and never more than the default.
		live, resident int64
	}{
		{16 << 10, 32 << 10, 64 << 10},
		{256 << 10, 96 << 10, 256 << 10},
	} {
		t.Run(fmt.Sprintf("%d KiB", tt.maxBuffered>>10), func(t *testing.T) {
			r := newStoppedRig(t, sessions, tt.maxBuffered)
			idle := r.footprint()
			r.stall()
			held := r.footprint()
			live, resident := (held.heap-idle.heap)/sessions, (held.rss-idle.rss)/sessions
			t.Logf("a session has %d KiB of the live heap, %d KiB resident", live>>10, resident>>10)
			if live > tt.live {
				t.Errorf("the live heap has grown from %d to %d KiB, %d KiB a session, want %d at most", idle.heap>>10, held.heap>>10, live>>10, tt.live>>10)
			}
			if !raceEnabled && resident > tt.resident {
				t.Errorf("resident memory has grown from %d to %d KiB, %d KiB a session, want %d at most", idle.rss>>10, held.rss>>10, resident>>10, tt.resident>>10)
			}
			if held.goroutines > idle.goroutines+4 {
				t.Errorf("%d goroutines were there, now %d are", idle.goroutines, held.goroutines)
			}
			// A loop that looks again and again at those it cannot serve takes all of a CPU.
			before := r.cpu()
			<-time.After(time.Second)
			if used := r.cpu() - before; used > 100*time.Millisecond {
				t.Errorf("with nothing to do the edge used %v of CPU time in a second", used)
			}
			r.drain()
		})
	}
}

// TestStoppedReadersNeighbours: sessions are as quick beside those that have stopped
// reading, or read little now and then, as on an edge that has none.
//
// Windows of the same load go to the one edge and the other in turn, so that what else
// the machine does meets both. Of each window there is the p99, of the p99s the median:
// a machine that stands still spoils a window, a loop that does not get round to its
// sessions spoils all of them. The floor is for a machine on which the other edge's is so
// small that the ratio says nothing; a loop that waits for a reader is far beyond it.
func TestStoppedReadersNeighbours(t *testing.T) {
	const sessions, windows, ratio, floor = 400, 5, 4, 20 * time.Millisecond
	r := newStoppedRig(t, sessions, 256<<10)
	edges := [2]*edge{r.edge, start(t, r.yaml)}
	r.stall()
	stop := make(chan struct{})
	var slow sync.WaitGroup
	for _, x := range r.transfers[:sessions/4] {
		slow.Go(func() { x.trickle(t, stop) })
	}
	var p99, cpu [2][]time.Duration
	for i := range 2 * windows {
		e := edges[i%2]
		w := e.window(pickOf(i%4 < 2, "wss://"+e.addr("wss"), "ws://"+e.addr("ws")) + "/echo")
		p99[i%2] = append(p99[i%2], time.Duration(w.Latency.P99*1e9))
		cpu[i%2] = append(cpu[i%2], time.Duration(w.CPU.PerMessage*1e9))
	}
	close(stop)
	slow.Wait()
	t.Logf("p99 beside them %v, without %v", p99[0], p99[1])
	t.Logf("CPU time of a message beside them %v, without %v", cpu[0], cpu[1])
	if beside, without := median(p99[0]), median(p99[1]); beside > max(ratio*without, floor) {
		t.Errorf("p99 is %v beside sessions that do not read, %v without", beside, without)
	}
	if beside, without := median(cpu[0]), median(cpu[1]); beside > ratio*without {
		t.Errorf("a message costs %v of CPU time beside sessions that do not read, %v without", beside, without)
	}
	r.drain()
}

// trickle reads a frame now and then.
func (x *transfer) trickle(t *testing.T, stop <-chan struct{}) {
	for x.read < len(x.frames) {
		if err := x.next(); err != nil {
			t.Error(err)
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// window is half a second of quick sessions.
func (e *edge) window(url string) (w load.Report) {
	e.t.Helper()
	code, out, errs := tidegate(e.t, nil, "bench", url, "--insecure", "--connections", "32", "--rate", "2000",
		"--warmup", "200ms", "--duration", "500ms", "--cpu-of", strconv.Itoa(e.cmd.Process.Pid), "--json")
	if code != 0 {
		e.t.Fatalf("bench: exit code %d: %s", code, errs)
	}
	must(e.t, json.Unmarshal([]byte(out), &w))
	if m := w.Messages; m.Lost+m.Doubled+m.Reordered+m.Misdelivered+m.Unexpected > 0 || m.Received == 0 || len(w.Errors) > 0 {
		e.t.Errorf("beside them: %+v, %v", m, w.Errors)
	}
	return w
}

func median(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// cpu is the CPU time that the process has used.
func (e *edge) cpu() time.Duration {
	e.t.Helper()
	used, err := load.CPUTime(e.cmd.Process.Pid)
	must(e.t, err)
	return used
}
