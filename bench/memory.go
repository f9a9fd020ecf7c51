package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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
	// idleWatch is how long the CPU time of silent sessions is counted. Of those whose clients
	// ping it is a whole idlePing, once idleRhythm has passed: by then a proxy with heartbeats
	// of its own has found out about those of the clients.
	idleWatch  = 10 * time.Second
	idleRhythm = 2*idlePing + 10*time.Second
	// groupOpens bounds how long a group of sessions may take to open.
	groupOpens = 3 * time.Minute
)

// rest measures idle sessions with a proxy that is started for it. Groups of sessions are
// added until each number is reached; memory is read after a silence and compared with
// that before the first session. At the first and the last number the CPU time is counted
// too, in the first round.
func (b *bench) rest(ctx context.Context, m *measure, s *setting, round int) error {
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
	var groups groups
	err = b.grow(ctx, &groups, m, p, before, round)
	if err := errors.Join(err, groups.end()); err != nil {
		return fmt.Errorf("%s through %s: %w", m.name, s.name, err)
	}
	return nil
}

// grow opens group after group.
func (b *bench) grow(ctx context.Context, open *groups, m *measure, p *proxy, before memory, round int) error {
	sessions := 0
	for i, n := range b.o.sessions {
		last := i == len(b.o.sessions)-1
		if (m.memory.primer > 0 || m.memory.silent) && !last {
			continue // the growth is known from the others
		}
		if err := b.openGroup(ctx, open, m, p, n-sessions); err != nil {
			return err
		}
		sessions = n
		if err := sleep(ctx, b.o.longer(b.o.settle, m.memory.settle)); err != nil {
			return err
		}
		held, err := p.memory()
		if err != nil {
			return err
		}
		if err := open.check(n); err != nil {
			return err
		}
		each := func(bytes int64) float64 { return float64(bytes) / float64(n) }
		more := held.minus(before)
		x := &sample{Measure: m.name, Proxy: p.proxy, Setting: p.name, Round: round, Values: map[string]float64{
			valueSessions: float64(n), valueRSS: each(more.rss), valuePSS: each(more.pss),
			valueSockets: each(more.sockets), valueSlab: each(more.slab)}}
		if m.memory.primer == 0 && round == 0 && (i == 0 || last) {
			if x.Values[valueIdleCPU], err = b.idleCPU(ctx, m, p); err == nil {
				err = open.check(n)
			}
			if err != nil {
				return err
			}
		}
		b.keep(x)
	}
	return nil
}

// idleCPU is the share of a core, in percent, that idle sessions take.
func (b *bench) idleCPU(ctx context.Context, m *measure, p *proxy) (float64, error) {
	watch := b.o.longer(idleWatch, m.memory.watch)
	switch {
	case b.o.quick:
		watch = 3 * time.Second
	case !m.memory.silent:
		if err := sleep(ctx, idleRhythm); err != nil {
			return 0, err
		}
		watch = max(watch, idlePing)
	}
	from, err := load.CPUTime(p.worker())
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := sleep(ctx, watch); err != nil {
		return 0, err
	}
	to, err := load.CPUTime(p.worker())
	return 100 * (to - from).Seconds() / time.Since(begin).Seconds(), err
}

// unmeasured opens as many sessions as there will be, straight to the backend.
func (b *bench) unmeasured(ctx context.Context) error {
	n := b.o.sessions[len(b.o.sessions)-1]
	p := &proxy{setting: &setting{proxy: "direct", name: "direct"}, plain: b.sessions.plain, secure: b.sessions.secure}
	var groups groups
	err := b.openGroup(ctx, &groups, &measure{memory: &idle{}}, p, n)
	return errors.Join(err, groups.end())
}

// groups are sessions that stay open until their end.
type groups struct {
	all []*group
}

// group is sessions that were opened together.
type group struct {
	n      int
	open   atomic.Int64
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // once ended is closed
}

// check fails unless n sessions are open: those that a proxy drops cost it nothing.
func (g *groups) check(n int) error {
	open := int64(0)
	for _, one := range g.all {
		open += one.open.Load()
	}
	if open != int64(n) {
		return fmt.Errorf("%d of %d sessions are open", open, n)
	}
	return nil
}

// end closes all sessions. The error is that some had ended before.
func (g *groups) end() (err error) {
	for _, one := range g.all {
		one.cancel()
	}
	for _, one := range g.all {
		<-one.ended
		err = errors.Join(err, one.err)
	}
	return err
}

// longer returns the time that a measure asks for, if it does and the run is no quick one.
func (o *options) longer(usual, wanted time.Duration) time.Duration {
	if o.quick {
		return usual
	}
	return max(usual, wanted)
}

// openGroup opens n more sessions, which stay until the groups' end.
func (b *bench) openGroup(ctx context.Context, all *groups, m *measure, p *proxy, n int) error {
	run, cancel := context.WithCancel(ctx)
	g := &group{n: n, cancel: cancel, ended: make(chan struct{})}
	all.all = append(all.all, g)
	opened := make(chan struct{})
	o := load.Options{URL: p.url(m.secure), TLS: b.tls(), Mode: load.Idle, Connections: n, Size: m.memory.primer,
		Ping: idlePing, Duration: time.Hour, Timeout: time.Minute}
	if m.memory.primer > 0 || m.memory.silent {
		o.Ping = 0
	}
	var once sync.Once
	o.Progress = func(pr load.Progress) {
		if pr.Phase != load.Finishing {
			g.open.Store(int64(pr.Open))
		}
		// The answers to the primers are in.
		if pr.Phase == load.Measuring && pr.Open == n && (m.memory.primer == 0 || pr.Received >= uint64(n)) {
			once.Do(func() { close(opened) })
		}
	}
	go func() {
		defer close(g.ended)
		r, err := load.Run(run, o)
		switch {
		case r == nil:
			g.err = err
		case r.Handshakes.Failed > 0 || len(r.Errors) > 0 || r.Closes[1000] != uint64(n):
			g.err = fmt.Errorf("of %d sessions %d were not opened, closes %v, errors %v", n, r.Handshakes.Failed, r.Closes, r.Errors)
		}
	}()
	select {
	case <-opened:
		return nil
	case <-g.ended:
		return errors.New("the sessions have ended")
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
