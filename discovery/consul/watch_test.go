package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestFollowsTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"), entry("b", weight(3)))
		w := f.watch(Config{Debounce: 100 * time.Millisecond})
		start := time.Now()
		expect(t, "first set", w.last(), "dc1/n/a*1:up", "dc1/n/b*3:up")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the first set came after %v, want at once", waited)
		}

		f.set("", entry("b", weight(5)), entry("c", critical))
		if got := w.all(); len(got) != 1 {
			t.Fatalf("published %d snapshots before the debounce time was over", len(got))
		}
		time.Sleep(100 * time.Millisecond)
		expect(t, "change", w.last(), "dc1/n/b*5:up", "dc1/n/c*1:down")
		if got := w.last().Index; got != 12 {
			t.Errorf("index %d, want 12", got)
		}
		if s := w.Stats(); s.Index != 12 || s.Errors != 0 || s.Stale || s.LastContact.IsZero() {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestQuestions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		want   []string // parameters of the blocking query
		header map[string]string
	}{
		{"defaults", Config{}, []string{"index=11", "stale=", "wait=300000ms"}, nil},
		{"leader", Config{Consistency: Default, Wait: time.Minute}, []string{"index=11", "wait=60000ms"}, nil},
		{"quorum", Config{Consistency: Consistent}, []string{"consistent=", "index=11", "wait=300000ms"}, nil},
		{"everything", Config{Datacenters: []string{"east"}, Tags: []string{"v2", "blue"}, Filter: `Service.Meta.x == "y"`},
			[]string{"dc=east", `filter=Service.Meta.x == "y"`, "index=11", "stale=", "tag=v2", "tag=blue", "wait=300000ms"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CONSUL_HTTP_TOKEN", "secret")
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.set("east", entry("a"))
				f.set("", entry("a"))
				f.watch(tt.config).last()

				seen := f.seen()
				if len(seen) != 2 {
					t.Fatalf("%d queries, want one that returned and one that blocks", len(seen))
				}
				if first := seen[0].URL.Query(); first.Has("index") || first.Has("wait") {
					t.Errorf("the first query blocks: %v", first)
				}
				var got []string
				for key, values := range seen[1].URL.Query() {
					for _, v := range values {
						got = append(got, key+"="+v)
					}
				}
				slices.SortStableFunc(got, func(a, b string) int {
					return strings.Compare(strings.SplitN(a, "=", 2)[0], strings.SplitN(b, "=", 2)[0])
				})
				if !slices.Equal(got, tt.want) {
					t.Errorf("asked %q, want %q", got, tt.want)
				}
				if token := seen[1].Header.Get("X-Consul-Token"); token != "secret" {
					t.Errorf("token %q", token)
				}
				if path := seen[1].URL.Path; path != "/v1/health/service/web" {
					t.Errorf("path %q", path)
				}
			})
		})
	}
}

func TestNextIndex(t *testing.T) {
	for _, tt := range []struct{ last, got, want uint64 }{
		{0, 7, 7}, {7, 7, 7}, {7, 8, 8}, {8, 7, 0}, {0, 0, 1}, {1, 0, 0}, {1 << 63, 1, 0},
	} {
		if got := nextIndex(tt.last, tt.got); got != tt.want {
			t.Errorf("nextIndex(%d, %d) = %d, want %d", tt.last, tt.got, got, tt.want)
		}
	}
}

func TestIndexThatGoesBackwardsStartsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{})
		w.last()
		f.change("", func(s *fakeSet) { s.index, s.entries = 3, []*api.ServiceEntry{entry("b")} })
		expect(t, "restored server", w.last(), "dc1/n/b*1:up")
		seen := f.seen()
		var indexes []string
		for _, r := range seen {
			indexes = append(indexes, r.URL.Query().Get("index"))
		}
		if want := []string{"", "11", "", "3"}; !slices.Equal(indexes, want) {
			t.Errorf("asked with indexes %q, want %q", indexes, want)
		}
	})
}

func TestIndexZeroDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.change("", func(s *fakeSet) { s.index, s.entries = 0, []*api.ServiceEntry{entry("a")} })
		w := f.watch(Config{})
		expect(t, "index 0", w.last(), "dc1/n/a*1:up")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(f.seen()); n > 5+120 {
			t.Errorf("%d queries in a minute", n)
		}
		if indexes := f.seen()[1].URL.Query().Get("index"); indexes != "1" {
			t.Errorf("after index 0 asked with %q, want 1", indexes)
		}
		if n := len(w.all()); n != 1 {
			t.Errorf("%d publishes of one set", n)
		}
	})
}

func TestBusyIndexIsBoundedByTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		index := 100
		f.fault(func(w http.ResponseWriter, r *http.Request) bool {
			index++ // other services change all the time
			w.Header().Set("X-Consul-Index", fmt.Sprint(index))
			fmt.Fprint(w, `[{"Node":{"Node":"n","Datacenter":"dc1","Address":"10.0.0.1"},"Service":{"ID":"a","Port":1}}]`)
			return true
		})
		w := f.watch(Config{})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(f.seen()); n < 20 || n > 26 {
			t.Errorf("%d queries in 10s, want a burst of 5 and then 2/s", n)
		}
		if n := len(w.all()); n != 1 {
			t.Errorf("%d publishes, want 1: a return is not a change", n)
		}
		if got := w.Stats().Index; got < 120 {
			t.Errorf("Stats.Index %d does not follow", got)
		}
	})
}

func TestWaitThatPassesIsNoChangeAndNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{Wait: time.Minute})
		w.last()
		time.Sleep(10*time.Minute + time.Second)
		if n := len(w.all()); n != 1 {
			t.Errorf("%d publishes, want 1", n)
		}
		if n := len(f.seen()); n != 12 {
			t.Errorf("%d queries in 10m, want 12", n)
		}
		if e := w.Stats().Errors; e != 0 {
			t.Errorf("%d errors", e)
		}
	})
}

func TestStopsAtOnceWhileAQueryBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{})
		w.last()
		start := time.Now()
		if err := w.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, want context.Canceled", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		if e := w.Stats().Errors; e != 0 {
			t.Errorf("the end counted as %d errors", e)
		}
	})
}

func TestUnusableInstanceIsLoggedOnceAndHarmless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		noPort := func(e *api.ServiceEntry) { e.Service.Port = 0 }
		f.set("", entry("a"), entry("b", noPort), nil)
		w := f.watch(Config{})
		expect(t, "first", w.last(), "dc1/n/a*1:up")
		f.set("", entry("a", weight(2)), entry("b", noPort), nil)
		expect(t, "second", w.last(), "dc1/n/a*2:up")
		if n := w.count("consul instance left out"); n != 2 {
			t.Errorf("%d lines, want one for each of two", n)
		}
		f.set("", entry("a"), entry("b"))
		expect(t, "repaired", w.last(), "dc1/n/a*1:up", "dc1/n/b*1:up")
		f.set("", entry("a"), entry("b", noPort))
		expect(t, "broken again", w.last(), "dc1/n/a*1:up")
		if n := w.count("consul instance left out"); n != 3 {
			t.Errorf("%d lines, want a third when it breaks again", n)
		}
	})
}
