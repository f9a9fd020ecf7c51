package proxy

import (
	"context"
	"sync"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/relay"
)

const (
	// movesAtOnce bounds how many sessions move at a time for one drain or rebalancing.
	movesAtOnce = 256
	// moveTries is how often a session is tried to be moved that could stay for now, such as
	// one in the middle of a long message, before it is closed.
	moveTries = 3
)

// movers moves the sessions of one drain, each on a goroutine of its own.
type movers struct {
	ctx   context.Context // ends what can still be given up
	live  *balance.Live   // of the backend that they leave
	room  chan struct{}
	mu    sync.Mutex
	moves map[*Session]bool // that are under way
	tries map[*Session]int
}

func newMovers(ctx context.Context, live *balance.Live) *movers {
	return &movers{ctx: ctx, live: live, room: make(chan struct{}, movesAtOnce), moves: map[*Session]bool{}, tries: map[*Session]int{}}
}

// has reports whether a session is being moved.
func (m *movers) has(x *Session) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moves[x]
}

// move begins to move a session, once there is room. A session that cannot be moved is
// closed; one that could not be moved now is left for another try. alone says that there
// will be no other backend.
func (m *movers) move(x *Session, why string, alone bool, closes func()) {
	select {
	case m.room <- struct{}{}:
	case <-m.ctx.Done():
		return
	}
	m.mu.Lock()
	m.moves[x] = true
	m.mu.Unlock()
	begun := x.place.srv.attend(func(context.Context) {
		defer func() { <-m.room }()
		result := x.moveFrom(m.ctx, m.live, why)
		if m.over(x, result, alone) && x.Backend().Live == m.live {
			closes()
		}
	})
	if !begun {
		<-m.room
	}
}

// over notes the end of a move and reports whether the session is to be closed.
func (m *movers) over(x *Session, result string, alone bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.moves, x)
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
