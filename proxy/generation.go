package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/tls"
)

// certificatePoll is how often certificate files are looked at.
const certificatePoll = 5 * time.Second

// Generation is one applied configuration. It is immutable.
type Generation struct {
	// Number counts from 1.
	Number uint64
	// Applied is when it was committed.
	Applied   time.Time
	table     *table
	routes    []*route
	pools     []*poolView
	former    []*pool // which the configuration does not have and which may have sessions
	endpoints []*endpoint
}

// ListenerView is a listener as it stands.
type ListenerView struct {
	Name string
	// Address is the bound one: a port 0 is resolved.
	Address  string
	TLS      bool
	Sessions int // handshakes included
	// Certificates that it serves.
	Certificates []tls.CertificateInfo
}

// Listeners returns the listeners in the order of the configuration.
func (g *Generation) Listeners() []ListenerView {
	views := make([]ListenerView, len(g.endpoints))
	for i, e := range g.endpoints {
		views[i] = ListenerView{Name: e.Name, Address: e.ln.socket.Addr().String(), TLS: e.store != nil, Sessions: e.ln.limits.count()}
		if e.store != nil {
			views[i].Certificates = e.store.Certificates()
		}
	}
	return views
}

// Next is a configuration that is ready to be applied. It ends by Commit or Discard.
type Next struct {
	srv *Server
	gen *Generation

	maxBuffered int64

	taken map[string]bool // keys of its listeners
	bound []*listener     // sockets of its own
	done  bool
}

// ErrStopping is what Prepare returns once Shutdown has begun.
var ErrStopping = errors.New("the edge is shutting down")

// Prepare does everything of a new configuration that can fail. On an error nothing has
// changed; otherwise other configurations wait until Commit or Discard.
func (s *Server) Prepare(settings Settings) (*Next, error) {
	s.applying.Lock() // held until Commit or Discard, but not during a shutdown
	n := &Next{srv: s, gen: &Generation{}, taken: map[string]bool{}}
	err := n.prepare(settings)
	if err != nil {
		n.Discard()
		return nil, err
	}
	return n, nil
}

func (n *Next) prepare(settings Settings) error {
	if n.srv.stopping.Load() {
		return ErrStopping
	}
	if n.srv.engines == nil {
		engines, err := newEngines(n.srv.Loops, &n.srv.memory)
		if err != nil {
			return err
		}
		n.srv.engines = engines
	}
	n.maxBuffered = settings.MaxBufferedBytes
	var errs []error
	pools, wrong := map[string]*poolView{}, map[string]bool{}
	for _, p := range settings.Pools {
		policy, err := balance.New(p.Balance)
		if err == nil && p.Rebalance.On && p.hashed() {
			err = ErrHashed
		}
		if err == nil {
			err = checkSources(p.Upstream.SourceAddresses)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("pool %s: %w", p.Name, err))
			wrong[p.Name] = true
			continue
		}
		known := n.srv.pools[p.Name]
		if known == nil {
			known = newPool(p.Name, n.srv)
		}
		view := &poolView{pool: known, PoolSettings: p, policy: policy}
		pools[p.Name] = view
		n.gen.pools = append(n.gen.pools, view)
	}
	for _, r := range settings.Routes {
		if wrong[r.Pool] {
			continue // said already
		}
		if pools[r.Pool] == nil {
			errs = append(errs, fmt.Errorf("route %s: there is no pool %q", r.Name, r.Pool))
			continue
		}
		if r.Sticky != nil && r.Sticky.Strict && pools[r.Pool].Rebalance.On {
			errs = append(errs, fmt.Errorf("route %s: %w", r.Name, ErrStrict))
			continue
		}
		n.gen.routes = append(n.gen.routes, newRoute(r, pools[r.Pool], n.srv.stats.route(r.Name), &n.srv.memory))
	}
	n.gen.table = newTable(n.gen.routes)
	for _, l := range settings.Listeners {
		if err := n.listen(l); err != nil {
			errs = append(errs, fmt.Errorf("listener %s: %w", l.Name, err))
		}
	}
	return errors.Join(errs...)
}

// listen prepares one listener. The socket of an address that is bound already is used
// again, and so is a certificate store with the same settings.
func (n *Next) listen(s ListenerSettings) error {
	if n.taken[s.key()] {
		return fmt.Errorf("another listener has its address %s", s.Address)
	}
	n.taken[s.key()] = true
	ln := n.srv.listeners[s.key()]
	var before *endpoint
	if ln != nil {
		before = ln.endpoint.Load()
	}
	var store *tls.Store
	switch {
	case s.TLS == nil:
	case before != nil && before.store != nil && reflect.DeepEqual(*s.TLS, *before.TLS):
		store = before.store
		if _, err := store.Reload(); err != nil {
			return err
		}
	default:
		var err error
		if store, err = tls.NewStore(*s.TLS); err != nil {
			return err
		}
	}
	if ln == nil {
		config := net.ListenConfig{KeepAlive: -1} // tune sees to it
		socket, err := config.Listen(context.Background(), "tcp", s.Address)
		if err != nil {
			return err
		}
		taken := n.srv.limits[s.key()]
		if taken == nil {
			taken = &limits{}
		}
		ln = &listener{srv: n.srv, socket: socket.(*net.TCPListener), limits: taken}
		n.bound = append(n.bound, ln)
	}
	if before != nil && before.store == store && reflect.DeepEqual(s, before.ListenerSettings) {
		n.gen.endpoints = append(n.gen.endpoints, before)
		return nil
	}
	n.gen.endpoints = append(n.gen.endpoints, ln.newEndpoint(s, store))
	return nil
}

// Discard gives up a configuration that was not committed.
func (n *Next) Discard() {
	if n.done {
		return
	}
	n.done = true
	for _, ln := range n.bound {
		ln.socket.Close()
	}
	n.srv.applying.Unlock()
}

// Commit applies the configuration. It cannot fail, and no session notices it.
func (n *Next) Commit() *Generation {
	s, before := n.srv, n.srv.current.Load()
	s.startEngines()
	n.done = true
	defer s.applying.Unlock()
	n.gen.Number, n.gen.Applied = before.Number+1, time.Now()

	pools := map[string]*pool{}
	for _, v := range n.gen.pools {
		pools[v.Name] = v.pool
		v.pool.apply(v)
		s.measure(v)
	}
	for name, p := range s.pools {
		if pools[name] == nil {
			n.gen.former = append(n.gen.former, p)
		}
	}
	slices.SortFunc(n.gen.former, func(a, b *pool) int { return strings.Compare(a.name, b.name) })
	s.memory.SetLimit(n.maxBuffered)
	s.current.Store(n.gen)
	s.stats.restore(n.gen.routes)
	for _, p := range n.gen.former {
		// A pool that is gone is kept while it has sessions: should it come back, their
		// counts are there.
		if p.close() {
			pools[p.name] = p
		}
	}
	s.pools = pools
	n.commitListeners(before)
	s.log.Info("configuration applied", zap.Uint64("generation", n.gen.Number), zap.Int("listeners", len(n.gen.endpoints)),
		zap.Int("routes", len(n.gen.routes)), zap.Int("pools", len(n.gen.pools)))
	return n.gen
}

func (n *Next) commitListeners(before *Generation) {
	s := n.srv
	listeners, kept := map[string]*listener{}, map[*endpoint]bool{}
	for _, e := range n.gen.endpoints {
		listeners[e.key()], kept[e] = e.ln, true
		if e.ln.endpoint.Swap(e) == e {
			continue
		}
		if e.store != nil {
			e.unwatch = s.start(e.watchCertificates)
		}
		s.start(e.serve)
		if s.listeners[e.key()] == nil {
			e.ln.stop = s.start(e.ln.run)
			s.log.Info("listening", zap.String("listener", e.Name), zap.Stringer("address", e.ln.socket.Addr()), zap.Bool("tls", e.store != nil))
		}
	}
	for _, e := range before.endpoints {
		if !kept[e] {
			e.retire()
		}
	}
	for key, ln := range s.listeners {
		if listeners[key] == nil {
			ln.close()
		}
	}
	s.listeners = listeners
	// Of a listener that is gone the places are kept while they are taken: should it come
	// back, they are.
	for key, ln := range listeners {
		s.limits[key] = ln.limits
	}
	maps.DeleteFunc(s.limits, func(key string, l *limits) bool { return listeners[key] == nil && l.count() == 0 })
}

// close ends accepting; connections that were accepted go on.
func (l *listener) close() {
	l.socket.Close()
	l.stop()
}
