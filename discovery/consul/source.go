package consul

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/tidegate/tidegate/discovery"
)

// pace holds the durations that are no configuration. Tests change them.
type pace struct {
	answer     time.Duration // a query that does not block must be answered by then
	recheck    time.Duration // how long a query blocks while the answer is doubtful
	backoffMin time.Duration
	backoffMax time.Duration
	queries    rate.Limit // of each datacenter, after a burst
	burst      int
	coldStart  time.Duration // until then the snapshot file and later datacenters wait
	passOver   time.Duration // unreachable for so long, a datacenter is passed over
	settle     time.Duration // an answer behind what was known before a failure must stand so long
	oldContact time.Duration // a server that has not heard of its leader for so long is old
	tokenPoll  time.Duration
	save       time.Duration // at most one snapshot file in that time
}

var defaultPace = pace{
	answer:     10 * time.Second,
	recheck:    10 * time.Second,
	backoffMin: 200 * time.Millisecond,
	backoffMax: 15 * time.Second,
	queries:    rate.Every(500 * time.Millisecond),
	burst:      5,
	coldStart:  2 * time.Second,
	passOver:   30 * time.Second,
	settle:     2 * time.Second,
	oldContact: 30 * time.Second,
	tokenPoll:  time.Second,
	save:       time.Second,
}

// Source follows one service. It implements [discovery.Source].
type Source struct {
	config    Config // with defaults
	pace      pace
	log       *zap.Logger // knows the service
	transport *http.Transport
	client    *api.Client
	token     *token
	counters  counters
}

// New checks the configuration, reads the files that it names and returns a source
// that has not started anything. The error names every setting that is wrong; Consul
// is not contacted before Watch.
func New(config Config) (*Source, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	e, err := parseAddress(config.Address, config.TLS)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	s := &Source{config: config, pace: defaultPace, log: config.Logger.With(zap.String("service", config.Service))}
	if s.transport, err = newTransport(e, config.TLS); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	if s.token, err = newToken(config.TokenFile, s.log); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	if s.client, err = newClient(e, s.transport, maxAnswerBytes); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return s, nil
}

// Watch implements [discovery.Source]. A running query is cancelled at once when ctx
// is done, and all goroutines have ended when Watch returns. Each Watch starts anew:
// with the snapshot file, if there is one, and without the set of an earlier Watch.
func (s *Source) Watch(ctx context.Context, publish func(*discovery.Snapshot)) error {
	inner, cancel := context.WithCancel(ctx)
	answers := make(chan answer)
	v := newView(&s.config, s.pace, s.log, time.Now())

	var running sync.WaitGroup
	running.Go(func() { s.token.follow(inner, s.pace.tokenPoll) })
	for i, dc := range v.datacenters {
		w := newWatcher(s, i, dc.name, answers)
		running.Go(func() { w.run(inner) })
	}
	defer func() {
		cancel()
		running.Wait()
		s.transport.CloseIdleConnections()
		v.file.flush()
	}()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-answers:
			v.take(a, time.Now())
		case <-timer.C:
		}
		now := time.Now()
		snapshot := v.step(now)
		s.counters.index.Store(v.index())
		s.counters.stale.Store(v.stale())
		if snapshot != nil && ctx.Err() == nil {
			publish(snapshot)
		}
		v.file.save(now)
		if next, ok := v.next(); ok {
			timer.Reset(max(0, next.Sub(now)))
		} else {
			timer.Stop()
		}
	}
}
