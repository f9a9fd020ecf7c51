package test

import (
	"testing"

	"github.com/gobwas/ws"
)

// testReloadedPolicies changes every policy of routes that have sessions: those keep what
// they opened with, tighter or looser, and new ones get what is new.
func testReloadedPolicies(t *testing.T) {
	const cont, txt, bin, ping = ws.OpContinuation, ws.OpText, ws.OpBinary, ws.OpPing
	three := frames(part(false, bin, 1), part(false, cont, 1), part(true, cont, 1))
	limits := []struct {
		name, before, after string
		old, young          limitCase
	}{
		{"frame-size", "max_frame_size: 1KiB", "max_frame_size: 2KiB",
			limitCase{pass: part(true, bin, 1024), bad: part(true, bin, 1025), code: 1009, reason: "frame too big", cause: "frame_size"},
			limitCase{pass: part(true, bin, 2048), bad: part(true, bin, 2049), code: 1009, reason: "frame too big", cause: "frame_size"}},
		{"message-size", "max_message_size: 0", "max_message_size: 100",
			limitCase{pass: part(true, bin, 1<<20)},
			limitCase{pass: part(true, bin, 100), bad: part(true, bin, 101), code: 1009, reason: "message too big", cause: "message_size"}},
		{"fragments", "max_fragments: 2", "max_fragments: 3",
			limitCase{pass: frames(part(false, bin, 1), part(false, cont, 1)), bad: part(true, cont, 1), code: 1008, reason: "too many fragments", cause: "fragments"},
			limitCase{pass: three}},
		{"control-rate", "control_frames_per_second: 0", "control_frames_per_second: 2",
			limitCase{pass: times(20, words(true, ping, ""))},
			limitCase{pass: times(2, words(true, ping, "")), bad: words(true, ping, ""), code: 1008, reason: "too many control frames", cause: "control_rate"}},
		{"utf8", "validate_utf8: true", "validate_utf8: false",
			limitCase{pass: words(true, txt, "x"), bad: words(true, txt, "\xff"), code: 1007, reason: "text is not UTF-8", cause: "utf8"},
			limitCase{pass: words(true, txt, "\xff")}},
		{"message-rate", "messages_per_second: 1, message_burst: 2", "messages_per_second: 1, message_burst: 4",
			limitCase{pass: times(2, words(true, txt, "x")), bad: words(true, txt, "x"), code: 1008, reason: "too many messages", cause: "message_rate"},
			limitCase{pass: times(4, words(true, txt, "x")), bad: words(true, txt, "x"), code: 1008, reason: "too many messages", cause: "message_rate"}},
		{"rate-action", "messages_per_second: 20, message_burst: 2, rate_action: delay", "messages_per_second: 1, message_burst: 2",
			limitCase{pass: times(10, words(true, txt, "x"))},
			limitCase{pass: times(2, words(true, txt, "x")), bad: words(true, txt, "x"), code: 1008, reason: "too many messages", cause: "message_rate"}},
		{"byte-rate", "bytes_per_second: 1, byte_burst: 10", "",
			limitCase{pass: part(true, bin, 10), bad: part(true, bin, 1000), code: 1008, reason: "too many bytes", cause: "byte_rate"},
			limitCase{pass: part(true, bin, 10_000)}},
	}
	aged := func(t *testing.T, e *policyEdge, c, b *rawEnd) {
		cuts(t, c, b, 1001, "maximum age reached")
		e.ended(t, b, outcome{"edge", "max_age", "1001", "edge"})
	}
	idle := func(t *testing.T, e *policyEdge, c, b *rawEnd) {
		cuts(t, c, b, 1001, "idle")
		e.ended(t, b, outcome{"edge", "idle_timeout", "1001", "edge"})
	}
	pinged := func(t *testing.T, e *policyEdge, c, b *rawEnd) {
		must(t, c.answer(2))
		e.farewell(t, c, b)
	}
	quiet := func(t *testing.T, e *policyEdge, c, b *rawEnd) {
		talkBothWays(c, b)
		if c.pings+b.pings > 0 {
			t.Errorf("%d and %d Pings", c.pings, b.pings)
		}
		e.bye(t, c, b)
	}
	type live func(t *testing.T, e *policyEdge, c, b *rawEnd)
	clocks := []struct {
		name, before, after string
		first, then         live // what becomes of the one that is to end or be pinged, and then of the other
		oldFirst            bool
	}{
		{"idle-on", "", "idle_timeout: 700ms", idle, quiet, false},
		{"idle-off", "idle_timeout: 3s", "", idle, quiet, true},
		{"age-on", "", "max_age: 700ms", aged, quiet, false},
		{"age-off", "max_age: 3s", "", aged, quiet, true},
		{"ping-on", "ping: none", "ping_interval: 500ms, pong_timeout: 5s", pinged, quiet, false},
		{"ping-off", "ping_interval: 500ms, pong_timeout: 5s", "ping: none", pinged, quiet, true},
		{"ping-backend", "ping: none", "ping: backend, ping_interval: 500ms, pong_timeout: 5s", func(t *testing.T, e *policyEdge, c, b *rawEnd) {
			must(t, b.answer(2))
			e.farewell(t, c, b)
		}, quiet, false},
	}
	var before, after []policySet
	for _, x := range limits {
		before, after = append(before, policySet{name: x.name, policies: x.before}), append(after, policySet{name: x.name, policies: x.after})
	}
	for _, x := range clocks {
		before, after = append(before, policySet{name: x.name, policies: x.before}), append(after, policySet{name: x.name, policies: x.after})
	}
	onEngines(t, before, func(t *testing.T, e *policyEdge) {
		type session struct{ c, b *rawEnd }
		opened := func() map[string]session {
			all := map[string]session{}
			for _, set := range before {
				for _, scheme := range schemes {
					c, b := e.open(t, set.name, scheme)
					all[set.name+"-"+scheme] = session{c, b}
				}
			}
			return all
		}
		old := opened()
		if _, err := e.reload(policyYAML(after, func(route string) string { return e.backends[route].addr() })); err != nil {
			t.Fatal(err, details(err))
		}
		young := opened()
		var all []trial
		for _, x := range limits {
			all = append(all, onSchemes(x.name, func(t *testing.T, scheme string) {
				for _, s := range []struct {
					session
					limitCase
				}{{young[x.name+"-"+scheme], x.young}, {old[x.name+"-"+scheme], x.old}} {
					s.byClient(t, e, s.c, s.b)
				}
			})...)
		}
		for _, x := range clocks {
			all = append(all, onSchemes(x.name, func(t *testing.T, scheme string) {
				first, then := young[x.name+"-"+scheme], old[x.name+"-"+scheme]
				if x.oldFirst {
					first, then = then, first
				}
				x.first(t, e, first.c, first.b)
				x.then(t, e, then.c, then.b)
			})...)
		}
		together(t, all)
	})
}
