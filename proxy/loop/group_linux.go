package loop

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// Group is a number of loops that share the connections.
type Group struct {
	// OnBuffered, if set before Run, is told by each loop how many bytes more, or less, the
	// buffers take that hold something of its connections. It must not block.
	OnBuffered func(bytes int)

	loops []*Loop
}

// ErrClosed is returned when a loop has ended.
var ErrClosed = errors.New("the event loop has ended")

// NewGroup makes n loops, at least one. They do not run yet.
func NewGroup(n int) (*Group, error) {
	g := &Group{}
	for i := range max(n, 1) {
		l, err := newLoop(i)
		if err != nil {
			for _, l := range g.loops {
				l.release()
			}
			return nil, err
		}
		l.group = g
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Run runs the loops until ctx is done. Connections that are left then are closed, and
// their handlers told. It is called once.
func (g *Group) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, l := range g.loops {
		wg.Go(l.run)
		defer context.AfterFunc(ctx, func() { l.Post(l.end) })()
	}
	wg.Wait()
}

// Loops returns the number of loops.
func (g *Group) Loops() int { return len(g.loops) }

// Loop returns a loop by its index.
func (g *Group) Loop(i int) *Loop { return g.loops[i] }

// Pick returns the loop with the fewest connections.
func (g *Group) Pick() *Loop {
	best := g.loops[0]
	for _, l := range g.loops[1:] {
		if l.load.Load() < best.load.Load() {
			best = l
		}
	}
	return best
}

// mailbox takes functions from any goroutine to the loop's.
type mailbox struct {
	mu     sync.Mutex
	posted []func()
	spare  []func()
	closed bool
	any    atomic.Bool // something is there, readable without the mutex
	waking atomic.Int32
}

// put reports whether the loop has to be woken: only the first of a batch does it, and says
// then that it has, see woken.
func (m *mailbox) put(f func()) (wake bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false, ErrClosed
	}
	m.posted = append(m.posted, f)
	m.any.Store(true)
	if wake = len(m.posted) == 1; wake {
		m.waking.Add(1)
	}
	return wake, nil
}

// woken says that the loop has been.
func (m *mailbox) woken() { m.waking.Add(-1) }

// quiet waits, once the mailbox is closed, until nobody is about to wake the loop any more.
func (m *mailbox) quiet() {
	for m.waking.Load() > 0 {
		runtime.Gosched()
	}
}

// take returns what was posted, in order. The slice is good until the next take.
func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.spare)
	m.posted, m.spare = m.spare[:0], m.posted
	m.any.Store(false)
	return m.spare
}

// close refuses what comes from now on and returns what is still there.
func (m *mailbox) close() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	left := m.posted
	m.posted = nil
	return left
}
