package consul

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// quick lets a test change the service faster than the token bucket allows.
func quick(s *Source) { s.pace.queries, s.pace.burst = 10000, 10000 }

func TestChangesWithinTheWindowAreOnePublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{Debounce: 100 * time.Millisecond}, quick)
		w.last()
		for i := range 9 {
			f.set("", entry("a", weight(i+2)))
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(w.all()); n != 1 {
			t.Fatalf("%d publishes within the window", n)
		}
		time.Sleep(10 * time.Millisecond)
		expect(t, "end of the window", w.last(), "dc1/n/a*10:up")
		if n := len(w.all()); n != 2 {
			t.Errorf("%d publishes, want the first and one for nine changes", n)
		}
	})
}

func TestSteadyStreamOfChangesIsPublishedAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{Debounce: 100 * time.Millisecond}, quick)
		w.last()
		for i := range 200 { // two seconds, a change every 10ms
			f.set("", entry("a", weight(i+2)))
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(w.all()); n < 18 || n > 22 {
			t.Errorf("%d publishes in 2s with a window of 100ms", n)
		}
		time.Sleep(100 * time.Millisecond)
		expect(t, "end", w.last(), "dc1/n/a*201:up")
	})
}

func TestFlappingWithinTheWindowIsNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"), entry("b"))
		w := f.watch(Config{Debounce: 100 * time.Millisecond, EmptyProtection: EmptyProtection{Hold: time.Minute}}, quick)
		w.last()
		for range 4 {
			f.set("")
			time.Sleep(10 * time.Millisecond)
			f.set("", entry("a"), entry("b"))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := len(w.all()); n != 1 {
			t.Errorf("%d publishes of a set that is what it was", n)
		}
		if n := w.count("consul answer lost many instances, keeping them for now"); n != 0 {
			t.Errorf("%d doubts about a flap within the window", n)
		}
	})
}

func TestWithoutDebounceEveryChangeIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.set("", entry("a"))
		w := f.watch(Config{}, quick)
		w.last()
		for i := range 5 {
			f.set("", entry("a", weight(i+2)))
			expect(t, "change", w.last(), fmt.Sprintf("dc1/n/a*%d:up", i+2))
		}
	})
}
