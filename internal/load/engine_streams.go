package load

import (
	"net"
	"sync"
	"time"
)

// streams is the engine for systems without epoll: a reader and a writer goroutine for
// each connection, which hand what happens to the worker. Both end with the connection.
type streams struct {
	w      *worker
	happen chan happening
	waking chan struct{}
	timer  *time.Timer
	conns  sync.WaitGroup
}

// happening is what a goroutine of a connection tells the worker.
type happening struct {
	c       *stream
	p       []byte // read; the reader waits until it is served
	drained bool
	err     error
}

func newStreams(w *worker) *streams {
	e := &streams{w: w, happen: make(chan happening), waking: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	e.timer.Stop()
	return e
}

func (e *streams) wake() {
	select {
	case e.waking <- struct{}{}:
	default: // a wake-up waits already
	}
}

func (e *streams) close() { e.conns.Wait() }

func (e *streams) wait(until int64) error {
	var due <-chan time.Time
	if until != never {
		e.timer.Reset(max(time.Duration(until-now()), 0))
		defer e.timer.Stop()
		due = e.timer.C
	}
	select {
	case h := <-e.happen:
		e.serve(h)
	case <-e.waking:
	case <-due:
	}
	for { // what else has happened
		select {
		case h := <-e.happen:
			e.serve(h)
		default:
			return nil
		}
	}
}

func (e *streams) serve(h happening) {
	switch l := h.c.l; {
	case l.gone:
	case h.drained:
		e.w.drain(l)
	case h.err != nil:
		e.w.fail(l, h.err)
	default:
		e.w.receive(l, h.p)
		if !l.gone {
			h.c.resume()
		}
	}
}

// stream is a connection of streams.
type stream struct {
	e     *streams
	l     *link
	conn  net.Conn
	first []byte
	gone  chan struct{} // closed by close

	served chan struct{} // tells the reader to go on
	held   bool          // the worker's: do not tell it
	unread bool          // the worker's: it waits to be told

	mu      sync.Mutex
	pending []byte
	writing bool          // the writer has taken bytes
	fresh   chan struct{} // tells the writer that bytes are pending
}

func (e *streams) attach(l *link, d *established) (carrier, error) {
	return &stream{e: e, l: l, conn: d.conn, first: d.first, gone: make(chan struct{}), served: make(chan struct{}, 1),
		fresh: make(chan struct{}, 1)}, nil
}

func (e *streams) start(l *link) {
	c := l.c.(*stream)
	if len(c.first) > 0 {
		e.w.receive(l, c.first)
	}
	if l.gone {
		return
	}
	e.conns.Go(c.read)
	e.conns.Go(c.flush)
}

// tell hands h to the worker; false if the connection is gone.
func (c *stream) tell(h happening) bool {
	h.c = c
	select {
	case c.e.happen <- h:
		return true
	case <-c.gone:
		return false
	}
}

func (c *stream) read() {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 {
			if !c.tell(happening{p: buf[:n]}) {
				return
			}
			select {
			case <-c.served:
			case <-c.gone:
				return
			}
		}
		if err != nil {
			c.tell(happening{err: err})
			return
		}
	}
}

// flush is the writer.
func (c *stream) flush() {
	var taken []byte
	for {
		select {
		case <-c.fresh:
		case <-c.gone:
			return
		}
		for {
			c.mu.Lock()
			taken, c.pending = c.pending, taken[:0]
			c.writing = len(taken) > 0
			c.mu.Unlock()
			if len(taken) == 0 {
				break
			}
			if _, err := c.conn.Write(taken); err != nil {
				c.tell(happening{err: err})
				return
			}
		}
		if !c.tell(happening{drained: true}) {
			return
		}
	}
}

func (c *stream) write(p []byte) error {
	c.mu.Lock()
	c.pending = append(c.pending, p...)
	c.mu.Unlock()
	select {
	case c.fresh <- struct{}{}:
	default:
	}
	return nil
}

// streamQueue is how much may wait for the writer before a stream counts as blocked.
const streamQueue = 64 << 10

func (c *stream) blocked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.l.ending {
		return c.writing || len(c.pending) > 0
	}
	return len(c.pending) > streamQueue
}

func (c *stream) hold(held bool) {
	if c.held = held; !held && c.unread {
		c.resume()
	}
}

// resume lets the reader go on, unless it is held.
func (c *stream) resume() {
	if c.unread = c.held; !c.held {
		c.served <- struct{}{}
	}
}

func (c *stream) close() {
	close(c.gone)
	// A tls.Conn that closes waits a few seconds for a writer that is stuck; the socket
	// below ends that.
	c.conn.SetDeadline(time.Now().Add(time.Second))
	c.conn.Close()
}
