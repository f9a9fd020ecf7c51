package consul

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestReplay(t *testing.T) {
	const settle = 2 * time.Second
	type step struct {
		failure bool
		after   time.Duration // since the step before
		index   uint64
		left    time.Duration
	}
	for name, steps := range map[string][]step{
		"forward":                          {{index: 5}, {index: 9}, {index: 9}},
		"backward without a failure":       {{index: 9}, {index: 5}, {index: 6}},
		"a failure, nothing lost":          {{index: 9}, {failure: true}, {index: 9}, {index: 5}},
		"a failure, and on":                {{index: 9}, {failure: true}, {index: 10}},
		"the first answer":                 {{failure: true}, {index: 1}},
		"the past, until it has caught up": {{index: 9}, {failure: true}, {index: 3, left: settle}, {index: 5, after: time.Second, left: settle}, {index: 9}},
		"a new past": {{index: 9}, {failure: true}, {index: 3, left: settle}, {index: 3, after: time.Second, left: time.Second},
			{index: 3, after: time.Second}, {index: 4}, {index: 2}},
		"a failure in between": {{index: 9}, {failure: true}, {index: 3, left: settle}, {after: time.Second, failure: true},
			{index: 3, after: time.Second, left: settle}, {index: 3, after: settle}},
	} {
		t.Run(name, func(t *testing.T) {
			var r replay
			now := time.Unix(1000, 0)
			for i, s := range steps {
				now = now.Add(s.after)
				if s.failure {
					r.suspect()
				} else if left := r.left(s.index, now, settle); left != s.left {
					t.Fatalf("step %d: %v left, want %v", i, left, s.left)
				}
			}
		})
	}
}

// TestServerReplaysItsLog: what a server was once, on its way back to the present, is
// nobody's business.
func TestServerReplaysItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		at := func(index uint64, entries ...*api.ServiceEntry) {
			f.change("", func(s *fakeSet) { s.index, s.entries = index, entries })
		}
		at(50, entry("a"), entry("b"))
		w := f.watch(Config{}, func(s *Source) { s.pace.backoffMax = time.Second })
		expect(t, "before", w.last(), "dc1/n/a*1:up", "dc1/n/b*1:up")
		f.fault(replies(500, "No cluster leader"))
		time.Sleep(time.Minute)
		expect(t, "without Consul", w.last(), "dc1/n/a*1:up", "dc1/n/b*1:up", "stale")
		published := len(w.all())

		at(20, entry("a"), entry("gone"))
		f.fault(nil)
		for _, index := range []uint64{30, 40, 45} {
			time.Sleep(1500 * time.Millisecond) // asked again after a second at most
			at(index, entry("b", critical))
		}
		time.Sleep(1500 * time.Millisecond)
		if n := len(w.all()); n != published {
			t.Errorf("published %v", shape(w.last()))
		}
		at(50, entry("a"), entry("b"))
		time.Sleep(time.Second)
		expect(t, "after", w.last(), "dc1/n/a*1:up", "dc1/n/b*1:up")
		if n := len(w.all()); n != published+1 {
			t.Errorf("published %d times", n-published)
		}
	})
}

// TestCatalogWasLost: an index that stays behind is believed after a while.
func TestCatalogWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.change("", func(s *fakeSet) { s.index, s.entries = 50, []*api.ServiceEntry{entry("a"), entry("b")} })
		w := f.watch(Config{Debounce: 0})
		w.last()
		f.fault(replies(500, "No cluster leader"))
		time.Sleep(time.Minute)
		f.change("", func(s *fakeSet) { s.index, s.entries = 20, []*api.ServiceEntry{entry("a")} })
		f.fault(nil)
		begun := time.Now()
		for !slices.Equal(shape(w.last()), []string{"dc1/n/a*1:up"}) {
			if time.Since(begun) > 30*time.Second {
				t.Fatalf("published %v", shape(w.last()))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(begun); took < defaultPace.settle {
			t.Errorf("believed after %v", took)
		}
	})
}
