package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"
)

// Server is the backend of a load: it echoes, pushes or stays silent, as the query of
// each request asks (see the comment of the command, `tidegate bench serve`). A path
// means nothing, the first offered subprotocol is taken, extensions are not. The zero
// value is ready. It must not be copied after Serve.
type Server struct {
	// TLS makes it a wss server; it needs a certificate. It is cloned.
	TLS *tls.Config
	// Workers is the number of goroutines that own connections. 0: one.
	Workers int
	// Grace is how long Serve waits for clients to answer Closes at its end. 0: 2 s.
	Grace time.Duration

	goroutines bool // the engine for systems without epoll, for its tests
	open       atomic.Int64
}

// Open is the number of open WebSocket connections.
func (s *Server) Open() int { return int(s.open.Load()) }

const (
	// serverHandshake is how long a client may take for its handshakes.
	serverHandshake = 10 * time.Second
	// maxRequest bounds the head of a request.
	maxRequest = 64 << 10
	// acceptPause follows an Accept that failed for want of descriptors or memory.
	acceptPause = 20 * time.Millisecond
)

// Serve accepts and serves connections until ctx is done, then closes ln, and the
// connections with 1001, and returns nil when all have gone.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	workers := max(s.Workers, 1)
	live := &serving{s: s}
	if s.TLS != nil {
		live.tls = withoutSurprises(s.TLS)
	}
	for range workers {
		w := &serverWorker{open: &s.open, echo: make([]byte, 0, 2*readSize), layouts: map[subscription]*layout{}}
		w.worker = &worker{links: map[*link]struct{}{}}
		var err error
		if w.engine, err = newEngine(w.worker, s.goroutines); err != nil {
			live.stop(0)
			ln.Close()
			return err
		}
		live.workers = append(live.workers, w)
		live.running.Go(func() {
			if err := w.run(); err != nil {
				live.broken.Store(&err)
				ln.Close()
			}
		})
	}
	unhook := context.AfterFunc(ctx, func() { ln.Close() })
	defer unhook()
	err := live.accept(ctx, ln)
	ln.Close()
	grace := s.Grace
	if grace == 0 {
		grace = 2 * time.Second
	}
	live.stop(grace)
	if broken := live.broken.Load(); broken != nil {
		return *broken
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serving is one call of Serve.
type serving struct {
	s          *Server
	tls        *tls.Config
	workers    []*serverWorker
	running    sync.WaitGroup
	broken     atomic.Pointer[error]
	handshakes sync.WaitGroup
	next       uint64
}

func (v *serving) accept(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends handshakes
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
			errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ECONNABORTED):
			select {
			case <-time.After(acceptPause):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return fmt.Errorf("accepting: %w", err)
		}
		w := v.workers[v.next%uint64(len(v.workers))]
		v.next++
		v.handshakes.Go(func() { v.open(ctx, w, conn) })
	}
}

// open does the handshakes of a connection. A client that fails them is none of the
// backend's business: it sees why itself.
func (v *serving) open(ctx context.Context, w *serverWorker, conn net.Conn) {
	tcp := &transport{Conn: conn}
	e := &established{conn: tcp, tcp: tcp}
	tcp.SetDeadline(time.Now().Add(serverHandshake))
	unhook := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	sub, err := v.handshake(ctx, e)
	if !unhook() || err != nil {
		e.conn.Close()
		return
	}
	tcp.SetDeadline(time.Time{})
	peer := newPeer(w, sub)
	// It fails when the server ends, or for want of a descriptor.
	w.adopt(peer, e, func(l *link) { peer.link = l })
}

func (v *serving) handshake(ctx context.Context, e *established) (sub subscription, err error) {
	if v.tls != nil {
		c := tls.Server(e.tcp, v.tls)
		if err := c.HandshakeContext(ctx); err != nil {
			return sub, err
		}
		e.conn = c
	}
	head, rest, err := readHead(e.conn)
	if err != nil {
		return sub, err
	}
	e.first = rest
	up := ws.Upgrader{
		Protocol: func([]byte) bool { return true },
		OnRequest: func(uri []byte) error {
			var err error
			if sub, err = parseSubscription(string(uri)); err != nil {
				return ws.RejectConnectionError(ws.RejectionStatus(http.StatusBadRequest), ws.RejectionReason(err.Error()))
			}
			return nil
		},
	}
	_, err = up.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(head), e.conn})
	return sub, err
}

// readHead reads the head of a request and what came with it. It keeps whatever a client
// sends right behind its request, which Upgrader would lose.
func readHead(r io.Reader) (head, rest []byte, err error) {
	buf := make([]byte, 0, 2048)
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= maxRequest {
				return nil, nil, errors.New("the head of the request is too long")
			}
			buf = append(buf, make([]byte, len(buf))...)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		from := max(len(buf)-3, 0)
		buf = buf[:len(buf)+n]
		if i := bytes.Index(buf[from:], []byte("\r\n\r\n")); i >= 0 {
			end := from + i + 4
			return buf[:end], buf[end:], nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

// stop closes the connections and waits for them for at most grace.
func (v *serving) stop(grace time.Duration) {
	v.handshakes.Wait()
	gone := make(chan struct{}, len(v.workers))
	for _, w := range v.workers {
		w.post(func() { w.leave(gone) })
	}
	timeout := time.NewTimer(grace)
	defer timeout.Stop()
	for range v.workers {
		select {
		case <-gone:
			continue
		case <-timeout.C:
		}
		break
	}
	for _, w := range v.workers {
		w.post(func() { w.quit = true })
	}
	v.running.Wait()
}
