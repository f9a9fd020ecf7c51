package config

import "time"

func (v *validator) validateListeners() {
	seen := names{what: "listener"}
	for i := range v.file.Listeners {
		l := &v.file.Listeners[i]
		path := element("listeners", i)
		v.checkName(join(path, "name"), l.Name, "")
		seen.add(v, join(path, "name"), l.Name)
		if at := join(path, "address"); l.Address != "" && v.usable(at) {
			if _, _, err := splitAddress(l.Address); err != nil {
				v.fail(at, "%s", err)
			}
		}
		if l.TLS != nil {
			v.validateListenerTLS(join(path, "tls"), l.TLS)
		}
		if l.ProxyProtocol != nil {
			v.validateProxyProtocol(path, l)
		}
		v.validateTCP(join(path, "tcp"), l.TCP)
	}
	v.validateBounds()
}

// validateProxyProtocol reports a timeout that cannot come to an end.
func (v *validator) validateProxyProtocol(path string, l *Listener) {
	at, within := join(path, "proxy_protocol.timeout"), join(path, "limits.handshake_timeout")
	timeout, handshake := l.ProxyProtocol.Timeout, l.Limits.HandshakeTimeout
	if handshake != 0 && timeout > handshake && v.given(at) && v.usable(at) && v.usable(within) {
		v.add(at, "timeout %s is longer than limits.handshake_timeout %s%s, which it is a part of",
			plainDuration(timeout), plainDuration(handshake), v.byDefault(within))
	}
}

// validateBounds reports addresses that cannot be listened on at the same time.
func (v *validator) validateBounds() {
	type claim struct {
		path    string
		address string
		bound   bound
	}
	// By port, so that a file with many listeners is compared in groups.
	claims := map[int][]claim{}
	consider := func(path, address string) {
		if address == "" || !v.usable(path) {
			return
		}
		c := claim{path, address, newBound(address)}
		for _, before := range claims[c.bound.port] {
			if c.bound.clashes(before.bound) {
				at, before := c, before
				if !v.given(at.path) { // the default of admin.address
					at, before = before, at
				}
				v.add(at.path, "%s clashes with %s, which is %s at %s",
					quote(at.address), quote(before.address), before.path, v.at(before.path))
				return
			}
		}
		claims[c.bound.port] = append(claims[c.bound.port], c)
	}
	for i, l := range v.file.Listeners {
		consider(join(element("listeners", i), "address"), l.Address)
	}
	if admin := v.file.Admin.Address; !isUnixAddress(admin) {
		consider("admin.address", admin)
	}
}

func (v *validator) validateListenerTLS(path string, t *ListenerTLS) {
	for i, pair := range t.Certificates {
		v.checkKeyPair(element(join(path, "certificates"), i), pair)
	}
	if t.ClientAuth != nil {
		v.validateClientAuth(join(path, "client_auth"), *t.ClientAuth)
	}
	if t.TicketKeys != nil {
		v.checkTicketKeys(join(path, "ticket_keys.files"), t.TicketKeys.Files)
	}
}

// validateTCP reports a user timeout that leaves no time for several keepalive probes. By
// the kernel's rule, one lost probe would then end a sound connection that is idle: see
// probes in package proxy.
func (v *validator) validateTCP(path string, t TCP) {
	const least = 4 * time.Second
	alive, user := join(path, "keepalive"), join(path, "user_timeout")
	if t.KeepAlive == 0 || t.UserTimeout == 0 || !v.usable(alive) || !v.usable(user) {
		return
	}
	enough := max(t.KeepAlive+least, t.KeepAlive*3/2)
	if t.UserTimeout >= enough {
		return
	}
	remedy := "0"
	if most := min(t.UserTimeout-least, t.UserTimeout*2/3).Truncate(time.Second); most > 0 {
		remedy = plainDuration(most) + " or less"
	}
	at := user
	if !v.given(at) {
		at = alive
	}
	v.add(at, "user_timeout %s%s is too short for keepalive %s%s: one lost probe could end an idle connection; "+
		"set user_timeout to %s or more, or keepalive to %s", plainDuration(t.UserTimeout), v.byDefault(user),
		plainDuration(t.KeepAlive), v.byDefault(alive), plainDuration(enough), remedy)
}

func (v *validator) validateClientAuth(path string, c ClientAuth) {
	mode, ca := join(path, "mode"), join(path, "ca")
	if c.Mode != "none" && c.CA == "" && v.usable(mode) && v.usable(ca) {
		v.fail(ca, "mode %s needs a ca to verify clients with", c.Mode)
		return
	}
	v.checkAuthorities(ca, c.CA)
}
