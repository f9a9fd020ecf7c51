package static

import (
	"context"
	"slices"

	"github.com/tidegate/tidegate/discovery"
)

// source publishes one snapshot that was made when it was constructed.
type source struct {
	snapshot *discovery.Snapshot
}

// New returns a source that publishes instances once per Watch. The list is copied
// and may be empty; the instances' tags and meta are shared with the caller, who must
// not change them any more. Of instances with the same ID the first one counts.
func New(instances []discovery.Instance) discovery.Known {
	return source{discovery.NewSnapshot(0, slices.Clone(instances))}
}

// Snapshot implements [discovery.Known].
func (s source) Snapshot() *discovery.Snapshot { return s.snapshot }

// Watch implements [discovery.Source].
func (s source) Watch(ctx context.Context, publish func(*discovery.Snapshot)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	publish(s.snapshot)
	<-ctx.Done()
	return ctx.Err()
}
