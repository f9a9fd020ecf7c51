package balance

import (
	"math"
	"sync"
	"testing"
)

const ms = 0.001

// Longer times count at once and shorter ones in the course of time, as far as the longest of
// them; without any, a backend comes nearer to the best.
func TestSettle(t *testing.T) {
	set := equalWeights(3)
	a, b := set.Backends()[0].Live, set.Backends()[1].Live
	is := func(what string, l *Live, want float64) {
		t.Helper()
		if got, pong := l.ResponseTimes(); math.Abs(got/ms-want) > want/1000 || pong != 0 {
			t.Errorf("%s: %v and %v s, want %v ms", what, got, pong, want)
		}
	}
	is("at first", a, 0)
	Settle(set.Backends(), 1)
	is("nobody was asked", a, 0)
	a.Answered(20 * ms)
	is("an answer", a, 20)
	a.Answered(420 * ms)
	is("a peak", a, 420)
	a.Answered(20 * ms)
	is("an answer after a peak", a, 420)
	b.Answered(10 * ms)
	Settle(set.Backends(), 10)
	is("a peak in the same interval", a, 420)
	a.Answered(15 * ms)
	a.Answered(20 * ms)
	Settle(set.Backends(), 10)
	is("better answers", a, 20+400/math.E)
	Settle(set.Backends(), 10)
	is("no answers", a, 10+(10+400/math.E)/math.E)
	is("no answers of the best", b, 10)
	for range 1000 {
		Settle(set.Backends(), 1)
	}
	is("no answers for long", a, 10)
	is("never asked", set.Backends()[2].Live, 0)
	b.Answered(0)
	if got, _ := b.ResponseTimes(); got <= 0 {
		t.Error("no time at all is taken for none")
	}
	a.Ponged(3 * ms)
	if _, pong := a.ResponseTimes(); math.Abs(pong-3*ms) > ms/1000 {
		t.Errorf("a Pong: %v", pong)
	}
}

func TestLeastResponseTime(t *testing.T) {
	for _, c := range []struct {
		name      string
		weights   []int
		sessions  []int
		handshake []float64 // 0: none yet
		pong      []float64
		warmth    []float64
		want      []int // any of these
	}{
		{name: "nothing known: the load", sessions: []int{3, 2, 2}, want: []int{1, 2}},
		{name: "the fastest of those that are idle", handshake: []float64{9 * ms, 5 * ms, 7 * ms}, want: []int{1}},
		{name: "sessions count", sessions: []int{2, 5, 2}, handshake: []float64{9 * ms, 5 * ms, 8 * ms}, want: []int{2}},
		{name: "by weight", weights: []int{1, 1, 4}, sessions: []int{2, 2, 7}, handshake: []float64{5 * ms, 5 * ms, 7 * ms}, want: []int{2}},
		{name: "Pongs count", sessions: []int{2, 2, 2}, handshake: []float64{5 * ms, 5 * ms, 5 * ms}, pong: []float64{3 * ms, 2 * ms, 9 * ms}, want: []int{1}},
		{name: "both count", sessions: []int{2, 2, 2}, handshake: []float64{5 * ms, 9 * ms, 5 * ms}, pong: []float64{8 * ms, 2 * ms, 9 * ms}, want: []int{1}},
		{name: "not asked yet: the mean", handshake: []float64{5 * ms, 0, 9 * ms}, want: []int{0}},
		{name: "not asked yet, and fewer sessions", sessions: []int{9, 1, 9}, handshake: []float64{5 * ms, 0, 9 * ms}, want: []int{1}},
		{name: "not pinged yet: the mean", handshake: []float64{5 * ms, 5 * ms, 5 * ms}, pong: []float64{3 * ms, 0, 7 * ms}, want: []int{0}},
		{name: "who warms up", handshake: []float64{9 * ms, 5 * ms, 7 * ms}, warmth: []float64{1, 0.1, 1}, want: []int{2}},
		{name: "a tie: the load by weight", weights: []int{1, 3, 1}, sessions: []int{0, 2, 1}, handshake: []float64{5 * ms, 5 * ms, 5 * ms}, want: []int{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.weights == nil {
				c.weights = []int{1, 1, 1}
			}
			set := weighted(c.weights...)
			for i, b := range set.Backends() {
				if c.sessions != nil {
					occupy(b.Live, c.sessions[i])
				}
				if c.handshake != nil && c.handshake[i] > 0 {
					b.Live.Answered(c.handshake[i])
				}
				if c.pong != nil && c.pong[i] > 0 {
					b.Live.Ponged(c.pong[i])
				}
			}
			warm(set, c.warmth...)
			checkWinners(t, set, mustPolicy(t, Options{Policy: "least_response_time"})(set), c.want)
		})
	}
}

// A storm is spread in inverse proportion to response times, on all goroutines at once, while
// answers come in and time passes.
func TestLeastResponseTimeInAStorm(t *testing.T) {
	set := equalWeights(3)
	times := []float64{10 * ms, 20 * ms, 40 * ms}
	for i, b := range set.Backends() {
		b.Live.Answered(times[i])
	}
	p := mustPolicy(t, Options{Policy: "least_response_time"})(set)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 70 {
				b := pick(t, p, Request{})
				for i, other := range set.Backends() {
					if other == b {
						b.Live.Answered(times[i])
					}
				}
				Settle(set.Backends(), ms)
			}
		})
	}
	all.Wait()
	for i, want := range []int64{320, 160, 80} {
		if got := set.Backends()[i].Live.Load(); got < want-8 || got > want+8 {
			t.Errorf("backend %d has %d sessions, want about %d", i, got, want)
		}
	}
}
