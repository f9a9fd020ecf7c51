package proxy

import (
	"context"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

// A backend that takes its time for a handshake gets fewer sessions, and one that never answers
// hardly any.
func TestLeastResponseTime(t *testing.T) {
	t.Parallel()
	fast := echoBackend(t)
	slow := startRaw(t, func(c *rawConn, r *http.Request) {
		time.Sleep(400 * time.Millisecond)
		c.send(switching(r))
		c.rest()
	}).addr
	settings := defaults(fast, slow)
	settings.Pools[0].Balance.Policy = leastResponse
	e := startEdge(t, settings)
	for range 12 {
		e.open("/")
	}
	if n := e.live(slow).Sessions(); n < 1 || n > 4 {
		t.Errorf("the slow backend has %d sessions of 12", n)
	}
	if took, pong := e.live(slow).ResponseTimes(); took < 0.39 || pong != 0 {
		t.Errorf("the slow backend took %v s, its Pongs %v", took, pong)
	}
}

// What is refused fast is not fast, and what is waited for in vain is slow.
func TestResponseTimesOfFailures(t *testing.T) {
	t.Parallel()
	refusing := startRaw(t, func(c *rawConn, _ *http.Request) { c.send("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n") })
	silent := startRaw(t, func(c *rawConn, _ *http.Request) { c.rest() })
	for _, c := range []struct {
		addr  string
		least float64
		known bool
	}{{refusing.addr, 0, false}, {deadAddr(t), 0, false}, {silent.addr, 0.1, true}} {
		settings := defaults(c.addr)
		settings.Pools[0].Balance.Policy = leastResponse
		settings.Pools[0].Upstream.HandshakeTimeout = 100 * time.Millisecond
		e := startEdge(t, settings)
		e.ask(upgradeRequest("/"))
		if took, _ := e.backend().Live.ResponseTimes(); took < c.least || (took > 0) != c.known {
			t.Errorf("%s took %v s", c.addr, took)
		}
	}
}

// Times decay as long as the policy is there, and what was measured before it was is forgotten.
func TestSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool("apps", NewServer(zap.NewNop()))
		set := p.registry.Update([]discovery.Instance{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}})
		a, b := set.Backends()[0].Live, set.Backends()[1].Live
		a.Answered(1)
		b.Answered(2)
		ctx, stop := context.WithCancel(t.Context())
		go p.calm(ctx, time.Second)
		both := func(what string, first, second float64) {
			t.Helper()
			synctest.Wait()
			x, _ := a.ResponseTimes()
			y, _ := b.ResponseTimes()
			if math.Abs(x-first) > 0.005 || math.Abs(y-second) > 0.005 {
				t.Errorf("%s: %v and %v", what, x, y)
			}
		}
		both("at the beginning", 1, 1)
		b.Answered(3)
		both("a peak", 1, 3)
		time.Sleep(10500 * time.Millisecond)
		both("after 10 s, one of them with the peak", 1, 1.81)
		stop()
		time.Sleep(time.Minute)
		both("stopped", 1, 1.81)
	})
}

// A report of load is forgotten after a minute, unless there is a new one.
func TestReportsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool("apps", NewServer(zap.NewNop()))
		live := p.registry.Update([]discovery.Instance{{ID: "a", Weight: 1}}).Backends()[0].Live
		ctx, stop := context.WithCancel(t.Context())
		go p.ageReports(ctx)
		known := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			if _, _, ok := live.Reported(); ok != want {
				t.Errorf("%s: %v", what, ok)
			}
		}
		live.Report(0.9)
		time.Sleep(50 * time.Second)
		known("after 50 s", true)
		live.Report(0.8)
		time.Sleep(50 * time.Second)
		known("50 s after the next", true)
		time.Sleep(11 * time.Second)
		known("61 s after it", false)
		stop()
	})
}

// ponging is a backend that answers handshakes at once and Pings after a time.
func ponging(t *testing.T, after time.Duration) string {
	return startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		for {
			h, err := ws.ReadHeader(c.in)
			if err != nil || h.OpCode != ws.OpPing {
				return
			}
			p := make([]byte, h.Length)
			if _, err := io.ReadFull(c.in, p); err != nil {
				return
			}
			ws.Cipher(p, h.Mask, 0)
			time.Sleep(after)
			if _, err := io.WriteString(c, serverFrame(ws.OpPong, string(p))); err != nil {
				return
			}
		}
	}).addr
}

// A backend that is slow to answer Pings gets fewer sessions, although its handshakes are fast.
func TestLeastResponseTimeOfPongs(t *testing.T) {
	t.Parallel()
	settings := defaults(ponging(t, 0), ponging(t, 400*time.Millisecond))
	settings.Pools[0].Balance.Policy = leastResponse
	settings.Routes[0].WebSocket.PingBackend, settings.Routes[0].WebSocket.PingInterval = true, 100*time.Millisecond
	settings.Routes[0].WebSocket.PongTimeout = patience // no other Ping before the Pong
	e := startEdge(t, settings)
	addrs := strings.Fields(settings.Pools[0].Sources[0].Key)
	fast, slow := e.live(addrs[0]), e.live(addrs[1])
	slow.Set(balance.Drained, true)
	e.open("/")
	slow.Set(balance.Drained, false)
	fast.Set(balance.Drained, true)
	e.open("/")
	fast.Set(balance.Drained, false)
	e.eventually("both are known", func() bool {
		_, first := fast.ResponseTimes()
		_, second := slow.ResponseTimes()
		return first > 0 && second >= 0.39
	})
	for range 6 {
		e.open("/")
	}
	if n := slow.Sessions(); n > 3 {
		t.Errorf("the slow backend has %d sessions of 8", n)
	}
}
