package config

import (
	"net/netip"
	"time"
)

// Listener is a bound address and its TLS settings.
type Listener struct {
	// Name is unique among the listeners.
	Name string `key:"name" required:"true"`
	// Address is host:port; an empty host is every address of the machine. No two
	// listeners can claim the same port of an address, port 0 aside.
	Address string `key:"address" required:"true"`
	// TLS is nil for plain ws.
	TLS *ListenerTLS `key:"tls"`
	// ProxyProtocol is nil if nobody's PROXY protocol is taken.
	ProxyProtocol *ProxyProtocol `key:"proxy_protocol"`
	// TrustedProxies are the sources whose X-Forwarded-* is believed, in masked form;
	// none if empty.
	TrustedProxies []netip.Prefix `key:"trusted_proxies"`
	TCP            TCP            `key:"tcp"`
	Limits         Limits         `key:"limits"`
}

// ProxyProtocol says who may name the client of a connection in a header before it.
type ProxyProtocol struct {
	// Trusted are the sources that may, in masked form; at least one.
	Trusted []netip.Prefix `key:"trusted" required:"true"`
	// Timeout is for a whole header, from accept on.
	Timeout time.Duration `key:"timeout" range:"1ms..24h"`
}

// ListenerTLS is how a listener terminates TLS.
type ListenerTLS struct {
	// Certificates has at least one element; the SNI picks among them and the first
	// one serves clients that none of them fits.
	Certificates []KeyPair `key:"certificates" required:"true"`
	// MinVersion is crypto/tls's VersionTLS12 or VersionTLS13.
	MinVersion uint16 `key:"min_version" as:"tls_version"`
	// ClientAuth is nil if no certificate is asked of clients.
	ClientAuth *ClientAuth `key:"client_auth"`
	// TicketKeys is nil if the process makes up its own session ticket keys.
	TicketKeys *TicketKeys `key:"ticket_keys"`
	// ALPN lists the protocols offered, the preferred one first.
	ALPN []string `key:"alpn" oneof:"h2,http/1.1" unique:"true" noempty:"true"`
	// Engine says who protects the records of TLS 1.3 once a handshake is done: auto (the
	// edge's own record layer where it can) or stdlib (crypto/tls always).
	Engine string `key:"engine" oneof:"auto,stdlib"`
}

// KeyPair names the PEM files of one certificate, which were found to fit together.
type KeyPair struct {
	// Cert holds the leaf first, then the intermediate certificates.
	Cert string `key:"cert" required:"true" as:"file"`
	Key  string `key:"key" required:"true" as:"file"`
}

// ClientAuth asks clients for a certificate.
type ClientAuth struct {
	// Mode is none (do not ask), optional (ask, and verify what comes) or require.
	Mode string `key:"mode" oneof:"none,optional,require"`
	// CA holds the PEM certificates of the authorities that may sign for clients. It
	// is empty only if Mode is none.
	CA string `key:"ca" as:"file"`
}

// TicketKeys are session ticket keys that several edges share.
type TicketKeys struct {
	// Files hold one key of at least 32 bytes each. The first one encrypts, all
	// decrypt.
	Files []string `key:"files" required:"true" as:"file" unique:"true"`
}

// TCP are socket options of accepted connections.
type TCP struct {
	// KeepAlive is the idle time before the first probe; 0 switches probes off. Linux
	// takes at most 32767 s for TCP_KEEPIDLE.
	KeepAlive time.Duration `key:"keepalive" range:"0|1s..9h"`
	// UserTimeout is TCP_USER_TIMEOUT, how long sent data and probes may stay
	// unacknowledged; 0 leaves it to the kernel. With both set it is longer than KeepAlive
	// by half of it, and by 4 s.
	UserTimeout time.Duration `key:"user_timeout" range:"0|1ms..24h"`
	// ReceiveBuffer and SendBuffer are SO_RCVBUF and SO_SNDBUF in bytes; 0 leaves
	// them to the kernel.
	ReceiveBuffer int64 `key:"receive_buffer" as:"bytes" range:"0|1KiB..1GiB"`
	SendBuffer    int64 `key:"send_buffer" as:"bytes" range:"0|1KiB..1GiB"`
}

// Limits bound what clients of a listener can take. 0 is no limit.
type Limits struct {
	// MaxSessions is the number of live sessions of the listener.
	MaxSessions int `key:"max_sessions"`
	// MaxSessionsPerIP is the same for one client address.
	MaxSessionsPerIP int `key:"max_sessions_per_ip"`
	// HandshakeTimeout runs from accept to the end of the request head, TLS included.
	HandshakeTimeout time.Duration `key:"handshake_timeout"`
	// MaxHeaderSize is the size of a request head in bytes. Smaller bounds cannot be kept:
	// net/http reads 4 KiB in any case.
	MaxHeaderSize int64 `key:"max_header_size" as:"bytes" range:"0|4KiB..64MiB"`
	// RequestBodyTimeout is how long the body of a request may make no progress.
	RequestBodyTimeout time.Duration `key:"request_body_timeout"`
	// KeepAliveTimeout closes HTTP connections that are idle.
	KeepAliveTimeout time.Duration `key:"keepalive_timeout"`
}
