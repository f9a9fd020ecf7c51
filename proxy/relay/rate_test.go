package relay

import (
	"testing"
	"time"
)

// TestBucketHoldsItsBurst: exactly, for all kinds of rates, and not one more.
func TestBucketHoldsItsBurst(t *testing.T) {
	for _, r := range []Rate{{1, 1}, {3, 1}, {7, 1000}, {1000, 500}, {333, 777}, {1e6, 1e6}, {1e9, 3e9}, {1, 1e15}, {0.001, 5}, {65536, 1 << 20}} {
		for _, now := range []time.Duration{1, time.Second, 400 * 24 * time.Hour} {
			var b bucket
			more := int(r.PerSecond / 1e9) // what comes back in a nanosecond
			if got := b.room(r, now); (int(got) < int(r.Burst) || int(got) > int(r.Burst)+more) && !(r.Burst > 1e14 && got > 1e8) {
				t.Errorf("%+v at %v: room for %f", r, now, got)
			}
			if _, ok := b.take(r, r.Burst, now); !ok && r.Burst < 1e14 {
				t.Errorf("%+v at %v: no room for a burst", r, now)
			}
			at, ok := b.take(r, 1, now)
			if ok && r.PerSecond < 1e8 && r.Burst < 1e14 {
				t.Errorf("%+v at %v: room for more than a burst", r, now)
			}
			if !ok {
				if _, ok := b.take(r, 1, at); !ok || at <= now {
					t.Errorf("%+v at %v: no room at %v, when there should be", r, now, at)
				}
			}
		}
	}
}

// TestRatesOnAverage: over a long time as many pass as the rate says.
func TestRatesOnAverage(t *testing.T) {
	for _, r := range []Rate{{3, 1}, {100, 20}, {777, 1}} {
		var b bucket
		n, now := 0, time.Second
		for end := now + 100*time.Second; now < end; {
			at, ok := b.take(r, 1, now)
			if ok {
				n++
				continue
			}
			now = at
		}
		if want := int(100*r.PerSecond + r.Burst); n < want-1 || n > want+1 {
			t.Errorf("%+v: %d in 100 seconds, want %d", r, n, want)
		}
	}
}
