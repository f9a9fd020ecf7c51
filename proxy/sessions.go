package proxy

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

const sessionShards = 32

// sessions are all live ones, by number.
type sessions struct {
	shards [sessionShards]sessionShard
	woken  chan struct{} // capacity 1: a session or a request has gone
}

type sessionShard struct {
	sync.Mutex
	byNumber map[uint64]*Session
}

func newSessions() *sessions {
	s := &sessions{woken: make(chan struct{}, 1)}
	for i := range s.shards {
		s.shards[i].byNumber = map[uint64]*Session{}
	}
	return s
}

func (s *sessions) shard(number uint64) *sessionShard { return &s.shards[number%sessionShards] }

// add makes a session known whose engine runs, so that whoever finds it can close it;
// it may have ended already.
func (s *sessions) add(x *Session) {
	sh := s.shard(x.number)
	sh.Lock()
	defer sh.Unlock()
	if x.State() != StateClosed {
		sh.byNumber[x.number] = x
	}
}

func (s *sessions) remove(x *Session) {
	sh := s.shard(x.number)
	sh.Lock()
	delete(sh.byNumber, x.number)
	sh.Unlock()
	s.wake()
}

// wake lets wait look again.
func (s *sessions) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

func (s *sessions) get(number uint64) *Session {
	sh := s.shard(number)
	sh.Lock()
	defer sh.Unlock()
	return sh.byNumber[number]
}

func (s *sessions) len() (n int) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.Lock()
		n += len(sh.byNumber)
		sh.Unlock()
	}
	return n
}

// list returns the sessions that match, oldest first.
func (s *sessions) list(match func(*Session) bool) []*Session {
	out := s.gather(match)
	slices.SortFunc(out, func(a, b *Session) int { return cmp.Compare(a.number, b.number) })
	return out
}

// gather returns the sessions that match in no order.
func (s *sessions) gather(match func(*Session) bool) (out []*Session) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.Lock()
		for _, x := range sh.byNumber {
			if match == nil || match(x) {
				out = append(out, x)
			}
		}
		sh.Unlock()
	}
	return out
}

// wait returns when no request under way could become a session, as quiet tells, and
// there is no session any more. It has one caller at a time.
func (s *sessions) wait(ctx context.Context, quiet func() bool) error {
	for !quiet() || s.len() > 0 {
		select {
		case <-s.woken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
