package proxy

import "testing"

// TestForget: counters go with their route, a gauge with its listener, neither before its
// sessions have ended.
func TestForget(t *testing.T) {
	s := stats{routes: map[string]*RouteStats{}, sheds: map[string]uint64{}}
	rs := s.route("chat")
	rs.enter("gone")
	rs.enter("stays")
	rs.leave("stays")
	present := map[string]bool{"chat": true}
	forget := func(routes map[string]bool) { s.forget(routes, map[string]bool{"stays": true}) }

	forget(present)
	if active := rs.view().Active; len(active) != 2 || active["gone"] != 1 || active["stays"] != 0 {
		t.Errorf("with a session on each listener's past or present: %v", active)
	}
	rs.leave("gone")
	forget(present)
	if active := rs.view().Active; len(active) != 1 || active["stays"] != 0 {
		t.Errorf("after the last session of a listener that is gone: %v", active)
	}

	rs.enter("stays")
	forget(nil)
	if s.routes["chat"] != rs {
		t.Error("a route with a session was forgotten")
	}
	rs.leave("stays")
	forget(nil)
	if s.routes["chat"] != nil {
		t.Error("a route without sessions was kept")
	}

	// A route that is being prepared is not there yet for whoever looks.
	prepared := newRoute(RouteSettings{Name: "new"}, &poolView{}, s.route("new"), nil)
	forget(nil)
	s.restore([]*route{prepared})
	if s.routes["new"] != prepared.stats {
		t.Error("the counters of a new route are lost")
	}
}
