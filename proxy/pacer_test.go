package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// mostInASecond is how many of sorted moments lie in one second at most.
func mostInASecond(at []time.Time) (most int) {
	for from, to := 0, 0; to < len(at); to++ {
		for at[to].Sub(at[from]) > time.Second {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

// TestPacer holds every second of many against twice the mean, when all is on time and when
// who follows the pace is late, by a little always and by much at times.
func TestPacer(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []float64{0.01, 0.3, 0.5, 0.7, 0.99, 1, 1.2, 1.49, 1.5, 1.9, 2, 2.3, 3.99, 4, 5, 10, 99.5, 1667} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v a second, late %v", perSecond, late), func(t *testing.T) {
				start := time.Unix(1e9, 0)
				slot := time.Duration(float64(time.Second) / perSecond)
				p, now := newPacer(slot, start), start
				var at []time.Time
				var stalls time.Duration
				n := int(max(2000, 20*perSecond))
				for i := range n {
					now = later(now, p.moment)
					if late {
						d := time.Duration(rand.ExpFloat64() * float64(2*time.Millisecond))
						if i%97 == 96 {
							d = time.Duration(rand.Int64N(int64(3 * time.Second)))
						}
						now, stalls = now.Add(d), stalls+d
					}
					if from := start.Add(slot * time.Duration(i)); now.Before(from) {
						t.Fatalf("event %d is due %v before its slot", i, from.Sub(now))
					} else if !late && now.After(from.Add(slot)) {
						t.Fatalf("event %d is due %v after its slot", i, now.Sub(from)-slot)
					}
					at = append(at, now)
					p.took(now)
				}
				if most := mostInASecond(at); most > max(1, int(2*perSecond)) {
					t.Errorf("a second has %d", most)
				}
				if took, should := now.Sub(start), slot*time.Duration(n)+stalls; took > should+slot {
					t.Errorf("it took %v, want %v", took, should)
				}
			})
		}
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// TestPacerIsRandom: the moments of a slot are all over it.
func TestPacerIsRandom(t *testing.T) {
	t.Parallel()
	p := newPacer(100*time.Millisecond, time.Unix(1e9, 0))
	var tenths [10]int
	for range 10_000 {
		tenths[p.moment.Sub(p.begins)/(10*time.Millisecond)]++
		p.took(p.moment)
	}
	if least, most := slices.Min(tenths[:]), slices.Max(tenths[:]); least < 800 || most > 1200 {
		t.Errorf("of 10000 moments %v lie in the tenths of their slots", tenths)
	}
}

// TestPacerLoses: what could not happen for a while is not made up for.
func TestPacerLoses(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	p := newPacer(10*time.Millisecond, start)
	before := p.moment
	if p.lose(p.begins.Add(10 * time.Millisecond)); p.moment != before {
		t.Error("a slot was lost that has just ended")
	}
	now := start.Add(time.Minute)
	p.lose(now)
	for i := range 1000 {
		if from := now.Add(time.Duration(i) * 10 * time.Millisecond); p.moment.Before(from) || p.moment.After(from.Add(10*time.Millisecond)) {
			t.Fatalf("event %d after the pause is due after %v", i, p.moment.Sub(now))
		}
		p.took(p.moment)
	}
}

func TestNoPace(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	p := newPacer(0, now)
	for range 100 {
		if p.moment.After(now) {
			t.Fatalf("due after %v", p.moment.Sub(now))
		}
		p.took(now)
		p.lose(now)
	}
}
