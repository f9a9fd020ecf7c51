package metrics

import (
	"time"

	"github.com/tidegate/tidegate/internal/histogram"
)

// Source is what the collector reads.
type Source interface {
	// Snapshot returns everything there is to show at this moment. It is called once
	// per scrape, by several scrapes at a time, and must not block. The collector only
	// reads what it returns.
	Snapshot() Snapshot
}

// Snapshot is the state of the edge at one scrape. Its zero value is an edge without
// a configuration. Counters never go down while the process lives.
type Snapshot struct {
	Sessions     []Sessions
	Routes       []Route
	Unrouted     Answers           // what was refused before a route was found; its route is ""
	Requests     int               // plain ones under way
	Buffered     int64             // bytes that wait for peers
	Shed         map[string]uint64 // what was refused or closed because of overload, by reason
	Pools        []Pool
	Config       Config
	Certificates []Certificate
}

// Sessions counts the live sessions of one listener and route. Each pair stands once.
type Sessions struct {
	Listener, Route string
	Active          int64
}

// Answers counts requests by how they were answered.
type Answers struct {
	// Handshakes by result: "ok" or a short cause.
	Handshakes map[string]uint64
	// Requests by the status code of the edge's answer, 101 included.
	Requests map[int]uint64
}

// End counts sessions by why they ended.
type End struct {
	By    string // client, backend or edge
	Cause string // one word
	Count uint64
}

// Route holds the counters of one route, each route once. None has an empty name.
type Route struct {
	Name string
	Answers
	// HandshakeDuration is from the complete request head to the 101.
	HandshakeDuration histogram.Snapshot
	// Upstream is what clients sent, Downstream what backends sent.
	Upstream, Downstream Traffic
	// Closes of ended sessions. Entries with the same code and initiator add up.
	Closes []Close
	// Ends of sessions. Each pair of By and Cause stands once.
	Ends []End
	// PingRTT is from a Ping of the edge's to its Pong.
	PingRTT histogram.Snapshot
	// SessionDuration is from the 101 to the end of the session.
	SessionDuration histogram.Snapshot
}

// Traffic counts what went one way.
type Traffic struct {
	// TextMessages and BinaryMessages are complete messages.
	TextMessages, BinaryMessages uint64
	// MessagesDropped is how many of them the other side did not get.
	MessagesDropped uint64
	// MessageBytes is their payload, without frame headers.
	MessageBytes uint64
	Frames       Frames
}

// Frames counts frames by opcode (RFC 6455 §5.2).
type Frames struct {
	Continuation, Text, Binary, Close, Ping, Pong uint64
}

// Close counts sessions that ended in one way.
type Close struct {
	// Code is the status code that ended the session (RFC 6455 §7.4), 0 when none was
	// seen.
	Code uint16
	// Initiator is "client", "backend" or "edge".
	Initiator string
	Count     uint64
}

// Pool holds the counters of one pool, each pool once.
type Pool struct {
	Name string
	// ConnectDuration is what it took to reach backends, TLS included.
	ConnectDuration histogram.Snapshot
	Backends        []Backend
	// Migrations are moves of sessions by result, nil for a pool whose sessions stay.
	Migrations map[string]uint64
	// InDoubt is how many messages may or may not have been dealt with.
	InDoubt uint64
	// Rebalanced is how many sessions have left a backend that had more than its share.
	Rebalanced uint64
	// Stale says that the set is not known to be current.
	Stale bool
	// Panic says that all backends are used because too few are healthy.
	Panic bool
	// Consul is nil for a pool that Consul does not feed.
	Consul *Consul
}

// Backend holds the counters of one backend, each ID once in a pool.
type Backend struct {
	ID string
	// State is one of the contract's backend states.
	State    string
	Sessions int64
	// Picks counts how often the balancer chose it.
	Picks uint64
	// Failures by kind.
	Failures map[string]uint64
	// Draining says that it is drained, and Remaining how many sessions it still has then.
	Draining  bool
	Remaining int64
}

// Consul is how a pool's discovery by Consul fares.
type Consul struct {
	// Index is the last X-Consul-Index.
	Index uint64
	// LastContact is when Consul last answered; the zero time: never.
	LastContact time.Time
	Errors      uint64
}

// Config is what happened to the configuration.
type Config struct {
	Generation uint64
	// Reloads by result: "ok" or a short cause.
	Reloads map[string]uint64
	// LastReloadOK is true from the first configuration on, until a reload fails.
	LastReloadOK bool
}

// Certificate is one certificate that a listener serves, each pair once.
type Certificate struct {
	// Name is its first DNS name or what else tells it from its neighbours.
	Listener, Name string
	NotAfter       time.Time
}
