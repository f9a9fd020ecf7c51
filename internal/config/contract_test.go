package config

import (
	cryptotls "crypto/tls"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ignoreIdentity leaves out what differs with every text.
var ignoreIdentity = cmp.Options{
	cmpopts.IgnoreFields(File{}, "Name", "Digest"),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// TestDefaults holds every default of the contract.
func TestDefaults(t *testing.T) {
	s := newSamples(t)
	text := `
listeners:
  - {name: plain, address: ":8080"}
  - {name: edge, address: ":8443", tls: {certificates: [{cert: edge.crt, key: edge.key}], client_auth: {ca: clients.crt}}, proxy_protocol: {trusted: [10.0.0.1]}}
routes: [{name: chat, pool: chat, sticky: {cookie: {secret_file: m.key}}}]
pools:
  - {name: chat, backends: [{address: "10.0.0.5:9001"}], consul: {service: chat}, upstream: {tls: {}}, health: {active: {}}}
  - {name: other, backends: [{address: "a:1"}], rebalance: {}}
`
	got, err := s.parse("tidegate.yaml", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	tcp := TCP{KeepAlive: 30 * time.Second, UserTimeout: 60 * time.Second}
	limits := Limits{HandshakeTimeout: 10 * time.Second, MaxHeaderSize: 16384, RequestBodyTimeout: 60 * time.Second, KeepAliveTimeout: 75 * time.Second}
	balance := Balance{Policy: "least_connections", HashOn: HashSource{From: "ip"}, LoadFactor: 1.25, LoadHeader: "Tidegate-Load"}
	upstream := Upstream{
		ConnectTimeout: 3 * time.Second, HandshakeTimeout: 5 * time.Second, TotalTimeout: 15 * time.Second, ResponseTimeout: 2 * time.Minute,
		Retries: 2, Host: "preserve", ProxyProtocol: "none",
	}
	drain := Drain{Window: 60 * time.Second, Deadline: 5 * time.Minute, Code: 1012, Reason: "service restart", Order: "oldest"}
	health := Health{Passive: PassiveHealth{ConsecutiveFailures: 5, EjectionTime: 30 * time.Second, MaxEjected: 0.5, EarlyDeath: 5 * time.Second, PanicThreshold: 0.3}}
	probed := health
	probed.Active = &ActiveHealth{Type: "tcp", Path: "/healthz", Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3}
	upstreamTLS := upstream
	upstreamTLS.TLS = &UpstreamTLS{}
	want := &File{
		Log:      Log{Level: "info", Format: "json"},
		Admin:    Admin{Address: "127.0.0.1:9901"},
		Shutdown: Shutdown{DrainWindow: 30 * time.Second, Deadline: 60 * time.Second},
		Memory:   Memory{MaxBuffered: MemorySize{Share: 0.25}},
		Listeners: []Listener{
			{Name: "plain", Address: ":8080", TCP: tcp, Limits: limits},
			{Name: "edge", Address: ":8443", TCP: tcp, Limits: limits, ProxyProtocol: &ProxyProtocol{
				Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, Timeout: 3 * time.Second}, TLS: &ListenerTLS{
				Certificates: []KeyPair{{Cert: filepath.Join(s.dir, "edge.crt"), Key: filepath.Join(s.dir, "edge.key")}},
				MinVersion:   cryptotls.VersionTLS12,
				ClientAuth:   &ClientAuth{Mode: "require", CA: filepath.Join(s.dir, "clients.crt")},
				ALPN:         []string{"h2", "http/1.1"},
				Engine:       "auto",
			}},
		},
		Routes: []Route{{
			Name: "chat", Pool: "chat", Match: Match{Path: "/", Protocol: "any"},
			WebSocket: WebSocket{
				MaxMessageSize: 16 << 20, ControlFramesPerSecond: 100, RateAction: "close",
				Ping: "client", PingInterval: 30 * time.Second, PongTimeout: 10 * time.Second,
				MaxAgeJitter: 0.1, ValidateUTF8: true, CloseTimeout: 5 * time.Second, Compression: "strip", Deflate: Deflate{MinSize: 256, MaxInflated: 16 << 20, Level: 1},
				SlowConsumer: "backpressure", SlowConsumerCode: 1008, MaxBuffered: 256 << 10, WriteTimeout: 60 * time.Second,
			},
			Sticky: &Sticky{Cookie: &StickyCookie{Name: "tg", MaxAge: 24 * time.Hour, Secure: true, SameSite: "lax", SecretFile: filepath.Join(s.dir, "m.key")}},
		}},
		Pools: []Pool{
			{
				Name:     "chat",
				Backends: []Backend{{Address: "10.0.0.5:9001", Weight: 1, ID: "10.0.0.5:9001"}},
				Consul: &Consul{
					Address: "http://127.0.0.1:8500", Service: "chat", PassingOnly: true, Consistency: "stale",
					Wait: 5 * time.Minute, Debounce: 100 * time.Millisecond,
					EmptyProtection: EmptyProtection{MaxLoss: 1, Hold: 30 * time.Second},
				},
				Balance: balance, Upstream: upstreamTLS, Health: probed, Drain: drain, OnBackendRemoved: "drain", RemovalGrace: 2 * time.Second, OnBackendFailure: "close",
			},
			{
				Name: "other", Backends: []Backend{{Address: "a:1", Weight: 1, ID: "a:1"}},
				Balance: balance, Upstream: upstream, Health: health, Drain: drain, OnBackendRemoved: "drain", RemovalGrace: 2 * time.Second, OnBackendFailure: "close",
				Rebalance: &Rebalance{Tolerance: 1.25, Rate: 10, MinAge: time.Minute, Interval: 10 * time.Second},
			},
		},
	}
	if diff := cmp.Diff(want, got, ignoreIdentity); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

// TestContract reads the sample of the contract, less what this version lacks. It has
// every accepted key; TestContractHasEveryKey sees to that.
func TestContract(t *testing.T) {
	s := newSamples(t)
	got, err := s.parse("tidegate.yaml", contract, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	var byDefault WebSocket
	applyDefaults(reflect.ValueOf(&byDefault).Elem())
	want := &File{
		Log:      Log{Level: "info", Format: "json"},
		Admin:    Admin{Address: "127.0.0.1:9901"},
		Shutdown: Shutdown{DrainWindow: 30 * time.Second, Deadline: 60 * time.Second},
		Memory:   Memory{MaxBuffered: MemorySize{Share: 0.25}},
		Listeners: []Listener{{
			Name: "edge", Address: ":8443",
			TLS: &ListenerTLS{
				Certificates: []KeyPair{{Cert: in("edge.crt"), Key: in("edge.key")}},
				MinVersion:   cryptotls.VersionTLS12,
				ClientAuth:   &ClientAuth{Mode: "require", CA: in("clients.crt")},
				TicketKeys:   &TicketKeys{Files: []string{in("k1.bin"), in("k2.bin")}},
				ALPN:         []string{"h2", "http/1.1"},
				Engine:       "stdlib",
			},
			ProxyProtocol:  &ProxyProtocol{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Timeout: 3 * time.Second},
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")},
			TCP:            TCP{KeepAlive: 30 * time.Second, UserTimeout: 60 * time.Second},
			Limits:         Limits{HandshakeTimeout: 10 * time.Second, MaxHeaderSize: 16384, RequestBodyTimeout: 60 * time.Second, KeepAliveTimeout: 75 * time.Second},
		}},
		Routes: []Route{{
			Name: "chat", Pool: "chat",
			Match: Match{
				Hosts: []string{"chat.example.com", "*.example.org"}, Path: "/ws",
				Headers: map[string]string{"X-Tier": "gold"}, Protocol: "any",
			},
			Headers: HeaderEdits{Set: map[string]string{"X-Edge": "eu1"}, Remove: []string{"X-Secret"}},
			Origins: []string{"https://chat.example.com"},
			WebSocket: WebSocket{
				MaxMessageSize: 16 << 20, ControlFramesPerSecond: 100, RateAction: "close",
				Ping: "client", PingInterval: 30 * time.Second, PongTimeout: 10 * time.Second,
				MaxAgeJitter: 0.1, ValidateUTF8: true, CloseTimeout: 5 * time.Second, Compression: "strip", Deflate: Deflate{MinSize: 256, MaxInflated: 16 << 20, Level: 1},
				SlowConsumer: "backpressure", SlowConsumerCode: 1008, MaxBuffered: 256 << 10, WriteTimeout: 60 * time.Second,
			},
			Sticky: &Sticky{Cookie: &StickyCookie{Name: "tg", MaxAge: 24 * time.Hour, Secure: true, SameSite: "lax", SecretFile: in("m.key")}},
		},
			{Name: "header", Pool: "load", Match: Match{Path: "/header", Protocol: "any"}, WebSocket: byDefault, Sticky: &Sticky{Header: "X-Session"}},
			{Name: "hash", Pool: "load", Match: Match{Path: "/hash", Protocol: "any"}, WebSocket: byDefault, Sticky: &Sticky{Hash: HashSource{From: "query", Name: "room"}}},
		},
		Pools: []Pool{{
			Name:     "chat",
			Backends: []Backend{{Address: "10.0.0.5:9001", Weight: 1, ID: "a"}},
			Consul: &Consul{
				Address: "http://127.0.0.1:8500", Service: "chat", Datacenters: []string{}, Tags: []string{},
				PassingOnly: true, Consistency: "stale", Wait: 5 * time.Minute, Debounce: 100 * time.Millisecond,
				EmptyProtection: EmptyProtection{MaxLoss: 1, Hold: 30 * time.Second},
			},
			Balance: Balance{Policy: "consistent_hash", HashOn: HashSource{From: "ip"}, LoadFactor: 1.25, LoadHeader: "Tidegate-Load"},
			Upstream: Upstream{
				ConnectTimeout: 3 * time.Second, HandshakeTimeout: 5 * time.Second, TotalTimeout: 15 * time.Second, ResponseTimeout: 2 * time.Minute,
				Retries: 2, Host: "preserve", SourceAddresses: []netip.Addr{}, ProxyProtocol: "none", TLS: &UpstreamTLS{},
			},
			Health: Health{
				Active:  &ActiveHealth{Type: "tcp", Path: "/healthz", Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3},
				Passive: PassiveHealth{ConsecutiveFailures: 5, EjectionTime: 30 * time.Second, MaxEjected: 0.5, EarlyDeath: 5 * time.Second, PanicThreshold: 0.3},
			},
			Drain:            Drain{Window: 60 * time.Second, Deadline: 5 * time.Minute, Code: 1012, Reason: "service restart", Order: "oldest"},
			OnBackendRemoved: "drain", RemovalGrace: 2 * time.Second,
			OnBackendFailure: "close",
			Migrate: &Migrate{Enabled: true, OnCloseCodes: []int{1001, 1012, 1013}, MaxBuffered: 1 << 20, Settle: 500 * time.Millisecond,
				Timeout: 10 * time.Second, RedialsPerSecond: 100, SecretFile: in("m.key")},
		}, {
			Name:     "load",
			Backends: []Backend{{Address: "10.0.0.5:9001", Weight: 1, ID: "10.0.0.5:9001"}},
			Balance:  Balance{Policy: "least_load", HashOn: HashSource{From: "ip"}, LoadFactor: 1.25, LoadHeader: "Tidegate-Load"},
			Upstream: Upstream{
				ConnectTimeout: 3 * time.Second, HandshakeTimeout: 5 * time.Second, TotalTimeout: 15 * time.Second, ResponseTimeout: 2 * time.Minute,
				Retries: 2, Host: "preserve", ProxyProtocol: "none",
			},
			Drain:            Drain{Window: 60 * time.Second, Deadline: 5 * time.Minute, Code: 1012, Reason: "service restart", Order: "oldest"},
			OnBackendRemoved: "drain", RemovalGrace: 2 * time.Second,
			OnBackendFailure: "close",
			Health:           Health{Passive: PassiveHealth{ConsecutiveFailures: 5, EjectionTime: 30 * time.Second, MaxEjected: 0.5, EarlyDeath: 5 * time.Second, PanicThreshold: 0.3}},
			Rebalance:        &Rebalance{Tolerance: 1.25, Rate: 10, MinAge: time.Minute, Interval: 10 * time.Second},
		}},
	}
	if diff := cmp.Diff(want, got, ignoreIdentity); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

const contract = `
log:      {level: info, format: json}
admin:    {address: "127.0.0.1:9901", token_file: ""}
memory:   {max_buffered: 25%}
shutdown: {drain_window: 30s, deadline: 60s}

listeners:
  - name: edge
    address: ":8443"
    tls:
      certificates: [{cert: edge.crt, key: edge.key}]
      min_version: "1.2"
      client_auth: {mode: require, ca: clients.crt}
      ticket_keys: {files: [k1.bin, k2.bin]}
      alpn: [h2, http/1.1]
      engine: stdlib
    proxy_protocol: {trusted: ["10.0.0.0/8"], timeout: 3s}
    trusted_proxies: ["10.0.0.0/8", 192.0.2.7]
    tcp: {keepalive: 30s, user_timeout: 60s, receive_buffer: 0, send_buffer: 0}
    limits:
      max_sessions: 0
      max_sessions_per_ip: 0
      handshake_timeout: 10s
      max_header_size: 16KiB
      request_body_timeout: 60s
      keepalive_timeout: 75s

routes:
  - name: chat
    match: {hosts: ["chat.example.com", "*.example.org"], path: /ws, headers: {X-Tier: gold}, protocol: any}
    pool: chat
    headers: {set: {X-Edge: eu1}, remove: [X-Secret]}
    origins: ["https://chat.example.com"]
    websocket:
      max_frame_size: 0
      max_message_size: 16MiB
      max_fragments: 0
      message_timeout: 0s
      control_frames_per_second: 100
      messages_per_second: 0
      message_burst: 0
      bytes_per_second: 0
      byte_burst: 0
      rate_action: close
      ping: client
      ping_interval: 30s
      pong_timeout: 10s
      idle_timeout: 0s
      max_age: 0s
      max_age_jitter: 10%
      validate_utf8: true
      deflate: {min_size: 256, max_inflated: 16MiB, level: 1}
      slow_consumer: backpressure
      slow_consumer_code: 1008
      close_timeout: 5s
      compression: strip
      max_buffered: 256KiB
      write_timeout: 60s
    sticky: {cookie: {name: tg, max_age: 24h, secure: true, same_site: lax, secret_file: m.key}, strict: false}
  - name: header
    match: {path: /header}
    pool: load
    sticky: {header: x-session}
  - name: hash
    match: {path: /hash}
    pool: load
    sticky: {hash: "query:room"}

pools:
  - name: chat
    backends: [{address: "10.0.0.5:9001", weight: 1, id: a}]
    consul:
      address: "http://127.0.0.1:8500"
      service: chat
      datacenters: []
      tags: []
      filter: ""
      passing_only: true
      consistency: stale
      token_file: ""
      tls: {ca: "", cert: "", key: ""}
      wait: 5m
      debounce: 100ms
      empty_protection: {max_loss: 100%, hold: 30s}
      snapshot_file: ""
    balance:
      policy: consistent_hash
      hash_on: ip
      load_factor: 1.25
      max_sessions_per_backend: 0
      slow_start: 0s
      load_header: Tidegate-Load
    upstream: {connect_timeout: 3s, handshake_timeout: 5s, total_timeout: 15s, response_timeout: 2m, retries: 2, path: "", host: preserve, source_addresses: [],
               proxy_protocol: none, tls: {ca: "", server_name: "", skip_verify: false, cert: "", key: ""}}
    health:
      active: {type: tcp, path: /healthz, interval: 5s, timeout: 2s, rise: 2, fall: 3}
      passive: {consecutive_failures: 5, ejection_time: 30s, max_ejected: 50%, early_death: 5s, panic_threshold: 30%}
    drain: {rate: 0, window: 60s, deadline: 5m, code: 1012, reason: "service restart", order: oldest}
    on_backend_removed: drain
    removal_grace: 2s
    on_backend_failure: close
    migrate:
      enabled: true
      on_close_codes: [1001, 1012, 1013]
      max_buffered: 1MiB
      settle: 500ms
      timeout: 10s
      redials_per_second: 100
      replay_opening_messages: 0
      replay_discard_replies: 0
      secret_file: m.key
  - name: load
    backends: [{address: "10.0.0.5:9001"}]
    balance: {policy: least_load, load_header: tidegate-load}
    rebalance: {tolerance: 1.25, rate: 10/s, min_age: 1m, interval: 10s}
`
