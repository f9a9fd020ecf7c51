package proxy

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// sampleEvery is how often the counters of sessions are looked at to find those that are
// idle. A session has been quiet since the look that found its counters changed. Until the
// second look it counts as quiet for the mean distance of its messages so far, or since it
// opened if there was none.
const sampleEvery = 5 * time.Second

// leavers are the sessions of a draining backend in the order in which they leave.
type leavers struct {
	srv  *Server
	live *balance.Live

	order   DrainOrder
	queue   []*Session
	listed  time.Time
	sampled time.Time
	quiet   map[*Session]quiet // by the last sample
}

// quiet is since when a session had no message, as far as its counters tell.
type quiet struct {
	messages, bytes uint64
	since           time.Time
}

// all returns the sessions that can leave, oldest first.
func (l *leavers) all() []*Session {
	return l.srv.sessions.list(l.can)
}

// can reports whether a session is there to leave: it may have ended, begun to, or have
// another backend by now.
func (l *leavers) can(x *Session) bool {
	return x.Backend().Live == l.live && x.State() == StateOpen
}

// next takes out the session whose turn it is, or returns nil if there is none at present:
// sessions are listed when those of the last list have left, and then not before lookEvery
// has passed, since a list goes through all sessions of the edge.
func (l *leavers) next(now time.Time, order DrainOrder) *Session {
	if l.order != order {
		l.order, l.queue, l.listed = order, nil, time.Time{}
	}
	if x := l.pop(); x != nil {
		return x
	}
	if now.Sub(l.listed) < lookEvery {
		return nil
	}
	l.list(now)
	return l.pop()
}

func (l *leavers) pop() *Session {
	for len(l.queue) > 0 {
		x := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		if l.can(x) {
			return x
		}
	}
	return nil
}

func (l *leavers) list(now time.Time) {
	l.queue, l.listed = l.all(), now
	switch l.order {
	case IdleFirst:
		l.sort()
	case RandomOrder:
		rand.Shuffle(len(l.queue), func(i, j int) { l.queue[i], l.queue[j] = l.queue[j], l.queue[i] })
	}
}

// sort puts those that are quiet for longest first; those that no sample knows are new.
func (l *leavers) sort() {
	since := func(x *Session) time.Time {
		if q, ok := l.quiet[x]; ok {
			return q.since
		}
		return x.Info().Opened
	}
	slices.SortStableFunc(l.queue, func(a, b *Session) int { return since(a).Compare(since(b)) })
}

// sample looks at the counters of all sessions if it is time to, and returns when it will
// be again.
func (l *leavers) sample(now time.Time) time.Time {
	if again := l.sampled.Add(sampleEvery); now.Before(again) {
		return again
	}
	l.sampled = now
	all := l.all()
	next := make(map[*Session]quiet, len(all))
	for i, counts := range l.srv.Counts(all) {
		x := all[i]
		q := quiet{since: now}
		for _, c := range counts {
			q.messages += c.Messages
			q.bytes += c.Bytes
		}
		switch before, ok := l.quiet[x]; {
		case !ok:
			q.since = now.Add(-x.age() / time.Duration(q.messages+1))
		case before.messages == q.messages && before.bytes == q.bytes:
			q.since = before.since
		}
		next[x] = q
	}
	l.quiet, l.order = next, IdleFirst
	l.queue, l.listed = all, now
	l.sort()
	return now.Add(sampleEvery)
}
