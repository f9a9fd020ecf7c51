package load

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestStallShowsAtFixedRate is about coordinated omission: a server that stalls for a
// second once delays all messages that were due in that second, and a generator that
// waits for answers before it sends again sees one slow message.
func TestStallShowsAtFixedRate(t *testing.T) {
	stalling := func(t *testing.T) string {
		stalled := false
		return wsServer(t, func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 10 && !stalled {
				stalled = true
				<-time.After(time.Second)
			}
			return ws.WriteFrame(conn, ws.NewBinaryFrame(f.Payload)) == nil
		})
	}
	t.Run("fixed rate", func(t *testing.T) {
		t.Parallel()
		r, err := Run(t.Context(), Options{URL: stalling(t), Connections: 1, Size: 64, Rate: 200, Duration: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		// Messages 10 to 209 of 400 waited, the k-th of them for a second less k/200.
		if l := r.Latency; l.Count != 400 || l.P99 < 0.95 || l.P90 < 0.75 || l.Max < 0.99 {
			t.Errorf("latency %+v", l)
		}
		unharmed(t, r)
	})
	t.Run("as fast as it goes", func(t *testing.T) {
		t.Parallel()
		r, err := Run(t.Context(), Options{URL: stalling(t), Connections: 1, Size: 64, Duration: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if l := r.Latency; l.Count < 400 || l.P99 > 0.5 || l.Max < 0.99 {
			t.Errorf("latency %+v: the contrast to a fixed rate is gone", l)
		}
	})
}

// TestFullConnectionHolds: a server that does not read makes messages wait as numbers,
// and what was late for that reason is not the generator's fault.
func TestFullConnectionHolds(t *testing.T) {
	const size = 64 << 10
	for engine, goroutines := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			stalled := false
			url := wsServer(t, func(conn net.Conn, n int, f ws.Frame) bool {
				if !stalled {
					stalled = true
					<-time.After(500 * time.Millisecond)
				}
				return ws.WriteFrame(conn, ws.NewBinaryFrame(f.Payload)) == nil
			})
			o := Options{URL: url, Connections: 1, Size: size, Rate: 400, Duration: time.Second, goroutines: goroutines}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			unharmed(t, r)
			if r.Messages.Sent != 400 || r.Latency.P99 < 0.3 {
				t.Errorf("messages %+v, latency %+v", r.Messages, r.Latency)
			}
			if r.Schedule.Held == 0 {
				t.Errorf("schedule %+v: nothing was held, although 13 MB were due and a socket does not take that", r.Schedule)
			}
		})
	}
}

func TestSchedule(t *testing.T) {
	const ms = int64(time.Millisecond)
	for _, c := range []struct {
		name      string
		rate      float64
		index, of int
		k         uint64
		want      int64
	}{
		{"first", 100, 0, 1, 0, 0},
		{"next", 100, 0, 1, 1, 10 * ms},
		{"second connection", 100, 1, 4, 0, 10 * ms},
		{"its next", 100, 1, 4, 1, 50 * ms},
		{"slower than one a second", 0.5, 0, 1, 3, 6000 * ms},
		{"an hour of an odd rate", 3, 0, 1, 10800, 3600_000 * ms},
	} {
		if got := newSchedule(7, c.rate, c.index, c.of).at(c.k); math.Abs(float64(got-7-c.want)) > 2 {
			t.Errorf("%s: %d, want %d", c.name, got-7, c.want)
		}
	}
}

// TestScheduleIsEven: over all connections, one message is due in each step.
func TestScheduleIsEven(t *testing.T) {
	var all []int64
	for i := range 7 {
		s := newSchedule(0, 1000, i, 7)
		for k := range uint64(100) {
			all = append(all, s.at(k))
		}
	}
	slices.Sort(all)
	for i, at := range all {
		if want := int64(i) * int64(time.Millisecond); at < want-2 || at > want+2 {
			t.Fatalf("message %d is due at %d, want %d", i, at, want)
		}
	}
}

// TestLatencyIsExactEnough compares with percentiles of the sorted values.
func TestLatencyIsExactEnough(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() float64{
		"uniform":     func() float64 { return 1e3 + random.Float64()*1e6 },
		"log-normal":  func() float64 { return math.Exp(random.NormFloat64()*2 + 11) },
		"two humps":   func() float64 { return []float64{5e4, 2e9}[random.IntN(50)/49] * (1 + random.Float64()) },
		"nanoseconds": func() float64 { return float64(random.IntN(100)) },
	} {
		h := newHistogram()
		var values []int64
		var sum float64
		for range 200_000 {
			v := int64(draw())
			values, sum = append(values, v), sum+float64(v)
			record(h, v)
		}
		slices.Sort(values)
		got := latencyOf(h)
		check := func(what string, got, least, most float64) {
			if got < least*0.999-1e-9 || got > most*1.001+1e-9 {
				t.Errorf("%s: %s is %v, want from %v to %v", name, what, got, least, most)
			}
		}
		for p, got := range map[float64]float64{50: got.P50, 90: got.P90, 99: got.P99, 99.9: got.P999, 100: got.Max} {
			// Opinions on which value a percentile is differ by one rank.
			rank := int(math.Round(p / 100 * float64(len(values))))
			least, most := values[rank-2], values[min(rank, len(values)-1)]
			check(fmt.Sprintf("p%v", p), got, float64(least)/1e9, float64(most)/1e9)
		}
		mean := sum / float64(len(values)) / 1e9
		check("the mean", got.Mean, mean, mean)
	}
}

// TestLatencyOutOfRange: nothing is dropped.
func TestLatencyOutOfRange(t *testing.T) {
	h := newHistogram()
	record(h, -5)
	record(h, math.MaxInt64)
	if l := latencyOf(h); l.Count != 2 || l.P50 != 0 || math.Abs(l.Max-600) > 1 {
		t.Errorf("%+v", l)
	}
	if l := latencyOf(newHistogram()); l != (Latency{}) {
		t.Errorf("nothing: %+v", l)
	}
}
