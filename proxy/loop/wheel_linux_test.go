package loop

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The wheel against a model: every timer fires once, not before its time, and not later
// than a tick after it, however far the turns are apart.
func TestWheelAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := &Loop{}
		now := time.Duration(1)
		type entry struct {
			Timer
			want time.Duration // 0: not set
		}
		entries := make([]*entry, 50)
		for i := range entries {
			e := &entry{}
			e.To = expire(func() {
				if e.want == 0 || now < e.want {
					t.Fatalf("seed %d: fired at %v, set for %v", seed, now, e.want)
				}
				e.want = 0
				if rng.IntN(3) == 0 { // set anew from within
					e.want = now + time.Duration(rng.Int64N(int64(time.Minute)))
					l.Set(&e.Timer, e.want)
				}
			})
			entries[i] = e
		}
		for range 2000 {
			e := entries[rng.IntN(len(entries))]
			switch rng.IntN(4) {
			case 0:
				e.want = now + time.Duration(rng.Int64N(int64(40*time.Second)))
				l.Set(&e.Timer, e.want)
			case 1:
				e.want = 0
				l.Stop(&e.Timer)
			default:
				step := time.Duration(rng.Int64N(int64(200 * time.Millisecond)))
				if rng.IntN(20) == 0 {
					step *= 200
				}
				now += step
				if at, ok := l.wheel.next(); ok && at > now {
					for _, e := range entries {
						if e.want != 0 && e.want <= now-2*wheelTick {
							t.Fatalf("seed %d: at %v the wheel would sleep until %v over a timer for %v", seed, now, at, e.want)
						}
					}
				}
				l.wheel.advance(now)
				set := 0
				for _, e := range entries {
					if e.want != 0 {
						set++
						if e.want < now-wheelTick {
							t.Fatalf("seed %d: at %v a timer for %v has not fired", seed, now, e.want)
						}
					}
				}
				if set != l.wheel.count {
					t.Fatalf("seed %d: %d timers set, the wheel counts %d", seed, set, l.wheel.count)
				}
			}
		}
	}
}

// A timer that another one stops in the same turn does not fire.
func TestStopInTheSameTurn(t *testing.T) {
	l := &Loop{}
	fired := 0
	var a, b Timer
	a.To = expire(func() { fired++; l.Stop(&b) })
	b.To = expire(func() { fired++; l.Stop(&a) })
	l.Set(&a, time.Second)
	l.Set(&b, time.Second)
	l.wheel.advance(2 * time.Second)
	if fired != 1 || l.wheel.count != 0 {
		t.Errorf("%d fired, %d left, want 1 and 0", fired, l.wheel.count)
	}
}

func TestTimersOnALoop(t *testing.T) {
	l := startGroup(t, 1).Pick()
	fired := make(chan time.Duration, 1)
	var timer Timer
	on(t, l, func() {
		at := l.Now() + 50*time.Millisecond
		timer.To = expire(func() { fired <- l.Now() - at })
		l.Set(&timer, at)
	})
	if late := <-fired; late < 0 {
		t.Errorf("fired %v early", -late)
	}
}

// expire is an Expirer that is a function.
type expire func()

func (f expire) Expired() { f() }
