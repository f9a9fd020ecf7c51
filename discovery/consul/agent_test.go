package consul

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap/zaptest"

	"github.com/tidegate/tidegate/discovery"
	"github.com/tidegate/tidegate/internal/consultest"
)

// patience bounds what a real agent may take on a busy machine.
const patience = 30 * time.Second

// follower watches a real agent. The test takes what it publishes from a channel that
// keeps only the latest snapshot.
type follower struct {
	*Source
	latest chan *discovery.Snapshot
	stop   func() error
}

func follow(t *testing.T, config Config, tune ...func(*Source)) *follower {
	t.Helper()
	config.Logger = zaptest.NewLogger(t)
	source, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	source.pace.queries, source.pace.burst = 100, 100
	source.pace.backoffMax = 500 * time.Millisecond
	for _, f := range tune {
		f(source)
	}
	f := &follower{Source: source, latest: make(chan *discovery.Snapshot, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- source.Watch(ctx, func(s *discovery.Snapshot) {
			select {
			case <-f.latest:
			default:
			}
			f.latest <- s
		})
	}()
	f.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = f.stop() })
	return f
}

// expect waits until the latest snapshot has the shape want.
func (f *follower) expect(t *testing.T, when string, want ...string) *discovery.Snapshot {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var last []string
	for {
		select {
		case s := <-f.latest:
			if last = shape(s); slices.Equal(last, want) {
				return s
			}
		case <-timer.C:
			t.Fatalf("%s: last published %v, want %v", when, last, want)
		}
	}
}

func TestAgentChanges(t *testing.T) {
	a := consultest.Shared(t)
	f := follow(t, Config{Address: "http://" + a.Address(), Service: "changes", PassingOnly: true})
	f.expect(t, "no instance yet")

	one := consultest.Service{ID: "one", Name: "changes", Address: "10.1.0.1", Port: 81, Passing: 2, Warning: 1,
		Tags: []string{"v1"}, Meta: map[string]string{"zone": "b"}}
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{"register", func() { a.Register(t, one) }, []string{"dc1/node1/one*2:up"}},
		{"a second one on the node's address", func() {
			a.Register(t, consultest.Service{ID: "two", Name: "changes", Port: 82})
		}, []string{"dc1/node1/one*2:up", "dc1/node1/two*1:up"}},
		{"weight", func() { a.SetWeight(t, "one", 9, 4) }, []string{"dc1/node1/one*9:up", "dc1/node1/two*1:up"}},
		{"warning", func() { a.SetCheck(t, "one", api.HealthWarning) },
			[]string{"dc1/node1/one*4:down", "dc1/node1/two*1:up"}},
		{"critical", func() { a.SetCheck(t, "one", api.HealthCritical) },
			[]string{"dc1/node1/one*9:down", "dc1/node1/two*1:up"}},
		{"passing", func() { a.SetCheck(t, "one", api.HealthPassing) },
			[]string{"dc1/node1/one*9:up", "dc1/node1/two*1:up"}},
		{"service maintenance", func() { a.Maintenance(t, "one", true) },
			[]string{"dc1/node1/one*9:maintenance", "dc1/node1/two*1:up"}},
		{"its end", func() { a.Maintenance(t, "one", false) }, []string{"dc1/node1/one*9:up", "dc1/node1/two*1:up"}},
		{"node maintenance", func() { a.NodeMaintenance(t, true) },
			[]string{"dc1/node1/one*9:maintenance", "dc1/node1/two*1:maintenance"}},
		{"its end", func() { a.NodeMaintenance(t, false) }, []string{"dc1/node1/one*9:up", "dc1/node1/two*1:up"}},
		{"an instance without a port", func() {
			a.Register(t, consultest.Service{ID: "three", Name: "changes"})
			a.SetWeight(t, "one", 3, 4)
		}, []string{"dc1/node1/one*3:up", "dc1/node1/two*1:up"}},
		{"deregister", func() { a.Deregister(t, "two") }, []string{"dc1/node1/one*3:up"}},
	}
	var last *discovery.Snapshot
	for _, step := range steps {
		step.do()
		last = f.expect(t, step.name, step.want...)
	}
	got := last.Instances[0]
	want := discovery.Instance{ID: "dc1/node1/one", Addr: "10.1.0.1:81", Weight: 3, Node: "node1", Datacenter: "dc1",
		Tags: []string{"v1"}, Meta: map[string]string{"zone": "b"}}
	if !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s := f.Stats(); s.Index == 0 || s.Errors != 0 || s.Stale || time.Since(s.LastContact) > patience {
		t.Errorf("stats %+v", s)
	}
}

func TestAgentWarningTakesSessionsUnlessPassingOnly(t *testing.T) {
	a := consultest.Shared(t)
	a.Register(t, consultest.Service{ID: "w", Name: "warned", Port: 80, Passing: 5, Warning: 2})
	f := follow(t, Config{Address: a.Address(), Service: "warned"})
	f.expect(t, "passing", "dc1/node1/w*5:up")
	a.SetCheck(t, "w", api.HealthWarning)
	f.expect(t, "warning", "dc1/node1/w*2:up")
	a.SetWeight(t, "w", 5, 0)
	f.expect(t, "warning weighs nothing", "dc1/node1/w*0:up")
}

func TestAgentTagsAndFilter(t *testing.T) {
	a := consultest.Shared(t)
	register := func(id string, tags []string, zone string) {
		a.Register(t, consultest.Service{ID: id, Name: "picky", Port: 80, Tags: tags, Meta: map[string]string{"zone": zone}})
	}
	register("p1", []string{"v1", "blue"}, "a")
	register("p2", []string{"v2", "blue"}, "a")
	register("p3", []string{"v2", "green"}, "b")
	register("p4", []string{"v2", "blue", "extra"}, "b")
	for _, tt := range []struct {
		name   string
		tags   []string
		filter string
		want   []string
	}{
		{"all", nil, "", []string{"p1", "p2", "p3", "p4"}},
		{"one tag", []string{"v2"}, "", []string{"p2", "p3", "p4"}},
		{"all tags", []string{"blue", "v2"}, "", []string{"p2", "p4"}},
		{"filter", nil, `Service.Meta.zone == "b"`, []string{"p3", "p4"}},
		{"both", []string{"blue"}, `Service.Meta["zone"] == "a" and "v1" not in Service.Tags`, []string{"p2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := follow(t, Config{Address: a.Address(), Service: "picky", Tags: tt.tags, Filter: tt.filter})
			var want []string
			for _, id := range tt.want {
				want = append(want, "dc1/node1/"+id+"*1:up")
			}
			f.expect(t, "first set", want...)
		})
	}
}

func TestAgentConsistencies(t *testing.T) {
	a := consultest.Shared(t)
	a.Register(t, consultest.Service{ID: "c", Name: "consistencies", Port: 80})
	for _, consistency := range []Consistency{Stale, Default, Consistent} {
		f := follow(t, Config{Address: a.Address(), Service: "consistencies", Consistency: consistency})
		f.expect(t, string(consistency), "dc1/node1/c*1:up")
	}
}

func TestAgentUnixSocket(t *testing.T) {
	t.Parallel()
	// A path of a Unix socket has some hundred bytes at most.
	dir, err := os.MkdirTemp("", "tg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "http.sock")
	a := consultest.Start(t, consultest.Options{Config: map[string]any{
		"addresses": map[string]string{"http": "127.0.0.1 unix://" + socket},
	}})
	a.Register(t, consultest.Service{ID: "u", Name: "unix", Port: 80})
	f := follow(t, Config{Address: "unix://" + socket, Service: "unix"})
	f.expect(t, "through the socket", "dc1/node1/u*1:up")
}

func TestAgentThatRestarts(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{Persistent: true})
	a.Register(t, consultest.Service{ID: "r1", Name: "restarts", Port: 80})
	a.Register(t, consultest.Service{ID: "r2", Name: "restarts", Port: 81})
	f := follow(t, Config{Address: a.Address(), Service: "restarts"})
	f.expect(t, "before", "dc1/node1/r1*1:up", "dc1/node1/r2*1:up")

	a.Stop(t)
	f.expect(t, "stopped", "dc1/node1/r1*1:up", "dc1/node1/r2*1:up", "stale")
	if s := f.Stats(); !s.Stale || s.Errors == 0 {
		t.Errorf("stats %+v while consul is away", s)
	}
	a.Start(t)
	f.expect(t, "started again", "dc1/node1/r1*1:up", "dc1/node1/r2*1:up")
	a.SetWeight(t, "r1", 4, 4)
	f.expect(t, "and followed again", "dc1/node1/r1*4:up", "dc1/node1/r2*1:up")
	if s := f.Stats(); s.Stale {
		t.Errorf("stats %+v after it", s)
	}
}

// A development agent that restarts has forgotten its services and its index.
func TestAgentThatForgets(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{})
	one := consultest.Service{ID: "f1", Name: "forgets", Port: 80}
	a.Register(t, one)
	f := follow(t, Config{Address: a.Address(), Service: "forgets", EmptyProtection: EmptyProtection{Hold: time.Hour}})
	f.expect(t, "before", "dc1/node1/f1*1:up")
	a.Stop(t)
	a.Start(t)
	f.expect(t, "forgotten, but kept", "dc1/node1/f1*1:up", "stale")
	a.Register(t, consultest.Service{ID: "f2", Name: "forgets", Port: 81})
	f.expect(t, "registered anew", "dc1/node1/f2*1:up")
}

func TestAgentTokenFile(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{ACL: true})
	a.Register(t, consultest.Service{ID: "t1", Name: "guarded", Port: 80})
	blind := a.NewToken(t, "blind", `key_prefix "" { policy = "read" }`)
	seeing := a.NewToken(t, "seeing", `service "guarded" { policy = "read" } node_prefix "" { policy = "read" }`)
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(seeing)
	f := follow(t, Config{Address: a.Address(), Service: "guarded", TokenFile: file}, func(s *Source) {
		s.pace.tokenPoll = 10 * time.Millisecond
		s.pace.recheck = 100 * time.Millisecond
	})
	f.expect(t, "may read", "dc1/node1/t1*1:up")
	// An answer that is empty because of ACLs is not believed, protection or not.
	write(blind)
	f.expect(t, "may not read", "dc1/node1/t1*1:up", "stale")
	write("11111111-2222-4333-8444-555555555555")
	write(seeing)
	f.expect(t, "may read again", "dc1/node1/t1*1:up")

	// The repair of a policy wakes no blocked query.
	write(blind)
	f.expect(t, "may not read", "dc1/node1/t1*1:up", "stale")
	a.SetPolicy(t, "blind", `service "guarded" { policy = "read" } node_prefix "" { policy = "read" }`)
	f.expect(t, "policy repaired", "dc1/node1/t1*1:up")
}

func TestAgentStopsAtOnce(t *testing.T) {
	a := consultest.Shared(t)
	f := follow(t, Config{Address: a.Address(), Service: "changes-not"})
	f.expect(t, "first set")
	start := time.Now()
	if err := f.stop(); err != context.Canceled {
		t.Errorf("Watch returned %v", err)
	}
	if took := time.Since(start); took > patience/3 {
		t.Errorf("Watch took %v to end while a query blocks", took)
	}
}

// fails waits for an error and checks that nothing was published before it.
func (f *follower) fails(t *testing.T, when string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for f.Stats().Errors == 0 {
		select {
		case s := <-f.latest:
			t.Fatalf("%s: published %v", when, shape(s))
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("%s: no error", when)
		}
	}
}

func TestAgentsOfTwoDatacenters(t *testing.T) {
	t.Parallel()
	east := consultest.Start(t, consultest.Options{Datacenter: "east", WAN: true})
	west := consultest.Start(t, consultest.Options{Datacenter: "west", WAN: true})
	east.JoinWAN(t, west)
	east.Register(t, consultest.Service{ID: "e", Name: "wide", Port: 80})
	west.Register(t, consultest.Service{ID: "w", Name: "wide", Port: 80, Passing: 3, Warning: 1})
	f := follow(t, Config{Address: east.Address(), Service: "wide", Datacenters: []string{"east", "west"}}, func(s *Source) {
		s.pace.passOver = time.Second
	})
	f.expect(t, "both", "east/node1/e*1:up", "west/node1/w*0:up")
	east.SetCheck(t, "e", api.HealthCritical)
	f.expect(t, "east fails", "east/node1/e*0:down", "west/node1/w*3:up")
	east.SetCheck(t, "e", api.HealthPassing)
	f.expect(t, "east recovers", "east/node1/e*1:up", "west/node1/w*0:up")

	// The other way round the first choice is the remote one, and its agent goes away.
	// A consistent query goes there each time. Others the agent may answer from what it was
	// last told (its streaming of health), also when the other side is gone.
	g := follow(t, Config{Address: east.Address(), Service: "wide", Datacenters: []string{"west", "east"}, Consistency: Consistent}, func(s *Source) {
		s.pace.passOver = time.Second
	})
	g.expect(t, "west first", "east/node1/e*0:up", "west/node1/w*3:up")
	west.Stop(t)
	g.expect(t, "west is unreachable", "east/node1/e*1:up", "west/node1/w*0:up", "stale")
}
