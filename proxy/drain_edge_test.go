package proxy

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

// promptly lets all leave at once.
var promptly = DrainSettings{Code: 1012, Reason: "service restart"}

// byHour lets none leave while a test lasts.
var byHour = DrainSettings{Code: 1012, Reason: "service restart", Window: 1000 * time.Hour}

// drainable are the settings of a pool of two backends that echo, with the ids a and b, as
// a source tells it, and what the source is to say of them.
func drainable(t *testing.T, drain DrainSettings) (Settings, *testSource, func(ids ...string) []discovery.Instance) {
	t.Helper()
	addrs := map[string]string{"a": echoBackend(t), "b": echoBackend(t)}
	source := newSource()
	settings := defaults()
	settings.Pools[0].Sources = []SourceSettings{{Slot: "test", Key: "k", Source: source}}
	settings.Pools[0].Drain, settings.Pools[0].OnRemoved = drain, DrainSessions
	return settings, source, func(ids ...string) (list []discovery.Instance) {
		for _, id := range ids {
			list = append(list, discovery.Instance{ID: id, Addr: addrs[id], Weight: 1})
		}
		return list
	}
}

// openOn opens sessions and sorts them by backend.
func (e *testEdge) openOn(n int) map[string][]*rawConn {
	e.t.Helper()
	by := map[string][]*rawConn{}
	for range n {
		c := e.open("/")
		id := e.session(c).Backend().ID
		by[id] = append(by[id], c)
	}
	return by
}

// restarted checks that sessions end as by a drain.
func restarted(t *testing.T, all []*rawConn) {
	t.Helper()
	for _, c := range all {
		if reason := c.wantClose(1012); reason != "service restart" {
			t.Errorf("the reason is %q", reason)
		}
		c.send(clientFrame(ws.OpClose, "\x03\xf4"))
		c.wantEnd()
		c.Close()
	}
}

func living(all []*rawConn) {
	for _, c := range all {
		c.t.Helper()
		c.alive()
	}
}

// TestDrainAtBothEnds: clients get the code and reason of the settings, backends 1001, on
// the border of messages both ways, and nothing is lost before that.
func TestDrainAtBothEnds(t *testing.T) {
	t.Parallel()
	goOn, heard := make(chan struct{}), make(chan string, 10)
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.send(string(ws.MustCompileFrame(ws.NewFrame(ws.OpText, false, []byte("one ")))))
		<-goOn
		c.send(serverFrame(ws.OpPing, "between") + serverFrame(ws.OpContinuation, "message"))
		for {
			op, p := c.frame()
			switch op {
			case ws.OpPong:
				continue
			case ws.OpClose:
				code, _ := ws.ParseCloseFrameData([]byte(p))
				heard <- code2text(code)
				c.send(serverFrame(ws.OpClose, p))
				return
			}
			heard <- p
		}
	})
	settings := defaults(b.addr, echoBackend(t))
	settings.Pools[0].Drain = promptly
	e := startEdge(t, settings)
	by := e.openOn(2)
	c, other := by[b.addr][0], by[e.other(b.addr)]
	if op, p := c.frame(); op != ws.OpText || p != "one " {
		t.Fatalf("got opcode %d %q", op, p)
	}
	if err := e.Drain("apps", b.addr, DrainPace{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("its session is closing", func() bool { return e.session(c).State() == StateClosing })
	c.send(string(ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(ws.OpText, false, []byte("last "))))))
	close(goOn)
	for _, want := range []struct {
		op   ws.OpCode
		text string
	}{{ws.OpPing, "between"}, {ws.OpContinuation, "message"}, {ws.OpClose, "\x03\xf4service restart"}} {
		if op, p := c.frame(); op != want.op || p != want.text {
			t.Fatalf("got opcode %d %q, want %d %q", op, p, want.op, want.text)
		}
	}
	c.send(clientFrame(ws.OpPong, "between") + clientFrame(ws.OpContinuation, "words") + clientFrame(ws.OpText, "more") + clientFrame(ws.OpClose, "\x03\xf4"))
	for _, want := range []string{"last ", "words", "more", "1001"} {
		if got := <-heard; got != want {
			t.Errorf("the backend got %q, want %q", got, want)
		}
	}
	c.wantEnd()
	c.Close()
	living(other)
	e.eventually("its end is counted", func() bool { return e.route("all").Ends[EndKey{"edge", "drain"}] == 1 })
	if got := e.openOn(4); len(got) != 1 || len(got[b.addr]) != 0 {
		t.Errorf("new sessions go to %v", got)
	}
}

func code2text(code ws.StatusCode) string {
	return map[ws.StatusCode]string{1001: "1001", 1012: "1012"}[code]
}

// other is the id of the other backend of the first pool.
func (e *testEdge) other(id string) string {
	for _, b := range e.Pools()[0].Backends {
		if b.ID != id {
			return b.ID
		}
	}
	return ""
}

// TestDrainDeadlineForces: a message that never ends does not hold up the end.
func TestDrainDeadlineForces(t *testing.T) {
	t.Parallel()
	codes := make(chan ws.StatusCode, 1)
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		c.send(string(ws.MustCompileFrame(ws.NewFrame(ws.OpText, false, []byte("one ")))))
		codes <- c.untilClose()
	})
	settings := defaults(b.addr)
	settings.Pools[0].Drain = byHour
	settings.Routes[0].WebSocket.CloseTimeout = 200 * time.Millisecond
	e := startEdge(t, settings)
	c := e.open("/")
	// Nobody else takes sessions, and the pace is that of hours.
	if err := e.Drain("apps", b.addr, DrainPace{Window: ptr(time.Millisecond), Deadline: ptr(time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	c.wantClose(1012)
	c.send(clientFrame(ws.OpClose, "\x03\xf4"))
	if code := <-codes; code != 1001 {
		t.Errorf("the backend got %d", code)
	}
	c.wantEnd()
	e.idle()
}

// TestDrainOperated: an operator drains one backend, over a reload and a flap, stops in the
// middle, and drains it to its end.
func TestDrainOperated(t *testing.T) {
	t.Parallel()
	settings, source, are := drainable(t, byHour)
	settings.Pools[0].RemovalGrace = time.Hour
	e := startEdge(t, settings)
	source.say(t, are("a", "b")...)
	by := e.openOn(12)
	drain := func(p DrainPace) {
		t.Helper()
		if err := e.Drain("apps", "a", p); err != nil {
			t.Fatal(err)
		}
	}
	drain(DrainPace{})
	e.apply(settings)
	source.say(t, are("b")...)
	source.say(t, are("a", "b")...)
	if live := e.Pools()[0].Backends[0].Live; live.State() != balance.StateDraining || live.Sessions() != 6 {
		t.Errorf("a is %v with %d sessions", live.State(), live.Sessions())
	}
	living(by["a"])
	living(by["b"])
	drain(DrainPace{Rate: ptr(2.0)})
	restarted(t, by["a"][:1])
	if err := e.Undrain("apps", "a"); err != nil {
		t.Fatal(err)
	}
	left := len(e.Sessions(func(x *Session) bool { return x.Backend().ID == "a" && x.State() == StateOpen }))
	if left == 0 {
		t.Fatal("all have left: this shows nothing")
	}
	living(by["a"][6-left:])
	if got := e.openOn(2); len(got["a"]) != 1 {
		t.Errorf("undrained, and two new sessions went to %v", got)
	} else {
		by["a"] = append(by["a"], got["a"]...)
	}
	drain(DrainPace{Window: ptr(100 * time.Millisecond)})
	restarted(t, by["a"][6-left:])
	living(by["b"])
	e.eventually("none is left", func() bool { return e.Pools()[0].Drains["a"].Remaining == 0 })
	if v := e.Pools()[0].Drains["a"]; v.By != ByOperator {
		t.Errorf("the drain is %+v", v)
	}
}

// TestDrainMaintained begins with maintenance and stops with its end.
func TestDrainMaintained(t *testing.T) {
	t.Parallel()
	settings, source, are := drainable(t, DrainSettings{Code: 4000, Reason: "moving", Rate: 4})
	e := startEdge(t, settings)
	source.say(t, are("a", "b")...)
	by := e.openOn(20)
	maintained := are("a", "b")
	maintained[0].Status = discovery.Maintenance
	source.say(t, maintained...)
	if reason := by["a"][0].wantClose(4000); reason != "moving" {
		t.Errorf("the reason is %q", reason)
	}
	source.say(t, are("a", "b")...)
	e.eventually("a drains no more", func() bool { return len(e.Pools()[0].Drains) == 0 })
	stays := by["a"][9]
	if e.session(stays).State() != StateOpen {
		t.Fatal("all have left: this shows nothing")
	}
	living([]*rawConn{stays})
	living(by["b"])
}

// TestRemovedOverSockets has each thing that may become of the sessions of a backend that a
// reload takes out of the file, and of one that comes back in time.
func TestRemovedOverSockets(t *testing.T) {
	t.Parallel()
	a, b := echoBackend(t), echoBackend(t)
	with := func(action RemovalAction, grace time.Duration, addrs ...string) Settings {
		s := defaults(addrs...)
		s.Listeners[0].Address = "127.0.0.1:0"
		s.Pools[0].Drain, s.Pools[0].OnRemoved, s.Pools[0].RemovalGrace = promptly, action, grace
		if action == CloseSessions {
			s.Pools[0].Drain = byHour
		}
		return s
	}
	for name, action := range map[string]RemovalAction{"drain": DrainSessions, "close": CloseSessions, "keep": KeepSessions} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEdge(t, with(action, time.Hour, a, b))
			by := e.openOn(8)
			e.apply(with(action, time.Hour, b))
			living(by[a])
			e.apply(with(action, time.Hour, a, b))
			living(by[a])
			e.apply(with(action, time.Millisecond, b))
			living(by[b])
			if action != KeepSessions {
				restarted(t, by[a])
				e.eventually("their end is counted", func() bool { return e.route("all").Ends[EndKey{"edge", "removed"}] == 4 })
				e.eventually("it is forgotten", func() bool { return len(e.Pools()[0].Backends) == 1 })
				return
			}
			e.eventually("it counts as removed", func() bool { return e.logs.FilterMessage("backend does not come back").Len() == 1 })
			living(by[a])
		})
	}
}

// TestRemovedPoolOverSockets: the sessions of a pool that a reload takes out of the file
// leave, while the edge shows it, and those of others notice nothing.
func TestRemovedPoolOverSockets(t *testing.T) {
	t.Parallel()
	settings, source, are := drainable(t, DrainSettings{Code: 1012, Reason: "service restart", Rate: 20})
	e := startEdge(t, settings)
	source.say(t, are("a", "b")...)
	by := e.openOn(8)
	next := defaults(echoBackend(t))
	next.Pools[0].Name, next.Routes[0].Pool = "next", "next"
	e.apply(next)
	if all := e.Pools(); len(all) != 2 || all[1].Name != "apps" || len(all[1].Drains) != 2 || all[1].Drains["a"].By != ByRemoval {
		t.Errorf("shown is %+v", all)
	}
	c := e.open("/")
	restarted(t, append(by["a"], by["b"]...))
	e.eventually("it is forgotten", func() bool { return len(e.Pools()) == 1 })
	c.alive()
}

// TestShutdownDuringADrain closes all with its own code, those that the drain had left too.
func TestShutdownDuringADrain(t *testing.T) {
	t.Parallel()
	settings, source, are := drainable(t, byHour)
	e := startEdge(t, settings)
	source.say(t, are("a", "b")...)
	by := e.openOn(6)
	if err := e.Drain("apps", "a", DrainPace{}); err != nil {
		t.Fatal(err)
	}
	source.say(t, are("a")...)
	done := e.shutdown(context.Background(), 0, patience)
	for _, c := range append(by["a"], by["b"]...) {
		c.wantClose(1001)
		c.send(clientFrame(ws.OpClose, "\x03\xe9"))
		c.wantEnd()
		c.Close()
	}
	<-done
	if err := e.Drain("apps", "a", DrainPace{}); err != ErrStopping {
		t.Errorf("a drain of an edge that has ended: %v", err)
	}
}
