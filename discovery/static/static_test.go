package static

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWatchPublishesOnceThenWaits(t *testing.T) {
	list := []discovery.Instance{
		{ID: "b", Addr: "10.0.0.2:80", Weight: 2},
		{ID: "a", Addr: "10.0.0.1:80", Weight: 1},
		{ID: "b", Addr: "10.0.0.3:80", Weight: 3},
	}
	s := New(list)
	list[0].Addr = "changed by the caller afterwards"

	want := &discovery.Snapshot{Instances: []discovery.Instance{
		{ID: "a", Addr: "10.0.0.1:80", Weight: 1},
		{ID: "b", Addr: "10.0.0.2:80", Weight: 2},
	}}
	// Twice, because a source may be watched again.
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		var got []*discovery.Snapshot
		err := s.Watch(ctx, func(snap *discovery.Snapshot) {
			got = append(got, snap)
			cancel()
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("Watch returned %v, want context.Canceled", err)
		}
		if diff := cmp.Diff([]*discovery.Snapshot{want}, got); diff != "" {
			t.Fatalf("published (-want +got):\n%s", diff)
		}
	}
}

func TestWatchOfADoneContextPublishesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := New(nil).Watch(ctx, func(*discovery.Snapshot) { t.Error("published after the end") })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Watch returned %v, want context.Canceled", err)
	}
}

func TestEmptyListIsPublished(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	published := false
	_ = New(nil).Watch(ctx, func(s *discovery.Snapshot) {
		published = s != nil && len(s.Instances) == 0 && !s.Stale
		cancel()
	})
	if !published {
		t.Error("an empty list was not published as an empty set")
	}
}
