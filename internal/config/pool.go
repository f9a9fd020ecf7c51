package config

import (
	"net/netip"
	"time"
)

// Pool is a named group of interchangeable backends.
type Pool struct {
	// Name is unique among the pools.
	Name string `key:"name" required:"true"`
	// Backends are static. A pool has backends, or Consul, or both.
	Backends []Backend `key:"backends"`
	// Consul is nil for a pool of static backends only.
	Consul   *Consul  `key:"consul"`
	Balance  Balance  `key:"balance"`
	Upstream Upstream `key:"upstream"`
	Health   Health   `key:"health"`
	Drain    Drain    `key:"drain"`
	// OnBackendRemoved is what happens to the sessions of a backend that has left the pool:
	// drain, keep or close.
	OnBackendRemoved string `key:"on_backend_removed" oneof:"drain,keep,close"`
	// RemovalGrace is how long a backend may be away before it counts as removed; 0 is not
	// at all.
	RemovalGrace time.Duration `key:"removal_grace"`
	// OnBackendFailure is what happens to the sessions of a backend that ends without a
	// Close: close or migrate.
	OnBackendFailure string `key:"on_backend_failure" oneof:"close,migrate"`
	// Migrate is nil where sessions stay with their backends.
	Migrate *Migrate `key:"migrate"`
	// Rebalance is nil where sessions stay with a backend however many it has.
	Rebalance *Rebalance `key:"rebalance"`
}

// Drain says how the sessions of a draining backend leave it.
type Drain struct {
	// Rate is how many leave a second; 0 leaves it to Window.
	Rate float64 `key:"rate" as:"rate"`
	// Window is the time over which those that there are at the start are spread; 0 is no
	// time at all.
	Window time.Duration `key:"window"`
	// Deadline is when all that are left are closed, after the start; 0 is never.
	Deadline time.Duration `key:"deadline"`
	// Code and Reason are what clients are told. The code is one that may be sent.
	Code   int    `key:"code"`
	Reason string `key:"reason"`
	// Order says who leaves first: oldest, idle or random.
	Order string `key:"order" oneof:"oldest,idle,random"`
}

// Migrate says how sessions move to another backend while their clients stay.
type Migrate struct {
	// Enabled is for switching off a block that stays in the file.
	Enabled bool `key:"enabled"`
	// OnCloseCodes are the codes of a backend's Close that do not end its sessions.
	OnCloseCodes []int `key:"on_close_codes" range:"1000..4999" unique:"true"`
	// MaxBuffered is how many bytes of a client are kept meanwhile.
	MaxBuffered int64 `key:"max_buffered" as:"bytes"`
	// Settle is how long a backend must have said nothing before it is left, Timeout
	// bounds each move.
	Settle  time.Duration `key:"settle"`
	Timeout time.Duration `key:"timeout"`
	// RedialsPerSecond bounds the handshakes for moves; 0 is no limit.
	RedialsPerSecond int `key:"redials_per_second"`
	// ReplayOpeningMessages is how many messages of a client, the first ones, go to each
	// next backend again, ReplayDiscardReplies how many answers to them the client does not
	// get.
	ReplayOpeningMessages int `key:"replay_opening_messages" range:"0..1000"`
	ReplayDiscardReplies  int `key:"replay_discard_replies" range:"0..1000"`
	// SecretFile holds the key that signs the reattach headers.
	SecretFile string `key:"secret_file" as:"file"`
}

// Rebalance says how sessions leave backends that have more than their share.
type Rebalance struct {
	// Tolerance is which multiple of its share a backend may have: more than 1.
	Tolerance float64 `key:"tolerance"`
	// Rate is how many sessions leave a second, of the pool as a whole: more than 0.
	Rate float64 `key:"rate" as:"rate"`
	// MinAge is how old a session is at least that leaves.
	MinAge time.Duration `key:"min_age"`
	// Interval is how often the pool is looked at, at about.
	Interval time.Duration `key:"interval" range:"1s..24h"`
}

// Backend is one static app server.
type Backend struct {
	// Address is host:port. A name is resolved when it is dialled.
	Address string `key:"address" required:"true"`
	// Weight is the share of new sessions; 0 takes none.
	Weight int `key:"weight" range:"0..65535"`
	// ID is unique in the pool. If the YAML has none it is Address.
	ID string `key:"id"`
}

// Consul is a service whose instances are backends of the pool.
type Consul struct {
	// Address starts with http://, https:// or unix://. Where the YAML and
	// CONSUL_HTTP_ADDR have only host:port, it is https:// if TLS has a file and
	// http:// otherwise.
	Address string `key:"address"`
	// Service is the name of the service.
	Service string `key:"service" required:"true"`
	// Datacenters are asked in order until one has instances. Empty: the agent's own.
	Datacenters []string `key:"datacenters" unique:"true"`
	// Tags must all be there on an instance.
	Tags []string `key:"tags" unique:"true"`
	// Filter is a Consul filter expression, empty for none. Consul checks it.
	Filter string `key:"filter"`
	// PassingOnly says that instances in state warning take no new sessions.
	PassingOnly bool `key:"passing_only"`
	// Consistency is stale, default or consistent.
	Consistency string `key:"consistency" oneof:"stale,default,consistent"`
	// TokenFile holds the ACL token. Empty: the environment's CONSUL_HTTP_TOKEN, which
	// this package does not read.
	TokenFile string    `key:"token_file" as:"file"`
	TLS       ConsulTLS `key:"tls"`
	// Wait is how long a blocking query may block. Consul itself allows 10m.
	Wait time.Duration `key:"wait" range:"1s..10m"`
	// Debounce is how long changes are gathered before they are applied.
	Debounce        time.Duration   `key:"debounce" range:"0..1m"`
	EmptyProtection EmptyProtection `key:"empty_protection"`
	// SnapshotFile keeps the last good set for a cold start without Consul. Empty:
	// none. It need not exist, its directory does.
	SnapshotFile string `key:"snapshot_file" as:"file"`
}

// ConsulTLS are PEM files for an https:// agent; empty names are not used. Cert and
// Key are both given or both empty, and fit together.
type ConsulTLS struct {
	CA   string `key:"ca" as:"file"`
	Cert string `key:"cert" as:"file"`
	Key  string `key:"key" as:"file"`
}

// EmptyProtection doubts a set that lost too many instances at once.
type EmptyProtection struct {
	// MaxLoss is the lost share, from 0 to 1, from which on a new set is held back.
	MaxLoss float64 `key:"max_loss" as:"percent"`
	// Hold is how long it is held back; 0 applies it at once.
	Hold time.Duration `key:"hold"`
}

// Balance says which backend a new session gets.
type Balance struct {
	// Policy is least_connections, round_robin, consistent_hash,
	// power_of_two_choices, random, least_response_time, least_load or least_bandwidth.
	Policy string `key:"policy" oneof:"least_connections,round_robin,consistent_hash,power_of_two_choices,random,least_response_time,least_load,least_bandwidth"`
	// HashOn is what consistent_hash hashes.
	HashOn HashSource `key:"hash_on" as:"hash_source"`
	// LoadFactor bounds the load of a backend to that multiple of the mean, for
	// consistent_hash. It is 0 (unbounded) or greater than 1.
	LoadFactor float64 `key:"load_factor"`
	// MaxSessionsPerBackend bounds the sessions of a backend, dials in flight included; 0
	// is no limit.
	MaxSessionsPerBackend int `key:"max_sessions_per_backend"`
	// SlowStart is how long a backend that is new, or back, gets fewer sessions than its
	// weight says; 0 is not at all. Policy is not consistent_hash then.
	SlowStart time.Duration `key:"slow_start"`
	// LoadHeader is the canonical name of the header in which backends report their load,
	// for least_load.
	LoadHeader string `key:"load_header" required:"true"`
}

// HashSource is a part of the request.
type HashSource struct {
	// From is ip, header, cookie, query, path or host.
	From string
	// Name is that of the header (canonical), cookie or query parameter, and empty
	// otherwise.
	Name string
}

// Upstream is how backends of a pool are reached.
type Upstream struct {
	// ConnectTimeout is for one connection, TLS included, HandshakeTimeout for the answer
	// to the WebSocket handshake on it, TotalTimeout for all attempts together and not
	// less than either. 0 is no limit.
	ConnectTimeout   time.Duration `key:"connect_timeout"`
	HandshakeTimeout time.Duration `key:"handshake_timeout"`
	TotalTimeout     time.Duration `key:"total_timeout"`
	// ResponseTimeout is for the head of the answer to a request that opens no WebSocket,
	// from when the request is sent; 0 is no limit.
	ResponseTimeout time.Duration `key:"response_timeout"`
	// Retries is the number of further attempts after the first one.
	Retries int `key:"retries" range:"0..100"`
	// Path replaces the route's path prefix in the upstream request; empty keeps it. What
	// follows the prefix, and the query, are the client's.
	Path string `key:"path"`
	// Host is the Host header: preserve (the client's), backend (the backend's
	// address) or a host name, with a port or without.
	Host string `key:"host" required:"true"`
	// SourceAddresses are where connections come from, in turn; none if empty. They are
	// plain IPv4 or IPv6 addresses, and need not be of this machine.
	SourceAddresses []netip.Addr `key:"source_addresses" unique:"true"`
	// ProxyProtocol is the header that goes first on each connection: none, v1 or v2.
	ProxyProtocol string `key:"proxy_protocol" oneof:"none,v1,v2"`
	// TLS is nil for plain ws.
	TLS *UpstreamTLS `key:"tls"`
}

// UpstreamTLS is how the edge speaks TLS to backends.
type UpstreamTLS struct {
	// CA holds PEM certificates of authorities. Empty: those of the system.
	CA string `key:"ca" as:"file"`
	// ServerName is the SNI and the name to verify. Empty: the host that is dialled.
	ServerName string `key:"server_name"`
	// SkipVerify accepts any certificate. CA is empty then.
	SkipVerify bool `key:"skip_verify"`
	// Cert and Key are the edge's own PEM files; both given or both empty.
	Cert string `key:"cert" as:"file"`
	Key  string `key:"key" as:"file"`
}

// Health says how backends are found unfit for new sessions.
type Health struct {
	// Active is nil for no probes.
	Active  *ActiveHealth `key:"active"`
	Passive PassiveHealth `key:"passive"`
}

// ActiveHealth is how backends are probed.
type ActiveHealth struct {
	// Type is tcp, http or websocket.
	Type string `key:"type" oneof:"tcp,http,websocket"`
	// Path is the request target of http and websocket, with a query or without.
	Path string `key:"path"`
	// Interval lies between two probes of a backend, Timeout bounds one and is not longer.
	Interval time.Duration `key:"interval" range:"100ms..24h"`
	Timeout  time.Duration `key:"timeout" range:"1ms..24h"`
	// Rise probes in a row must pass to bring a backend back, Fall fail to take it out.
	Rise int `key:"rise" range:"1..100"`
	Fall int `key:"fall" range:"1..100"`
}

// PassiveHealth is what follows from how handshakes and sessions fare.
type PassiveHealth struct {
	// ConsecutiveFailures eject a backend; 0 ejects none.
	ConsecutiveFailures int `key:"consecutive_failures"`
	// EjectionTime is how long the first ejection lasts; MaxEjected the share of the pool,
	// from 0 to 1, that may be ejected.
	EjectionTime time.Duration `key:"ejection_time" range:"1ms..24h"`
	MaxEjected   float64       `key:"max_ejected" as:"percent"`
	// EarlyDeath is the age up to which a session that its backend closes is a failure; 0:
	// none is.
	EarlyDeath time.Duration `key:"early_death"`
	// PanicThreshold is the share, from 0 to 1, of healthy backends below which all are
	// used; 0: never.
	PanicThreshold float64 `key:"panic_threshold" as:"percent"`
}
