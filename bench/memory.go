package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// idle is a measure of sessions that do nothing.
type idle struct {
	primer int // each session first sends one message of this size, which comes back
	// silent clients send nothing at all; only the last number of sessions is measured.
	silent bool
	// settle is how long to wait before anything is read, and watch how long CPU time is
	// counted; 0 is what the options say.
	settle, watch time.Duration
}

const (
	// idlePing is how often an idle client pings, as browsers' libraries do.
	idlePing = 30 * time.Second
	// idleWatch is how long the CPU time of idle sessions is counted, in ticks of a hundredth
	// of a second. At the last number it is a whole idlePing, once idleRhythm has passed: by
	// then a proxy with heartbeats of its own has found out about those of the clients.
	idleWatch  = 10 * time.Second
	idleRhythm = 2*idlePing + 10*time.Second
	// groupOpens bounds how long a group of sessions may take to open.
	groupOpens = 3 * time.Minute
)

// rest measures idle sessions with a proxy that is started for it. Groups of sessions are
// added until each number is reached; memory is read after a silence and compared with
// that before the first session. At the last number the CPU time is counted too, with
// clients that ping.
func (b *bench) rest(ctx context.Context, m *measure, s *setting) error {
	p, err := b.startProxy(ctx, s, b.sessions)
	if err != nil {
		return err
	}
	defer p.end()
	if err := sleep(ctx, b.o.settle); err != nil {
		return err
	}
	before, err := p.memory()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var groups sync.WaitGroup
	defer groups.Wait()
	defer stop()
	open := 0
	for _, n := range b.o.sessions {
		if (m.memory.primer > 0 || m.memory.silent) && n != b.o.sessions[len(b.o.sessions)-1] {
			continue // the growth is known from the others
		}
		if err := b.openGroup(ctx, &groups, m, p, n-open); err != nil {
			return fmt.Errorf("%s through %s: %w", m.name, s.name, err)
		}
		open = n
		if err := sleep(ctx, b.o.longer(b.o.settle, m.memory.settle)); err != nil {
			return err
		}
		held, err := p.memory()
		if err != nil {
			return err
		}
		if err := b.keepIdle(ctx, m, p, n, held.minus(before)); err != nil {
			return err
		}
	}
	return nil
}

// longer returns the time that a measure asks for, if it does and the run is no quick one.
func (o *options) longer(usual, wanted time.Duration) time.Duration {
	if o.quick {
		return usual
	}
	return max(usual, wanted)
}

// keepIdle keeps what n sessions hold, and what they use.
func (b *bench) keepIdle(ctx context.Context, m *measure, p *proxy, n int, held memory) error {
	each := func(bytes int64) float64 { return float64(bytes) / float64(n) }
	sample := &sample{Measure: m.name, Proxy: p.proxy, Setting: p.name, Values: map[string]float64{
		valueSessions: float64(n), valueRSS: each(held.rss), valuePSS: each(held.pss),
		valueSockets: each(held.sockets), valueSlab: each(held.slab)}}
	if m.memory.primer == 0 {
		watch := b.o.longer(idleWatch, m.memory.watch)
		switch last := n == b.o.sessions[len(b.o.sessions)-1]; {
		case b.o.quick:
			watch = 3 * time.Second
		case last && !m.memory.silent:
			if err := sleep(ctx, idleRhythm); err != nil {
				return err
			}
			watch = max(watch, idlePing)
		}
		from, err := load.CPUTime(p.worker())
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := sleep(ctx, watch); err != nil {
			return err
		}
		to, err := load.CPUTime(p.worker())
		if err != nil {
			return err
		}
		sample.Values[valueIdleCPU] = 100 * (to - from).Seconds() / time.Since(begin).Seconds()
	}
	b.keep(sample)
	return nil
}

// openGroup opens n more sessions, which stay until ctx is done.
func (b *bench) openGroup(ctx context.Context, groups *sync.WaitGroup, m *measure, p *proxy, n int) error {
	opened, failed := make(chan struct{}), make(chan error, 1)
	o := load.Options{URL: p.url(m.secure), TLS: b.tls(), Mode: load.Idle, Connections: n, Size: m.memory.primer,
		Ping: idlePing, Duration: time.Hour, Timeout: time.Minute}
	if m.memory.primer > 0 || m.memory.silent {
		o.Ping = 0
	}
	var once sync.Once
	o.Progress = func(pr load.Progress) {
		// The answers to the primers are in.
		if pr.Phase == load.Measuring && pr.Open == n && (m.memory.primer == 0 || pr.Received >= uint64(n)) {
			once.Do(func() { close(opened) })
		}
	}
	groups.Go(func() {
		r, err := load.Run(ctx, o)
		if r != nil && (r.Handshakes.Failed > 0 || len(r.Errors) > 0) {
			err = fmt.Errorf("%d of %d sessions failed: %v", r.Handshakes.Failed, n, r.Errors)
		}
		failed <- err
	})
	select {
	case <-opened:
		return nil
	case err := <-failed:
		return err
	case <-time.After(groupOpens):
		return fmt.Errorf("%d sessions are not open after %s", n, groupOpens)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
