package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/tidegate/tidegate/discovery"
)

// answer is what a watcher found out about its datacenter: instances or an error.
type answer struct {
	datacenter int // position in the configuration
	index      uint64
	instances  []discovery.Instance // sorted by ID; not nil without an error
	filtered   bool                 // Consul left out entries that the token may not read
	old        bool                 // the server that answered has not heard of its leader for long
	err        error
}

// watcher asks for one datacenter until its context is done. Its fields belong to the
// goroutine of run.
type watcher struct {
	source   *Source
	position int
	name     string // "" is the agent's own datacenter
	out      chan<- answer
	log      *zap.Logger
	limiter  *rate.Limiter
	backoff  backoff
	trouble  trouble
	replay   replay
	skipped  map[string]string // instances that were left out, and why
	filtered bool              // the last answer was
	old      bool              // the last answer was
}

func newWatcher(s *Source, position int, name string, out chan<- answer) *watcher {
	log := s.log
	if name != "" {
		log = log.With(zap.String("datacenter", name))
	}
	return &watcher{
		source: s, position: position, name: name, out: out, log: log,
		limiter: rate.NewLimiter(s.pace.queries, s.pace.burst),
		backoff: backoff{min: s.pace.backoffMin, max: s.pace.backoffMax},
	}
}

// run asks until ctx is done. A new token cancels the query that blocks with the old
// one, or the pause after its failure.
func (w *watcher) run(ctx context.Context) {
	var index uint64
	wait := w.source.config.Wait
	for w.limiter.Wait(ctx) == nil {
		value, current := w.source.token.get()
		a, err := w.ask(ctx, current, value, index, wait)
		if ctx.Err() != nil {
			return
		}
		if current.Err() != nil {
			index = 0
			continue
		}
		if err != nil {
			index = 0
			w.failed(err)
			w.replay.suspect()
			w.send(ctx, answer{datacenter: w.position, err: err})
			w.backoff.pause(ctx, current)
			continue
		}
		if wait = w.replay.left(max(a.index, 1), time.Now(), w.source.pace.settle); wait > 0 {
			index = max(a.index, 1)
			continue
		}
		w.succeeded(a)
		index = nextIndex(index, a.index)
		wait = w.source.config.Wait
		if a.old || len(a.instances) == 0 {
			wait = min(wait, w.source.pace.recheck)
		}
		w.send(ctx, a)
	}
}

// nextIndex applies the rules for blocking queries: an index that goes backwards
// starts over, one below 1 is 1.
// https://developer.hashicorp.com/consul/api-docs/features/blocking#implementation-details
func nextIndex(last, got uint64) uint64 {
	if got < last {
		return 0
	}
	return max(got, 1)
}

// replay tells whether a server that answers after a failure is behind what was known
// before. A server that starts is a leader, or says that it has heard of one, before it
// has replayed its log, and answers stale and default queries from the past that it has
// got to: with instances that left long ago, or with a maintenance that is over. An index
// that stays behind is no replay but a catalog that was lost or restored.
type replay struct {
	known     uint64    // index of the last answer that was believed
	suspected bool      // a query has failed since
	at        uint64    // index of the last answer that was not believed; 0: none
	since     time.Time // when the first answer with it came
}

// suspect notes a failure: the next answer may come from a server that has just started.
func (r *replay) suspect() { r.suspected, r.at = true, 0 }

// left returns for how long an answer with index, from 1 on, is to be doubted still,
// unless another comes; 0 is that it is believed.
func (r *replay) left(index uint64, now time.Time, settle time.Duration) time.Duration {
	if r.suspected && index < r.known {
		if index != r.at {
			r.at, r.since = index, now
		}
		if left := settle - now.Sub(r.since); left > 0 {
			return left
		}
	}
	*r = replay{known: index}
	return 0
}

// ask sends one query, which blocks if index is not 0, and maps its answer. It ends
// early when ctx or current is done.
func (w *watcher) ask(ctx, current context.Context, token string, index uint64, wait time.Duration) (answer, error) {
	timeout := w.source.pace.answer
	if index > 0 {
		timeout += wait + wait/16 // Consul adds up to a sixteenth
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	defer context.AfterFunc(current, cancel)()

	c := &w.source.config
	options := &api.QueryOptions{
		Datacenter:        w.name,
		AllowStale:        c.Consistency == Stale,
		RequireConsistent: c.Consistency == Consistent,
		Filter:            c.Filter,
		Token:             token,
		WaitIndex:         index,
	}
	if index > 0 {
		options.WaitTime = wait
	}
	entries, meta, err := w.source.client.Health().ServiceMultipleTags(c.Service, c.Tags, false, options.WithContext(ctx))
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) && cause != nil {
			err = cause
		}
		return answer{}, fmt.Errorf("asking consul: %w", err)
	}
	return answer{
		datacenter: w.position,
		index:      meta.LastIndex,
		instances:  w.mapped(entries),
		filtered:   meta.ResultsFilteredByACLs,
		old:        meta.LastContact > w.source.pace.oldContact,
	}, nil
}

// mapped maps an answer to instances sorted by ID and logs an instance that is left out when that begins.
func (w *watcher) mapped(entries []*api.ServiceEntry) []discovery.Instance {
	skipped := make(map[string]string)
	instances := mapEntries(entries, w.source.config.PassingOnly, func(id string, why error) {
		skipped[id] = why.Error()
		if w.skipped[id] != why.Error() {
			w.log.Warn("consul instance left out", zap.String("instance", id), zap.Error(why))
		}
	})
	w.skipped = skipped
	return discovery.NewSnapshot(0, instances).Instances
}

func (w *watcher) failed(err error) {
	w.source.counters.errors.Add(1)
	if w.trouble.begin(time.Now()) {
		w.log.Warn("consul cannot be asked, keeping the last set", zap.Error(err))
		return
	}
	w.log.Debug("consul still cannot be asked", zap.Error(err))
}

// succeeded logs what is remarkable about an answer when that begins or ends.
func (w *watcher) succeeded(a answer) {
	now := time.Now()
	w.source.counters.lastContact.Store(now.UnixNano())
	w.backoff.reset()
	if lasted, ended := w.trouble.end(now); ended {
		w.log.Info("consul answers again", zap.Duration("after", lasted))
	}
	if a.filtered && !w.filtered {
		w.log.Warn("consul left out what the token may not read: it needs service:read and node:read",
			zap.Int("instances_left", len(a.instances)))
	}
	if a.old && !w.old {
		w.log.Warn("consul answers from a server that lost its leader: the set may be old")
	}
	w.filtered, w.old = a.filtered, a.old
}

func (w *watcher) send(ctx context.Context, a answer) {
	select {
	case w.out <- a:
	case <-ctx.Done():
	}
}

// trouble remembers since when something has been wrong; the zero value is none.
type trouble struct{ since time.Time }

// begin reports whether the trouble is new.
func (t *trouble) begin(now time.Time) bool {
	if !t.since.IsZero() {
		return false
	}
	t.since = now
	return true
}

// end reports whether there was trouble, and how long.
func (t *trouble) end(now time.Time) (time.Duration, bool) {
	if t.since.IsZero() {
		return 0, false
	}
	lasted := now.Sub(t.since)
	t.since = time.Time{}
	return lasted, true
}

// backoff doubles from min to max, each pause jittered between its half and its whole.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// pause waits, or until either context is done; the end of fresh starts over with min.
func (b *backoff) pause(ctx, fresh context.Context) {
	b.next = min(max(b.next*2, b.min), b.max)
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-fresh.Done():
		b.reset()
	}
}
