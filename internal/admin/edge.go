package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Edge is what the API needs of a running edge. Its methods are called by many
// requests at once. Slices that they return become the caller's; maps and tags inside
// are only read and may be shared.
type Edge interface {
	Status() Status
	// Ready returns nil when the edge takes new sessions, else why it does not.
	Ready() error
	Pools() []Pool
	// Sessions returns one page of the live sessions that match, in a stable order.
	// A cursor that it did not issue is ErrBadCursor.
	Sessions(SessionQuery) (SessionPage, error)
	Session(id string) (Session, bool)
	// CloseSession begins the closing handshake with a code and reason that
	// CheckClose has passed; it does not wait for its end. ErrNoSession: there is no
	// such session, or no longer.
	CloseSession(id string, code int, reason string) error
	// Drain drains a backend at a pace, or changes the pace of its drain; Undrain ends
	// that. ErrNoPool and ErrNoBackend: there is none of this name. ErrBadPace: parts of
	// the pace contradict each other or the configuration. ErrNotDrained and ErrMaintained:
	// there is nothing for Undrain to end. ErrShuttingDown: all sessions are closed anyway.
	Drain(pool, backend string, p Pace) error
	Undrain(pool, backend string) error
	// Rebalance looks at a pool now and begins to let sessions leave the backends that have
	// too many; it does not wait for them. ErrNoPool; ErrHashed: their hash says where they
	// are. ErrUnsettled: a backend is new or unhealthy. ErrShuttingDown.
	Rebalance(pool string) (Rebalancing, error)
	// Reload reads, checks and applies the configuration and returns its generation.
	// A *Rejected error says what is wrong with it; ErrNoFile that there is none,
	// ErrShuttingDown that it is too late.
	Reload(ctx context.Context) (generation uint64, err error)
}

// Errors of an Edge that have a meaning for the API.
var (
	// ErrNoSession: no live session has this id (404).
	ErrNoSession = errors.New("no such session")
	// ErrBadCode: no endpoint may send this close code (400).
	ErrBadCode = errors.New("bad close code")
	// ErrBadReason: the reason does not fit into a Close frame (400).
	ErrBadReason = errors.New("bad close reason")
	// ErrBadCursor: the cursor does not come from a page of sessions (400).
	ErrBadCursor = errors.New("bad cursor")
	// ErrNoPool: no pool has this name (404).
	ErrNoPool = errors.New("no such pool")
	// ErrNoBackend: no backend of the pool has this id (404).
	ErrNoBackend = errors.New("no such backend in this pool")
	// ErrBadPace: a drain cannot go on like this (400).
	ErrBadPace = errors.New("bad pace")
	// ErrNotDrained: the backend is not drained (409).
	ErrNotDrained = errors.New("this backend is not drained")
	// ErrMaintained: discovery has the backend drained, not an operator (409).
	ErrMaintained = errors.New("its maintenance in Consul drains this backend: end it there")
	// ErrHashed: the policy of the pool is consistent_hash (409).
	ErrHashed = errors.New("the sessions of this pool are where its hash says: they are not rebalanced")
	// ErrUnsettled: a backend is new or unhealthy, and which (409).
	ErrUnsettled = errors.New("nothing is rebalanced while a backend is new or unhealthy")
	// ErrNoFile: there is no configuration file that could be read again (409).
	ErrNoFile = errors.New("this edge has no configuration file")
	// ErrShuttingDown: the edge is on its way out (503).
	ErrShuttingDown = errors.New("the edge is shutting down")
)

// Status is an edge at a glance.
type Status struct {
	Version            string     `json:"version"`
	UptimeSeconds      float64    `json:"uptime_seconds"`
	Started            time.Time  `json:"started"`
	Generation         uint64     `json:"generation"` // 0: no configuration yet
	Ready              bool       `json:"ready"`
	ShuttingDown       bool       `json:"shutting_down"`
	Sessions           int64      `json:"sessions"` // live
	HandshakesInFlight int64      `json:"handshakes_in_flight"`
	RequestsInFlight   int64      `json:"requests_in_flight"` // of plain HTTP
	SessionsTotal      uint64     `json:"sessions_total"`     // since the start
	Listeners          []Listener `json:"listeners"`
	Routes             []Route    `json:"routes"`
	Config             Config     `json:"config"`
}

// Listener is one listener of the present generation.
type Listener struct {
	Name     string `json:"name"`
	Address  string `json:"address"` // as bound: the port is the real one
	TLS      bool   `json:"tls"`
	Sessions int64  `json:"sessions"` // live
}

// Route is one route of the present generation.
type Route struct {
	Name     string `json:"name"`
	Pool     string `json:"pool"`
	Sessions int64  `json:"sessions"` // live
}

// Config says where the configuration comes from and how its last reload went.
type Config struct {
	// Path is empty for a configuration that comes from no file, such as the demo's.
	Path string `json:"path"`
	// LastReload is when a configuration was last applied or rejected, the first one
	// included; the zero time: never.
	LastReload      time.Time `json:"last_reload,omitzero"`
	LastReloadOK    bool      `json:"last_reload_ok"`
	LastReloadError string    `json:"last_reload_error,omitempty"`
}

// Pool is one pool and its backends.
type Pool struct {
	Name     string    `json:"name"`
	Policy   string    `json:"policy"`
	Stale    bool      `json:"stale"` // the set is not known to be current
	Panic    bool      `json:"panic"` // too few backends are healthy: all are used
	Index    uint64    `json:"index"` // of the discovery snapshot; 0 without one
	Backends []Backend `json:"backends"`
	// Rebalancing is nil while no sessions leave because their backends have too many.
	Rebalancing *Rebalancing `json:"rebalancing,omitempty"`
}

// Rebalancing is how the rebalancing of a pool stands.
type Rebalancing struct {
	Remaining int64   `json:"remaining"`  // sessions that are to leave, or about to
	PerSecond float64 `json:"per_second"` // how many leave
	// Waiting says that none leaves because a backend is new or unhealthy.
	Waiting bool `json:"waiting"`
}

// Backend is one backend with its live state.
type Backend struct {
	ID         string            `json:"id"`
	Address    string            `json:"address"`
	Weight     int               `json:"weight"`
	State      string            `json:"state"`
	Reason     string            `json:"reason,omitempty"` // why it is not up, in a few words; untrusted
	Sessions   int64             `json:"sessions"`         // live
	InFlight   int64             `json:"in_flight"`        // dials and handshakes
	Picks      uint64            `json:"picks"`
	Failures   map[string]uint64 `json:"failures"` // by kind
	Node       string            `json:"node,omitempty"`
	Datacenter string            `json:"datacenter,omitempty"`
	Tags       []string          `json:"tags"` // untrusted
	Meta       map[string]string `json:"meta"` // untrusted
	// Draining is nil for a backend that is not drained.
	Draining *Draining `json:"draining,omitempty"`
}

// Draining is how the drain of a backend stands.
type Draining struct {
	By        string    `json:"by"`        // operator, consul or removal
	Remaining int64     `json:"remaining"` // sessions
	Since     time.Time `json:"since"`
	// Deadline is when all that are left are closed; the zero time: never.
	Deadline time.Time `json:"deadline,omitzero"`
	// PerSecond is how many sessions leave a second; 0: all at once.
	PerSecond float64 `json:"per_second"`
	// Waiting says that none leaves because no other backend takes sessions.
	Waiting bool `json:"waiting"`
}

// Pace is what is asked of a drain; nil leaves it to the configuration.
type Pace struct {
	Rate             *float64 // sessions a second; 0: by the window
	Window, Deadline *time.Duration
}

// Session is one live session.
type Session struct {
	ID              string    `json:"id"`
	Route           string    `json:"route"`
	Listener        string    `json:"listener"`
	Pool            string    `json:"pool"`
	Backend         string    `json:"backend"`
	Client          string    `json:"client"`    // address and port of the connection's other end
	ClientIP        string    `json:"client_ip"` // the client's, as trusted proxies name it
	State           string    `json:"state"`
	Opened          time.Time `json:"opened"`
	DurationSeconds float64   `json:"duration_seconds"`
	Subprotocol     string    `json:"subprotocol,omitempty"`
	Host            string    `json:"host"`       // untrusted, as the rest of the request
	Path            string    `json:"path"`       // without the query, which may hold secrets
	RequestID       string    `json:"request_id"` // X-Request-Id
	Attempts        int       `json:"attempts"`   // handshakes with other backends, to move it there
	Upstream        Traffic   `json:"upstream"`   // from the client
	Downstream      Traffic   `json:"downstream"` // to the client
}

// Traffic counts what a session sent one way.
type Traffic struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"` // payload of the messages
	Frames   uint64 `json:"frames"`
}

// Limits of SessionQuery.Limit.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// SessionQuery selects sessions. A field with its zero value selects all.
type SessionQuery struct {
	Pool, Backend, Route string
	IP                   netip.Addr // of the client, IPv4 never mapped into IPv6
	// Limit is the greatest number of sessions of a page, 1 to MaxLimit. The API
	// turns the zero value into DefaultLimit before an Edge sees it.
	Limit int
	// Cursor is the Next of the page before; empty for the first.
	Cursor string
}

// SessionPage is one page of sessions.
type SessionPage struct {
	Sessions []Session `json:"sessions"`
	// Next is the cursor of the following page, empty on the last.
	Next string `json:"next"`
}

// Rejected is the error for a configuration that was not applied.
type Rejected struct{ Diagnostics []Diagnostic }

// Error counts the problems; the diagnostics name them.
func (r *Rejected) Error() string {
	if len(r.Diagnostics) == 1 {
		return "the configuration was rejected: 1 problem"
	}
	return fmt.Sprintf("the configuration was rejected: %d problems", len(r.Diagnostics))
}

// Diagnostic is one problem of a configuration. Line and Column count from 1; 0 where
// there is none.
type Diagnostic struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

// String is FILE:LINE:COL: path: message, without the parts that are missing.
func (d Diagnostic) String() string {
	s := d.Message
	if d.Path != "" {
		s = d.Path + ": " + s
	}
	switch {
	case d.File == "":
		return s
	case d.Line == 0:
		return d.File + ": " + s
	}
	return fmt.Sprintf("%s:%d:%d: %s", d.File, d.Line, d.Column, s)
}
