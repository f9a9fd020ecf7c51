package load

import (
	"context"
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// connect is a run of connect mode: goroutines that open a connection, close it with
// 1000, wait for the end of the stream, and begin again.
func (r *run) connect(ctx context.Context) (*Report, error) {
	c := &connecting{r: r, start: now() + int64(headStart)}
	c.from = c.start + int64(r.o.Warmup)
	c.until = c.from + int64(r.o.Duration)
	working, stop := context.WithCancel(ctx)
	defer stop()
	var connectors sync.WaitGroup
	tickets := c.tickets(working, &connectors)
	for range r.o.Connections {
		connectors.Go(func() { c.work(working, tickets) })
	}
	err := c.measure(ctx)
	r.enter(Finishing, 0)
	defer time.AfterFunc(r.o.Grace, stop).Stop()
	connectors.Wait()
	if err == nil && r.connected == 0 && r.firstError != nil {
		return nil, r.firstError
	}
	return r.report(err != nil), err
}

// connecting is what the goroutines of connect mode share.
type connecting struct {
	r                  *run
	start, from, until int64
	index              atomic.Int64
	completed          atomic.Uint64
}

func (c *connecting) measure(ctx context.Context) error {
	r := c.r
	if r.o.Warmup > 0 {
		r.enter(Warming, r.o.Warmup)
		if err := r.pass(ctx, time.Duration(c.from-now()), nil); err != nil {
			return err
		}
	}
	before := r.usage()
	before.received = c.completed.Load()
	r.enter(Measuring, r.o.Duration)
	err := r.pass(ctx, time.Duration(c.until-now()), nil)
	after := r.usage()
	after.received = c.completed.Load()
	r.measured, r.dialling = min(time.Since(before.at), r.o.Duration), min(time.Since(before.at), r.o.Duration)
	r.cpu = after.since(before)
	return err
}

// tickets are the due times of connections at a fixed rate; without a rate there are
// none. A connection whose time has come waits for a free connector, and its latency
// counts from its time.
func (c *connecting) tickets(ctx context.Context, goroutines *sync.WaitGroup) <-chan int64 {
	if c.r.o.Rate == 0 {
		return nil
	}
	due := make(chan int64)
	plan := newSchedule(c.start, c.r.o.Rate, 0, 1)
	goroutines.Go(func() {
		defer close(due)
		sleep := newSleeper()
		defer sleep.stop()
		for k := uint64(0); plan.at(k) < c.until; k++ {
			if !sleep.until(ctx, plan.at(k)) {
				return
			}
			select {
			case due <- plan.at(k):
			case <-ctx.Done():
				return
			}
		}
	})
	return due
}

func (c *connecting) work(ctx context.Context, tickets <-chan int64) {
	t := &tally{closes: map[int]uint64{}, faults: faults{}}
	one := &connector{c: c, tally: t}
	for {
		due, ok := now(), true
		if tickets != nil {
			due, ok = <-tickets
		}
		if !ok || due >= c.until || ctx.Err() != nil {
			break
		}
		one.connect(ctx, due)
	}
	c.r.mu.Lock()
	c.r.total.merge(t)
	c.r.mu.Unlock()
}

// connector is one goroutine of connect mode. As a frameSink it waits for a Close.
type connector struct {
	c     *connecting
	tally *tally
	code  int
	in    frameReader
	buf   [1024]byte
}

func (o *connector) connect(ctx context.Context, due int64) {
	r := o.c.r
	begin := now()
	e, err := r.dialer.dial(ctx, int(o.c.index.Add(1)-1))
	took := now() - due
	measured := due >= o.c.from && due < o.c.until
	if err != nil {
		if ctx.Err() == nil {
			r.notOpened(err)
		}
		return
	}
	if measured {
		if late := begin - due; late > tolerance {
			o.tally.late++
			o.tally.worstLate = max(o.tally.worstLate, late)
		}
		r.opened(took, tlsOf(e))
	}
	err = o.leave(ctx, e)
	if o.code == 0 {
		o.code = int(ws.StatusAbnormalClosure)
		if kind := openKind(err); kind != "" {
			o.tally.faults.add(kind, err)
		}
	}
	if measured {
		o.tally.closes[o.code]++
	}
	o.c.completed.Add(1)
}

// leave closes a connection and reads to the end of its stream.
func (o *connector) leave(ctx context.Context, e *established) error {
	defer e.tcp.Conn.Close()
	unhook := context.AfterFunc(ctx, func() { e.tcp.Conn.SetDeadline(time.Unix(1, 0)) })
	defer unhook()
	e.tcp.SetDeadline(time.Now().Add(o.c.r.o.Timeout))
	o.code, o.in = 0, frameReader{}
	mask := ws.NewMask()
	b := appendControl(nil, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""), &mask)
	if _, err := e.conn.Write(b); err != nil {
		return err
	}
	if err := o.in.feed(e.first, o); err != nil {
		return err
	}
	for {
		n, err := e.conn.Read(o.buf[:])
		if wrong := o.in.feed(o.buf[:n], o); wrong != nil {
			return wrong
		}
		if err != nil {
			if c, ok := e.conn.(*tls.Conn); ok {
				c.CloseWrite()
			}
			return err
		}
	}
}

func (o *connector) frameBegins(ws.Header) {}
func (o *connector) framePayload([]byte)   {}
func (o *connector) frameEnds(ws.Header)   {}

func (o *connector) control(op ws.OpCode, payload []byte) {
	if op == ws.OpClose && o.code == 0 {
		o.code = closeCode(payload)
	}
}
