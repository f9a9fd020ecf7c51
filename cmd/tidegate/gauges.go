package main

import (
	"maps"
	"slices"

	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/discovery/consul"
	"github.com/tidegate/tidegate/internal/metrics"
	"github.com/tidegate/tidegate/proxy"
	"github.com/tidegate/tidegate/proxy/relay"
)

// gauges is an edge as the metrics see it: metrics.Source.
type gauges struct{ *edge }

func (g gauges) Snapshot() metrics.Snapshot {
	gen := g.srv.Current()
	totals := g.srv.Totals()
	out := metrics.Snapshot{Unrouted: metrics.Answers(g.srv.Unrouted()), Requests: totals.Requests, Buffered: totals.Buffered, Shed: totals.Shed}
	for _, r := range g.srv.Routes() {
		out.Routes = append(out.Routes, routeMetrics(r))
		for listener, n := range r.Active {
			out.Sessions = append(out.Sessions, metrics.Sessions{Listener: listener, Route: r.Name, Active: n})
		}
	}
	for _, p := range g.srv.Pools() {
		out.Pools = append(out.Pools, poolMetrics(p))
	}
	for _, l := range gen.Listeners() {
		out.Certificates = append(out.Certificates, certificates(l)...)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	out.Config = metrics.Config{Generation: gen.Number, Reloads: maps.Clone(g.reloads), LastReloadOK: g.last.LastReloadOK}
	return out
}

func routeMetrics(r proxy.RouteView) metrics.Route {
	out := metrics.Route{Name: r.Name, Answers: metrics.Answers(r.Answers), HandshakeDuration: r.HandshakeDuration,
		SessionDuration: r.SessionDuration, PingRTT: r.PingRTT,
		Upstream: traffic(r.Traffic[relay.Client]), Downstream: traffic(r.Traffic[relay.Backend])}
	for k, n := range r.Closes {
		out.Closes = append(out.Closes, metrics.Close{Code: k.Code, Initiator: k.Initiator, Count: n})
	}
	for k, n := range r.Ends {
		out.Ends = append(out.Ends, metrics.End{By: k.By, Cause: k.Cause, Count: n})
	}
	return out
}

func traffic(c relay.Counters) metrics.Traffic {
	return metrics.Traffic{TextMessages: c.Messages[0], BinaryMessages: c.Messages[1], MessageBytes: c.Bytes, MessagesDropped: c.Dropped,
		Frames: metrics.Frames{Text: c.Frames[0], Binary: c.Frames[1], Continuation: c.Frames[2], Close: c.Frames[3], Ping: c.Frames[4], Pong: c.Frames[5]}}
}

func poolMetrics(p proxy.PoolView) metrics.Pool {
	out := metrics.Pool{Name: p.Name, ConnectDuration: p.Connect, Stale: stale(p), Panic: p.Panic, Migrations: p.Migrations, InDoubt: p.InDoubt, Rebalanced: p.Rebalanced}
	for _, b := range p.Backends {
		drain, draining := p.Drains[b.ID]
		out.Backends = append(out.Backends, metrics.Backend{ID: b.ID, State: b.Live.State().String(), Sessions: b.Live.Sessions(),
			Picks: b.Live.Picks(), Failures: failures(b.Live), Draining: draining, Remaining: drain.Remaining})
	}
	for _, s := range p.Sources {
		if c, ok := s.(*consul.Source); ok {
			st := c.Stats()
			out.Consul = &metrics.Consul{Index: st.Index, LastContact: st.LastContact, Errors: st.Errors}
		}
	}
	return out
}

// stale reports whether the set of a pool is not known to be current. A source that has
// not spoken yet, or not since a reload, says so in its figures only.
func stale(p proxy.PoolView) bool {
	return p.Stale || slices.ContainsFunc(p.Sources, func(s discovery.Source) bool {
		c, ok := s.(*consul.Source)
		return ok && c.Stats().Stale
	})
}

// certificates are those of a listener by name; of several with one name, such as an
// ECDSA and an RSA one, the one that ends first stands for them.
func certificates(l proxy.ListenerView) (out []metrics.Certificate) {
	at := map[string]int{}
	for _, c := range l.Certificates {
		if i, ok := at[c.Name]; ok {
			if c.NotAfter.Before(out[i].NotAfter) {
				out[i].NotAfter = c.NotAfter
			}
			continue
		}
		at[c.Name] = len(out)
		out = append(out, metrics.Certificate{Listener: l.Name, Name: c.Name, NotAfter: c.NotAfter})
	}
	return out
}
