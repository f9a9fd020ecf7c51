package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gobwas/ws"
)

// Run opens the connections, applies the load, closes them and reports. Connections and
// messages that fail are in the report. The error is an *OptionError, or says why there
// is nothing to report, or is that of ctx: then what was measured until then is in the
// report, which is nil if that is nothing.
func Run(ctx context.Context, o Options) (*Report, error) {
	o, u, err := o.normal()
	if err != nil {
		return nil, err
	}
	d, err := newDialer(ctx, &o, u)
	if err != nil {
		return nil, err
	}
	r := &run{o: &o, dialer: d, started: time.Now(), total: newTally(), handshakes: newHistogram()}
	if o.CPUOf != 0 {
		if _, err := cpuTime(o.CPUOf); err != nil {
			return nil, &OptionError{"cpu-of", err}
		}
	}
	if o.Mode == Connect {
		return r.connect(ctx)
	}
	return r.sessions(ctx)
}

// maxDials bounds the handshakes in progress while a run opens its connections.
const maxDials = 64

// run is one run. Its mutex guards what dialling goroutines share.
type run struct {
	o       *Options
	dialer  *dialer
	started time.Time
	workers []*clientWorker
	serving sync.WaitGroup
	broken  atomic.Pointer[failure] // of a worker

	phase     Phase
	phaseFrom time.Time
	phaseOf   time.Duration

	mu         sync.Mutex
	handshakes *hdrhistogram.Histogram // ns
	attempted  int
	connected  int
	failed     int
	dialling   time.Duration // from the first dial to the last
	tls        *TLS
	firstError error
	total      *tally

	measured time.Duration
	cpu      *CPU
}

// enter begins a phase that lasts of, or 0 if that is not known.
func (r *run) enter(p Phase, of time.Duration) {
	r.phase, r.phaseFrom, r.phaseOf = p, time.Now(), of
	r.progress()
}

func (r *run) progress() {
	if r.o.Progress == nil {
		return
	}
	p := Progress{Phase: r.phase, Elapsed: time.Since(r.phaseFrom), Of: r.phaseOf}
	r.mu.Lock()
	p.Connected, p.Failed = r.connected, r.failed
	r.mu.Unlock()
	for _, w := range r.workers {
		p.Open += int(w.pubOpen.Load())
		p.Failed += int(w.pubFailed.Load())
		p.Sent += w.pubSent.Load()
		p.Received += w.pubAnswered.Load()
	}
	r.o.Progress(p)
}

// pass waits until done returns true (asked every few milliseconds; nil is never), for
// at most d, or until ctx is done, and shows progress meanwhile.
func (r *run) pass(ctx context.Context, d time.Duration, done func() bool) error {
	end := time.NewTimer(d)
	defer end.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	var ask <-chan time.Time
	if done != nil {
		often := time.NewTicker(10 * time.Millisecond)
		defer often.Stop()
		ask = often.C
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-second.C:
			r.progress()
		case <-ask:
			if done() {
				return nil
			}
		}
		if f := r.broken.Load(); f != nil {
			return f
		}
	}
}

// sessions is a run of all modes but connect.
func (r *run) sessions(ctx context.Context) (*Report, error) {
	if err := r.startWorkers(); err != nil {
		return nil, err
	}
	err := r.open(ctx)
	if err == nil && r.connected == 0 {
		err = fmt.Errorf("no connection could be opened: %w", r.firstError)
	}
	if err == nil {
		err = r.load(ctx)
	}
	r.finish(ctx)
	if r.phase == Connecting || r.broken.Load() != nil {
		return nil, err
	}
	return r.report(err != nil), err
}

func (r *run) startWorkers() error {
	plan := newLayout(r.o.Mode, r.o.Size, r.o.Text)
	op := ws.OpBinary
	if r.o.Text {
		op = ws.OpText
	}
	for i := range r.o.Workers {
		w := &clientWorker{o: r.o, layout: plan, head: frameHead(op, r.o.Size, true), tally: newTally(),
			random: rand.NewPCG(rand.Uint64(), uint64(i)), scratch: make([]byte, 0, 2*batch)}
		w.worker = &worker{links: map[*link]struct{}{}, turned: w.publish}
		var err error
		if w.engine, err = newEngine(w.worker, r.o.goroutines); err != nil {
			r.stopWorkers()
			return err
		}
		r.workers = append(r.workers, w)
		r.serving.Go(func() {
			if err := w.run(); err != nil {
				r.broken.Store(&failure{"worker", err})
			}
		})
	}
	return nil
}

func (r *run) stopWorkers() {
	for _, w := range r.workers {
		w.post(func() { w.quit = true })
	}
	r.serving.Wait()
}

// open opens the connections, several at a time.
func (r *run) open(ctx context.Context) error {
	r.enter(Connecting, 0)
	ctx, cancel := context.WithCancel(ctx)
	var dials sync.WaitGroup
	defer dials.Wait()
	defer cancel()
	var next atomic.Int64
	done := make(chan struct{})
	begin := time.Now()
	dialers := min(maxDials, r.o.Connections)
	left := atomic.Int64{}
	left.Store(int64(dialers))
	for range dialers {
		dials.Go(func() {
			defer func() {
				if left.Add(-1) == 0 {
					r.mu.Lock()
					r.dialling = time.Since(begin)
					r.mu.Unlock()
					close(done)
				}
			}()
			for i := int(next.Add(1) - 1); i < r.o.Connections && ctx.Err() == nil; i = int(next.Add(1) - 1) {
				r.openOne(ctx, i)
			}
		})
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-done:
			return ctx.Err()
		case <-ctx.Done():
			return ctx.Err()
		case <-second.C:
			r.progress()
		}
		if f := r.broken.Load(); f != nil {
			return f
		}
	}
}

func (r *run) openOne(ctx context.Context, i int) {
	begin := now()
	e, err := r.dialer.dial(ctx, i)
	took := now() - begin
	if err == nil {
		w := r.workers[i%len(r.workers)]
		c := &client{w: w, index: i}
		tlsState := tlsOf(e)
		if err = w.adopt(c, e, func(l *link) { c.link = l }); err == nil {
			r.opened(took, tlsState)
			return
		}
		err = &failure{"adopt", err}
	}
	if ctx.Err() == nil {
		r.notOpened(err)
	}
}

func (r *run) opened(took int64, t *TLS) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempted++
	r.connected++
	record(r.handshakes, took)
	if t != nil {
		if r.tls == nil {
			r.tls = t
		} else if t.Resumed > 0 {
			r.tls.Resumed++
		}
	}
}

func (r *run) notOpened(err error) {
	kind := "connection"
	if f, ok := errors.AsType[*failure](err); ok {
		kind = f.kind
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempted++
	r.failed++
	r.total.faults.add(kind, err)
	if r.firstError == nil {
		r.firstError = err
	}
}

// tlsOf is what a connection has negotiated; nil without TLS.
func tlsOf(e *established) *TLS {
	c, ok := e.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := c.ConnectionState()
	t := &TLS{Version: tls.VersionName(state.Version), CipherSuite: tls.CipherSuiteName(state.CipherSuite),
		Curve: state.CurveID.String()}
	if state.DidResume {
		t.Resumed = 1
	}
	return t
}

// headStart is how long before the first message workers are told.
const headStart = 2 * time.Millisecond

// load applies the load and waits for the last answers.
func (r *run) load(ctx context.Context) error {
	// All workers have taken over their connections before the clock starts.
	var ready sync.WaitGroup
	for _, w := range r.workers {
		ready.Add(1)
		if !w.post(ready.Done) {
			ready.Done()
		}
	}
	ready.Wait()
	start := now() + int64(headStart)
	from := start + int64(r.o.Warmup)
	until := from + int64(r.o.Duration)
	for _, w := range r.workers {
		w.post(func() {
			w.begun, w.from, w.until = true, from, until
			for _, c := range w.clients {
				if !c.down {
					c.start(start)
					w.check(c.link)
				}
			}
		})
	}
	if r.o.Warmup > 0 {
		r.enter(Warming, r.o.Warmup)
		if err := r.pass(ctx, time.Duration(from-now()), nil); err != nil {
			return err
		}
	}
	before := r.usage()
	r.enter(Measuring, r.o.Duration)
	err := r.pass(ctx, time.Duration(until-now()), r.allEnded)
	r.measured = min(time.Since(before.at), r.o.Duration)
	r.cpu = r.usage().since(before)
	if err == nil && r.allEnded() {
		err = errors.New("all connections were closed")
	}
	return err
}

// allEnded tells whether every connection that was opened has ended.
func (r *run) allEnded() bool {
	ended := 0
	for _, w := range r.workers {
		ended += int(w.pubEnded.Load())
	}
	return ended >= r.connected
}

// allPast tells whether every connection of push mode has ended or has seen the end of
// the measured time.
func (r *run) allPast() bool {
	past := 0
	for _, w := range r.workers {
		past += int(w.pubPast.Load() + w.pubEnded.Load())
	}
	return past >= r.connected
}

func (r *run) pending() (n int64) {
	for _, w := range r.workers {
		n += int64(w.pubSent.Load()) - int64(w.pubAnswered.Load()) - int64(w.pubAbandoned.Load())
	}
	return n
}

// finish waits for answers, closes the connections and collects the tallies.
func (r *run) finish(ctx context.Context) {
	if r.phase != Connecting && r.broken.Load() == nil {
		r.enter(Finishing, 0)
		end := int64(0)
		if ctx.Err() != nil {
			end = now() // what was to come is not sent
		}
		for _, w := range r.workers {
			w.post(func() {
				if end != 0 {
					w.until = min(w.until, end)
				}
			})
		}
		if ctx.Err() == nil {
			done := func() bool { return r.pending() <= 0 }
			if r.o.Mode == Push {
				done = r.allPast
			}
			r.pass(ctx, r.o.Grace, done)
		}
		for _, w := range r.workers {
			w.post(func() {
				for _, c := range w.clients {
					c.shut()
				}
			})
		}
		// An interrupted run closes politely too, so ctx does not matter here.
		r.pass(context.WithoutCancel(ctx), r.o.Grace, r.allEnded)
	}
	r.stopWorkers()
	for _, w := range r.workers {
		r.total.merge(w.tally)
	}
}
