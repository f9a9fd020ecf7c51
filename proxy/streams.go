package proxy

import (
	"cmp"
	"io"
	"mime"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidegate/tidegate/balance"
)

// eventStream is the body of an answer that has no end of its own: server-sent events. It keeps
// a backend from being drained, and the edge from ending, until somebody ends it. The client
// then sees the end of the stream and connects again, which is what the format is made for
// (HTML Standard, 9.2.3): a last event that is cut short counts as not sent.
type eventStream struct {
	body   io.ReadCloser
	live   *balance.Live
	number uint64
	ended  atomic.Bool
}

func newEventStream(body io.ReadCloser, live *balance.Live) *eventStream {
	return &eventStream{body: body, live: live}
}

// isEventStream reports whether an answer is one of server-sent events.
func isEventStream(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "text/event-stream"
}

// Read is that of the body, until end.
func (s *eventStream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if s.ended.Load() {
		return n, io.EOF
	}
	return n, err
}

// Close is that of the body.
func (s *eventStream) Close() error { return s.body.Close() }

// end ends the stream in order. It does not wait for the client.
func (s *eventStream) end() {
	s.ended.Store(true)
	s.body.Close() // a read that waits returns
}

// eventStreams are all that run.
type eventStreams struct {
	mu   sync.Mutex
	last uint64
	all  map[*eventStream]struct{}
}

func (e *eventStreams) add(s *eventStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[*eventStream]struct{}{}
	}
	e.last++
	s.number = e.last
	e.all[s] = struct{}{}
}

func (e *eventStreams) remove(s *eventStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all, s)
}

// of returns the streams of a backend that nobody has ended, of any for nil, oldest first.
func (e *eventStreams) of(live *balance.Live) []*eventStream {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*eventStream
	for s := range e.all {
		if (live == nil || s.live == live) && !s.ended.Load() {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *eventStream) int { return cmp.Compare(a.number, b.number) })
	return list
}

// next returns the oldest stream of a backend that nobody has ended, or nil.
func (e *eventStreams) next(live *balance.Live) *eventStream {
	if list := e.of(live); len(list) > 0 {
		return list[0]
	}
	return nil
}
