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

// Session is one client WebSocket and its upstream leg. All of it but the counters and
// the state is fixed when it opens.
type Session struct {
	ID                        string
	Listener, Route, Pool     string
	Backend                   *balance.Backend
	Client                    netip.AddrPort // the connection's other end
	ClientIP                  netip.Addr     // the client, by trusted proxies' word
	Opened                    time.Time
	Host, Path                string
	Subprotocol, RequestID    string
	number                    uint64
	state                     atomic.Uint32
	engine                    atomic.Pointer[engine.Session]
	ended                     func(*Session)
	stats                     *RouteStats
	active                    *atomic.Int64
	log                       *zap.Logger
	messages, frames, payload [2]atomic.Uint64
}

// State returns where the session stands.
func (s *Session) State() State { return State(s.state.Load()) }

// Count is messages, frames and payload bytes that one side sent so far.
type Count struct{ Messages, Frames, Bytes uint64 }

// Counts returns what came from a side.
func (s *Session) Counts(from relay.Side) Count {
	return Count{s.messages[from].Load(), s.frames[from].Load(), s.payload[from].Load()}
}

// Close ends the session with a Close of the edge's: code and reason for the client,
// 1001 for the backend. It does not wait.
func (s *Session) Close(code ws.StatusCode, reason string) {
	if e := s.engine.Load(); e != nil {
		(*e).Close(relay.Ending{Client: code, Backend: ws.StatusGoingAway, Reason: reason})
	}
}

// kill ends the session at once.
func (s *Session) kill() {
	if e := s.engine.Load(); e != nil {
		(*e).Kill()
	}
}

// observed is a session as its engine sees it: engine.Observer.
type observed Session

// Closing is the transition from open.
func (o *observed) Closing() {
	(*Session)(o).state.CompareAndSwap(uint32(StateOpen), uint32(StateClosing))
}

// Done is the last transition.
func (o *observed) Done(res engine.Result) {
	s := (*Session)(o)
	s.state.Store(uint32(StateClosed))
	if res.Cause == relay.BackendGone {
		s.Backend.Live.Fail(balance.FailureAborted)
	}
	code := uint16(res.Code)
	if res.Code == ws.StatusAbnormalClosure {
		code = 0
	}
	s.stats.closed(CloseKey{code, res.Cause.Initiator()})
	s.stats.SessionDuration.Observe(time.Since(s.Opened).Seconds())
	s.active.Add(-1)
	s.logEnd(res)
	s.ended(s)
}

// Count publishes what came from a side.
func (o *observed) Count(from relay.Side, c *relay.Counters, _ int) {
	s := (*Session)(o)
	s.stats.add(s.number, from, c)
	var frames uint64
	for _, n := range c.Frames {
		frames += n
	}
	s.frames[from].Add(frames)
	s.messages[from].Add(c.Messages[0] + c.Messages[1])
	s.payload[from].Add(c.Bytes)
	*c = relay.Counters{}
}

func (s *Session) logOpen() {
	s.log.Info("session opened", s.fields(zap.String("host", s.Host), zap.String("path", bounded(s.Path)), zap.String("subprotocol", s.Subprotocol))...)
}

func (s *Session) logEnd(res engine.Result) {
	up, down := s.Counts(relay.Client), s.Counts(relay.Backend)
	fields := s.fields(zap.Duration("duration", time.Since(s.Opened)),
		zap.Uint64("messages_upstream", up.Messages), zap.Uint64("bytes_upstream", up.Bytes),
		zap.Uint64("messages_downstream", down.Messages), zap.Uint64("bytes_downstream", down.Bytes),
		zap.Uint16("code", uint16(res.Code)), zap.String("initiator", res.Cause.Initiator()), zap.Stringer("cause", res.Cause))
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
	s.log.Info("session ended", fields...)
}

func (s *Session) fields(more ...zap.Field) []zap.Field {
	return append([]zap.Field{zap.String("session", s.ID), zap.String("listener", s.Listener), zap.String("route", s.Route),
		zap.String("pool", s.Pool), zap.String("backend", s.Backend.ID), zap.Stringer("client", s.Client),
		zap.Stringer("client_ip", s.ClientIP), zap.String("request_id", s.RequestID)}, more...)
}

// bounded cuts what a client chose the length of.
func bounded(s string) string {
	if len(s) > 256 {
		return strings.ToValidUTF8(s[:256], "") + "…"
	}
	return s
}

// ids makes session ids that sort by age: 13 digits in base 36 of a number that begins
// with the process's start, so that ids of two processes do not meet.
type ids struct {
	base uint64
	next atomic.Uint64
}

func newIDs(now time.Time) *ids { return &ids{base: uint64(now.UnixMilli()) << 20} }

func (i *ids) new() (number uint64, id string) {
	number = i.base + i.next.Add(1)
	id = strconv.FormatUint(number, 36)
	return number, strings.Repeat("0", max(0, 13-len(id))) + id
}
