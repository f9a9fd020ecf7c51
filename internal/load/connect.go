package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// connect is a run of connect mode: goroutines that open a connection, close it with
// 1000, wait for the end of the stream, and begin again.
func (r *run) connect(ctx context.Context) (*Report, error) {
	r.begin()
	c := &connecting{r: r, asked: ctx}
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
	r.until, r.openedInTime = c.end, c.opened.Load()
	if err == nil && r.connected == 0 {
		if r.firstError != nil {
			return nil, fmt.Errorf("no connection could be opened: %w", r.firstError)
		}
		err = errors.New("no connection was due in the measured time: it is too short for this rate")
	}
	return r.report(ctx.Err() != nil), err
}

// connecting is what the goroutines of connect mode share.
type connecting struct {
	r         *run
	asked     context.Context // of the caller, who does not want to know what it cut off
	index     atomic.Int64
	opened    atomic.Uint64 // in the measured time, whenever they were due
	completed atomic.Uint64
	end       int64 // of the measured time
}

// ticket is leave to open a connection.
type ticket struct {
	due    int64
	behind bool // it was not offered in time because all connectors were busy with those before
	shown  int64
}

func (c *connecting) measure(ctx context.Context) error {
	r := c.r
	if r.o.Warmup > 0 {
		r.enter(Warming, r.o.Warmup)
		if err := r.pass(ctx, time.Duration(r.from-now()), nil); err != nil {
			return err
		}
	}
	before := r.usage()
	before.received = c.completed.Load()
	r.enter(Measuring, r.o.Duration)
	err := r.pass(ctx, time.Duration(r.until-now()), nil)
	c.end = r.until
	if err != nil {
		c.end = min(c.end, now()) // what was to come is not due
	}
	after := r.usage()
	after.received = c.completed.Load()
	r.cpu = after.since(before)
	return err
}

// tickets are the due times of connections at a fixed rate; without a rate there are
// none. A connection whose time has come waits for a free connector, and its latency
// counts from its time.
func (c *connecting) tickets(ctx context.Context, goroutines *sync.WaitGroup) <-chan ticket {
	if c.r.o.Rate == 0 {
		return nil
	}
	tickets := make(chan ticket)
	plan := newSchedule(c.r.start, c.r.o.Rate, 0, 1)
	goroutines.Go(func() {
		defer close(tickets)
		sleep := newSleeper()
		defer sleep.stop()
		behind := false
		for k := uint64(0); plan.at(k) < c.r.until; k++ {
			t := ticket{due: plan.at(k)}
			behind = behind && t.due < now()
			if !sleep.until(ctx, t.due) {
				return
			}
			t.behind, t.shown = behind, now()
			select {
			case tickets <- t:
			case <-ctx.Done():
				return
			}
			behind = behind || now()-t.shown > tolerance
		}
	})
	return tickets
}

func (c *connecting) work(ctx context.Context, tickets <-chan ticket) {
	t := &tally{closes: map[int]uint64{}, faults: faults{}}
	one := &connector{c: c, tally: t}
	for {
		at := now()
		next, ok := ticket{due: at, shown: at}, true
		if tickets != nil {
			next, ok = <-tickets
		}
		if !ok || next.due >= c.r.until || ctx.Err() != nil {
			break
		}
		one.connect(ctx, next)
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

func (o *connector) connect(ctx context.Context, t ticket) {
	r := o.c.r
	measured := t.due >= r.from && t.due < r.until
	if measured {
		o.begins(t)
	}
	e, err := r.dialer.dial(ctx, int(o.c.index.Add(1)-1))
	at := now()
	switch {
	case err == nil:
	case o.c.asked.Err() != nil:
		return
	case ctx.Err() != nil:
		r.notOpened(&failure{"unfinished", fmt.Errorf("not done %s after the measured time: %w", r.o.Grace, err)})
		return
	default:
		r.notOpened(err)
		return
	}
	if measured {
		r.opened(at-t.due, tlsOf(e))
	}
	if at >= r.from && at < r.until {
		o.c.opened.Add(1)
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

// begins counts an attempt, and why it is late if it is.
func (o *connector) begins(t ticket) {
	o.tally.attempts++
	late := now() - t.due
	switch {
	case late <= tolerance:
	case t.behind || now()-t.shown > tolerance:
		o.tally.held++
	default:
		o.tally.late++
		o.tally.worstLate = max(o.tally.worstLate, late)
	}
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
