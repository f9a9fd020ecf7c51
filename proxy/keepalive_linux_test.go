package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// silence plays tcp_keepalive_timer of Linux for a peer that never answers, with timers
// that fire late by a part of their time. It returns how many probes the peer gets and
// when the connection ends.
func silence(c net.KeepAliveConfig, user time.Duration, late float64) (probes int, end time.Duration) {
	fires := func(d time.Duration) time.Duration { return d + time.Duration(late*float64(d)) }
	for now := fires(c.Idle); ; now += fires(c.Interval) {
		if user > 0 && now >= user && probes > 0 || user == 0 && probes >= c.Count {
			return probes, now
		}
		probes++
	}
}

// timersLate is by how much a timer of Linux fires late at most, as a part of its time: a
// level of the wheel begins at 63 times its granularity, and is eight times as coarse as
// the one before (kernel/time/timer.c).
const timersLate = 8. / 63

// TestProbes holds what is chosen for a connection against the kernel's rule.
func TestProbes(t *testing.T) {
	const s = time.Second
	tests := []struct {
		keepalive, user time.Duration
		early, often    float64
		want            net.KeepAliveConfig
		probes          int
		end             time.Duration
	}{
		{30 * s, 60 * s, 0, 0, net.KeepAliveConfig{Enable: true, Idle: 30 * s, Interval: 7 * s, Count: 4}, 5, 65 * s},
		{30 * s, 60 * s, .999, 0, net.KeepAliveConfig{Enable: true, Idle: 27 * s, Interval: 8 * s, Count: 4}, 5, 67 * s},
		{30 * s, 60 * s, .5, 0, net.KeepAliveConfig{Enable: true, Idle: 28 * s, Interval: 8 * s, Count: 4}, 4, 60 * s},
		{30 * s, 60 * s, 0, .999, net.KeepAliveConfig{Enable: true, Idle: 30 * s, Interval: 3 * s, Count: 10}, 10, 60 * s},
		{30 * s, 60 * s, .999, .5, net.KeepAliveConfig{Enable: true, Idle: 27 * s, Interval: 5 * s, Count: 6}, 7, 62 * s},
		{30 * s, 45 * s, 0, 0, net.KeepAliveConfig{Enable: true, Idle: 30 * s, Interval: 3 * s, Count: 5}, 5, 45 * s},
		{1 * s, 5 * s, .999, 0, net.KeepAliveConfig{Enable: true, Idle: 1 * s, Interval: 1 * s, Count: 4}, 4, 5 * s},
		{1500 * time.Millisecond, 5500 * time.Millisecond, 0, 0, net.KeepAliveConfig{Enable: true, Idle: 2 * s, Interval: 1 * s, Count: 4}, 4, 6 * s},
		{10 * s, 0, 0, 0, net.KeepAliveConfig{Enable: true, Idle: 10 * s, Interval: 10 * s, Count: 3}, 3, 40 * s},
		{10 * s, 0, .999, 0, net.KeepAliveConfig{Enable: true, Idle: 9 * s, Interval: 10 * s, Count: 3}, 3, 39 * s},
		// Package config refuses these two. Nothing helps them.
		{30 * s, 32 * s, 0, 0, net.KeepAliveConfig{Enable: true, Idle: 30 * s, Interval: 1 * s, Count: 4}, 2, 32 * s},
		{30 * s, 20 * s, 0, 0, net.KeepAliveConfig{Enable: true, Idle: 30 * s, Interval: 1 * s, Count: 4}, 1, 31 * s},
	}
	for _, tt := range tests {
		got := TCPSettings{Keepalive: tt.keepalive, UserTimeout: tt.user}.probes(tt.early, tt.often)
		if got != tt.want {
			t.Errorf("keepalive %v, user timeout %v, %v early, %v often: got %+v, want %+v", tt.keepalive, tt.user, tt.early, tt.often, got, tt.want)
		}
		if n, end := silence(got, tt.user, 0); n != tt.probes || end != tt.end {
			t.Errorf("%+v, user timeout %v: ends after %v and %d probes, want %v and %d", got, tt.user, end, n, tt.end, tt.probes)
		}
	}
	if c := (TCPSettings{UserTimeout: 60 * s}).probes(.5, .5); c.Enable {
		t.Errorf("without keepalive: %+v", c)
	}
}

// TestProbesOfAnySettings goes through what package config accepts, with timers on time
// and as late as they can be: three probes and more have to be lost.
func TestProbesOfAnySettings(t *testing.T) {
	for keepalive := time.Second; keepalive < 2*time.Hour; keepalive += max(keepalive/7, 300*time.Millisecond) {
		least := max(keepalive+4*time.Second, keepalive*3/2)
		for _, user := range []time.Duration{least, least + 900*time.Millisecond, 2 * least, 10 * least} {
			for _, share := range []struct{ early, often, late float64 }{
				{0, 0, 0}, {0, 0, timersLate}, {0, .999, timersLate}, {.5, .5, timersLate},
				{.999, 0, 0}, {.999, 0, timersLate}, {.999, .999, 0}, {.999, .999, timersLate},
			} {
				c := TCPSettings{Keepalive: keepalive, UserTimeout: user}.probes(share.early, share.often)
				n, end := silence(c, user, share.late)
				if most := user + user/3; n < 3 || end < user || end > most {
					t.Errorf("keepalive %v, user timeout %v, %+v: %+v ends after %v and %d probes", keepalive, user, share, c, end, n)
				}
			}
		}
	}
}

// TestLostProbes has keepalive probes get lost on legs of sessions that are silent: a
// session outlives three in a row on both, and ends when a side never answers.
func TestLostProbes(t *testing.T) {
	t.Parallel()
	t.Run("three", func(t *testing.T) {
		t.Parallel()
		s := startSilent(t)
		hearClient, hearBackend := deafen(t, s.client), deafen(t, s.backend)
		s.edge.eventually("three probes of each leg are lost", func() bool {
			return s.toClient.unanswered(t) >= 3 && s.toBackend.unanswered(t) >= 3
		})
		hearClient()
		hearBackend()
		s.edge.eventually("probes of each leg are answered", func() bool {
			return s.toClient.unanswered(t) == 0 && s.toBackend.unanswered(t) == 0
		})
		s.client.send(clientFrame(ws.OpText, "still here"))
		s.backend.wantText("still here")
		s.backend.send(serverFrame(ws.OpText, "so am I"))
		s.client.wantText("so am I")
	})
	for _, side := range []string{"client", "backend"} {
		t.Run("all of the "+side, func(t *testing.T) {
			t.Parallel()
			s := startSilent(t)
			deaf, socket := s.client, s.toClient
			if side == "backend" {
				deaf, socket = s.backend, s.toBackend
			}
			deafen(t, deaf)
			lost := 0
			s.edge.eventually("the socket is gone", func() bool {
				n, open := socket.probes()
				lost = max(lost, n)
				return !open
			})
			if lost < 3 {
				t.Errorf("ended after %d probes", lost)
			}
			s.edge.eventually("the session is over", func() bool { return s.edge.logs.FilterMessage("session ended").Len() == 1 })
			line := s.edge.logs.FilterMessage("session ended").All()[0].ContextMap()
			if err := fmt.Sprint(line[side+"_error"]); line["cause"] != side+"_gone" || !strings.Contains(err, syscall.ETIMEDOUT.Error()) {
				t.Errorf("logged cause %v, %s", line["cause"], err)
			}
		})
	}
}

// silentSession is a session, its far ends, and the edge's sockets that lead to them.
type silentSession struct {
	edge                *testEdge
	client, backend     *rawConn
	toClient, toBackend edgeSocket
}

// startSilent opens a session whose sides leave it to the test to say something. Its
// settings would end it after two probes if these were no closer than the idle time.
func startSilent(t *testing.T) *silentSession {
	t.Helper()
	backends := make(chan *rawConn, 1)
	b := startRaw(t, func(c *rawConn, r *http.Request) {
		c.send(switching(r))
		backends <- c
		<-t.Context().Done()
	})
	settings := defaults(b.addr)
	settings.Listeners[0].TCP = TCPSettings{Keepalive: 3 * time.Second, UserTimeout: 8 * time.Second}
	settings.Routes[0].WebSocket.CloseTimeout = 100 * time.Millisecond
	e := startEdge(t, settings)
	s := &silentSession{edge: e, client: e.open("/"), backend: <-backends}
	s.toClient = findSocket(t, e.addr(), s.client.LocalAddr().String())
	s.toBackend = findSocket(t, s.backend.RemoteAddr().String(), b.addr)
	return s
}

// unanswered is how many probes in a row got no answer. The socket must be open still.
func (s edgeSocket) unanswered(t *testing.T) int {
	t.Helper()
	n, open := s.probes()
	if !open {
		t.Fatalf("the socket from %s to %s is gone", s.local, s.remote)
	}
	return n
}

// probes is how many probes in a row got no answer, while the socket is open.
func (s edgeSocket) probes() (n int, open bool) {
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || !s.open() {
		return 0, false
	}
	return int(info.Probes), true
}

// deafen has a connection lose all that comes, as if the network had, until the function
// that it returns is called. For its socket filter most kernels ask for no privilege.
func deafen(t *testing.T, c *rawConn) (hear func()) {
	t.Helper()
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	control := func(f func(fd int) error) {
		t.Helper()
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
			t.Fatal(cerr)
		}
		switch {
		case errors.Is(err, unix.EPERM) && os.Geteuid() != 0:
			t.Skip("this kernel wants CAP_NET_ADMIN for a socket filter")
		case err != nil:
			t.Fatal(err)
		}
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	})
	return func() {
		t.Helper()
		control(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })
	}
}
