package proxy

import (
	"net/netip"
	"time"

	cryptotls "crypto/tls"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy/preface"
	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

// Settings are one configuration of the edge, validated and with all defaults filled
// in. They are not changed after Prepare.
type Settings struct {
	Listeners []ListenerSettings
	Routes    []RouteSettings
	Pools     []PoolSettings
	// MaxBufferedBytes bounds what all sessions hold together for peers that have not taken
	// it; over it the largest holders are closed. 0 is no limit.
	MaxBufferedBytes int64
}

// ListenerSettings are one bound address.
type ListenerSettings struct {
	// Name is for logs and metrics.
	Name string
	// Address is host:port as for net.Listen("tcp").
	Address string
	// TLS is nil for plain ws.
	TLS *tls.ServerSettings
	// TLSEngine says who protects the records once a handshake is done.
	TLSEngine tls.Engine
	// TrustedProxies are the networks whose X-Forwarded-* and X-Request-Id are believed.
	TrustedProxies []netip.Prefix
	// ProxyProtocol says from whom a header of the PROXY protocol is taken; nil: from nobody.
	ProxyProtocol *ProxyProtocolSettings
	TCP           TCPSettings
	Limits        ListenerLimits
}

// ProxyProtocolSettings say who may name the client of a connection in a header before
// everything else on it.
type ProxyProtocolSettings struct {
	// Trusted are the networks of those who may: others' first bytes are taken as they are.
	Trusted []netip.Prefix
	// Timeout, counted from accept, is for a whole header. HandshakeTimeout is for it, too.
	Timeout time.Duration
}

// TCPSettings hold for both legs of a listener's sessions.
type TCPSettings struct {
	// Keepalive is the idle time before the first probe, in whole seconds and up to a tenth
	// less. UserTimeout is how long sent data, and on Linux probes, may stay unacknowledged
	// (TCP_USER_TIMEOUT, RFC 5482); probes are spread over what it is longer by. 0 leaves
	// either off; without a user timeout three probes follow at the distance of Keepalive.
	Keepalive, UserTimeout time.Duration
	// ReceiveBuffer and SendBuffer are bytes; 0 leaves them to the system.
	ReceiveBuffer, SendBuffer int
}

// ListenerLimits bound what one listener takes on; 0 is no limit.
type ListenerLimits struct {
	MaxSessions, MaxSessionsPerIP int
	// HandshakeTimeout runs from accept to the complete request head, TLS included.
	HandshakeTimeout time.Duration
	// MaxHeaderBytes bounds a request head.
	MaxHeaderBytes int
	// RequestBodyTimeout is how long the body of a request may make no progress.
	RequestBodyTimeout time.Duration
	// KeepaliveTimeout ends HTTP connections that wait for a next request.
	KeepaliveTimeout time.Duration
}

// Protocol is which requests a route takes.
type Protocol uint8

const (
	AnyProtocol Protocol = iota
	WebSocketOnly
	HTTPOnly
)

// RouteSettings are a match, the pool it leads to, and the policies of its sessions.
type RouteSettings struct {
	Name string
	// Hosts are lower-case names, or "*.suffix" for one or more labels before the suffix;
	// none: any host.
	Hosts []string
	// Path is a prefix that ends at a segment border; "" and "/" take any path.
	Path string
	// Headers must all be there with these values.
	Headers  map[string]string
	Protocol Protocol
	Pool     string
	// SetHeaders and RemoveHeaders change the upstream request.
	SetHeaders    map[string]string
	RemoveHeaders []string
	// Origins are the allowed values of a browser's Origin header; none: any.
	Origins []string
	// Sticky is nil where every request goes where the pool's policy says.
	Sticky    *StickySettings
	WebSocket WebSocketSettings
}

// WebSocketSettings are the policies of a route's sessions; 0 is no limit. See
// relay.Options for what they mean.
type WebSocketSettings struct {
	MaxFrameBytes, MaxMessageBytes int64
	MaxFragments                   int
	MessageTimeout                 time.Duration
	ControlFrames, Messages, Bytes relay.Rate
	DelayOverRate                  bool
	ValidateUTF8                   bool
	PingClient, PingBackend        bool
	PingInterval, PongTimeout      time.Duration
	IdleTimeout, MaxAge            time.Duration
	MaxAgeJitter                   float64
	CloseTimeout, WriteTimeout     time.Duration
	// MaxBufferedBytes bounds what is held for each direction.
	MaxBufferedBytes int
	// Compression is what the route offers; what a session has agreed to may be less.
	Compression      relay.Compression
	SlowConsumer     relay.SlowConsumer
	SlowConsumerCode ws.StatusCode
}

// PoolSettings are a group of interchangeable backends.
type PoolSettings struct {
	Name    string
	Sources []SourceSettings
	Balance balance.Options
	HashOn  HashOn
	// SlowStart is how long a backend that is new, or back, warms up; 0 is not at all.
	SlowStart time.Duration
	// LoadHeader is the header of answers in which a backend says what load it has, for the
	// policy least_load. It goes no further under any policy; empty: there is none.
	LoadHeader string
	// Upstream says how to reach a backend.
	Upstream UpstreamSettings
	// Drain says how the sessions of a draining backend leave.
	Drain DrainSettings
	// OnRemoved is for those of a backend that has left for longer than RemovalGrace.
	OnRemoved    RemovalAction
	RemovalGrace time.Duration
	// Health says how backends are found unfit for new sessions; the zero value trusts all.
	Health health.Checks
	// Migrate lets sessions move between backends; nil is off.
	Migrate *MigrateSettings
	// Rebalance says how sessions leave backends that have more than their share.
	Rebalance RebalanceSettings
}

// MigrateSettings say how sessions of a pool move to another backend; see
// relay.MoveOptions.
type MigrateSettings struct {
	CloseCodes                     []ws.StatusCode
	OnFailure                      bool
	MaxBufferedBytes               int
	Settle, Timeout                time.Duration
	ReplayMessages, DiscardReplies int
	// RedialsPerSecond bounds the handshakes with other backends, of all sessions of the
	// pool together; 0 is no limit.
	RedialsPerSecond float64
	// Secret is the key of the reattach headers' signature.
	Secret []byte
}

func (m *MigrateSettings) relay() *relay.MoveOptions {
	if m == nil {
		return nil
	}
	return &relay.MoveOptions{MaxBuffered: m.MaxBufferedBytes, Settle: m.Settle, Timeout: m.Timeout, CloseCodes: m.CloseCodes,
		OnFailure: m.OnFailure, ReplayMessages: m.ReplayMessages, DiscardReplies: m.DiscardReplies}
}

// SourceSettings are one place that announces a pool's instances.
type SourceSettings struct {
	// Slot tells the sources of a pool apart over reloads, such as "static".
	Slot string
	// Key says everything that the source was made of: a source whose slot and key stay
	// the same is left running, and the new Source is not used.
	Key    string
	Source discovery.Source
}

// UpstreamSettings say how to reach the backends of a pool.
type UpstreamSettings struct {
	// ConnectTimeout is for TCP and TLS, HandshakeTimeout for the answer to the request,
	// TotalTimeout for all attempts together, ResponseTimeout for the head of the answer to a
	// request that opens no WebSocket, from when the request is sent.
	ConnectTimeout, HandshakeTimeout, TotalTimeout, ResponseTimeout time.Duration
	// Retries is how many more backends are tried after the first one failed.
	Retries int
	// Path, if not empty, replaces the route's path prefix.
	Path string
	// Host is what the backend sees: HostPreserve, HostBackend, or a name.
	Host string
	// TLS is nil for plain connections. With an empty ServerName the host of the
	// backend's address is verified.
	TLS *cryptotls.Config
	// ProxyProtocol is the header that goes first on each connection, before TLS.
	ProxyProtocol preface.Version
	// SourceAddresses are addresses of this machine that connections come from, in turn;
	// none: the system chooses.
	SourceAddresses []netip.Addr
}

// Values of UpstreamSettings.Host that are no host names.
const (
	HostPreserve = "preserve" // the client's Host
	HostBackend  = "backend"  // the backend's address
)
