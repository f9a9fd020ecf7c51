package config

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/internal/closecode"
)

func (v *validator) validateRoutes() {
	seen := names{what: "route"}
	pools, known := v.poolNames()
	for i := range v.file.Routes {
		r := &v.file.Routes[i]
		path := element("routes", i)
		v.checkName(join(path, "name"), r.Name, "")
		seen.add(v, join(path, "name"), r.Name)
		if at := join(path, "pool"); known && r.Pool != "" && v.usable(at) && !slices.Contains(pools, r.Pool) {
			v.fail(at, "unknown pool %s%s", quote(r.Pool), poolHint(r.Pool, pools))
		}
		v.validateMatch(join(path, "match"), &r.Match)
		v.validateHeaderEdits(join(path, "headers"), &r.Headers)
		v.validateOrigins(join(path, "origins"), r.Origins)
		v.validateWebSocket(join(path, "websocket"), r.WebSocket)
		v.checkMovable(path, r)
		if r.Sticky != nil {
			v.validateSticky(join(path, "sticky"), r)
		}
	}
}

// poolNames returns the names of all pools, and false if they are not all known, so
// that no reference can be called dangling.
func (v *validator) poolNames() ([]string, bool) {
	pools := make([]string, len(v.file.Pools))
	for i, p := range v.file.Pools {
		if p.Name == "" {
			return nil, false
		}
		pools[i] = p.Name
	}
	return pools, len(pools) > 0
}

func poolHint(name string, pools []string) string {
	const fewEnough = 8
	if len(pools) > fewEnough {
		return didYouMean(name, pools, nil)
	}
	return didYouMean(name, pools, pools)
}

func (v *validator) validateMatch(path string, m *Match) {
	first := map[string]string{}
	for i, host := range m.Hosts {
		at := element(join(path, "hosts"), i)
		if host == "" || !v.usable(at) {
			continue
		}
		normal, err := normalHost(host)
		if err != nil {
			v.fail(at, "%s", err)
			continue
		}
		if before, ok := first[normal]; ok {
			v.add(at, "%s repeats %s", quote(host), before)
		}
		first[normal] = at
		m.Hosts[i] = normal
	}
	if at := join(path, "path"); v.usable(at) {
		if err := checkRoutePath(m.Path); err != nil {
			v.fail(at, "%s", err)
		}
	}
	m.Headers = v.canonicalHeaders(join(path, "headers"), m.Headers, func(name, value string) error {
		if name == "Host" {
			return fmt.Errorf("hosts matches the Host header")
		}
		if value == "" {
			return fmt.Errorf("must not be empty")
		}
		return nil
	})
}

// normalHost returns a host entry in lower case.
func normalHost(host string) (string, error) {
	lower := strings.ToLower(host)
	suffix, wildcard := strings.CutPrefix(lower, "*.")
	switch {
	case host == "*":
		return "", fmt.Errorf(`"*" is no host: leave hosts out to match any`)
	case isHostName(suffix):
		return lower, nil
	case wildcard:
		return "", fmt.Errorf("%s must be *. and a host name", quote(host))
	case strings.Contains(host, "*"):
		return "", fmt.Errorf("%s: a wildcard is the whole first label, such as *.example.org", quote(host))
	}
	if ip, ok := parseIPHost(host); ok {
		return ip, nil
	}
	for i := range len(host) {
		if host[i] >= 0x80 {
			return "", fmt.Errorf("%s must be in its ASCII form (xn--…)", quote(host))
		}
	}
	if name, _, err := splitAddress(host); err == nil && name != "" {
		return "", fmt.Errorf("%s must be without a port (did you mean %q?)", quote(host), name)
	}
	return "", fmt.Errorf("%s is neither a host name nor an IP address", quote(host))
}

// checkRoutePath checks a prefix to match. Its rules leave one way to write a path.
func checkRoutePath(path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	switch {
	case path == "/":
		return nil
	case strings.HasSuffix(path, "/"):
		if short := strings.TrimRight(path, "/"); short != "" {
			return fmt.Errorf("%s must not end with a slash: %s also covers what is below it", quote(path), quote(short))
		}
	case strings.Contains(path, "%"):
		return fmt.Errorf("%s must be written decoded, without %%", quote(path))
	}
	for _, segment := range strings.Split(path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("%s must not have empty, . or .. segments", quote(path))
		}
	}
	return nil
}

// checkPath checks what any path must be.
func checkPath(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%s must start with /", quote(path))
	}
	for _, c := range path {
		if c <= ' ' || c == 0x7f || c == '?' || c == '#' {
			return fmt.Errorf("%s must not contain %q", quote(path), c)
		}
	}
	return nil
}

// canonicalHeaders returns headers under canonical names and reports what is wrong
// with them; refuse has further reasons.
func (v *validator) canonicalHeaders(path string, headers map[string]string, refuse func(name, value string) error) map[string]string {
	if len(headers) == 0 {
		return nil
	}
	canonical := make(map[string]string, len(headers))
	// In the order of the file, so that of two spellings the second one is reported.
	order := slices.SortedFunc(maps.Keys(headers), func(a, b string) int {
		return v.at(join(path, a)).compare(v.at(join(path, b)))
	})
	for _, name := range order {
		at, value := join(path, name), headers[name]
		if !v.usable(at) {
			continue
		}
		key := http.CanonicalHeaderKey(name)
		_, repeated := canonical[key]
		switch err := refuse(key, value); {
		case repeated:
			v.fail(at, "header %s is there already in another spelling", key)
		case err != nil:
			v.fail(at, "%s", err)
		case !isFieldValue(value):
			v.fail(at, "%s is not a valid header value", quote(value))
		}
		canonical[key] = value
	}
	return canonical
}

// ofConnection reports whether a header is not the same for all requests of a client.
func ofConnection(name string) bool {
	name = http.CanonicalHeaderKey(name)
	return connectionHeaders[name] || strings.HasPrefix(name, "Sec-Websocket-")
}

// connectionHeaders belong to one connection (RFC 9110 §7.6.1) or to the message as the
// edge sends it, so that a route cannot change them.
var connectionHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Content-Length": true,
}

// checkEditable refuses headers that the handshake depends on.
func checkEditable(name string) error {
	switch {
	case name == "Host":
		return fmt.Errorf("the pool's upstream.host sets the Host header")
	case connectionHeaders[name]:
		return fmt.Errorf("%s belongs to the connection and cannot be changed", name)
	case strings.HasPrefix(name, "Sec-Websocket-"):
		return fmt.Errorf("%s belongs to the WebSocket handshake and cannot be changed", name)
	}
	return nil
}

func (v *validator) validateHeaderEdits(path string, h *HeaderEdits) {
	h.Set = v.canonicalHeaders(join(path, "set"), h.Set, func(name, _ string) error {
		return checkEditable(name)
	})
	first := map[string]string{}
	for i, name := range h.Remove {
		at := element(join(path, "remove"), i)
		if name == "" || !v.usable(at) {
			continue
		}
		if !isToken(name) {
			v.fail(at, "%s is not a valid header name", quote(name))
			continue
		}
		key := http.CanonicalHeaderKey(name)
		h.Remove[i] = key
		_, alsoSet := h.Set[key]
		before, repeated := first[key]
		switch err := checkEditable(key); {
		case err != nil:
			v.fail(at, "%s", err)
		case repeated:
			v.add(at, "%s repeats %s", quote(name), before)
		case alsoSet:
			v.add(at, "%s contradicts headers.set, which has it as well", key)
		}
		first[key] = at
	}
}

func (v *validator) validateOrigins(path string, origins []string) {
	for i, origin := range origins {
		at := element(path, i)
		if origin == "" || !v.usable(at) {
			continue
		}
		normal, err := normalOrigin(origin)
		if err != nil {
			v.fail(at, "%s", err)
			continue
		}
		origins[i] = normal
	}
}

// normalOrigin returns an origin as browsers serialise it (RFC 6454 §6.2).
func normalOrigin(origin string) (string, error) {
	if origin == "null" {
		return origin, nil
	}
	if strings.Contains(origin, "*") {
		return "", fmt.Errorf("%s: origins have no wildcards; leave origins out to accept any", quote(origin))
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Hostname() == "" {
		return "", fmt.Errorf("%s is not an origin such as https://chat.example.com", quote(origin))
	}
	host := strings.ToLower(u.Host)
	switch {
	case u.Scheme == "http":
		host = strings.TrimSuffix(host, ":80")
	case u.Scheme == "https":
		host = strings.TrimSuffix(host, ":443")
	}
	normal := strings.ToLower(u.Scheme) + "://" + host
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", fmt.Errorf("%s has more than scheme, host and port (did you mean %q?)", quote(origin), normal)
	}
	return normal, nil
}

func (v *validator) validateWebSocket(path string, w WebSocket) {
	v.validateSizes(path, w)
	// A key that does nothing without another one is a mistake of its author's.
	for _, c := range []struct {
		key, needs string
		idle       bool
	}{
		{"message_burst", "messages_per_second", w.MessageBurst > 0 && w.MessagesPerSecond == 0},
		{"byte_burst", "bytes_per_second", w.ByteBurst > 0 && w.BytesPerSecond == 0},
	} {
		if at := join(path, c.key); c.idle && v.usable(at) && v.usable(join(path, c.needs)) {
			v.add(at, "%s does nothing without %s", c.key, c.needs)
		}
	}
	if at := join(path, "slow_consumer_code"); v.given(at) && v.usable(at) && !closecode.Sendable(w.SlowConsumerCode) {
		v.fail(at, "%d is no code that may be sent: want %s", w.SlowConsumerCode, closecode.Ranges)
	}
	if at := join(path, "slow_consumer"); w.SlowConsumer != "backpressure" && w.MaxBuffered == 0 && v.usable(at) && v.usable(join(path, "max_buffered")) {
		v.add(at, "slow_consumer: %s needs max_buffered above 0", w.SlowConsumer)
	}
	if at := join(path, "rate_action"); w.RateAction == "delay" && w.MessagesPerSecond == 0 && w.BytesPerSecond == 0 &&
		v.usable(join(path, "messages_per_second")) && v.usable(join(path, "bytes_per_second")) {
		v.add(at, "rate_action does nothing without messages_per_second or bytes_per_second")
	}
	if at := join(path, "ping_interval"); w.PingInterval == 0 && w.Ping != "none" && v.given(at) && v.usable(at) {
		v.add(at, "ping_interval 0 contradicts ping: %s (to send no pings, set ping: none)", w.Ping)
	}
}

func (v *validator) validateSizes(path string, w WebSocket) {
	frame, message := join(path, "max_frame_size"), join(path, "max_message_size")
	if w.MaxFrameSize == 0 || w.MaxMessageSize == 0 || w.MaxFrameSize <= w.MaxMessageSize ||
		!v.usable(frame) || !v.usable(message) {
		return
	}
	byDefault := ""
	if !v.given(message) {
		byDefault = " (the default)"
	}
	v.add(frame, "max_frame_size %s is more than max_message_size %s%s",
		plainBytes(w.MaxFrameSize), plainBytes(w.MaxMessageSize), byDefault)
}
