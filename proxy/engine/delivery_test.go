package engine

import (
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	const second = time.Second
	for _, tt := range []struct {
		name    string
		pinged  Delivery
		looks   []Delivery // a second apart
		alive   int        // at so many looks
		stopped bool       // at the first look that it does not survive
	}{
		{"answers nothing", Delivery{Acked: 1000, Waiting: 10}, []Delivery{{Acked: 1010}}, 0, false},
		{"has vanished", Delivery{Acked: 1000, Waiting: 10}, []Delivery{{Acked: 1000, Waiting: 10}}, 0, false},
		{"pinged before anything is written", Delivery{Acked: 1000}, []Delivery{{Acked: 1032}}, 0, false},
		{"takes a backlog, then answers nothing", Delivery{Acked: 1000, Waiting: 5000},
			[]Delivery{{Acked: 3000, Waiting: 3000}, {Acked: 6000}, {Acked: 6000}}, 2, false},
		{"took the backlog at once", Delivery{Acked: 1000, Waiting: 5000}, []Delivery{{Acked: 6000}, {Acked: 6000}}, 1, false},
		{"has vanished with a backlog", Delivery{Acked: 1000, Waiting: 5000}, []Delivery{{Acked: 1000, Waiting: 5000}}, 0, false},
		{"more and more is written", Delivery{Acked: 1000, Waiting: 10}, []Delivery{{Acked: 5000, Waiting: 9000}, {Acked: 9000, Waiting: 20000}}, 2, false},
		{"has stopped reading", Delivery{Acked: 1000, Waiting: 5000}, []Delivery{{Acked: 1000, Waiting: 5000, Closed: true},
			{Acked: 1000, Waiting: 5000, Closed: true}, {Acked: 1000, Waiting: 5000, Closed: true}, {Acked: 1000, Waiting: 5000, Closed: true}}, 3, true},
		{"reads on after a while", Delivery{Acked: 1000, Waiting: 5000}, []Delivery{{Acked: 1000, Waiting: 5000, Closed: true},
			{Acked: 1500, Waiting: 4500, Closed: true}, {Acked: 1500, Waiting: 4500, Closed: true}, {Acked: 1500, Waiting: 4500, Closed: true}}, 4, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w Watch
			w.Pinged(tt.pinged)
			for i, d := range tt.looks {
				alive, stopped := w.Silent(d, time.Duration(i+1)*second, 3*second)
				if alive != (i < tt.alive) || stopped != (i == tt.alive && tt.stopped) {
					t.Fatalf("look %d: alive %v, stopped %v", i, alive, stopped)
				}
			}
		})
	}
	var w Watch
	for i := range 1000 {
		if alive, _ := w.Silent(Delivery{Waiting: 1, Closed: true}, time.Duration(i+1)*second, 0); !alive {
			t.Fatal("without a write timeout somebody was given up")
		}
	}
}
