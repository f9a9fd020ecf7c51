package main

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// requests is a load of plain HTTP/1.1 requests. Each connection stays, and carries the
// next request when the answer to the last one is in.
type requests struct {
	size int // bytes of an answer
	post int // bytes of the body of a request; 0: a GET
}

// answered is what came back.
type answered struct {
	answers   uint64        // in the measured time
	perSecond float64       //
	cpu       time.Duration // of the proxy in the measured time
	tls       *load.TLS     // of the first connection; nil: none
	// faults are connections that ended before their time, by reason. Nothing of theirs
	// counts from then on.
	faults map[string]int
}

// requestGrace is how long an answer may take.
const requestGrace = 5 * time.Second

// requester is one connection. One goroutine owns it; count is read by others.
type requester struct {
	conn    net.Conn
	request []byte
	size    int
	count   atomic.Uint64
	_       [64]byte // a cache line of its own for the next one's count
}

// run opens the connections, applies the load for the warm-up and the duration, and closes
// them. cpu tells what the proxy has used so far. The error is that nothing could be measured.
func (q *requests) run(ctx context.Context, addr string, config *cryptotls.Config, o *options, cpu func() (time.Duration, error)) (*answered, error) {
	// Both ends wait in the runtime's poller: a second processor on one core only switches.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := &answered{faults: map[string]int{}}
	var all []*requester
	defer func() {
		for _, c := range all {
			c.conn.Close()
		}
	}()
	for range requestConnections {
		conn, err := q.dial(ctx, addr, config)
		if err != nil {
			return nil, err
		}
		all = append(all, &requester{conn: conn, request: q.request(addr), size: q.size})
		r.tls = keepTLS(r.tls, conn)
	}
	ended := make(chan error, len(all))
	var stop atomic.Bool
	var running sync.WaitGroup
	for _, c := range all {
		c.conn.SetDeadline(time.Now().Add(o.warmup + o.duration + requestGrace))
		running.Go(func() { ended <- c.work(&stop) })
	}
	err := r.measure(ctx, all, o, cpu)
	stop.Store(true)
	running.Wait()
	close(ended)
	for err := range ended {
		if err != nil {
			r.faults[reason(err)]++
		}
	}
	return r, err
}

// measure counts what comes back after the warm-up.
func (r *answered) measure(ctx context.Context, all []*requester, o *options, cpu func() (time.Duration, error)) error {
	if err := sleep(ctx, o.warmup); err != nil {
		return err
	}
	used, err := cpu()
	if err != nil {
		return err
	}
	began, before := time.Now(), sum(all)
	if err := sleep(ctx, o.duration); err != nil {
		return err
	}
	now, err := cpu()
	if err != nil {
		return err
	}
	r.cpu, r.answers = now-used, sum(all)-before
	r.perSecond = float64(r.answers) / time.Since(began).Seconds()
	return nil
}

func sum(all []*requester) (n uint64) {
	for _, c := range all {
		n += c.count.Load()
	}
	return n
}

func (q *requests) dial(ctx context.Context, addr string, config *cryptotls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, requestGrace)
	defer cancel()
	if config != nil {
		return (&cryptotls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

// request has the headers that every browser sends. Without Accept-Encoding some proxies
// would ask the backend for gzip.
func (q *requests) request(addr string) []byte {
	method, body := "GET", ""
	if q.post > 0 {
		method, body = "POST", fmt.Sprintf("Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", q.post)
	}
	head := fmt.Sprintf("%s /%d HTTP/1.1\r\nHost: %s\r\nUser-Agent: tidegate-bench\r\nAccept: */*\r\nAccept-Language: en\r\n"+
		"Accept-Encoding: gzip, deflate, br\r\n%s\r\n", method, q.size, addr, body)
	return append([]byte(head), content[:q.post]...)
}

// work sends requests, one at least, until stop. The error is why it ended earlier.
func (c *requester) work(stop *atomic.Bool) error {
	r := &headReader{conn: c.conn, buf: make([]byte, maxHead+maxAnswer)}
	for {
		if _, err := c.conn.Write(c.request); err != nil {
			return err
		}
		if err := c.answer(r); err != nil {
			return err
		}
		c.count.Add(1)
		if stop.Load() {
			return nil
		}
	}
}

// answer reads an answer and checks it whole.
func (c *requester) answer(r *headReader) error {
	head, err := r.next()
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		line, _, _ := bytes.Cut(head, []byte("\r\n"))
		return fmt.Errorf("%s", line)
	}
	if n := length(head); n != c.size {
		return fmt.Errorf("the answer's length is %d, not %d", n, c.size)
	}
	body, err := r.body(c.size)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, content[:c.size]) {
		return errors.New("the answer has other content")
	}
	if r.begin != r.end {
		return errors.New("more came than the answer")
	}
	return nil
}

// reason is an error without the addresses in it.
func reason(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer in time"
	}
	if errors.Is(err, io.EOF) {
		return "closed by the proxy"
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number.Error()
	}
	return err.Error()
}

// keepTLS is what the first connection negotiated, and how many have resumed a session.
func keepTLS(t *load.TLS, conn net.Conn) *load.TLS {
	c, ok := conn.(*cryptotls.Conn)
	if !ok {
		return nil
	}
	state := c.ConnectionState()
	if t == nil {
		t = &load.TLS{Version: cryptotls.VersionName(state.Version), CipherSuite: cryptotls.CipherSuiteName(state.CipherSuite),
			Curve: state.CurveID.String()}
	}
	if state.DidResume {
		t.Resumed++
	}
	return t
}

// problem says why the figures are not to be trusted.
func (r *answered) problem(m *measure) string {
	var all []string
	for fault, n := range r.faults {
		all = append(all, fmt.Sprintf("%d × %s", n, fault))
	}
	slices.Sort(all)
	if s := tlsProblem(m, r.tls); s != "" {
		all = append(all, s)
	}
	return strings.Join(all, "; ")
}
