package proxy

import (
	"context"
	"slices"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/relay"
)

// statusTryAgain tells a client to come back later (IANA registry of RFC 6455 §11.7).
const statusTryAgain ws.StatusCode = 1013

const (
	// shedTo is the share of the limit down to which memory is shed, so that it does not
	// begin again with the next byte.
	shedTo = 0.9
	// shedPause is the least time between two looks at all sessions, and shedRest how many
	// times as long as the last one took it is.
	shedPause = 100 * time.Millisecond
	shedRest  = 10
)

// shedMemory closes the sessions that hold the most whenever all together hold more than
// Settings.MaxBufferedBytes, until ctx is done.
func (s *Server) shedMemory(ctx context.Context) {
	over := make(chan struct{}, 1)
	s.memory.OnOver(func() {
		select {
		case over <- struct{}{}:
		default:
		}
	})
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		began := time.Now()
		s.shedLargest()
		pause.Reset(max(shedPause, shedRest*time.Since(began)))
	}
}

// shedLargest sheds as many of the largest holders as it takes. What sessions hold that
// are ending already counts as given back.
func (s *Server) shedLargest() {
	if !s.memory.Over() {
		return
	}
	all := s.sessions.list(nil)
	if len(all) == 0 {
		return
	}
	running := make([]engine.Session, len(all))
	for i, x := range all {
		running[i] = x.engine
	}
	held := s.engines.held(running)
	excess := s.memory.Held() - int64(shedTo*float64(s.memory.Limit()))
	var largest []int
	for i, x := range all {
		switch {
		case x.State() != StateOpen:
			excess -= int64(held[i])
		case held[i] > 0:
			largest = append(largest, i)
		}
	}
	slices.SortFunc(largest, func(a, b int) int { return held[b] - held[a] })
	closed := 0
	for _, i := range largest {
		if excess <= 0 {
			break
		}
		excess -= int64(held[i])
		running[i].Shed(relay.Ending{Client: statusTryAgain, Backend: ws.StatusGoingAway, Reason: "out of memory", Why: WhyMemory})
		s.stats.shed(WhyMemory)
		closed++
	}
	if closed > 0 {
		s.noise.Warn("buffered bytes over memory.max_buffered: closing the largest holders", zap.Int64("buffered", s.memory.Held()),
			zap.Int64("limit", s.memory.Limit()), zap.Int("sessions", closed))
	}
}
