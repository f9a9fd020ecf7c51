package proxy

import (
	"context"
	stdlog "log"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// Server is the edge. It outlives every configuration.
type Server struct {
	// Plain, if set before the first Commit, answers requests that open no WebSocket, on
	// every listener and before any route.
	Plain http.Handler
	// Loops, set before the first Prepare, is how many event loops sessions run on. With
	// 0, or on a system without epoll, each session runs on goroutines of its own. GOMAXPROCS
	// must be higher, since busy loops keep a processor each.
	Loops int

	started time.Time
	log     *zap.Logger
	// noise is the logger for what any stranger can cause: it lets a burst through and
	// thins out the rest.
	noise    *zap.Logger
	ids      *ids
	sessions *sessions
	streams  eventStreams
	httpLog  *stdlog.Logger // for net/http
	engines  *engines       // from the first Prepare on
	memory   engine.Memory
	stats    stats
	current  atomic.Pointer[Generation]
	stopping atomic.Bool
	http2    *http2Conns

	ctx    context.Context // ends what runs in the background
	cancel context.CancelFunc
	wg     sync.WaitGroup

	attending    sync.Mutex    // guards ended
	ended        bool          // nothing more is begun for sessions
	measurePause time.Duration // see there

	stopEngines func() // ends the engines and waits; guarded by applying

	applying  sync.Mutex // one configuration at a time
	listeners map[string]*listener
	limits    map[string]*limits // by listener, former ones included
	pools     map[string]*pool
}

// NewServer returns an edge without a configuration; nothing runs before the first one
// is committed. log gets one line when a session opens and one when it ends.
func NewServer(log *zap.Logger) *Server {
	now := time.Now()
	s := &Server{started: now, log: log, ids: newIDs(now), sessions: newSessions(), http2: newHTTP2Conns(),
		listeners: map[string]*listener{}, limits: map[string]*limits{}, pools: map[string]*pool{}, measurePause: measurePause}
	s.noise = log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 20, 100)
	}))
	s.httpLog = zap.NewStdLog(s.noise.Named("http"))
	s.stats.routes, s.stats.sheds = map[string]*RouteStats{}, map[string]uint64{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.current.Store(&Generation{table: newTable(nil)})
	return s
}

// startEngines runs the engines from the first configuration on.
func (s *Server) startEngines() {
	if s.stopEngines != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.engines.run(ctx)
	}()
	s.stopEngines = func() { cancel(); <-done }
	s.start(s.shedMemory)
}

// start runs f until it returns or the returned function, or the end of the server,
// cancels its context.
func (s *Server) start(f func(context.Context)) context.CancelFunc {
	ctx, cancel := context.WithCancel(s.ctx)
	s.wg.Go(func() {
		defer cancel()
		f(ctx)
	})
	return cancel
}

// attend runs f for a session, unless the server has ended: it reports whether it does. Its
// context is the server's.
func (s *Server) attend(f func(context.Context)) bool {
	s.attending.Lock()
	defer s.attending.Unlock()
	if !s.ended {
		s.wg.Go(func() { f(s.ctx) })
	}
	return !s.ended
}

// Ready reports whether the edge takes new sessions.
func (s *Server) Ready() bool { return s.current.Load().Number > 0 && !s.stopping.Load() }

// Stopping reports whether Shutdown has begun.
func (s *Server) Stopping() bool { return s.stopping.Load() }

// Session returns a live session, or nil.
func (s *Server) Session(id string) *Session { return s.sessions.get(SessionNumber(id)) }

// Sessions returns the live sessions that match, oldest first; nil matches all.
func (s *Server) Sessions(match func(*Session) bool) []*Session { return s.sessions.list(match) }

// Current returns the generation in force. Before the first one its number is 0.
func (s *Server) Current() *Generation { return s.current.Load() }

// Totals are counters of the server as a whole.
type Totals struct {
	Live        int    // sessions
	Handshaking int    // requests that a session may come of
	Requests    int    // other requests under way
	Opened      uint64 // sessions ever
	Buffered    int64  // bytes that sessions hold for peers that have not taken them
	Shed        map[string]uint64
	TLSFailed   uint64
}

// Totals returns the server's counters.
func (s *Server) Totals() Totals {
	t := Totals{Live: s.sessions.len(), Requests: int(s.stats.requests.Load()), Opened: s.stats.sessions.Load(),
		Buffered: s.memory.Held(), TLSFailed: s.stats.tlsFailed.Load(), Shed: map[string]uint64{}}
	t.Handshaking = max(0, int(s.stats.handshaking.Load())-t.Requests)
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	for reason, n := range s.stats.sheds {
		t.Shed[reason] = n
	}
	return t
}

// Routes returns the counters of the present routes, and of former ones that still have
// sessions.
func (s *Server) Routes() []RouteView {
	gen := s.current.Load()
	pools, present, listeners := map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, r := range gen.routes {
		pools[r.Name], present[r.Name] = r.Pool, true
	}
	for _, e := range gen.endpoints {
		listeners[e.Name] = true
	}
	s.stats.forget(present, listeners)
	if now := s.current.Load(); now != gen {
		s.stats.restore(now.routes) // it came in between and may be forgotten in part
	}
	s.stats.mu.Lock()
	all := make([]*RouteStats, 0, len(s.stats.routes))
	for _, rs := range s.stats.routes {
		all = append(all, rs)
	}
	s.stats.mu.Unlock()
	tallies := make([]*engine.Tally, len(all))
	for i, rs := range all {
		tallies[i] = &rs.tally
	}
	traffic := make([]relay.Traffic, len(all))
	if gen.Number > 0 { // from then on there are engines
		traffic = s.engines.sum(tallies)
	}
	views := make([]RouteView, len(all))
	for i, rs := range all {
		v := rs.view()
		v.Pool, v.Traffic = pools[rs.Name], traffic[i]
		views[i] = v
	}
	return views
}

// Counts returns what has come from each side of each session so far, by relay.Side.
func (s *Server) Counts(all []*Session) [][2]relay.Count {
	if len(all) == 0 {
		return nil // and perhaps no engines yet
	}
	running := make([]engine.Session, len(all))
	for i, x := range all {
		running[i] = x.engine
	}
	return s.engines.counts(running)
}

// Pools returns the pools in the order of the configuration, and behind them former ones
// that still have sessions.
func (s *Server) Pools() []PoolView {
	gen := s.current.Load()
	views := make([]PoolView, len(gen.pools))
	for i, p := range gen.pools {
		views[i] = p.show()
	}
	for _, p := range gen.former {
		if v := p.show(); len(v.Backends) > 0 {
			views = append(views, v)
		}
	}
	return views
}

// pool returns a pool of the present configuration, or a former one that may still have
// sessions, or nil.
func (s *Server) pool(name string) *pool {
	gen := s.current.Load()
	for _, p := range gen.pools {
		if p.Name == name {
			return p.pool
		}
	}
	for _, p := range gen.former {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Drain drains a backend: it takes no new sessions, and those that it has leave at a pace.
// One that is drained already goes on at the new pace. Errors are ErrNoPool, ErrNoBackend,
// ErrStopping and what wraps ErrBadPace.
func (s *Server) Drain(pool, backend string, asked DrainPace) error {
	p := s.pool(pool)
	if p == nil {
		return ErrNoPool
	}
	return p.drain(backend, asked)
}

// Undrain ends the drain of a backend: no session of it is closed any more when it returns.
// Errors are ErrNoPool, ErrNoBackend, ErrNotDrained, ErrMaintained and ErrStopping.
func (s *Server) Undrain(pool, backend string) error {
	p := s.pool(pool)
	if p == nil {
		return ErrNoPool
	}
	ended, err := p.undrain(backend)
	if ended != nil {
		<-ended.done
	}
	return err
}
