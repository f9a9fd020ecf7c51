package discovery

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted publishes what the test sends it.
type scripted struct {
	say chan *Snapshot
	end chan error
}

func newScripted() *scripted {
	return &scripted{say: make(chan *Snapshot), end: make(chan error)}
}

func (s *scripted) Watch(ctx context.Context, publish func(*Snapshot)) error {
	for {
		select {
		case snap := <-s.say:
			publish(snap)
		case err := <-s.end:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func snap(index uint64, stale bool, instances ...Instance) *Snapshot {
	s := NewSnapshot(index, instances)
	s.Stale = stale
	return s
}

// watchMerged runs Merge(sources...) and returns what it published last, and its end.
func watchMerged(ctx context.Context, sources ...Source) (last func() *Snapshot, count func() int, done <-chan error) {
	var got []*Snapshot
	ended := make(chan error, 1)
	go func() {
		ended <- Merge(sources...).Watch(ctx, func(s *Snapshot) { got = append(got, s) })
	}()
	return func() *Snapshot {
			synctest.Wait()
			if len(got) == 0 {
				return nil
			}
			return got[len(got)-1]
		}, func() int {
			synctest.Wait()
			return len(got)
		}, ended
}

func TestMergeUnion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		first, second := newScripted(), newScripted()
		last, count, done := watchMerged(ctx, first, second)

		if got := last(); got != nil {
			t.Fatalf("published %v before any source spoke", got)
		}
		steps := []struct {
			name string
			from *scripted
			say  *Snapshot
			want *Snapshot
		}{
			{"the other one does not hold it back", second, snap(7, false, Instance{ID: "x", Addr: "second"}),
				snap(7, false, Instance{ID: "x", Addr: "second"})},
			{"the first source wins", first, snap(0, false, Instance{ID: "x", Addr: "first"}, Instance{ID: "a"}),
				snap(7, false, Instance{ID: "a"}, Instance{ID: "x", Addr: "first"})},
			{"stale if any is", second, snap(8, true, Instance{ID: "y"}),
				snap(8, true, Instance{ID: "a"}, Instance{ID: "x", Addr: "first"}, Instance{ID: "y"})},
			{"fresh again", second, snap(9, false, Instance{ID: "y"}),
				snap(9, false, Instance{ID: "a"}, Instance{ID: "x", Addr: "first"}, Instance{ID: "y"})},
			{"an empty set takes its part out", first, snap(3, false),
				snap(3, false, Instance{ID: "y"})},
		}
		for i, step := range steps {
			step.from.say <- step.say
			if diff := cmp.Diff(step.want, last()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step.name, diff)
			}
			if count() != i+1 {
				t.Errorf("%s: %d publishes, want %d", step.name, count(), i+1)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, want context.Canceled", err)
		}
	})
}

func TestMergeOutlivesASourceThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newScripted(), newScripted()
		last, _, done := watchMerged(t.Context(), first, second)
		first.say <- snap(1, false, Instance{ID: "a"})
		broken := errors.New("broken")
		first.end <- broken
		second.say <- snap(2, false, Instance{ID: "b"})
		if diff := cmp.Diff(snap(1, false, Instance{ID: "a"}, Instance{ID: "b"}), last()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		second.end <- nil
		if err := <-done; !errors.Is(err, broken) {
			t.Errorf("Watch returned %v, want the source's error", err)
		}
	})
}

func TestMergeOfOneIsThatOne(t *testing.T) {
	only := newScripted()
	if got := Merge(only); got != Source(only) {
		t.Errorf("Merge of one source returned %T, want the source itself", got)
	}
}

func TestMergeOfNothingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, count, done := watchMerged(ctx)
		if n := count(); n != 0 {
			t.Errorf("published %d snapshots of nothing", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, want context.Canceled", err)
		}
	})
}
