package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/gobwas/ws"
)

// dialer opens connections: TCP, TLS, the opening handshake.
type dialer struct {
	url     *url.URL
	address string // host:port, resolved
	options *Options
	tls     *tls.Config // nil: ws
}

// newDialer resolves the host once, so that the run does not measure the resolver.
func newDialer(ctx context.Context, o *Options, u *url.URL) (*dialer, error) {
	d := &dialer{url: u, options: o}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err != nil {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, fmt.Errorf("resolving %s: %w", host, err)
		}
		host = pickAddress(found, o.SourceIPs).Unmap().String()
	}
	if err := sameFamily(host, o.SourceIPs); err != nil {
		return nil, err
	}
	d.address = net.JoinHostPort(host, port)
	if u.Scheme == "wss" {
		d.tls = withoutSurprises(o.TLS)
		if d.tls.ServerName == "" {
			d.tls.ServerName = u.Hostname()
		}
		if d.tls.NextProtos == nil {
			d.tls.NextProtos = []string{"http/1.1"} // as browsers do for wss
		}
	}
	return d, nil
}

// pickAddress prefers the family of the sources, or IPv4, as what listens on localhost often
// does.
func pickAddress(found, sources []netip.Addr) netip.Addr {
	four := len(sources) == 0 || sources[0].Unmap().Is4()
	for _, a := range found {
		if a.Unmap().Is4() == four {
			return a
		}
	}
	return found[0]
}

// sameFamily refuses sources from which an address cannot be reached.
func sameFamily(host string, sources []netip.Addr) error {
	to, err := netip.ParseAddr(host)
	if err != nil {
		return &OptionError{"URL", err}
	}
	for _, s := range sources {
		if s.Unmap().Is4() != to.Unmap().Is4() {
			return &OptionError{"source-ips", fmt.Errorf("from %s there is no way to %s: one is IPv4, the other IPv6", s, to)}
		}
	}
	return nil
}

// dial opens connection number id. What goes wrong is a *failure.
func (d *dialer) dial(ctx context.Context, id int) (*established, error) {
	ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
	defer cancel()
	nd := net.Dialer{Control: latePort, KeepAlive: -1}
	if n := len(d.options.SourceIPs); n > 0 {
		nd.LocalAddr = &net.TCPAddr{IP: d.options.SourceIPs[id%n].AsSlice()}
	}
	conn, err := nd.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, &failure{dialKind(err), err}
	}
	tcp := &transport{Conn: conn}
	deadline, _ := ctx.Deadline()
	tcp.SetDeadline(deadline)
	unhook := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	e := &established{conn: tcp, tcp: tcp}
	err = d.handshake(ctx, e, id)
	if !unhook() && err == nil {
		err = &failure{"upgrade_timeout", ctx.Err()}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	tcp.SetDeadline(time.Time{})
	return e, nil
}

func (d *dialer) handshake(ctx context.Context, e *established, id int) error {
	if d.tls != nil {
		c := tls.Client(e.tcp, d.tls)
		if err := c.HandshakeContext(ctx); err != nil {
			return &failure{tlsKind(err), fmt.Errorf("TLS handshake: %w", err)}
		}
		e.conn = c
	}
	u := d.url
	if d.options.Mode == Push {
		subscribed := *u
		subscribed.RawQuery = d.subscription(id)
		u = &subscribed
	}
	up := ws.Dialer{Protocols: d.options.Subprotocols, Header: ws.HandshakeHeaderHTTP(d.options.Header)}
	if host := http.Header(d.options.Header).Get("Host"); host != "" {
		up.Host = host
		rest := d.options.Header.Clone()
		rest.Del("Host")
		up.Header = ws.HandshakeHeaderHTTP(rest)
	}
	more, _, err := up.Upgrade(e.conn, u)
	if err != nil {
		return &failure{upgradeKind(err), fmt.Errorf("opening handshake: %w", err)}
	}
	if more != nil {
		p, _ := more.Peek(more.Buffered())
		e.first = append([]byte(nil), p...)
		ws.PutReader(more)
	}
	return nil
}

// subscription is the query of a push connection.
func (d *dialer) subscription(id int) string {
	o := d.options
	s := subscription{mode: Push, size: o.Size, rate: o.Rate / float64(o.Connections), text: o.Text, id: uint64(id),
		phase: float64(id) / float64(o.Connections)}
	query := s.query()
	if d.url.RawQuery != "" {
		query = d.url.RawQuery + "&" + query
	}
	return query
}
