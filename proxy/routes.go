package proxy

import (
	"cmp"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// route is one compiled RouteSettings.
type route struct {
	RouteSettings
	headers []headerCondition
	origins map[string]bool
	engines sync.Map // *engine.Options by relay.Compression
	options engine.Options
	pool    *poolView
	tickets []string // names of the sticky cookies of all routes: browsers send them to each
	stats   *RouteStats
	places  sync.Map // *endpoint → *place
	moves   *moves   // nil: sessions stay with their backends
}

// place returns where the route's sessions on a listener are counted.
func (r *route) place(e *endpoint) *place {
	p, ok := r.places.Load(e)
	if !ok {
		p, _ = r.places.LoadOrStore(e, &place{srv: e.ln.srv, stats: r.stats, limits: e.ln.limits, moves: r.moves, health: r.pool.health, tcp: e.TCP,
			listener: e.Name, route: r.Name, pool: r.pool.Name, traffic: &r.pool.traffic, endless: r.WebSocket.CloseTimeout == 0, sticky: r.Sticky != nil})
	}
	return p.(*place)
}

type headerCondition struct{ name, value string }

func newRoute(s RouteSettings, pool *poolView, stats *RouteStats, memory *engine.Memory) *route {
	r := &route{RouteSettings: s, pool: pool, stats: stats, moves: newMoves(pool)}
	for name, value := range s.Headers {
		r.headers = append(r.headers, headerCondition{http.CanonicalHeaderKey(name), value})
	}
	if len(s.Origins) > 0 {
		r.origins = map[string]bool{}
		for _, o := range s.Origins {
			r.origins[strings.ToLower(o)] = true
		}
	}
	r.options = engine.Options{Tally: &stats.tally, BufferBytes: s.WebSocket.MaxBufferedBytes, WriteTimeout: s.WebSocket.WriteTimeout,
		Memory: memory, Relay: s.WebSocket.relay()}
	r.options.Relay.RTT = func(d time.Duration) { stats.PingRTT.Observe(d.Seconds()) }
	return r
}

// engine returns the options of sessions that have agreed to a compression. There are few.
func (r *route) engine(c relay.Compression) *engine.Options {
	if o, ok := r.engines.Load(c); ok {
		return o.(*engine.Options)
	}
	opt := r.options
	if opt.Relay.Compression = c; c.Mode != relay.Passthrough {
		opt.Relay.Migrate = r.moves.options()
	}
	o, _ := r.engines.LoadOrStore(c, &opt)
	return o.(*engine.Options)
}

func (ws WebSocketSettings) relay() relay.Options {
	return relay.Options{MaxFrameBytes: ws.MaxFrameBytes, MaxMessageBytes: ws.MaxMessageBytes,
		MaxFragments: ws.MaxFragments, MessageTimeout: ws.MessageTimeout,
		ControlFrames: ws.ControlFrames, Messages: ws.Messages, Bytes: ws.Bytes, Delay: ws.DelayOverRate,
		ValidateUTF8: ws.ValidateUTF8,
		Ping:         [2]bool{relay.Client: ws.PingClient, relay.Backend: ws.PingBackend},
		PingInterval: ws.PingInterval, PongTimeout: ws.PongTimeout,
		IdleTimeout: ws.IdleTimeout, MaxAge: ws.MaxAge, MaxAgeJitter: ws.MaxAgeJitter,
		SlowConsumer: ws.SlowConsumer, SlowConsumerCode: ws.SlowConsumerCode, MaxBuffered: ws.MaxBufferedBytes,
		CloseTimeout: ws.CloseTimeout}
}

// table finds the route of a request: exact host, wildcard, none; then the longest
// path; then more header conditions; then protocol. It is immutable.
type table struct {
	exact    map[string][]*route
	wildcard map[string][]*route // by suffix with its leading dot
	any      []*route
}

func newTable(routes []*route) *table {
	t := &table{exact: map[string][]*route{}, wildcard: map[string][]*route{}}
	tickets := ticketNames(routes)
	for _, r := range routes {
		r.tickets = tickets
		if len(r.Hosts) == 0 {
			t.any = append(t.any, r)
		}
		for _, h := range r.Hosts {
			h = strings.ToLower(h)
			if suffix, ok := strings.CutPrefix(h, "*"); ok {
				t.wildcard[suffix] = append(t.wildcard[suffix], r)
			} else {
				t.exact[h] = append(t.exact[h], r)
			}
		}
	}
	sortRoutes(t.any)
	for _, m := range []map[string][]*route{t.exact, t.wildcard} {
		for _, rs := range m {
			sortRoutes(rs)
		}
	}
	return t
}

// sortRoutes puts the most specific route first.
func sortRoutes(rs []*route) {
	slices.SortStableFunc(rs, func(a, b *route) int {
		return cmp.Or(
			cmp.Compare(len(b.Path), len(a.Path)),
			cmp.Compare(len(b.headers), len(a.headers)),
			cmp.Compare(min(b.Protocol, 1), min(a.Protocol, 1)),
		)
	})
}

// find returns the route of r, or nil.
func (t *table) find(r *http.Request, websocket bool) *route {
	host := hostOf(r.Host)
	if found := first(t.exact[host], r, websocket); found != nil {
		return found
	}
	// The longest suffix is the most specific wildcard.
	for rest := host; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			break
		}
		if dot > 0 || rest != host {
			if found := first(t.wildcard[rest[dot:]], r, websocket); found != nil {
				return found
			}
		}
		rest = rest[dot+1:]
	}
	return first(t.any, r, websocket)
}

func first(rs []*route, r *http.Request, websocket bool) *route {
	for _, rt := range rs {
		if rt.matches(r, websocket) {
			return rt
		}
	}
	return nil
}

func (rt *route) matches(r *http.Request, websocket bool) bool {
	if rt.Protocol == WebSocketOnly && !websocket || rt.Protocol == HTTPOnly && websocket || !underPath(r.URL.Path, rt.Path) {
		return false
	}
	for _, c := range rt.headers {
		if r.Header.Get(c.name) != c.value {
			return false
		}
	}
	return true
}

// underPath reports whether path is prefix or lies below it: a prefix ends at a segment
// border.
func underPath(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/' || prefix == "" || prefix[len(prefix)-1] == '/')
}

// allows reports whether a request may come from its origin. Requests without an Origin
// are not a browser's, which the check is there to hold (RFC 6455 §10.2).
func (rt *route) allows(r *http.Request) bool {
	origins := r.Header["Origin"]
	if rt.origins == nil || len(origins) == 0 {
		return true
	}
	return len(origins) == 1 && rt.origins[strings.ToLower(origins[0])]
}

// hostOf returns the host name of a Host header: lower case, without port and final dot.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// contains goes by the address alone: that of a neighbour on the link has a zone, which no prefix
// has.
func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	addr = addr.WithZone("")
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
