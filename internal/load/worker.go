package load

import (
	"container/heap"
	"errors"
	"math"
	"sync"
	"time"
)

// epoch is where the clock of the package starts: now is monotonic.
var epoch = time.Now()

// now is the time since epoch in nanoseconds.
func now() int64 { return int64(time.Since(epoch)) }

// clocks is now and the time of day in Unix nanoseconds, of the same moment: a goroutine
// may lose its processor between two readings.
func clocks() (at, day int64) {
	t := time.Now()
	return int64(t.Sub(epoch)), t.UnixNano()
}

// never is a due time that does not come.
const never = math.MaxInt64

// session is what a worker owns: one connection's end of the protocol. All of its
// methods are called on the worker.
type session interface {
	// opened is called once, before anything else.
	opened()
	// received takes bytes of the stream. It may change them and must not keep them. An
	// error ends the connection.
	received(p []byte) error
	// drained is called when what could not be written at once has gone.
	drained()
	// fire is called when the time of link.wakeAt has come.
	fire(at int64)
	// ended is called once, last; err is nil if the session itself ended the connection,
	// and io.EOF if the peer did.
	ended(err error)
}

// carrier is what an engine has for a connection.
type carrier interface {
	// write takes all of p, which it does not keep. What the socket does not take waits,
	// and blocked is true while something waits.
	write(p []byte) error
	blocked() bool
	// hold stops (true) or resumes reading.
	hold(bool)
	// close ends the connection. Nothing of it is called afterwards.
	close()
}

// engine moves bytes between sockets and links. Its wait is called on the worker only.
type engine interface {
	// attach makes a carrier for l of what a handshake left. It is called on any
	// goroutine and takes over d.conn, also when it fails.
	attach(l *link, d *established) (carrier, error)
	// start begins to read; first on the worker.
	start(l *link)
	// wait serves what happens until the given time or until wake. A time that has
	// passed does not wait.
	wait(until int64) error
	// wake ends a wait, now or the next one, from any goroutine.
	wake()
	close()
}

// readSize is what is read at most from a socket at a time.
const readSize = 64 << 10

// errEnded says that the session itself ended its connection.
var errEnded = errors.New("ended here")

// link ties a session to its connection. Except for attach's part it belongs to the
// worker.
type link struct {
	w       *worker
	s       session
	c       carrier
	err     error // why it ends
	gone    bool
	ending  bool // ends when all is written
	due     int64
	dueSlot int // in w.due; -1: not there
}

// write sends p, or keeps it until the socket takes it.
func (l *link) write(p []byte) {
	if l.err == nil && len(p) > 0 {
		l.err = l.c.write(p)
	}
}

// hold stops or resumes reading.
func (l *link) hold(held bool) {
	if l.err == nil {
		l.c.hold(held)
	}
}

func (l *link) blocked() bool { return l.err == nil && l.c.blocked() }

// finish ends the connection when everything is written.
func (l *link) finish() {
	if l.ending = true; !l.blocked() {
		l.end()
	}
}

// end ends the connection now.
func (l *link) end() {
	if l.err == nil {
		l.err = errEnded
	}
}

// wakeAt has fire called at that time instead of any earlier wish; never cancels.
func (l *link) wakeAt(at int64) {
	l.due = at
	switch {
	case at == never && l.dueSlot >= 0:
		heap.Remove(&l.w.due, l.dueSlot)
	case at == never:
	case l.dueSlot >= 0:
		heap.Fix(&l.w.due, l.dueSlot)
	default:
		heap.Push(&l.w.due, l)
	}
}

// dueHeap orders links by their due time.
type dueHeap []*link

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].dueSlot, h[j].dueSlot = i, j
}

func (h *dueHeap) Push(x any) {
	l := x.(*link)
	l.dueSlot = len(*h)
	*h = append(*h, l)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.dueSlot = -1
	return l
}

// worker owns sessions. run is its goroutine; quit stops it.
type worker struct {
	engine engine
	due    dueHeap
	links  map[*link]struct{}
	turned func() // before each wait and at the end, if not nil
	quit   bool   // set by a posted function

	mu     sync.Mutex
	posted []func()
	closed bool // run has returned
}

// post has f called on the worker; false if it has ended.
func (w *worker) post(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	if w.posted = append(w.posted, f); len(w.posted) == 1 {
		w.engine.wake()
	}
	return true
}

// adopt hands a connection and its session to the worker. It may be called on any
// goroutine and takes over d.conn, also when it fails.
func (w *worker) adopt(s session, d *established, bind func(*link)) error {
	l := &link{w: w, s: s, dueSlot: -1}
	c, err := w.engine.attach(l, d)
	if err != nil {
		return err
	}
	l.c = c
	ok := w.post(func() {
		w.links[l] = struct{}{}
		bind(l)
		s.opened()
		if w.check(l); !l.gone {
			w.engine.start(l)
		}
	})
	if !ok {
		c.close()
		return errEnded
	}
	return nil
}

// run serves until quit, then ends what is left.
func (w *worker) run() error {
	var err error
	for !w.quit && err == nil {
		w.runPosted()
		until := w.fireDue()
		if w.quit {
			break
		}
		if w.turned != nil {
			w.turned()
		}
		err = w.engine.wait(until)
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.runPosted() // connections that came meanwhile
	for l := range w.links {
		l.end()
		w.check(l)
	}
	if w.turned != nil {
		w.turned()
	}
	w.engine.close()
	return err
}

func (w *worker) runPosted() {
	w.mu.Lock()
	posted := w.posted
	w.posted = nil
	w.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// fireDue fires what is due, each link once, and returns when the next one is.
func (w *worker) fireDue() int64 {
	at := now()
	for len(w.due) > 0 && w.due[0].due <= at {
		l := heap.Pop(&w.due).(*link)
		l.s.fire(at)
		w.check(l)
	}
	if len(w.due) == 0 {
		return never
	}
	return w.due[0].due
}

// receive hands bytes to the session, and check follows.
func (w *worker) receive(l *link, p []byte) {
	if err := l.s.received(p); err != nil && l.err == nil {
		l.err = err
	}
	w.check(l)
}

// drain tells the session that its output has gone.
func (w *worker) drain(l *link) {
	switch {
	case !l.ending:
		l.s.drained()
	case !l.blocked(): // an engine may be late to tell, and more has come
		l.end()
	}
	w.check(l)
}

// fail ends a link whose connection failed.
func (w *worker) fail(l *link, err error) {
	if l.err == nil {
		l.err = err
	}
	w.check(l)
}

// check ends a link that has a reason to; it is called after each call of a session.
func (w *worker) check(l *link) {
	if l.err == nil || l.gone {
		return
	}
	l.gone = true
	l.wakeAt(never)
	delete(w.links, l)
	l.c.close()
	if l.err == errEnded {
		l.err = nil
	}
	l.s.ended(l.err)
	l.err = errEnded // writes go nowhere
}
