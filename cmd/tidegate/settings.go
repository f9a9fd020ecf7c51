package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/discovery/consul"
	"github.com/tidegate/tidegate/discovery/static"
	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/proxy"
	"github.com/tidegate/tidegate/proxy/preface"
	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

// Slots of a pool's sources.
const (
	staticSlot = "static"
	consulSlot = "consul"
)

// settingsOf translates a configuration for package proxy. It reads the files that the
// upstream legs need and starts nothing. log, which may be nil, is for the sources.
func settingsOf(f *config.File, log *zap.Logger) (proxy.Settings, error) {
	var s proxy.Settings
	var errs []error
	for i := range f.Listeners {
		s.Listeners = append(s.Listeners, listenerSettings(&f.Listeners[i]))
	}
	for i := range f.Routes {
		r, err := routeSettings(&f.Routes[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", f.Routes[i].Name, err))
		}
		s.Routes = append(s.Routes, r)
	}
	for i := range f.Pools {
		p, err := poolSettings(&f.Pools[i], log)
		if err != nil {
			errs = append(errs, fmt.Errorf("pool %s: %w", f.Pools[i].Name, err))
		}
		s.Pools = append(s.Pools, p)
	}
	var err error
	if s.MaxBufferedBytes, err = bytesOf(f.Memory.MaxBuffered); err != nil {
		errs = append(errs, err)
	}
	return s, errors.Join(errs...)
}

func listenerSettings(l *config.Listener) proxy.ListenerSettings {
	engine := tls.EngineAuto
	if l.TLS != nil && l.TLS.Engine == "stdlib" {
		engine = tls.EngineStdlib
	}
	var naming *proxy.ProxyProtocolSettings
	if p := l.ProxyProtocol; p != nil {
		naming = &proxy.ProxyProtocolSettings{Trusted: p.Trusted, Timeout: p.Timeout}
	}
	return proxy.ListenerSettings{
		Name: l.Name, Address: l.Address, TLS: serverTLS(l.TLS), TLSEngine: engine, TrustedProxies: l.TrustedProxies, ProxyProtocol: naming,
		TCP: proxy.TCPSettings{Keepalive: l.TCP.KeepAlive, UserTimeout: l.TCP.UserTimeout,
			ReceiveBuffer: int(l.TCP.ReceiveBuffer), SendBuffer: int(l.TCP.SendBuffer)},
		Limits: proxy.ListenerLimits{MaxSessions: l.Limits.MaxSessions, MaxSessionsPerIP: l.Limits.MaxSessionsPerIP,
			HandshakeTimeout: l.Limits.HandshakeTimeout, MaxHeaderBytes: int(l.Limits.MaxHeaderSize),
			RequestBodyTimeout: l.Limits.RequestBodyTimeout, KeepaliveTimeout: l.Limits.KeepAliveTimeout},
	}
}

func serverTLS(t *config.ListenerTLS) *tls.ServerSettings {
	if t == nil {
		return nil
	}
	s := &tls.ServerSettings{MinVersion: t.MinVersion, NextProtos: t.ALPN}
	for _, c := range t.Certificates {
		s.Certificates = append(s.Certificates, tls.KeyPairFiles{CertFile: c.Cert, KeyFile: c.Key})
	}
	if t.ClientAuth != nil {
		s.ClientCAFile = t.ClientAuth.CA
		switch t.ClientAuth.Mode {
		case "optional":
			s.ClientAuth = tls.ClientAuthOptional
		case "require":
			s.ClientAuth = tls.ClientAuthRequire
		default:
			s.ClientCAFile = ""
		}
	}
	if t.TicketKeys != nil {
		s.TicketKeyFiles = t.TicketKeys.Files
	}
	return s
}

func routeSettings(r *config.Route) (proxy.RouteSettings, error) {
	protocols := map[string]proxy.Protocol{"any": proxy.AnyProtocol, "websocket": proxy.WebSocketOnly, "http": proxy.HTTPOnly}
	s := proxy.RouteSettings{
		Name: r.Name, Hosts: r.Match.Hosts, Path: r.Match.Path, Headers: r.Match.Headers, Protocol: protocols[r.Match.Protocol],
		Pool: r.Pool, SetHeaders: r.Headers.Set, RemoveHeaders: r.Headers.Remove, Origins: r.Origins,
		WebSocket: webSocketSettings(&r.WebSocket),
	}
	var err error
	if r.Sticky != nil {
		if s.Sticky, err = stickySettings(r.Sticky); err != nil {
			err = fmt.Errorf("sticky: %w", err)
		}
	}
	return s, err
}

func stickySettings(c *config.Sticky) (*proxy.StickySettings, error) {
	s := &proxy.StickySettings{Strict: c.Strict}
	switch {
	case c.Header != "":
		s.On = proxy.HashOn{Source: proxy.HashHeader, Name: c.Header}
	case c.Cookie == nil:
		s.On = hashOn(c.Hash)
	default:
		secret, err := secretOf(c.Cookie.SecretFile)
		if err != nil {
			return nil, err
		}
		sites := map[string]http.SameSite{"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode}
		s.Cookie = &proxy.StickyCookie{Name: c.Cookie.Name, MaxAge: c.Cookie.MaxAge, Secure: c.Cookie.Secure,
			SameSite: sites[c.Cookie.SameSite], Secret: secret}
	}
	return s, nil
}

// secretOf is the content of a file with a secret, less the end of its line.
func secretOf(file string) ([]byte, error) {
	secret, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	return bytes.TrimRight(secret, "\r\n"), nil
}

func webSocketSettings(w *config.WebSocket) proxy.WebSocketSettings {
	return proxy.WebSocketSettings{
		MaxFrameBytes: w.MaxFrameSize, MaxMessageBytes: w.MaxMessageSize, MaxFragments: w.MaxFragments, MessageTimeout: w.MessageTimeout,
		ControlFrames: rate(w.ControlFramesPerSecond, 0), Messages: rate(w.MessagesPerSecond, w.MessageBurst), Bytes: rate(w.BytesPerSecond, w.ByteBurst),
		DelayOverRate: w.RateAction == "delay", ValidateUTF8: w.ValidateUTF8,
		PingClient: w.Ping == "client" || w.Ping == "both", PingBackend: w.Ping == "backend" || w.Ping == "both",
		PingInterval: w.PingInterval, PongTimeout: w.PongTimeout,
		IdleTimeout: w.IdleTimeout, MaxAge: w.MaxAge, MaxAgeJitter: w.MaxAgeJitter,
		Compression:      compression(w),
		SlowConsumer:     map[string]relay.SlowConsumer{"close": relay.CloseSlow, "drop_oldest": relay.DropOldest}[w.SlowConsumer],
		SlowConsumerCode: ws.StatusCode(w.SlowConsumerCode),
		CloseTimeout:     w.CloseTimeout, WriteTimeout: w.WriteTimeout,
		MaxBufferedBytes: int(min(w.MaxBuffered, math.MaxInt32)),
	}
}

func compression(w *config.WebSocket) relay.Compression {
	switch w.Compression {
	case "passthrough":
		return relay.Compression{Mode: relay.Passthrough}
	case "terminate":
		return relay.Compression{Mode: relay.Terminate, Level: w.Deflate.Level, MinBytes: int(min(w.Deflate.MinSize, math.MaxInt32)),
			MaxInflatedBytes: w.Deflate.MaxInflated}
	}
	return relay.Compression{}
}

// bytesOf returns how many bytes a part of the memory is; what there is is that of the
// cgroup, or else of the machine.
func bytesOf(m config.MemorySize) (int64, error) {
	if m.Share == 0 {
		return m.Bytes, nil
	}
	total, err := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
	if err != nil {
		return 0, fmt.Errorf("memory.max_buffered: how much memory there is cannot be found out; give a size instead of a share: %w", err)
	}
	return int64(m.Share * float64(total)), nil
}

// rate is so many per second; a burst of 0 is one second's worth.
func rate[T int | int64](perSecond, burst T) relay.Rate {
	if burst == 0 {
		burst = perSecond
	}
	return relay.Rate{PerSecond: float64(perSecond), Burst: float64(burst)}
}

func poolSettings(p *config.Pool, log *zap.Logger) (proxy.PoolSettings, error) {
	u := p.Upstream
	s := proxy.PoolSettings{
		Name:    p.Name,
		Balance: balance.Options{Policy: p.Balance.Policy, LoadFactor: p.Balance.LoadFactor, MaxSessions: p.Balance.MaxSessionsPerBackend},
		HashOn:  hashOn(p.Balance.HashOn),

		SlowStart: p.Balance.SlowStart, LoadHeader: p.Balance.LoadHeader,
		Upstream: proxy.UpstreamSettings{ConnectTimeout: u.ConnectTimeout, HandshakeTimeout: u.HandshakeTimeout,
			TotalTimeout: u.TotalTimeout, ResponseTimeout: u.ResponseTimeout, Retries: u.Retries, Path: u.Path, Host: u.Host, SourceAddresses: u.SourceAddresses,
			ProxyProtocol: map[string]preface.Version{"v1": preface.V1, "v2": preface.V2}[u.ProxyProtocol]},
		Health:       healthChecks(&p.Health),
		Drain:        drainSettings(&p.Drain),
		OnRemoved:    map[string]proxy.RemovalAction{"drain": proxy.DrainSessions, "close": proxy.CloseSessions}[p.OnBackendRemoved],
		RemovalGrace: p.RemovalGrace,
		Rebalance:    rebalanceSettings(p.Rebalance),
	}
	var errs []error
	if p.Migrates() {
		migrate, err := migrateSettings(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("migrate: %w", err))
		}
		s.Migrate = migrate
	}
	if len(p.Backends) > 0 {
		s.Sources = append(s.Sources, staticSource(p.Backends))
	}
	if p.Consul != nil {
		source, err := consulSource(p, log)
		if err != nil {
			errs = append(errs, fmt.Errorf("consul: %w", err))
		}
		s.Sources = append(s.Sources, source)
	}
	if u.TLS != nil {
		cfg, err := tls.NewClientConfig(tls.ClientSettings{CAFile: u.TLS.CA, ServerName: u.TLS.ServerName,
			SkipVerify: u.TLS.SkipVerify, CertFile: u.TLS.Cert, KeyFile: u.TLS.Key})
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream.tls: %w", err))
		}
		s.Upstream.TLS = cfg
	}
	return s, errors.Join(errs...)
}

func drainSettings(d *config.Drain) proxy.DrainSettings {
	return proxy.DrainSettings{Rate: d.Rate, Window: d.Window, Deadline: d.Deadline, Code: ws.StatusCode(d.Code), Reason: d.Reason,
		Order: map[string]proxy.DrainOrder{"idle": proxy.IdleFirst, "random": proxy.RandomOrder}[d.Order]}
}

// rebalanceSettings are those of a block, or, for when somebody asks for it, the defaults.
func rebalanceSettings(r *config.Rebalance) proxy.RebalanceSettings {
	on := r != nil
	if !on {
		byDefault := config.DefaultRebalance()
		r = &byDefault
	}
	return proxy.RebalanceSettings{On: on, Interval: r.Interval, Tolerance: r.Tolerance, Rate: r.Rate, MinAge: r.MinAge}
}

func migrateSettings(p *config.Pool) (*proxy.MigrateSettings, error) {
	m := p.Migrate
	secret, err := secretOf(m.SecretFile)
	if err != nil {
		return nil, err
	}
	s := &proxy.MigrateSettings{OnFailure: p.OnBackendFailure == "migrate", MaxBufferedBytes: int(min(m.MaxBuffered, math.MaxInt32)),
		Settle: m.Settle, Timeout: m.Timeout, RedialsPerSecond: float64(m.RedialsPerSecond),
		ReplayMessages: m.ReplayOpeningMessages, DiscardReplies: m.ReplayDiscardReplies, Secret: secret}
	for _, code := range m.OnCloseCodes {
		s.CloseCodes = append(s.CloseCodes, ws.StatusCode(code))
	}
	return s, nil
}

func healthChecks(h *config.Health) health.Checks {
	p := h.Passive
	checks := health.Checks{Passive: health.Passive{ConsecutiveFailures: p.ConsecutiveFailures, EjectionTime: p.EjectionTime,
		MaxEjected: p.MaxEjected, EarlyDeath: p.EarlyDeath, PanicThreshold: p.PanicThreshold}}
	if a := h.Active; a != nil {
		probes := map[string]health.Probe{"tcp": health.TCP, "http": health.HTTP, "websocket": health.WebSocket}
		checks.Active = &health.Active{Probe: probes[a.Type], Path: a.Path, Interval: a.Interval, Timeout: a.Timeout, Rise: a.Rise, Fall: a.Fall}
	}
	return checks
}

func hashOn(h config.HashSource) proxy.HashOn {
	sources := map[string]proxy.HashSource{"ip": proxy.HashIP, "header": proxy.HashHeader, "cookie": proxy.HashCookie,
		"query": proxy.HashQuery, "path": proxy.HashPath, "host": proxy.HashHost}
	return proxy.HashOn{Source: sources[h.From], Name: h.Name}
}

func staticSource(backends []config.Backend) proxy.SourceSettings {
	list := make([]discovery.Instance, len(backends))
	for i, b := range backends {
		list[i] = discovery.Instance{ID: b.ID, Addr: b.Address, Weight: b.Weight}
	}
	return proxy.SourceSettings{Slot: staticSlot, Key: key(list), Source: static.New(list)}
}

func consulSource(p *config.Pool, log *zap.Logger) (proxy.SourceSettings, error) {
	c := p.Consul
	if log != nil {
		log = log.With(zap.String("pool", p.Name))
	}
	authorities := contentOf(c.TLS.CA)
	source, err := consul.New(consul.Config{
		Address: c.Address, Service: c.Service, Datacenters: c.Datacenters, Tags: c.Tags, Filter: c.Filter,
		PassingOnly: c.PassingOnly, Consistency: consul.Consistency(c.Consistency), TokenFile: c.TokenFile,
		TLS: consul.TLS{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key}, Wait: c.Wait, Debounce: c.Debounce,
		EmptyProtection: consul.EmptyProtection{MaxLoss: c.EmptyProtection.MaxLoss, Hold: c.EmptyProtection.Hold},
		SnapshotFile:    c.SnapshotFile, Logger: log,
	})
	return proxy.SourceSettings{Slot: consulSlot, Key: key(c) + authorities, Source: source}, err
}

// contentOf stands for what is in a file that a source reads once. The source is made
// after it, so that a file that changes in between is taken for changed by the next
// reload. A file that cannot be read is the source's to complain of.
func contentOf(file string) string {
	if file == "" {
		return ""
	}
	sum, err := digest(file)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(sum[:])
}

// key says everything that a source is made of.
func key(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain values only
	}
	return string(b)
}
