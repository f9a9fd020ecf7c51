package proxy

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/zap"
)

// TestSessionInfo: what a session packs comes out as it went in, whatever is empty.
func TestSessionInfo(t *testing.T) {
	srv := NewServer(zap.NewNop())
	p := &place{srv: srv, listener: "edge", route: "chat", pool: "apps"}
	peer := netip.MustParseAddrPort("192.0.2.7:4711")
	for _, text := range [][4]string{
		{"edge.test:8443", "/ws/ü", "chat.v2", "id-1"},
		{"", "", "", ""},
		{"h", "", "", "r"},
		{"", "/", "p", ""},
		{strings.Repeat("h", 70000), strings.Repeat("/p", 70000), "p", strings.Repeat("r", 200)},
	} {
		for _, client := range []string{"192.0.2.7", "203.0.113.9", "2001:db8::1"} {
			in := SessionInfo{Client: peer, ClientIP: netip.MustParseAddr(client), Host: text[0], Path: text[1], Subprotocol: text[2], RequestID: text[3]}
			s := newSession(p, nil, &in)
			got := s.Info()
			if age := time.Since(got.Opened); age < 0 || age > time.Minute {
				t.Errorf("opened %v ago", age)
			}
			if SessionNumber(got.ID) != s.number {
				t.Errorf("ID %q is not that of %d", got.ID, s.number)
			}
			in.Listener, in.Route, in.Pool, in.ID, in.Opened = "edge", "chat", "apps", got.ID, got.Opened
			if got != in {
				t.Errorf("got %.200q\nwant %.200q", []string{got.Host, got.Path, got.Subprotocol, got.RequestID}, text)
			}
		}
	}
	for _, id := range []string{"", "nonsense", "0000000000000", "+eaw4yiv4b8jm", strings.ToUpper(sessionID(srv.ids.new())), sessionID(1) + "0"} {
		if n := SessionNumber(id); n != 0 {
			t.Errorf("%q is the ID of session %d", id, n)
		}
	}
}

// TestSessionIsSmall is what the edge knows of a session, beside what its engine does.
func TestSessionIsSmall(t *testing.T) {
	const sessions, most = 1000, 256
	srv := NewServer(zap.NewNop())
	p := &place{srv: srv, listener: "edge", route: "chat", pool: "apps"}
	peer := netip.MustParseAddrPort("192.0.2.7:4711")
	in := func() *SessionInfo { // that of a client behind a proxy, as a handshake makes it
		return &SessionInfo{Client: peer, ClientIP: netip.MustParseAddr("203.0.113.9"), Host: "edge.test:8443", Path: "/", RequestID: strings.Repeat("r", 32)}
	}
	kept := make([]*Session, sessions)
	held := func() uint64 {
		var m runtime.MemStats
		runtime.GC() // what others leave behind may live through the first one
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := int64(held())
	for i := range kept {
		kept[i] = newSession(p, nil, in())
	}
	each := (int64(held()) - before) / sessions
	runtime.KeepAlive(kept)
	if each > most || each < int64(unsafe.Sizeof(Session{})) {
		t.Errorf("a session holds %d bytes, want at most %d", each, most)
	}
}
