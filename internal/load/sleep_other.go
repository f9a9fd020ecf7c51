//go:build !linux

package load

import (
	"context"
	"time"
)

// sleeper waits until a time.
type sleeper struct{}

func newSleeper() *sleeper { return &sleeper{} }

// until returns false if ctx is done.
func (*sleeper) until(ctx context.Context, at int64) bool {
	left := time.NewTimer(time.Duration(at - now()))
	defer left.Stop()
	select {
	case <-left.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (*sleeper) stop() {}
