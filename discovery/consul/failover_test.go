package consul

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestFailoverAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("east", entry("e", in("east")))
		f.set("west", entry("w", in("west"), weight(3)))
		w := f.watch(Config{Datacenters: []string{"east", "west"}}, quick)
		expect(t, "both are up", w.last(), "east/n/e*1:up", "west/n/w*0:up")
		if n := len(w.all()); n > 2 {
			t.Errorf("%d publishes at the start", n)
		}

		for _, step := range []struct {
			name string
			do   func()
			want []string
		}{
			{"east is critical", func() { f.set("east", entry("e", in("east"), critical)) },
				[]string{"east/n/e*0:down", "west/n/w*3:up"}},
			{"east weighs nothing", func() { f.set("east", entry("e", in("east"), weight(0))) },
				[]string{"east/n/e*0:up", "west/n/w*3:up"}},
			{"east is back", func() { f.set("east", entry("e", in("east"))) },
				[]string{"east/n/e*1:up", "west/n/w*0:up"}},
			{"east is empty", func() { f.set("east") }, []string{"west/n/w*3:up"}},
			{"west changes while in use", func() { f.set("west", entry("w", in("west"), weight(4))) },
				[]string{"west/n/w*4:up"}},
			{"nobody is left", func() { f.set("west") }, []string{}},
			{"west first", func() { f.set("west", entry("w", in("west"))) }, []string{"west/n/w*1:up"}},
			{"then east", func() { f.set("east", entry("e", in("east"))) },
				[]string{"east/n/e*1:up", "west/n/w*0:up"}},
		} {
			step.do()
			expect(t, step.name, w.last(), step.want...)
		}
		if n := w.count("consul datacenter changes for new sessions"); n != 4 {
			t.Errorf("%d lines about four changes", n)
		}
	})
}

func TestIndexIsThatOfTheDatacenterInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("east")
		f.change("west", func(s *fakeSet) { s.index, s.entries = 500, entries(1) })
		w := f.watch(Config{Datacenters: []string{"east", "west"}})
		if s := w.last(); s.Index != 500 || w.Stats().Index != 500 {
			t.Errorf("index %d, Stats.Index %d, want 500", s.Index, w.Stats().Index)
		}
	})
}

func TestFirstChoiceIsWaitedForAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("east", entry("e", in("east")))
		f.set("west", entry("w", in("west")))
		f.at("east").absent = true
		held := f.hold("east")
		w := f.watch(Config{Datacenters: []string{"east", "west"}})
		time.Sleep(defaultPace.coldStart - time.Millisecond)
		if got := w.last(); got != nil {
			t.Fatalf("published %v before the first choice had its time", shape(got))
		}
		time.Sleep(time.Millisecond)
		expect(t, "its time is over", w.last(), "west/n/w*1:up")
		f.at("east").absent = false
		close(held)
		expect(t, "it answers late", w.last(), "east/n/e*1:up", "west/n/w*0:up")
	})
}

func TestDatacenterThatFailsAtTheStartIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("west", entry("w", in("west")))
		f.at("east").absent = true
		w := f.watch(Config{Datacenters: []string{"east", "west"}})
		expect(t, "at once", w.last(), "west/n/w*1:up", "stale")
	})
}

func TestUnreachableDatacenterIsPassedOverInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("east", entry("e", in("east")))
		f.set("west", entry("w", in("west")))
		w := f.watch(Config{Datacenters: []string{"east", "west"}})
		w.last()
		f.change("east", func(s *fakeSet) { s.absent = true })
		synctest.Wait()
		time.Sleep(defaultPace.passOver - time.Second)
		expect(t, "its last set is used for a while", w.last(), "east/n/e*1:up", "west/n/w*0:up", "stale")
		time.Sleep(time.Second)
		expect(t, "passed over, its sessions untouched", w.last(), "east/n/e*0:up", "west/n/w*1:up", "stale")
		f.change("east", func(s *fakeSet) { s.absent = false })
		time.Sleep(defaultPace.backoffMax)
		expect(t, "reachable again", w.last(), "east/n/e*1:up", "west/n/w*0:up")
	})
}

func TestAllUnreachableChangesNothing(t *testing.T) {
	for _, used := range []string{"east", "west"} {
		t.Run(used, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.set("east", entry("e", in("east")))
				f.set("west", entry("w", in("west")))
				w := f.watch(Config{Datacenters: []string{"east", "west"}})
				want := []string{"east/n/e*1:up", "west/n/w*0:up", "stale"}
				w.last()
				if used == "west" {
					f.change("east", func(s *fakeSet) { s.absent = true })
					time.Sleep(time.Minute)
					want = []string{"east/n/e*0:up", "west/n/w*1:up", "stale"}
					expect(t, "passed over", w.last(), want...)
				}
				f.fault(replies(500, "the agent is ill"))
				time.Sleep(time.Hour)
				expect(t, "the agent is ill", w.last(), want...)
			})
		})
	}
}

// Two names of one datacenter must not double its instances.
func TestSameInstanceInTwoDatacentersCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("one", entry("x"))
		f.set("two", entry("x"))
		w := f.watch(Config{Datacenters: []string{"one", "two"}})
		expect(t, "once, with its weight", w.last(), "dc1/n/x*1:up")
	})
}
