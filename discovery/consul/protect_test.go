package consul

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

func names(ids ...string) []string {
	out := []string{}
	for _, id := range ids {
		out = append(out, "dc1/n/"+id+"*1:up")
	}
	return out
}

func stale(shape []string) []string { return append(shape, "stale") }

func TestEmptyProtection(t *testing.T) {
	type step struct {
		name     string
		set      []*api.ServiceEntry // nil: no change
		filtered bool
		empty    bool
		sleep    time.Duration
		want     []string
	}
	first := func(n int) step { return step{name: "first", set: entries(n)} }
	ids := func(n int) []string {
		var all []string
		for _, e := range entries(n) {
			all = append(all, e.Service.ID)
		}
		return all
	}
	hold := 30 * time.Second
	for _, tt := range []struct {
		name    string
		protect EmptyProtection
		steps   []step
	}{
		{"default: becomes empty", EmptyProtection{Hold: hold}, []step{
			first(3),
			{name: "empty", empty: true, want: stale(names(ids(3)...))},
			{name: "just before the end", sleep: hold - time.Nanosecond, want: stale(names(ids(3)...))},
			{name: "confirmed", sleep: time.Nanosecond, want: names()},
		}},
		{"it comes back", EmptyProtection{Hold: hold}, []step{
			first(3),
			{name: "empty", empty: true, want: stale(names(ids(3)...))},
			{name: "back", set: entries(2), sleep: time.Second, want: names(ids(2)...)},
			{name: "and stays", sleep: time.Hour, want: names(ids(2)...)},
			{name: "a new doubt has its own time", empty: true, sleep: hold - time.Second, want: stale(names(ids(2)...))},
			{name: "confirmed", sleep: time.Second, want: names()},
		}},
		{"almost all is not all", EmptyProtection{Hold: hold}, []step{
			first(10),
			{name: "one is left", set: entries(1), want: names(ids(1)...)},
		}},
		{"off", EmptyProtection{}, []step{
			first(3),
			{name: "empty", empty: true, want: names()},
		}},
		{"a share: just below", EmptyProtection{MaxLoss: 0.5, Hold: hold}, []step{
			first(10),
			{name: "four go", set: entries(6), want: names(ids(6)...)},
		}},
		{"a share: reached", EmptyProtection{MaxLoss: 0.5, Hold: hold}, []step{
			first(10),
			{name: "five go", set: entries(5), want: stale(names(ids(10)...))},
			{name: "six are gone, same doubt", set: entries(4), sleep: hold - time.Second, want: stale(names(ids(10)...))},
			{name: "confirmed", sleep: time.Second, want: names(ids(4)...)},
		}},
		{"those that are left follow Consul meanwhile", EmptyProtection{MaxLoss: 0.5, Hold: hold}, []step{
			first(2),
			{name: "one goes, the other is critical", set: []*api.ServiceEntry{entry("s00", critical)},
				want: []string{"dc1/n/s00*1:down", "dc1/n/s01*1:up", "stale"}},
		}},
		{"replaced is not lost", EmptyProtection{Hold: hold}, []step{
			first(2),
			{name: "others", set: []*api.ServiceEntry{entry("x"), entry("y")}, want: names("x", "y")},
		}},
		{"critical is not lost", EmptyProtection{Hold: hold}, []step{
			{name: "first", set: []*api.ServiceEntry{entry("a")}},
			{name: "critical", set: []*api.ServiceEntry{entry("a", critical)}, want: []string{"dc1/n/a*1:down"}},
		}},
		{"filtered and empty is never believed", EmptyProtection{}, []step{
			first(2),
			{name: "filtered", empty: true, filtered: true, want: stale(names(ids(2)...))},
			{name: "hours later", sleep: 5 * time.Hour, want: stale(names(ids(2)...))},
			{name: "empty for good", empty: true, want: names()},
		}},
		{"filtered and empty, then just empty", EmptyProtection{Hold: hold}, []step{
			first(2),
			{name: "filtered", empty: true, filtered: true, sleep: time.Hour, want: stale(names(ids(2)...))},
			{name: "not filtered: its time starts now", empty: true, sleep: hold - time.Second, want: stale(names(ids(2)...))},
			{name: "confirmed", sleep: time.Second, want: names()},
		}},
		{"filtered for the first time: any loss is doubted", EmptyProtection{Hold: hold}, []step{
			first(3),
			{name: "one is missing", set: entries(2), filtered: true, want: stale(names(ids(3)...))},
			{name: "confirmed", sleep: hold, want: names(ids(2)...)},
			{name: "that is how it is now", set: entries(1), filtered: true, want: names(ids(1)...)},
		}},
		{"filtered without a loss", EmptyProtection{Hold: hold}, []step{
			first(2),
			{name: "same set", set: entries(2), filtered: true, want: names(ids(2)...)},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				var w *watched
				for i, step := range tt.steps {
					if step.set != nil || step.empty {
						f.change("", func(s *fakeSet) {
							s.index, s.entries = s.index+1, step.set
							s.header.Del("X-Consul-Results-Filtered-By-Acls")
							if step.filtered {
								s.header.Set("X-Consul-Results-Filtered-By-Acls", "true")
							}
						})
					}
					if i == 0 {
						w = f.watch(Config{EmptyProtection: tt.protect})
						w.last()
						continue
					}
					synctest.Wait()
					time.Sleep(step.sleep)
					if got := shape(w.last()); !slices.Equal(got, step.want) {
						t.Fatalf("%s: %v, want %v", step.name, got, step.want)
					}
				}
			})
		})
	}
}

func TestUnreachableConsulConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{EmptyProtection: EmptyProtection{Hold: 30 * time.Second}})
		w.last()
		f.set("")
		synctest.Wait()
		time.Sleep(10 * time.Second)
		f.fault(replies(500, ""))
		time.Sleep(time.Hour)
		expect(t, "unreachable", w.last(), "dc1/n/a*1:up", "stale")
		f.fault(nil)
		time.Sleep(25 * time.Second)
		expect(t, "it says so again, not long enough", w.last(), "dc1/n/a*1:up", "stale")
		time.Sleep(25 * time.Second)
		expect(t, "confirmed", w.last())
	})
}

// The empty answer is judged when its debounce time is over, and Consul is gone by then.
func TestDoubtThatBeginsWhileConsulIsGoneDoesNotEndByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{Debounce: time.Second, EmptyProtection: EmptyProtection{Hold: 30 * time.Second}}, func(s *Source) {
			s.pace.backoffMin, s.pace.backoffMax = 24*time.Hour, 24*time.Hour
		})
		w.last()
		f.set("")
		synctest.Wait()
		f.fault(replies(500, ""))
		time.Sleep(time.Hour)
		expect(t, "unreachable", w.last(), "dc1/n/a*1:up", "stale")
	})
}

func TestEmptyAnswerIsAskedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("")
		w := f.watch(Config{})
		expect(t, "empty from the start", w.last())
		// An anonymous token gets its permission: no index changes, no query wakes up.
		f.mu.Lock()
		f.at("").entries = entries(1)
		f.mu.Unlock()
		time.Sleep(defaultPace.recheck + time.Second)
		expect(t, "permitted", w.last(), "dc1/n/s00*1:up")
	})
}

func TestFilteredFromTheStartPublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.change("", func(s *fakeSet) { s.header.Set("X-Consul-Results-Filtered-By-Acls", "true") })
		w := f.watch(Config{})
		time.Sleep(time.Hour)
		if got := w.last(); got != nil {
			t.Errorf("published %v", shape(got))
		}
		if !w.Stats().Stale {
			t.Error("Stats does not say that it is stale")
		}
		if n := w.count("consul left out what the token may not read: it needs service:read and node:read"); n != 1 {
			t.Errorf("%d lines about the token", n)
		}
	})
}
