package load

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxDials bounds the handshakes in progress while a run opens its connections.
const maxDials = 64

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
		kind := "adopt"
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			kind = noFileLeft
		}
		err = &failure{kind, err}
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
