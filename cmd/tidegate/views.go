package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/proxy"
	"github.com/tidegate/tidegate/proxy/relay"
)

// view is an edge as the admin API sees it: admin.Edge.
type view struct{ *edge }

func (v view) Status() admin.Status {
	totals, gen := v.srv.Totals(), v.srv.Current()
	v.mu.Lock()
	last := v.last
	v.mu.Unlock()
	s := admin.Status{Version: buildVersion(), Started: v.started, UptimeSeconds: time.Since(v.started).Seconds(),
		Generation: gen.Number, Ready: v.srv.Ready(), ShuttingDown: v.srv.Stopping(), Sessions: int64(totals.Live),
		HandshakesInFlight: int64(totals.Handshaking), RequestsInFlight: int64(totals.Requests), SessionsTotal: totals.Opened, Config: last}
	active := map[string]int64{}
	routes := v.srv.Routes()
	for _, r := range routes {
		for listener, n := range r.Active {
			active[listener] += n
		}
	}
	for _, l := range gen.Listeners() {
		s.Listeners = append(s.Listeners, admin.Listener{Name: l.Name, Address: l.Address, TLS: l.TLS, Sessions: active[l.Name]})
	}
	for _, r := range routes {
		s.Routes = append(s.Routes, admin.Route{Name: r.Name, Pool: r.Pool, Sessions: sum(r.Active)})
	}
	slices.SortFunc(s.Routes, func(a, b admin.Route) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

func (v view) Ready() error {
	switch {
	case v.srv.Stopping():
		return admin.ErrShuttingDown
	case !v.srv.Ready():
		return errors.New("no configuration has been applied")
	}
	return nil
}

func (v view) Pools() []admin.Pool {
	pools := v.srv.Pools()
	out := make([]admin.Pool, len(pools))
	for i, p := range pools {
		out[i] = admin.Pool{Name: p.Name, Policy: p.Policy, Stale: stale(p), Panic: p.Panic, Index: p.Index, Rebalancing: (*admin.Rebalancing)(p.Rebalancing)}
		for _, b := range p.Backends {
			out[i].Backends = append(out[i].Backends, admin.Backend{ID: b.ID, Address: b.Addr, Weight: b.Weight,
				State: b.Live.State().String(), Reason: reason(p, b), Sessions: b.Live.Sessions(), InFlight: b.Live.InFlight(), Picks: b.Live.Picks(),
				Failures: failures(b.Live), Node: b.Node, Datacenter: b.Datacenter, Tags: b.Tags, Meta: b.Meta, Draining: draining(p, b.ID)})
		}
	}
	return out
}

// draining is how the drain of a backend stands, nil if it is not drained.
func draining(p proxy.PoolView, id string) *admin.Draining {
	d, ok := p.Drains[id]
	if !ok {
		return nil
	}
	return &admin.Draining{By: d.By.String(), Remaining: d.Remaining, Since: d.Since, Deadline: d.Deadline, PerSecond: d.PerSecond, Waiting: d.Waiting}
}

func (v view) Drain(pool, backend string, p admin.Pace) error {
	return leaveError(v.srv.Drain(pool, backend, proxy.DrainPace(p)))
}

func (v view) Undrain(pool, backend string) error {
	return leaveError(v.srv.Undrain(pool, backend))
}

func (v view) Rebalance(pool string) (admin.Rebalancing, error) {
	r, err := v.srv.Rebalance(pool)
	return admin.Rebalancing(r), leaveError(err)
}

// leaveError is an error of a drain or a rebalancing as the API knows it.
func leaveError(err error) error {
	switch {
	case errors.Is(err, proxy.ErrHashed):
		return admin.ErrHashed
	case errors.Is(err, proxy.ErrUnsettled):
		return fmt.Errorf("%w%s", admin.ErrUnsettled, strings.TrimPrefix(err.Error(), proxy.ErrUnsettled.Error()))
	case errors.Is(err, proxy.ErrNoPool):
		return admin.ErrNoPool
	case errors.Is(err, proxy.ErrNoBackend):
		return admin.ErrNoBackend
	case errors.Is(err, proxy.ErrNotDrained):
		return admin.ErrNotDrained
	case errors.Is(err, proxy.ErrMaintained):
		return admin.ErrMaintained
	case errors.Is(err, proxy.ErrStopping):
		return admin.ErrShuttingDown
	case errors.Is(err, proxy.ErrBadPace):
		return fmt.Errorf("%w%s", admin.ErrBadPace, strings.TrimPrefix(err.Error(), proxy.ErrBadPace.Error()))
	}
	return err
}

// reason is why a backend is not up.
func reason(p proxy.PoolView, b *balance.Backend) string {
	switch b.Live.State() {
	case balance.StateDraining:
		if b.Status == discovery.Maintenance {
			return "maintenance in Consul"
		}
		return "drained by operator"
	case balance.StateDown:
		return "not passing in Consul"
	case balance.StateRemoved:
		return "gone from discovery"
	case balance.StateEjected, balance.StateSlowStart:
		return p.Reasons[b.ID]
	}
	return ""
}

func failures(l *balance.Live) map[string]uint64 {
	m := map[string]uint64{}
	for kind := range balance.NumFailureKinds {
		if n := l.Failures(kind); n > 0 {
			m[kind.String()] = n
		}
	}
	return m
}

// Sessions pages by id: ids sort by age, so that a page follows the one before it
// whatever came and went meanwhile.
func (v view) Sessions(q admin.SessionQuery) (admin.SessionPage, error) {
	after := proxy.SessionNumber(q.Cursor)
	if q.Cursor != "" && after == 0 {
		return admin.SessionPage{}, admin.ErrBadCursor
	}
	all := v.srv.Sessions(func(s *proxy.Session) bool {
		return s.Number() > after && (q.Pool == "" || s.Pool() == q.Pool) && (q.Backend == "" || s.Backend().ID == q.Backend) &&
			(q.Route == "" || s.Route() == q.Route) && (!q.IP.IsValid() || s.ClientIP() == q.IP)
	})
	page := admin.SessionPage{}
	if len(all) > q.Limit {
		all = all[:q.Limit]
		page.Next = all[len(all)-1].ID()
	}
	counts := v.srv.Counts(all)
	for i, s := range all {
		page.Sessions = append(page.Sessions, sessionView(s, counts[i]))
	}
	return page, nil
}

func (v view) Session(id string) (admin.Session, bool) {
	s := v.srv.Session(id)
	if s == nil {
		return admin.Session{}, false
	}
	return sessionView(s, s.Counts()), true
}

func sessionView(s *proxy.Session, counts [2]relay.Count) admin.Session {
	i := s.Info()
	return admin.Session{ID: i.ID, Route: i.Route, Listener: i.Listener, Pool: i.Pool, Backend: s.Backend().ID, Client: i.Client.String(),
		ClientIP: i.ClientIP.String(), State: s.State().String(), Opened: i.Opened, DurationSeconds: time.Since(i.Opened).Seconds(), Subprotocol: i.Subprotocol,
		Host: i.Host, Path: i.Path, RequestID: i.RequestID, Attempts: s.Attempts(),
		Upstream: trafficView(counts[relay.Client]), Downstream: trafficView(counts[relay.Backend])}
}

func trafficView(c relay.Count) admin.Traffic {
	return admin.Traffic{Messages: c.Messages, Bytes: c.Bytes, Frames: c.Frames}
}

func (v view) CloseSession(id string, code int, reason string) error {
	s := v.srv.Session(id)
	if s == nil || s.State() != proxy.StateOpen {
		return admin.ErrNoSession
	}
	s.Close(ws.StatusCode(code), reason, proxy.WhyAPI)
	return nil
}
