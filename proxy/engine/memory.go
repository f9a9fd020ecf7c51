package engine

import "sync/atomic"

// Memory is what the sessions of a process hold for peers that have not taken it yet, and
// of messages that have not come whole: all of it, in bytes. It may be used from anywhere.
// The zero value has no limit; nil counts nothing.
type Memory struct {
	held, limit atomic.Int64
	over        atomic.Pointer[func()]
}

// OnOver has f called, on the goroutine of whoever adds or sets the limit, each time when
// the sum is over the limit then. f must not block.
func (m *Memory) OnOver(f func()) { m.over.Store(&f) }

// SetLimit sets the limit; 0 is none.
func (m *Memory) SetLimit(bytes int64) {
	m.limit.Store(bytes)
	m.check()
}

// Limit returns the limit; 0 is none.
func (m *Memory) Limit() int64 { return m.limit.Load() }

// Held returns the sum.
func (m *Memory) Held() int64 { return m.held.Load() }

// Over reports whether the sum is over the limit.
func (m *Memory) Over() bool {
	limit := m.limit.Load()
	return limit > 0 && m.held.Load() > limit
}

// Add adds bytes, or takes them away when n is negative.
func (m *Memory) Add(n int) {
	if m == nil || n == 0 {
		return
	}
	m.held.Add(int64(n))
	if n > 0 {
		m.check()
	}
}

func (m *Memory) check() {
	if m.Over() {
		if f := m.over.Load(); f != nil {
			(*f)()
		}
	}
}
