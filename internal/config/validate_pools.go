package config

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/tidegate/tidegate/internal/closecode"
)

func (v *validator) validatePools() {
	seen := names{what: "pool"}
	for i := range v.file.Pools {
		p := &v.file.Pools[i]
		path := element("pools", i)
		v.checkName(join(path, "name"), p.Name, "")
		seen.add(v, join(path, "name"), p.Name)
		if len(p.Backends) == 0 && p.Consul == nil && v.usable(path) {
			v.add(path, "a pool needs backends or consul, or both")
		}
		v.validateBackends(join(path, "backends"), p.Backends)
		if p.Consul != nil {
			v.validateConsul(join(path, "consul"), p.Consul)
		}
		v.validateBalance(join(path, "balance"), p.Balance)
		v.validateLoadHeader(join(path, "balance"), &p.Balance)
		v.validateUpstream(join(path, "upstream"), &p.Upstream)
		v.validateHealth(join(path, "health"), &p.Health)
		v.validateDrain(join(path, "drain"), &p.Drain)
		if p.Migrate != nil {
			v.validateMigrate(join(path, "migrate"), p.Migrate)
		}
		if p.Rebalance != nil {
			v.validateRebalance(join(path, "rebalance"), p)
		}
		if at := join(path, "on_backend_failure"); p.OnBackendFailure == "migrate" && !p.Migrates() && v.usable(at) && v.usable(join(path, "migrate")) {
			v.add(at, "on_backend_failure: migrate needs a migrate block with enabled: true")
		}
	}
}

// maxReasonBytes is what a Close frame has room for beside the code (RFC 6455 §5.5).
const maxReasonBytes = 125 - 2

func (v *validator) validateDrain(path string, d *Drain) {
	if d.Rate == 0 && d.Deadline != 0 && v.usable(join(path, "rate")) {
		v.notLonger(path, "window", d.Window, "deadline", d.Deadline)
	}
	if at := join(path, "code"); v.usable(at) && !closecode.Sendable(d.Code) {
		v.fail(at, "%d is no code that may be sent: want %s", d.Code, closecode.Ranges)
	}
	switch at := join(path, "reason"); {
	case !v.usable(at):
	case !utf8.ValidString(d.Reason):
		v.fail(at, "%s is not UTF-8, as the reason of a Close must be", quote(d.Reason))
	case len(d.Reason) > maxReasonBytes:
		v.fail(at, "%d bytes are too many for the reason of a Close: %d fit", len(d.Reason), maxReasonBytes)
	}
}

func (v *validator) validateRebalance(path string, p *Pool) {
	r := p.Rebalance
	if at := join(path, "tolerance"); v.usable(at) && (r.Tolerance <= 1 || r.Tolerance > 1000) {
		v.fail(at, "%v is out of range (more than 1 to 1000)", r.Tolerance)
	}
	if at := join(path, "rate"); v.usable(at) && r.Rate == 0 {
		v.add(at, "rate must be more than 0: sessions that leave all at once come back all at once (such as 10/s)")
	}
	if p.Balance.Policy == "consistent_hash" && v.usable(path) {
		v.add(path, "rebalance contradicts policy consistent_hash: sessions are where their hash says (for even loads without rebalancing there is load_factor)")
	}
}

func (v *validator) validateBackends(path string, backends []Backend) {
	seen := names{what: "backend id"}
	for i := range backends {
		b := &backends[i]
		at := element(path, i)
		address, id := join(at, "address"), join(at, "id")
		if b.Address != "" && v.usable(address) {
			if err := checkDialAddress(b.Address); err != nil {
				v.fail(address, "%s", err)
			}
		}
		if b.ID != "" {
			v.checkName(id, b.ID, ":[]")
			seen.add(v, id, b.ID)
			continue
		}
		if v.usable(id) {
			b.ID = b.Address
			seen.add(v, address, b.ID)
		}
	}
}

const defaultConsulAddress = "http://127.0.0.1:8500"

func (v *validator) validateConsul(path string, c *Consul) {
	v.resolveConsulAddress(path, c)
	v.checkToken(join(path, "token_file"), c.TokenFile)
	v.checkAuthorities(join(path, "tls.ca"), c.TLS.CA)
	v.checkKeyPair(join(path, "tls"), KeyPair{Cert: c.TLS.Cert, Key: c.TLS.Key})
	v.checkDirectory(join(path, "snapshot_file"), c.SnapshotFile)
}

// resolveConsulAddress fills in the default, which may be of the environment, and the
// scheme.
func (v *validator) resolveConsulAddress(path string, c *Consul) {
	at := join(path, "address")
	if !v.usable(at) {
		return
	}
	source := ""
	if c.Address == "" {
		c.Address = defaultConsulAddress
		if fromEnv, ok := v.env("CONSUL_HTTP_ADDR"); ok && fromEnv != "" {
			c.Address, source = fromEnv, "CONSUL_HTTP_ADDR: "
		}
	}
	withTLS := c.TLS != ConsulTLS{}
	address, err := normalConsulAddress(c.Address, withTLS)
	if err != nil {
		v.fail(at, "%s%s", source, err)
		return
	}
	c.Address = address
	if tls := join(path, "tls"); withTLS && v.usable(tls) && !strings.HasPrefix(address, "https://") {
		v.add(tls, "tls is not used with %s: the address must start with https://", quote(address))
	}
}

// normalConsulAddress checks an address and puts a scheme before host:port.
func normalConsulAddress(address string, withTLS bool) (string, error) {
	scheme, rest, hasScheme := strings.Cut(address, "://")
	switch {
	case !hasScheme:
		if err := checkDialAddress(address); err != nil {
			return "", err
		}
		if withTLS {
			return "https://" + address, nil
		}
		return "http://" + address, nil
	case scheme == "unix":
		if !filepath.IsAbs(rest) {
			return "", fmt.Errorf("%s must have an absolute path, such as unix:///run/consul.sock", quote(address))
		}
		return address, nil
	case scheme != "http" && scheme != "https":
		return "", fmt.Errorf("%s must start with http://, https:// or unix://", quote(address))
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%s is not the URL of a Consul agent, such as http://127.0.0.1:8500", quote(address))
	}
	if err := checkHostPort(u.Host); err != nil {
		return "", err
	}
	return strings.TrimSuffix(address, "/"), nil
}

func (v *validator) validateBalance(path string, b Balance) {
	hashOn, factor := join(path, "hash_on"), join(path, "load_factor")
	if v.usable(factor) && b.LoadFactor != 0 && (b.LoadFactor <= 1 || b.LoadFactor > 1000) {
		v.fail(factor, "%v is out of range (0, or more than 1 to 1000)", b.LoadFactor)
	}
	if !v.usable(join(path, "policy")) {
		return
	}
	if b.Policy == "consistent_hash" {
		if slowStart := join(path, "slow_start"); b.SlowStart != 0 && v.usable(slowStart) {
			v.add(slowStart, "slow_start contradicts policy consistent_hash: a hash belongs to its backend, warm or not (leave slow_start out, or choose another policy)")
		}
		return
	}
	if v.usable(hashOn) && b.HashOn != (HashSource{From: "ip"}) {
		v.add(hashOn, "hash_on has no effect with policy %s, only with consistent_hash", b.Policy)
	}
	if v.usable(factor) && v.given(factor) {
		v.add(factor, "load_factor has no effect with policy %s, only with consistent_hash", b.Policy)
	}
}

func (v *validator) validateLoadHeader(path string, b *Balance) {
	at := join(path, "load_header")
	if !v.usable(at) || b.LoadHeader == "" {
		return
	}
	b.LoadHeader = http.CanonicalHeaderKey(b.LoadHeader)
	switch {
	case !isToken(b.LoadHeader):
		v.fail(at, "%s is not a valid header name", quote(b.LoadHeader))
	case connectionHeaders[b.LoadHeader] || strings.HasPrefix(b.LoadHeader, "Sec-Websocket-"):
		v.fail(at, "%s belongs to the handshake: it cannot have a load and go no further", b.LoadHeader)
	}
	if v.usable(join(path, "policy")) && b.Policy != "least_load" && b.LoadHeader != defaultLoadHeader {
		v.add(at, "load_header has no effect with policy %s, only with least_load", b.Policy)
	}
}

func (v *validator) validateUpstream(path string, u *Upstream) {
	if u.TotalTimeout != 0 {
		v.notLonger(path, "connect_timeout", u.ConnectTimeout, "total_timeout", u.TotalTimeout)
		v.notLonger(path, "handshake_timeout", u.HandshakeTimeout, "total_timeout", u.TotalTimeout)
	}
	if at := join(path, "path"); u.Path != "" && v.usable(at) {
		if err := checkPath(u.Path); err != nil {
			v.fail(at, "%s", err)
		}
	}
	if at := join(path, "host"); v.usable(at) && u.Host != "preserve" && u.Host != "backend" {
		if err := checkHostPort(u.Host); err != nil {
			hint := didYouMean(u.Host, []string{"preserve", "backend"}, nil)
			v.fail(at, "%s; preserve, backend or a host name is expected%s", err, hint)
		}
	}
	for i, a := range u.SourceAddresses {
		if at := element(join(path, "source_addresses"), i); v.usable(at) && (a.IsUnspecified() || a.IsMulticast() || a == broadcast) {
			v.fail(at, "%s is no address that a connection can come from; write one of this machine's", quote(a.String()))
		}
	}
	if u.TLS != nil {
		v.validateUpstreamTLS(join(path, "tls"), *u.TLS)
	}
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (v *validator) validateUpstreamTLS(path string, t UpstreamTLS) {
	ca, name := join(path, "ca"), join(path, "server_name")
	if t.SkipVerify && t.CA != "" && v.usable(ca) {
		v.add(ca, "ca contradicts skip_verify: true, which verifies nothing")
	}
	v.checkAuthorities(ca, t.CA)
	if t.ServerName != "" && v.usable(name) && !isHostName(t.ServerName) && !isIP(t.ServerName) {
		v.fail(name, "%s is not a host name", quote(t.ServerName))
	}
	v.checkKeyPair(path, KeyPair{Cert: t.Cert, Key: t.Key})
}
