package proxy

import (
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// State is where a session stands; see the package comment for the transitions.
type State uint32

const (
	StateOpen State = iota
	StateClosing
	StateClosed
)

// String returns the state as it stands in the API.
func (s State) String() string { return [...]string{"open", "closing", "closed"}[s] }

// Session is one client WebSocket and its upstream leg. There may be a million of them, so
// it holds what sessions do not share, and that packed; Info unpacks it. All of it but the
// state and the backend is fixed when it opens.
type Session struct {
	backend  atomic.Pointer[balance.Backend]
	again    *again // how to reach another backend; nil: the session stays with its own
	place    *place
	engine   engine.Session // set before the session can be found
	number   uint64
	opened   time.Duration // after the server's start
	client   netip.AddrPort
	clientIP *netip.Addr // nil: the client's address is that of its connection
	text     string      // host, path, subprotocol and request id, cut at
	cuts     [3]uint32
	state    atomic.Uint32
}

// place is what the sessions of a route on a listener have in common.
type place struct {
	srv                   *Server
	stats                 *RouteStats
	limits                *limits
	moves                 *moves // nil: sessions stay with their backends
	tcp                   TCPSettings
	traffic               *traffic // of the pool
	health                *health.Monitor
	listener, route, pool string
	endless               bool // no close_timeout: the end may take for ever
	sticky                bool // the route's requests have their backends
}

// SessionInfo is what is known of a session from its beginning on.
type SessionInfo struct {
	ID                     string // sorts by age
	Listener, Route, Pool  string
	Client                 netip.AddrPort // the connection's other end
	ClientIP               netip.Addr     // the client, by trusted proxies' word
	Opened                 time.Time
	Host, Path             string
	Subprotocol, RequestID string
}

// newSession packs what is known of a session but for its ID and the time, and without
// what its place knows.
func newSession(p *place, b *balance.Backend, i *SessionInfo) *Session {
	s := &Session{place: p, number: p.srv.ids.new(), opened: time.Since(p.srv.started), client: i.Client}
	if ip := i.ClientIP; ip != i.Client.Addr() {
		s.clientIP = &ip // of its own, so that no more of i stays than that
	}
	s.backend.Store(b)
	end := 0
	for k, text := range []string{i.Host, i.Path, i.Subprotocol} {
		end += len(text)
		s.cuts[k] = uint32(end)
	}
	s.text = i.Host + i.Path + i.Subprotocol + i.RequestID
	return s
}

// Info returns what is known of the session from its beginning on.
func (s *Session) Info() SessionInfo {
	c := s.cuts
	return SessionInfo{ID: s.ID(), Listener: s.place.listener, Route: s.place.route, Pool: s.place.pool,
		Client: s.client, ClientIP: s.ClientIP(), Opened: s.openedAt(),
		Host: s.text[:c[0]], Path: s.text[c[0]:c[1]], Subprotocol: s.text[c[1]:c[2]], RequestID: s.text[c[2]:]}
}

// ID returns the name of the session. IDs sort by age.
func (s *Session) ID() string { return sessionID(s.number) }

// Number returns what the ID is made of; see [SessionNumber].
func (s *Session) Number() uint64 { return s.number }

// Backend returns the session's backend.
func (s *Session) Backend() *balance.Backend { return s.backend.Load() }

// Route returns the name of the session's route.
func (s *Session) Route() string { return s.place.route }

// Pool returns the name of the session's pool.
func (s *Session) Pool() string { return s.place.pool }

// ClientIP returns the client's address, by trusted proxies' word.
func (s *Session) ClientIP() netip.Addr {
	if s.clientIP != nil {
		return *s.clientIP
	}
	return s.client.Addr()
}

// State returns where the session stands.
func (s *Session) State() State { return State(s.state.Load()) }

// Counts returns what has come from each side so far, by relay.Side. It may wait for a
// turn of the session's loop; for many sessions see [Server.Counts].
func (s *Session) Counts() [2]relay.Count { return s.engine.Counts() }

// Why the edge ends sessions, for the metric session_ends_total.
const (
	WhyShutdown  = "shutdown"
	WhyAPI       = "api"
	WhyMemory    = "memory"
	WhyDrain     = "drain"     // its backend was drained
	WhyRemoved   = "removed"   // its backend has left the pool
	WhyRebalance = "rebalance" // its backend had more than its share
)

// Close ends the session with a Close of the edge's: code and reason for the client,
// 1001 for the backend. why is one word for the metric. It does not wait.
func (s *Session) Close(code ws.StatusCode, reason, why string) {
	s.engine.Close(relay.Ending{Client: code, Backend: ws.StatusGoingAway, Reason: reason, Why: why})
}

// kill ends the session at once.
func (s *Session) kill() { s.engine.Kill() }

// observed is a session as its engine sees it: engine.Observer.
type observed Session

// Closing is the transition from open.
func (o *observed) Closing() {
	(*Session)(o).state.CompareAndSwap(uint32(StateOpen), uint32(StateClosing))
}

// Ponged counts for the backend of the moment.
func (o *observed) Ponged(rtt time.Duration) { (*Session)(o).Backend().Live.Ponged(rtt.Seconds()) }

// Done is the last transition.
func (o *observed) Done(res engine.Result) {
	s := (*Session)(o)
	s.state.Store(uint32(StateClosed))
	if end, why := endOf(&res); !s.again.told() {
		s.place.health.Ended(s.Backend(), s.attached(), end, why)
	}
	code := uint16(res.Code)
	if res.Code == ws.StatusAbnormalClosure {
		code = 0
	}
	p := s.place
	p.stats.ended(CloseKey{code, res.Cause.Initiator()}, EndKey{res.Cause.By(), res.Why})
	p.stats.SessionDuration.Observe(s.age().Seconds())
	p.stats.leave(p.listener)
	s.logEnd(res)
	p.traffic.end(s.number, s.Backend().Live, res.Counts)
	s.Backend().Live.Close()
	p.limits.release(s.ClientIP())
	p.srv.sessions.remove(s)
}

// age is how long ago the session opened.
func (s *Session) age() time.Duration { return time.Since(s.place.srv.started) - s.opened }

func (s *Session) openedAt() time.Time { return s.place.srv.started.Add(s.opened) }

// logOpen says that the session is open, and which version of HTTP its handshake was made in.
func (s *Session) logOpen(version string) {
	if line := s.place.srv.log.Check(zap.InfoLevel, "session opened"); line != nil {
		i := s.Info()
		line.Write(s.fields(&i, zap.String("host", i.Host), zap.String("path", bounded(i.Path)), zap.String("subprotocol", i.Subprotocol), zap.String("http", version))...)
	}
}

func (s *Session) logEnd(res engine.Result) {
	line := s.place.srv.log.Check(zap.InfoLevel, "session ended")
	if line == nil {
		return
	}
	i := s.Info()
	up, down := res.Counts[relay.Client], res.Counts[relay.Backend]
	fields := s.fields(&i, zap.Duration("duration", s.age()),
		zap.Uint64("messages_upstream", up.Messages), zap.Uint64("bytes_upstream", up.Bytes),
		zap.Uint64("messages_downstream", down.Messages), zap.Uint64("bytes_downstream", down.Bytes),
		zap.Uint16("code", uint16(res.Code)), zap.String("initiator", res.Cause.Initiator()), zap.Stringer("cause", res.Cause), zap.String("why", res.Why))
	if res.Reason != "" {
		fields = append(fields, zap.String("reason", res.Reason))
	}
	if res.Err != nil {
		fields = append(fields, zap.String("violation", res.Err.Error()))
	}
	if res.ClientErr != nil {
		fields = append(fields, zap.NamedError("client_error", res.ClientErr))
	}
	if res.BackendErr != nil {
		fields = append(fields, zap.NamedError("backend_error", res.BackendErr))
	}
	line.Write(fields...)
}

func (s *Session) fields(i *SessionInfo, more ...zap.Field) []zap.Field {
	return append([]zap.Field{zap.String("session", i.ID), zap.String("listener", i.Listener), zap.String("route", i.Route),
		zap.String("pool", i.Pool), zap.String("backend", s.Backend().ID), zap.Stringer("client", i.Client),
		zap.Stringer("client_ip", i.ClientIP), zap.String("request_id", i.RequestID)}, more...)
}

// bounded cuts what a client chose the length of.
func bounded(s string) string {
	if len(s) > 256 {
		return strings.ToValidUTF8(s[:256], "") + "…"
	}
	return s
}

// ids numbers sessions, beginning with the process's start, so that the numbers of two
// processes do not meet.
type ids struct {
	base uint64
	next atomic.Uint64
}

func newIDs(now time.Time) *ids { return &ids{base: uint64(now.UnixMilli()) << 20} }

func (i *ids) new() uint64 { return i.base + i.next.Add(1) }

// idLen is the length of a session's ID.
const idLen = 13

// sessionID is the name of a session by its number, so that names sort by age: in base 36,
// with leading zeros.
func sessionID(number uint64) string {
	id := strconv.FormatUint(number, 36)
	return strings.Repeat("0", max(0, idLen-len(id))) + id
}

// SessionNumber returns the number that an ID is made of: of two sessions the younger has
// the higher one. It is 0 if no session can have this ID.
func SessionNumber(id string) uint64 {
	n, err := strconv.ParseUint(id, 36, 64)
	if err != nil || sessionID(n) != id {
		return 0
	}
	return n
}
