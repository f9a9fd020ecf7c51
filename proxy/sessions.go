package proxy

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

const sessionShards = 32

// sessions are all live ones, by id.
type sessions struct {
	shards [sessionShards]struct {
		sync.Mutex
		byID map[string]*Session
	}
	woken chan struct{} // capacity 1: a session or a request has gone
}

func newSessions() *sessions {
	s := &sessions{woken: make(chan struct{}, 1)}
	for i := range s.shards {
		s.shards[i].byID = map[string]*Session{}
	}
	return s
}

// shard goes by the last characters of the id, which count.
func (s *sessions) shard(id string) *struct {
	sync.Mutex
	byID map[string]*Session
} {
	n := 0
	for _, c := range []byte(id[max(0, len(id)-2):]) {
		n = n*36 + int(c)
	}
	return &s.shards[n%sessionShards]
}

// add makes a session known whose engine runs, so that whoever finds it can close it;
// it may have ended already.
func (s *sessions) add(x *Session) {
	sh := s.shard(x.ID)
	sh.Lock()
	defer sh.Unlock()
	if x.State() != StateClosed {
		sh.byID[x.ID] = x
	}
}

func (s *sessions) remove(x *Session) {
	sh := s.shard(x.ID)
	sh.Lock()
	delete(sh.byID, x.ID)
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

func (s *sessions) get(id string) *Session {
	sh := s.shard(id)
	sh.Lock()
	defer sh.Unlock()
	return sh.byID[id]
}

func (s *sessions) len() (n int) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.Lock()
		n += len(sh.byID)
		sh.Unlock()
	}
	return n
}

// list returns the sessions that match, oldest first.
func (s *sessions) list(match func(*Session) bool) (out []*Session) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.Lock()
		for _, x := range sh.byID {
			if match == nil || match(x) {
				out = append(out, x)
			}
		}
		sh.Unlock()
	}
	slices.SortFunc(out, func(a, b *Session) int { return cmp.Compare(a.number, b.number) })
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
