package engine

import (
	"testing"
	"time"
)

func TestSilent(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name           string
		d              Delivery
		writeTimeout   time.Duration
		alive, stopped bool
	}{
		{"took the Ping and answers nothing", Delivery{Acked: 9900 * time.Millisecond, Sent: 10 * s}, 60 * s, false, false},
		{"took it after a second", Delivery{Acked: 9 * s, Sent: 10 * s}, 60 * s, false, false},
		{"has vanished", Delivery{Acked: 40 * s, Sent: s}, 60 * s, false, false},
		{"is taking a backlog", Delivery{Acked: 300 * time.Millisecond}, 60 * s, true, false},
		{"took the last of it just now", Delivery{Acked: s, Sent: 5 * s}, 60 * s, true, false},
		{"has stopped reading", Delivery{Acked: 2 * s, Sent: 59 * s, Closed: true}, 60 * s, true, false},
		{"has stopped for good", Delivery{Acked: 2 * s, Sent: 60 * s, Closed: true}, 60 * s, false, true},
		{"may stop for ever", Delivery{Acked: 2 * s, Sent: 600 * s, Closed: true}, 0, true, false},
	} {
		if alive, stopped := tt.d.Silent(10*s, tt.writeTimeout); alive != tt.alive || stopped != tt.stopped {
			t.Errorf("%s: alive %v, stopped %v", tt.name, alive, stopped)
		}
	}
}
