package proxy

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/discovery"
)

// lateSource speaks when it is told what to say.
type lateSource struct{ say chan []discovery.Instance }

func (s lateSource) Watch(ctx context.Context, publish func(*discovery.Snapshot)) error {
	for {
		select {
		case list := <-s.say:
			publish(discovery.NewSnapshot(1, list))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func latePool(name string, connectTimeout time.Duration) (PoolSettings, lateSource) {
	s := lateSource{make(chan []discovery.Instance)}
	p := pool1(name)
	p.Sources = []SourceSettings{{Slot: "late", Key: name, Source: s}}
	p.Upstream.ConnectTimeout = connectTimeout
	return p, s
}

// TestFirstWordOfAPool: a handshake waits for discovery to speak of a pool for the first
// time, but not for ever, and later on for nothing.
func TestFirstWordOfAPool(t *testing.T) {
	addr := echoBackend(t)
	settings := defaults()
	var source lateSource
	settings.Pools[0], source = latePool("apps", patience)
	e := startEdge(t, settings)

	type answer struct {
		res *http.Response
		err error
	}
	dial := func() <-chan answer {
		done := make(chan answer, 1)
		go func() {
			c, res, err := websocket.DefaultDialer.Dial(e.url("/"), nil)
			if err == nil {
				c.Close()
			}
			done <- answer{res, err}
		}()
		return done
	}
	first := dial()
	e.eventually("a handshake waits", func() bool { return e.Totals().Handshaking == 1 })
	select {
	case a := <-first:
		t.Fatalf("answered before discovery has spoken: %v", a.err)
	default:
	}
	source.say <- []discovery.Instance{{ID: "a", Addr: addr, Weight: 1}}
	if a := <-first; a.err != nil {
		t.Fatal(a.err)
	}
	// An empty set is a word, too.
	source.say <- nil
	e.eventually("the backend is gone", func() bool { return len(present(e.Pools()[0])) == 0 })
	if a := <-dial(); a.res == nil || a.res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %v, %v, want 503", a.res, a.err)
	}
	// A pool of which nobody ever speaks.
	settings.Pools[0], _ = latePool("silent", 10*time.Millisecond)
	settings.Routes[0].Pool = "silent"
	e.apply(settings)
	if a := <-dial(); a.res == nil || a.res.StatusCode != http.StatusServiceUnavailable || a.res.Header.Get("Retry-After") == "" {
		t.Errorf("got %v, %v, want 503", a.res, a.err)
	}
}

// TestPoolGoesUnderARequest: a request that waits for a pool when a reload takes it away
// is served by the pool that its route has now.
func TestPoolGoesUnderARequest(t *testing.T) {
	settings := defaults()
	settings.Pools[0], _ = latePool("apps", patience)
	e := startEdge(t, settings)
	done := make(chan error, 1)
	go func() {
		c, _, err := websocket.DefaultDialer.Dial(e.url("/"), nil)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	e.eventually("a handshake waits", func() bool { return e.Totals().Handshaking == 1 })
	next := defaults(echoBackend(t))
	next.Pools[0].Name, next.Routes[0].Pool = "others", "others"
	e.apply(next)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := e.Pools()[0].Backends[0].Live.Picks(); n != 1 {
		t.Errorf("the new pool was picked from %d times", n)
	}
}

// TestStaticSetIsThereAtOnce: when a configuration is committed, its lists are in force.
func TestStaticSetIsThereAtOnce(t *testing.T) {
	e := startEdge(t, defaults(deadAddr(t)))
	for range 100 {
		settings := defaults(deadAddr(t), deadAddr(t))
		next, err := e.Prepare(settings)
		if err != nil {
			t.Fatal(err)
		}
		next.Commit()
		for _, b := range present(e.Pools()[0]) {
			if b.ID != settings.Pools[0].Sources[0].Source.(discovery.Known).Snapshot().Instances[0].ID &&
				b.ID != settings.Pools[0].Sources[0].Source.(discovery.Known).Snapshot().Instances[1].ID {
				t.Fatalf("%s is still in the pool", b.ID)
			}
		}
	}
}
