package proxy

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/relay"
)

// quickly are settings under which all that are too many leave within a second or so.
var quickly = RebalanceSettings{On: true, Interval: 50 * time.Millisecond, Tolerance: 1.25, Rate: 100}

func movingApps(t *testing.T, names ...string) (apps []*movingApp) {
	for _, name := range names {
		apps = append(apps, newMovingApp(t, name))
	}
	return apps
}

// loads are those of the backends that discovery knows, by address.
func (e *testEdge) loads() map[string]int64 {
	loads := map[string]int64{}
	for _, b := range present(e.Pools()[0]) {
		loads[b.Addr] = b.Live.Load()
	}
	return loads
}

// even reports whether no backend has more than its share, and all are there.
func (e *testEdge) even(sessions int64) bool {
	loads, sum := e.loads(), int64(0)
	most := (sessions + int64(len(loads)) - 1) / int64(len(loads))
	for _, n := range loads {
		if sum += n; n > most {
			return false
		}
	}
	return sum == sessions
}

// TestRebalanceMoves: two backends become four, and sessions that talk all the time move to
// the new ones until nobody has more than the share; no client notices, whatever the policy
// is by which backends are picked.
func TestRebalanceMoves(t *testing.T) {
	for _, policy := range []string{"least_connections", "random", "round_robin"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			const clients = 22
			apps := movingApps(t, "a", "b", "c", "d")
			settings := func(n int) Settings {
				s := moving(apps[:n]...)
				s.Pools[0].Balance.Policy, s.Pools[0].Rebalance = policy, quickly
				return s
			}
			e := startEdge(t, settings(2))
			var running sync.WaitGroup
			var stop atomic.Bool
			var met sync.Map // who has answered
			defer running.Wait()
			defer stop.Store(true)
			for range clients {
				c := e.movingClient(nil)
				running.Go(func() {
					for !stop.Load() && !t.Failed() {
						if who := c.answered(); who == "" {
							return
						} else {
							met.Store(who, true)
						}
					}
				})
			}
			e.apply(settings(4))
			e.eventually("all have their share", func() bool { return e.even(clients) && e.Pools()[0].Rebalancing == nil })
			e.eventually("all moves are counted", func() bool {
				p := e.Pools()[0]
				return p.Rebalanced >= 10 && p.Rebalanced == p.Migrations[relay.MoveDone]
			})
			if p := e.Pools()[0]; policy == "least_connections" && p.Rebalanced > clients {
				t.Errorf("%d moves of %d sessions", p.Rebalanced, clients)
			}
			e.eventually("everybody answers", func() bool {
				_, c := met.Load("c")
				_, d := met.Load("d")
				return c && d
			})
			stop.Store(true)
			running.Wait()
			if n := len(e.Sessions(nil)); n != clients {
				t.Errorf("%d sessions of %d clients", n, clients)
			}
		})
	}
}

// answered is ask for a goroutine of its own: who answered, or nobody.
func (c *movingClient) answered() string {
	c.n++
	text := strconv.Itoa(c.n)
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Error(err)
		return ""
	}
	_, p, err := c.ReadMessage()
	if err != nil || len(p) < 3 || string(p[2:]) != text {
		c.t.Errorf("got %q, %v for %s", p, err, text)
		return ""
	}
	return string(p[:1])
}

// TestRebalanceCloses: where sessions do not move, as many as are too many are told to come
// again, each once.
func TestRebalanceCloses(t *testing.T) {
	t.Parallel()
	const clients = 20
	apps := movingApps(t, "a", "b", "c", "d")
	settings := func(n int) Settings {
		s := moving(apps[:n]...)
		s.Pools[0].Migrate, s.Pools[0].Rebalance, s.Pools[0].Balance.Policy = nil, quickly, "least_connections"
		return s
	}
	e := startEdge(t, settings(2))
	var running sync.WaitGroup
	var again atomic.Int64
	for range clients {
		c := e.movingClient(nil)
		running.Go(func() {
			defer func() { c.Close() }()
			for {
				_, p, err := c.ReadMessage()
				closed, ok := err.(*websocket.CloseError)
				switch {
				case ok && closed.Code == 1012 && closed.Text == "rebalance":
					c.Close()
					next, _, err := websocket.DefaultDialer.Dial(e.url("/ws"), nil)
					if err != nil {
						t.Error(err)
						return
					}
					c.Conn = next
					again.Add(1)
				case ok && closed.Code == 1001: // the end of the test
					return
				default:
					t.Errorf("got %q, %v", p, err)
					return
				}
			}
		})
	}
	e.apply(settings(4))
	e.eventually("all have their share", func() bool { return e.even(clients) && e.Pools()[0].Rebalancing == nil })
	e.eventually("ten have come again", func() bool { return again.Load() == 10 })
	if n := e.Pools()[0].Rebalanced; n != 10 {
		t.Errorf("%d rebalanced", n)
	}
	if n := e.route("all").Ends[EndKey{"edge", "rebalance"}]; n != 10 {
		t.Errorf("%d ends", n)
	}
	e.Shutdown(context.Background(), 0, patience)
	running.Wait()
}

// TestRebalanceStays: a session that nobody takes stays where it is, and is not asked about
// all the time.
func TestRebalanceStays(t *testing.T) {
	t.Parallel()
	apps := movingApps(t, "a", "b")
	settings := func(n int) Settings {
		s := moving(apps[:n]...)
		s.Pools[0].Rebalance = quickly
		return s
	}
	e := startEdge(t, settings(1))
	var clients []*movingClient
	for range 6 {
		clients = append(clients, e.movingClient(nil))
	}
	apps[1].answer.Store(http.StatusGone)
	e.apply(settings(2))
	e.eventually("each was refused once", func() bool { return e.Pools()[0].Migrations[relay.MoveRefused] == 6 })
	e.eventually("it gives up", func() bool { return e.Pools()[0].Rebalancing == nil })
	if v, err := e.Rebalance("apps"); err != nil || v.Remaining != 0 {
		t.Errorf("asked for: %+v, %v", v, err)
	}
	for _, c := range clients {
		if who := c.ask(); who != "a" {
			t.Errorf("%s answered", who)
		}
	}
	if p := e.Pools()[0]; p.Rebalanced != 0 || p.Migrations[relay.MoveRefused] != 6 || p.Migrations[relay.MoveDone] != 0 {
		t.Errorf("%d rebalanced, migrations %v", p.Rebalanced, p.Migrations)
	}
}

// TestRebalanceOpenedWithout: in a pool that has come to migrate no session is closed that
// opened before that; those that can be moved leave in their place.
func TestRebalanceOpenedWithout(t *testing.T) {
	t.Parallel()
	apps := movingApps(t, "a", "b")
	before := moving(apps[0])
	before.Pools[0].Migrate = nil
	e := startEdge(t, before)
	var old []*movingClient
	for range 4 {
		old = append(old, e.movingClient(nil))
	}
	e.eventually("they are there", func() bool { return len(e.Sessions(nil)) == 4 })
	e.apply(moving(apps[0]))
	young := e.movingClient(nil)
	e.eventually("all are there", func() bool { return len(e.Sessions(nil)) == 5 })
	after := moving(apps...)
	after.Pools[0].Rebalance = quickly
	e.apply(after)
	e.eventually("one has moved", func() bool { p := e.Pools()[0]; return p.Rebalanced == 1 && p.Rebalancing == nil })
	if who := young.ask(); who != "b" {
		t.Errorf("%s answered the one that can move", who)
	}
	for _, c := range old {
		if who := c.ask(); who != "a" {
			t.Errorf("%s answered one that cannot", who)
		}
	}
}

// TestMoveOnlyFrom: who wants a session to leave a backend does not move it off another, and
// passes by those that are full.
func TestMoveOnlyFrom(t *testing.T) {
	t.Parallel()
	apps := movingApps(t, "a", "b", "c")
	e := startEdge(t, moving(apps...))
	c := e.movingClient(nil)
	c.ask()
	s := e.onlySession()
	all := present(e.Pools()[0])
	others := slices.DeleteFunc(slices.Clone(all), func(b *balance.Backend) bool { return b.Live == s.Backend().Live })
	if got := s.move(t.Context(), "test", others[0].Live, nil); got != moveCancelled {
		t.Errorf("off a backend that it does not have: %s", got)
	}
	if got := s.move(t.Context(), "test", s.Backend().Live, func() []*balance.Backend { return others }); got != moveNoBackend {
		t.Errorf("all are full: %s", got)
	}
	if got := s.move(t.Context(), "test", s.Backend().Live, func() []*balance.Backend { return others[:1] }); got != relay.MoveDone || s.Backend().Live != others[1].Live {
		t.Errorf("%s to %s, want %s", got, s.Backend().ID, others[1].ID)
	}
}
