package engine

import (
	"sync"

	"github.com/tidegate/tidegate/proxy/relay"
)

// Tally is the traffic of sessions that are counted together, such as those of a route. To
// count costs an event loop nothing but the addition: each has a part of the tally that no
// one else touches, and who wants to know the sum asks the loops. The zero value is ready
// to use.
type Tally struct {
	mu    sync.Mutex // guards the map and rest; a part is its loop's
	loops map[int]*part
	rest  relay.Traffic // of engines without loops
}

// part is that of one loop, apart from others' in the cache.
type part struct {
	relay.Traffic
	_ [64]byte
}

// OfLoop returns the part of a loop, by its index. It is the loop's alone.
func (t *Tally) OfLoop(i int) *relay.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.loops == nil {
		t.loops = map[int]*part{}
	}
	p := t.loops[i]
	if p == nil {
		p = new(part)
		t.loops[i] = p
	}
	return &p.Traffic
}

// Add adds what a session without a loop has passed on.
func (t *Tally) Add(p *relay.Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest.Add(p)
}

// AddLoop adds the part of a loop to sum, on that loop.
func (t *Tally) AddLoop(i int, sum *relay.Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.loops[i]; p != nil {
		sum.Add(&p.Traffic)
	}
}

// AddRest adds to sum what sessions without a loop have passed on.
func (t *Tally) AddRest(sum *relay.Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum.Add(&t.rest)
}
