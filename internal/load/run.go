package load

import (
	"context"

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
		if _, err := CPUTime(o.CPUOf); err != nil {
			return nil, &OptionError{"cpu-of", err}
		}
	}
	if o.Mode == Connect {
		return r.connect(ctx)
	}
	return r.sessions(ctx)
}

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
	// openedInTime is connect mode's: connections that were open in the measured time.
	openedInTime uint64
	tls          *TLS
	firstError   error
	total        *tally

	start, from, until int64 // as [now] counts: when the load begins, and the measured time
	cpu                *CPU
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
	report := r.report(err != nil)
	if err == nil {
		err = r.nothing(report)
	}
	return report, err
}

// nothing is an error if the run has measured nothing.
func (r *run) nothing(report *Report) error {
	answered := uint64(0)
	for _, w := range r.workers {
		answered += w.answered
	}
	switch {
	case report.Messages.Received > 0 || r.o.Mode == Push && answered > 0:
	case r.o.Mode == Push:
		return errors.New("no message came: the URL must lead to 'tidegate bench serve'")
	case r.o.Mode == Echo && report.Messages.Sent == 0:
		return errors.New("no message was due in the measured time: it is too short for this rate")
	case r.o.Mode == Echo:
		return errors.New("no message came back: what the URL leads to must echo, as 'tidegate bench serve' does")
	}
	return nil
}

func (r *run) startWorkers() error {
	plan := newLayout(r.o.Mode, r.o.Size, r.o.Text)
	op := ws.OpBinary
	if r.o.Text {
		op = ws.OpText
	}
	for i := range r.o.Workers {
		w := &clientWorker{o: r.o, layout: plan, op: op, head: frameHead(op, r.o.Size, true), tally: newTally(),
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

// headStart is how long before the first message workers are told.
const headStart = 2 * time.Millisecond

// measured is how long the measured time was.
func (r *run) measured() time.Duration { return time.Duration(max(0, r.until-r.from)) }

// begin sets the times of the run.
func (r *run) begin() {
	r.start = now() + int64(headStart)
	r.from = r.start + int64(r.o.Warmup)
	r.until = r.from + int64(r.o.Duration)
}

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
	r.begin()
	start, from, until := r.start, r.from, r.until
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
	r.cpu = r.usage().since(before)
	if err == nil && r.allEnded() {
		err = errors.New("all connections were closed")
	}
	if err != nil {
		r.until = min(r.until, now()) // what was to come is not due
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

// allThrough tells whether nothing more is due on any connection that has not ended, and
// nothing is unanswered.
func (r *run) allThrough() bool {
	through := 0
	for _, w := range r.workers {
		through += int(w.pubThrough.Load() + w.pubEnded.Load())
	}
	scheduled := r.o.Rate > 0 || r.o.Ping > 0 || r.o.Mode == Push
	return (through >= r.connected || !scheduled) && (r.pending() <= 0 || r.o.Mode == Push)
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
		for _, w := range r.workers {
			w.post(func() { w.until = r.until })
		}
		if ctx.Err() == nil {
			r.pass(ctx, r.o.Grace, r.allThrough)
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
