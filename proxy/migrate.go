package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Results of moves that do not come to the engine; see relay for the others.
const (
	moveNoBackend    = "no_backend"    // nobody else takes sessions
	moveUnreachable  = "unreachable"   // those who do could not be reached
	moveSubprotocol  = "subprotocol"   // another backend chose another subprotocol
	moveNoDescriptor = "no_descriptor" // the edge has too many files open
	moveCancelled    = "cancelled"
)

// moves is what the sessions of a route that move have in common: as much of the
// configuration that they opened with as they need.
type moves struct {
	pool     *pool
	upstream UpstreamSettings
	settings *MigrateSettings
	relay    *relay.MoveOptions
}

func newMoves(v *poolView) *moves {
	if v.Migrate == nil {
		return nil
	}
	m := &moves{pool: v.pool, upstream: v.Upstream, settings: v.Migrate, relay: v.Migrate.relay()}
	m.upstream.Path = "" // what is kept of a session is the target that it had
	return m
}

func (m *moves) options() *relay.MoveOptions {
	if m == nil {
		return nil
	}
	return m.relay
}

// moveStats are what a pool counts of moves, and their budget.
type moveStats struct {
	mu      sync.Mutex
	results map[string]uint64
	doubt   uint64
	redials *rate.Limiter
}

// bound sets the budget of handshakes. Without settings the last one holds: sessions that opened
// under those still move.
func (m *moveStats) bound(s *MigrateSettings) {
	if s == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	limit, burst := rate.Inf, 1
	if m.results == nil {
		m.results = map[string]uint64{relay.MoveDone: 0}
	}
	if s.RedialsPerSecond > 0 {
		limit, burst = rate.Limit(s.RedialsPerSecond), max(1, int(s.RedialsPerSecond/10))
	}
	if m.redials == nil {
		m.redials = rate.NewLimiter(limit, burst)
	} else {
		m.redials.SetLimit(limit)
		m.redials.SetBurst(burst)
	}
}

// wait waits for the budget of one handshake.
func (m *moveStats) wait(ctx context.Context) error {
	m.mu.Lock()
	redials := m.redials
	m.mu.Unlock()
	return redials.Wait(ctx)
}

func (m *moveStats) count(result string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results[result]++
}

func (m *moveStats) doubted(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doubt += n
}

func (m *moveStats) view() (map[string]uint64, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.results), m.doubt
}

// again is what is kept of a session's handshake, to make it again with another backend.
type again struct {
	host, target, header string // the header behind what goes before the request
	subprotocol          string
	pick                 balance.Request
	attempts             atomic.Uint32

	one      sync.Mutex // one move at a time
	orphaned atomic.Bool
	since    atomic.Int64                    // when it came to its present backend, after the server's start; 0: it has the first one
	prefaced uint8                           // so many bytes go before the request
	counted  atomic.Bool                     // the monitor knows that its backend has left it, or is about to
	doubt    atomic.Uint64                   // messages of the last loss that no log line has told
	next     atomic.Pointer[balance.Backend] // has a reservation for the move that is under way
	outcome  chan engine.Moved
}

// again keeps what another handshake needs, where sessions move.
func (h *handshake) again(u *upstream) *again {
	if h.route.moves == nil || u.compression.Mode == relay.Passthrough {
		return nil
	}
	return &again{host: h.r.Host, target: h.target(), header: string(h.preface) + kept(h.header), prefaced: uint8(len(h.preface)), subprotocol: u.subprotocol,
		pick: h.affinity.elsewhere(), outcome: make(chan engine.Moved, 1)}
}

// begin starts the session on its engine. No move is begun before that is known: the backend
// may be lost at once.
func (s *Session) begin(start func() engine.Session) {
	if s.again != nil {
		s.again.one.Lock()
		defer s.again.one.Unlock()
	}
	s.engine = start()
}

// Moves reports whether the session can be moved to another backend.
func (s *Session) Moves() bool { return s.again != nil }

// Attempts returns how often the session was given to another backend.
func (s *Session) Attempts() int {
	if s.again == nil {
		return 0
	}
	return int(s.again.attempts.Load())
}

// Lost finds another backend for a session whose own has left it: engine.Observer.
func (o *observed) Lost(l engine.Loss) {
	s := (*Session)(o)
	s.again.orphaned.Store(true)
	s.again.doubt.Store(l.Doubt)
	s.place.moves.pool.moved.doubted(l.Doubt)
	s.again.counted.Store(true)
	from, since := s.Backend(), s.attached()
	s.place.srv.attend(func(ctx context.Context) {
		if l.Why == relay.WhyClosed {
			s.place.health.Ended(from, since, health.EndWell, nil)
		} else {
			s.place.health.Ended(from, since, health.EndAborted, lostError(l.Why)) // it may log
		}
		s.failOver(ctx, l)
	})
}

// Moved keeps the books of a move: engine.Observer.
func (o *observed) Moved(m engine.Moved) {
	s := (*Session)(o)
	a := s.again
	lost := a.orphaned.Swap(false)
	if !lost {
		a.doubt.Store(m.Doubt)
		s.place.moves.pool.moved.doubted(m.Doubt)
	}
	if next := a.next.Swap(nil); next != nil {
		if m.Result == relay.MoveDone {
			s.settleAt(next)
		} else {
			next.Live.Release()
		}
	}
	select {
	case a.outcome <- m:
	default:
	}
}

// lostError is why a backend was lost.
type lostError string

func (e lostError) Error() string { return "lost: " + string(e) }

// told reports whether the monitor knows of the end of the session's backend already, or is
// about to.
func (a *again) told() bool { return a != nil && a.counted.Load() }

// attached returns when the session came to its present backend.
func (s *Session) attached() time.Time {
	if s.again != nil {
		if since := s.again.since.Load(); since > 0 {
			return s.place.srv.started.Add(time.Duration(since))
		}
	}
	return s.openedAt()
}

// settleAt makes another backend, which has a reservation for it, the session's own.
func (s *Session) settleAt(next *balance.Backend) {
	a, h := s.again, s.place.health
	if !a.counted.Swap(false) {
		h.Ended(s.Backend(), s.attached(), health.EndOther, nil)
	}
	a.since.Store(int64(time.Since(s.place.srv.started)))
	next.Live.Open()
	s.backend.Swap(next).Live.Close()
	h.Opened(next, s.attached())
}

// failOver brings a session to another backend, or to its own when that is back, or ends
// it.
func (s *Session) failOver(ctx context.Context, l engine.Loss) {
	a, m := s.again, s.place.moves
	a.one.Lock()
	defer a.one.Unlock()
	if !a.orphaned.Load() {
		return // it was being moved already, or has ended
	}
	ctx, cancel := context.WithTimeout(ctx, m.settings.Timeout)
	defer cancel()
	began, from := time.Now(), s.Backend()
	result := moveNoBackend
	tried := []*balance.Backend{from}
	for pause := 50 * time.Millisecond; a.orphaned.Load(); pause = min(2*pause, time.Second) {
		if result = s.tryOthers(ctx, tried, nil); result == relay.MoveDone || result == relay.MoveRefused || ctx.Err() != nil {
			break
		}
		tried = nil
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
	if result != relay.MoveDone {
		s.engine.CancelMove(result)
	}
	s.tell(result, "lost: "+l.Why, from, began)
}

// Move moves the session to another backend, its client untouched, and returns how that
// ended: relay.MoveDone, or why the session is where it was, or ends. It takes as long as
// MigrateSettings.Timeout and the end of the old backend.
func (s *Session) Move(ctx context.Context, why string) (result string) {
	return s.move(ctx, why, s.Backend().Live, nil)
}

// move is Move for one who wants the session to leave a certain backend: if it has when its
// turn comes, the move counts as cancelled. full, unless it is nil, returns backends that are
// passed by too.
func (s *Session) move(ctx context.Context, why string, leave *balance.Live, full func() []*balance.Backend) (result string) {
	if s.again == nil || s.State() != StateOpen {
		return relay.MoveNotPossible
	}
	s.again.one.Lock()
	defer s.again.one.Unlock()
	began, from := time.Now(), s.Backend()
	if from.Live != leave {
		return moveCancelled
	}
	result = s.tryOthers(ctx, []*balance.Backend{from}, full)
	s.tell(result, why, from, began)
	return result
}

// tell counts and logs the end of a move.
func (s *Session) tell(result, why string, from *balance.Backend, began time.Time) {
	s.place.moves.pool.moved.count(result)
	msg := "session moved"
	if result != relay.MoveDone {
		msg = "session not moved"
	}
	s.place.srv.noise.Info(msg, zap.String("session", s.ID()), zap.String("route", s.Route()), zap.String("pool", s.Pool()),
		zap.String("from", from.ID), zap.String("to", s.Backend().ID), zap.String("why", why), zap.String("result", result),
		zap.Int("attempt", s.Attempts()), zap.Uint64("in_doubt", s.again.doubt.Swap(0)), zap.Duration("took", time.Since(began)))
}

// tryOthers makes the handshake with other backends than those that were tried until one
// takes the session, and moves it there. Those of full are passed by.
func (s *Session) tryOthers(ctx context.Context, tried []*balance.Backend, full func() []*balance.Backend) (result string) {
	a, m := s.again, s.place.moves
	result = moveNoBackend
	for try := 0; try <= m.upstream.Retries; try++ {
		if m.pool.moved.wait(ctx) != nil {
			return moveEnd(ctx, result)
		}
		if s.State() == StateClosed {
			return relay.MoveNotPossible // nobody is there any more for another handshake
		}
		pick := a.pick
		pick.Tried = tried
		if full != nil {
			pick.Tried = slices.Concat(tried, full())
		}
		b := m.pool.pickFor(s, pick)
		if b == nil {
			return result
		}
		u, err := s.reattach(ctx, b)
		switch {
		case err == nil && u.res.StatusCode == http.StatusSwitchingProtocols && u.subprotocol == a.subprotocol:
			s.place.health.Connected(b)
			return s.handOver(ctx, u)
		case err == nil:
			u.stream.Close()
			b.Live.Release()
			if result = s.declined(u); result != moveUnreachable {
				return result
			}
		default:
			b.Live.Release()
			result = moveUnreachable
			if ctx.Err() != nil {
				return moveEnd(ctx, result)
			}
			kind := fail(balance.FailureConnect, err)
			s.place.health.HandshakeFailed(b, kind.kind, err)
		}
		tried = append(tried[:len(tried):len(tried)], b)
	}
	return result
}

// pickFor reserves a backend for a session that is to change its own, or returns nil. One that
// may come back to its own has a place there, also where there is no other.
func (p *pool) pickFor(s *Session, req balance.Request) *balance.Backend {
	b, err := p.pick(req)
	own := s.Backend().Live
	if !errors.Is(err, balance.ErrFull) || slices.ContainsFunc(req.Tried, func(b *balance.Backend) bool { return b.Live == own }) {
		return b
	}
	p.mu.Lock()
	set := p.set
	p.mu.Unlock()
	return set.Stay(own)
}

// moveEnd is the result of a move whose time is up.
func moveEnd(ctx context.Context, result string) string {
	if errors.Is(ctx.Err(), context.Canceled) {
		return moveCancelled
	}
	return result
}

// declined says what another backend's answer means that opens no session.
func (s *Session) declined(u *upstream) string {
	switch status := u.res.StatusCode; {
	case status == http.StatusSwitchingProtocols:
		return moveSubprotocol
	case status == http.StatusConflict || status == http.StatusGone:
		return relay.MoveRefused
	case status >= 500:
		s.place.health.HandshakeFailed(u.backend, balance.FailureStatus, fmt.Errorf("status %d", status))
	}
	return moveUnreachable
}

// handOver gives the engine the connection to the next backend and waits for what comes
// of it.
func (s *Session) handOver(ctx context.Context, u *upstream) string {
	a := s.again
	select {
	case <-a.outcome: // of a move that nobody waited for
	default:
	}
	a.next.Store(u.backend)
	if !s.place.srv.engines.move(s.engine, u.opened()) {
		if b := a.next.Swap(nil); b != nil {
			b.Live.Release()
		}
		return moveNoDescriptor
	}
	select {
	case m := <-a.outcome:
		return m.Result
	case <-ctx.Done():
		s.engine.CancelMove(moveEnd(ctx, relay.MoveTimeout)) // if that is still possible
		return (<-a.outcome).Result
	}
}
