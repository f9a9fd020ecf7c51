package balance

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/discovery"
)

func instance(id string, weight int) discovery.Instance {
	return discovery.Instance{ID: id, Addr: id + ":80", Weight: weight}
}

func instances(ids ...string) []discovery.Instance {
	list := make([]discovery.Instance, 0, len(ids))
	for _, id := range ids {
		list = append(list, instance(id, 1))
	}
	return list
}

func idsOf(backends []*Backend) []string {
	ids := make([]string, 0, len(backends))
	for _, b := range backends {
		ids = append(ids, b.ID)
	}
	return ids
}

func find(t testing.TB, backends []*Backend, id string) *Backend {
	t.Helper()
	i := slices.IndexFunc(backends, func(b *Backend) bool { return b.ID == id })
	if i < 0 {
		t.Fatalf("no backend %q in %v", id, idsOf(backends))
	}
	return backends[i]
}

func TestUpdateSortsAndDropsDoubles(t *testing.T) {
	given := []discovery.Instance{instance("c", 1), instance("a", 1), instance("b", 2), instance("a", 9)}
	before := slices.Clone(given)
	set := NewRegistry().Update(given)
	if diff := cmp.Diff([]string{"a", "b", "c"}, idsOf(set.Backends())); diff != "" {
		t.Errorf("the set (-want +got):\n%s", diff)
	}
	if set.Len() != 3 || set.Backends()[0].Weight != 1 {
		t.Errorf("%d backends, weight of the first %d", set.Len(), set.Backends()[0].Weight)
	}
	if diff := cmp.Diff(before, given); diff != "" {
		t.Errorf("the caller's slice changed:\n%s", diff)
	}
}

func TestLiveSurvives(t *testing.T) {
	moved := instance("a", 1)
	moved.Addr, moved.Tags, moved.Datacenter = "10.0.0.9:1", []string{"new"}, "dc2"
	maintained := instance("a", 1)
	maintained.Status = discovery.Maintenance
	for name, updates := range map[string][][]discovery.Instance{
		"the same again":     {instances("a")},
		"a neighbour":        {instances("a", "b"), instances("a", "c")},
		"weight":             {{instance("a", 7)}},
		"weight 0":           {{instance("a", 0)}, {instance("a", 1)}},
		"address and tags":   {{moved}},
		"maintenance":        {{maintained}, instances("a")},
		"removal and return": {instances("b"), instances("b", "a")},
		"an empty set":       {nil, instances("a")},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRegistry()
			live := r.Update(instances("a")).Backends()[0].Live
			live.reserveBelow(countMask)
			live.Open()
			live.reserveBelow(countMask)
			var set *Set
			for _, u := range updates {
				set = r.Update(u)
			}
			if b := find(t, set.Backends(), "a"); b.Live != live {
				t.Error("another Live")
			}
			if diff := cmp.Diff(idsOf(set.Backends()), idsOf(r.Backends())); diff != "" {
				t.Errorf("listed (-set +listed):\n%s", diff)
			}
			if live.Sessions() != 1 || live.InFlight() != 1 || live.Picks() != 2 || live.State() != StateUp {
				t.Errorf("%d sessions, %d in flight, %d picks, %v", live.Sessions(), live.InFlight(), live.Picks(), live.State())
			}
		})
	}
}

func TestStatusBecomesState(t *testing.T) {
	with := func(s discovery.Status) []discovery.Instance {
		i := instance("a", 1)
		i.Status = s
		return []discovery.Instance{i}
	}
	for _, c := range []struct {
		name     string
		statuses []discovery.Status
		meddle   State // written by another part before the last update
		want     State
	}{
		{"new and up", []discovery.Status{discovery.Up}, StateUp, StateUp},
		{"new and down", []discovery.Status{discovery.Down}, StateUp, StateDown},
		{"new and leaving", []discovery.Status{discovery.Maintenance}, StateUp, StateDraining},
		{"new and unknown", []discovery.Status{77}, StateUp, StateDown},
		{"goes down", []discovery.Status{discovery.Up, discovery.Down}, StateUp, StateDown},
		{"comes back", []discovery.Status{discovery.Down, discovery.Up}, StateUp, StateUp},
		{"leaves while ejected", []discovery.Status{discovery.Up, discovery.Maintenance}, StateEjected, StateDraining},
		{"is ejected over a maintenance", []discovery.Status{discovery.Maintenance, discovery.Up}, StateEjected, StateEjected},
		{"unchanged keeps an ejection", []discovery.Status{discovery.Up, discovery.Up}, StateEjected, StateEjected},
		{"unchanged keeps a slow start", []discovery.Status{discovery.Up, discovery.Up}, StateSlowStart, StateSlowStart},
		{"unchanged keeps a drain", []discovery.Status{discovery.Up, discovery.Up}, StateDraining, StateDraining},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewRegistry()
			var set *Set
			for i, s := range c.statuses {
				if i > 0 && i == len(c.statuses)-1 {
					set.Backends()[0].Live.setState(c.meddle)
				}
				set = r.Update(with(s))
			}
			if got := set.Backends()[0].Live.State(); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestRemovedBackendsAreListedUntilTheirSessionsEnd(t *testing.T) {
	r := NewRegistry()
	set := r.Update([]discovery.Instance{instance("a", 5), instance("b", 1), instance("c", 1)})
	a, b, c := set.Backends()[0], set.Backends()[1], set.Backends()[2]
	a.Live.reserveBelow(countMask)
	a.Live.Open()
	b.Live.reserveBelow(countMask)
	r.Update(instances("d"))

	listed := r.Backends()
	if diff := cmp.Diff([]string{"a", "b", "d"}, idsOf(listed)); diff != "" {
		t.Fatalf("listed (-want +got):\n%s", diff)
	}
	if listed[0].Weight != 5 || listed[0].Live != a.Live || listed[0].Live.State() != StateRemoved {
		t.Errorf("a is listed as %+v, %v", listed[0].Instance, listed[0].Live.State())
	}
	if c.Live.State() != StateRemoved {
		t.Errorf("c is %v", c.Live.State())
	}

	b.Live.Release()
	if diff := cmp.Diff([]string{"a", "d"}, idsOf(r.Backends())); diff != "" {
		t.Errorf("after the dial (-want +got):\n%s", diff)
	}
	a.Live.Close()
	if diff := cmp.Diff([]string{"d"}, idsOf(r.Backends())); diff != "" {
		t.Errorf("after the session (-want +got):\n%s", diff)
	}
	if len(r.left) != 0 {
		t.Errorf("%d backends not forgotten", len(r.left))
	}
}

// A backend that left and had nothing, or whose last session ended afterwards, is a
// new one when it returns, whether or not somebody looked in between.
func TestForgottenBackendReturnsNew(t *testing.T) {
	for _, look := range []bool{false, true} {
		r := NewRegistry()
		set := r.Update(instances("idle", "busy"))
		busy, idle := set.Backends()[0].Live, set.Backends()[1].Live
		busy.reserveBelow(countMask)
		idle.Fail(FailureConnect)
		r.Update(nil)
		busy.Release()
		if look {
			r.Backends()
		}
		set = r.Update(instances("idle", "busy"))
		if set.Backends()[0].Live == busy || set.Backends()[1].Live == idle {
			t.Errorf("looked %v: an old Live came back", look)
		}
		if idle.reserveBelow(countMask) {
			t.Errorf("looked %v: the forgotten Live took a reservation", look)
		}
	}
}

func TestBackendsOfZeroRegistry(t *testing.T) {
	r := NewRegistry()
	if n := len(r.Backends()); n != 0 {
		t.Errorf("%d backends", n)
	}
	if set := r.Update(nil); set.Len() != 0 || len(set.Backends()) != 0 {
		t.Errorf("%d backends in an empty set", set.Len())
	}
}

// While sets change under them, picks never lose a count, and no Live that was
// forgotten ever holds a session.
func TestRegistryConcurrently(t *testing.T) {
	r := NewRegistry()
	policy := mustPolicy(t, Options{Policy: "least_connections"})
	var mu sync.Mutex
	picker := policy(r.Update(instances("a", "b", "c")))
	current := func() Picker { mu.Lock(); defer mu.Unlock(); return picker }

	var pickers, changer sync.WaitGroup
	stop := make(chan struct{})
	changer.Go(func() {
		sets := [][]discovery.Instance{instances("a"), instances("b", "c"), nil, instances("a", "b", "c")}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := policy(r.Update(sets[i%len(sets)]))
			mu.Lock()
			picker = next
			mu.Unlock()
		}
	})
	for range 4 {
		pickers.Go(func() {
			for range 1500 {
				b, err := current().Pick(Request{})
				if err != nil {
					continue
				}
				if !slices.ContainsFunc(r.Backends(), func(o *Backend) bool { return o.Live == b.Live }) {
					t.Errorf("%s has a reservation and is not listed", b.ID)
				}
				b.Live.Open()
				b.Live.Close()
			}
		})
	}
	pickers.Wait()
	close(stop)
	changer.Wait()
	for _, b := range r.Update(nil).Backends() {
		t.Errorf("%s is in an empty set", b.ID)
	}
	if left := r.Backends(); len(left) != 0 {
		t.Errorf("still listed: %v", idsOf(left))
	}
}

// A backend that an operator has drained and that goes and comes back is drained still.
func TestDrainedBackendReturnsDrained(t *testing.T) {
	r := NewRegistry()
	l := r.Update(instances("a")).Backends()[0].Live
	l.Set(Drained, true)
	r.Update(nil)
	if state := l.State(); state != StateRemoved {
		t.Errorf("it left and is %v", state)
	}
	b := r.Update(instances("a")).Backends()[0]
	if b.Live != l || b.Live.State() != StateDraining {
		t.Errorf("it came back %v", b.Live.State())
	}
	r.Update(nil)
	if l.Set(Drained, false); len(r.Backends()) != 0 {
		t.Error("it is not forgotten when nobody drains it any more")
	}
}
