package discovery

import (
	"context"
	"errors"
	"sync"
)

// Merge makes one source of several: its snapshot is the union of the latest snapshot
// of each. It publishes as soon as one of them has a snapshot; those that have not
// spoken yet hold nobody back. Where two sources know the same ID the earlier source
// wins. The union is stale if any part of it is, and carries the first index that is
// not 0.
//
// Changes that arrive while publish runs are taken together in the next publish. A
// source whose Watch ends on its own keeps the snapshot that it published last; when
// all have ended, Watch returns their errors joined. Merge of nothing publishes
// nothing and waits for its context.
func Merge(sources ...Source) Source {
	if len(sources) == 1 {
		return sources[0]
	}
	return merged(sources)
}

type merged []Source

// parts holds the latest snapshot of each source between its goroutine and the one
// that publishes.
type parts struct {
	mu     sync.Mutex
	latest []*Snapshot
	wake   chan struct{} // capacity 1: something changed since the last union
}

// Watch implements [Source].
func (m merged) Watch(ctx context.Context, publish func(*Snapshot)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	p := &parts{latest: make([]*Snapshot, len(m)), wake: make(chan struct{}, 1)}
	ended := make(chan error, len(m))
	for i, source := range m {
		go func() {
			ended <- source.Watch(ctx, func(s *Snapshot) { p.set(i, s) })
		}()
	}

	var errs []error
	for {
		select {
		case <-p.wake:
			// Both may be ready; nothing is published after the end.
			if ctx.Err() == nil {
				publish(p.union())
			}
			continue
		case err := <-ended:
			errs = append(errs, err)
		case <-ctx.Done():
			for len(errs) < len(m) {
				errs = append(errs, <-ended)
			}
			return ctx.Err()
		}
		if len(m) > 0 && len(errs) == len(m) {
			return m.finish(ctx, p, publish, errs)
		}
	}
}

// finish publishes what the sources said last before all of them ended.
func (m merged) finish(ctx context.Context, p *parts, publish func(*Snapshot), errs []error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-p.wake:
		publish(p.union())
	default:
	}
	return errors.Join(errs...)
}

func (p *parts) set(i int, s *Snapshot) {
	p.mu.Lock()
	p.latest[i] = s
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default: // a union that will see this one is already due
	}
}

func (p *parts) union() *Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	var (
		all   []Instance
		index uint64
		stale bool
	)
	for _, s := range p.latest {
		if s == nil {
			continue
		}
		all = append(all, s.Instances...)
		stale = stale || s.Stale
		if index == 0 {
			index = s.Index
		}
	}
	u := NewSnapshot(index, all)
	u.Stale = stale
	return u
}
