//go:build !linux

package proxy

import (
	"context"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/pump"
	"github.com/tidegate/tidegate/proxy/relay"
)

// engines are what sessions run on: goroutines, on a system without epoll.
type engines struct{}

func newEngines(int, *engine.Memory) (*engines, error) { return &engines{}, nil }

func (e *engines) run(context.Context) {}

func (e *engines) start(opt *engine.Options, obs engine.Observer, client, backend *leg) engine.Session {
	return pump.Start(opt, obs, client.pump(), backend.pump())
}

func (e *engines) move(s engine.Session, next *leg) bool {
	if s, ok := s.(*pump.Session); ok {
		s.Move(next.pump())
		return true
	}
	next.stream.Close()
	return false
}

func (e *engines) sum(tallies []*engine.Tally) []relay.Traffic { return sumRest(tallies) }

func (e *engines) held(sessions []engine.Session) []int { return heldEach(sessions) }

func (e *engines) counts(sessions []engine.Session) [][2]relay.Count { return countEach(sessions) }
