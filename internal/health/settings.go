package health

import (
	"context"
	cryptotls "crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// Settings are what a pool wants of its monitor. The zero value trusts every backend.
type Settings struct {
	Checks
	// SlowStart is how long a backend that is new or back is warmed; 0 is not at all.
	SlowStart time.Duration
	// TLS is for probes, as for sessions: nil is plain, and with an empty ServerName the
	// host of the backend's address is verified.
	TLS *cryptotls.Config
	// Dial connects a probe to host:port, for TLS as for the rest; nil: as the system does.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Host is what probes send as Host; empty: the backend's address.
	Host string
	// Answered, if not nil, is called with the header of each answer to a probe of type HTTP
	// or WebSocket that was as it should be: by several goroutines, one a backend. It must
	// not block or keep the header.
	Answered func(*balance.Backend, http.Header)
}

// Checks are the health settings of a pool's configuration.
type Checks struct {
	// Active is nil for no probes.
	Active  *Active
	Passive Passive
}

// Probe is what a probe does.
type Probe uint8

const (
	// TCP connects, and makes the TLS handshake where the pool has TLS.
	TCP Probe = iota
	// HTTP wants a 2xx for a GET. Redirects are not followed.
	HTTP
	// WebSocket makes a handshake, and wants a Pong for its Ping.
	WebSocket
)

// Active is how backends are probed.
type Active struct {
	Probe Probe
	// Path is the request target for HTTP and WebSocket. It may have a query.
	Path string
	// Interval lies between the beginnings of two probes, give or take a tenth. Timeout is for
	// a whole probe, and not longer.
	Interval, Timeout time.Duration
	// Rise is how many probes in a row must pass to bring a backend back, Fall how many must
	// fail to take it out; at least 1.
	Rise, Fall int
}

// Passive is what follows from how sessions and their handshakes fare. The zero value is
// nothing.
type Passive struct {
	// ConsecutiveFailures in a row eject a backend; 0 ejects none.
	ConsecutiveFailures int
	// EjectionTime is how long the first ejection lasts. Each one that follows lasts that
	// much longer, up to ten times as long.
	EjectionTime time.Duration
	// MaxEjected is the share of the pool, from 0 to 1, that may be ejected at a time.
	MaxEjected float64
	// EarlyDeath is the age up to which a session that its backend closes counts against it;
	// 0: at no age.
	EarlyDeath time.Duration
	// PanicThreshold is the share, from 0 to 1, below which all backends are used; 0: never.
	PanicThreshold float64
}
