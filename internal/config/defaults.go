package config

import (
	cryptotls "crypto/tls"
	"reflect"
	"time"
)

// defaulter is a type of the schema that has defaults. setDefaults sets those of its
// own fields; applyDefaults takes care of nested types.
type defaulter interface{ setDefaults() }

// applyDefaults fills v, a new addressable struct, and the structs inside it with
// their defaults. Blocks that are off unless present are pointers and stay nil.
func applyDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	if d, ok := v.Addr().Interface().(defaulter); ok {
		d.setDefaults()
	}
	for _, f := range schemaOf(v.Type()) {
		applyDefaults(v.FieldByIndex(f.index))
	}
}

func (l *Log) setDefaults() {
	l.Level = "info"
	l.Format = "json"
}

func (a *Admin) setDefaults() {
	a.Address = "127.0.0.1:9901"
}

func (s *Shutdown) setDefaults() {
	s.DrainWindow = 30 * time.Second
	s.Deadline = 60 * time.Second
}

func (m *Memory) setDefaults() {
	m.MaxBuffered = MemorySize{Share: 0.25}
}

func (t *ListenerTLS) setDefaults() {
	t.MinVersion = cryptotls.VersionTLS12
	t.ALPN = []string{"h2", "http/1.1"}
	t.Engine = "auto"
}

// A client_auth block without a mode asks for certificates in earnest: the other
// choices would let clients in that its author meant to keep out.
func (c *ClientAuth) setDefaults() {
	c.Mode = "require"
}

func (p *ProxyProtocol) setDefaults() {
	p.Timeout = 3 * time.Second
}

func (t *TCP) setDefaults() {
	t.KeepAlive = 30 * time.Second
	t.UserTimeout = 60 * time.Second
}

func (l *Limits) setDefaults() {
	l.HandshakeTimeout = 10 * time.Second
	l.MaxHeaderSize = 16 << 10
	l.RequestBodyTimeout = 60 * time.Second
	l.KeepAliveTimeout = 75 * time.Second
}

func (m *Match) setDefaults() {
	m.Path = "/"
	m.Protocol = "any"
}

func (c *StickyCookie) setDefaults() {
	c.Name = "tg"
	c.MaxAge = 24 * time.Hour
	c.Secure = true
	c.SameSite = "lax"
}

func (w *WebSocket) setDefaults() {
	w.MaxMessageSize = 16 << 20
	w.ControlFramesPerSecond = 100
	w.RateAction = "close"
	w.Ping = "client"
	w.PingInterval = 30 * time.Second
	w.PongTimeout = 10 * time.Second
	w.MaxAgeJitter = 0.1
	w.ValidateUTF8 = true
	w.CloseTimeout = 5 * time.Second
	w.Compression = "strip"
	w.SlowConsumer = "backpressure"
	w.SlowConsumerCode = 1008
	w.MaxBuffered = 256 << 10
	w.WriteTimeout = 60 * time.Second
}

func (d *Deflate) setDefaults() {
	d.MinSize = 256
	d.MaxInflated = 16 << 20
	d.Level = 1
}

func (b *Backend) setDefaults() {
	b.Weight = 1
}

func (c *Consul) setDefaults() {
	c.PassingOnly = true
	c.Consistency = "stale"
	c.Wait = 5 * time.Minute
	c.Debounce = 100 * time.Millisecond
}

func (e *EmptyProtection) setDefaults() {
	e.MaxLoss = 1
	e.Hold = 30 * time.Second
}

func (p *Pool) setDefaults() {
	p.OnBackendRemoved = "drain"
	p.RemovalGrace = 2 * time.Second
	p.OnBackendFailure = "close"
}

func (d *Drain) setDefaults() {
	d.Window = 60 * time.Second
	d.Deadline = 5 * time.Minute
	d.Code = 1012
	d.Reason = "service restart"
	d.Order = "oldest"
}

func (m *Migrate) setDefaults() {
	m.Enabled = true
	m.OnCloseCodes = []int{1001, 1012, 1013}
	m.MaxBuffered = 1 << 20
	m.Settle = 500 * time.Millisecond
	m.Timeout = 10 * time.Second
	m.RedialsPerSecond = 100
}

// DefaultRebalance is the block as it is where the YAML has none of its keys.
func DefaultRebalance() Rebalance {
	return Rebalance{Tolerance: 1.25, Rate: 10, MinAge: time.Minute, Interval: 10 * time.Second}
}

func (r *Rebalance) setDefaults() { *r = DefaultRebalance() }

const defaultLoadHeader = "Tidegate-Load"

func (b *Balance) setDefaults() {
	b.Policy = "least_connections"
	b.HashOn = HashSource{From: "ip"}
	b.LoadFactor = 1.25
	b.LoadHeader = defaultLoadHeader
}

func (u *Upstream) setDefaults() {
	u.ConnectTimeout = 3 * time.Second
	u.HandshakeTimeout = 5 * time.Second
	u.TotalTimeout = 15 * time.Second
	u.ResponseTimeout = 2 * time.Minute
	u.Retries = 2
	u.Host = "preserve"
	u.ProxyProtocol = "none"
}

func (a *ActiveHealth) setDefaults() {
	a.Type = "tcp"
	a.Path = defaultProbePath
	a.Interval = 5 * time.Second
	a.Timeout = 2 * time.Second
	a.Rise = 2
	a.Fall = 3
}

func (p *PassiveHealth) setDefaults() {
	p.ConsecutiveFailures = 5
	p.EjectionTime = 30 * time.Second
	p.MaxEjected = 0.5
	p.EarlyDeath = 5 * time.Second
	p.PanicThreshold = 0.3
}
