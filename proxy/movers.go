package proxy

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/tidegate/tidegate/proxy/relay"
)

const (
	// movesAtOnce bounds how many sessions move at a time for one drain or rebalancing.
	movesAtOnce = 256
	// moveTries is how often a session is tried to be moved that could stay for now, such as
	// one in the middle of a long message, before it is closed.
	moveTries = 3
)

// movers moves the sessions of one drain or rebalancing, each on a goroutine of its own.
type movers struct {
	ctx   context.Context // ends what can still be given up
	room  chan struct{}
	mu    sync.Mutex
	moves map[*Session]bool // that are under way
	tries map[*Session]int  // of drains
}

func newMovers(ctx context.Context) *movers {
	return &movers{ctx: ctx, room: make(chan struct{}, movesAtOnce), moves: map[*Session]bool{}, tries: map[*Session]int{}}
}

// has reports whether a session is being moved.
func (m *movers) has(x *Session) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moves[x]
}

// all returns the sessions that are being moved.
func (m *movers) all() []*Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.moves))
}

// full reports whether there is no room.
func (m *movers) full() bool { return len(m.room) == cap(m.room) }

// move begins to move a session; there is room for it, see full, and only one caller. do
// moves it, and over is called when it is not under way any more and there is room again.
func (m *movers) move(x *Session, do func(context.Context), over func()) {
	m.room <- struct{}{}
	m.mu.Lock()
	m.moves[x] = true
	m.mu.Unlock()
	begun := x.place.srv.attend(func(context.Context) {
		do(m.ctx)
		m.mu.Lock()
		delete(m.moves, x)
		m.mu.Unlock()
		<-m.room
		over()
	})
	if !begun {
		<-m.room
	}
}

// hopeless notes the result of a drain's move and reports whether the session is to be closed.
// One that could not be moved now is left for another try. alone says that there will be no
// other backend.
func (m *movers) hopeless(x *Session, result string, alone bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch result {
	case relay.MoveDone, moveCancelled, relay.MoveClientClosed, relay.MoveBackendClosed, relay.MoveClosed:
		delete(m.tries, x)
		return false
	case moveNoBackend:
		return alone // else the drain waits for one
	case relay.MoveRefused, moveSubprotocol, relay.MoveOpeningTooBig, relay.MoveNotPossible:
		return true
	}
	m.tries[x]++
	return m.tries[x] >= moveTries || alone
}
