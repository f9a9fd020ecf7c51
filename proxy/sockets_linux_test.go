package proxy

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// edgeSocket is a socket of this process, by its descriptor and the addresses that it
// leads from and to.
type edgeSocket struct {
	fd            int
	local, remote string
}

// findSocket finds the socket that leads from one address to another.
func findSocket(t *testing.T, local, remote string) edgeSocket {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		fd, _ := strconv.Atoi(entry.Name())
		if s := (edgeSocket{fd, local, remote}); s.open() {
			return s
		}
	}
	t.Fatalf("no socket from %s to %s", local, remote)
	return edgeSocket{}
}

// open reports whether the descriptor still is that of a connection between the two.
func (s edgeSocket) open() bool {
	from, err1 := unix.Getsockname(s.fd)
	to, err2 := unix.Getpeername(s.fd)
	return err1 == nil && err2 == nil && addressOf(from) == s.local && addressOf(to) == s.remote
}

func (s edgeSocket) option(t *testing.T, level, option int) int {
	t.Helper()
	v, err := unix.GetsockoptInt(s.fd, level, option)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func addressOf(a unix.Sockaddr) string {
	if in, ok := a.(*unix.SockaddrInet4); ok {
		return net.JoinHostPort(net.IP(in.Addr[:]).String(), strconv.Itoa(in.Port))
	}
	return ""
}

func outside(n int, bounds [2]int) bool { return n < bounds[0] || n > bounds[1] }

// TestSocketOptions looks at the sockets of both legs of a session.
func TestSocketOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		tcp       TCPSettings
		alive     int
		idle      [2]int // seconds, from and to
		interval  [2]int // seconds, from and to
		count     [2]int
		user      int // milliseconds
		hasBuffer bool
	}{
		{"set", TCPSettings{Keepalive: 7 * time.Second, UserTimeout: 23 * time.Second, ReceiveBuffer: 8 << 10, SendBuffer: 16 << 10},
			1, [2]int{7, 7}, [2]int{2, 4}, [2]int{4, 8}, 23000, true},
		{"defaults", TCPSettings{Keepalive: 30 * time.Second, UserTimeout: time.Minute},
			1, [2]int{27, 30}, [2]int{3, 8}, [2]int{4, 11}, 60000, false},
		{"close", TCPSettings{Keepalive: time.Second, UserTimeout: 5 * time.Second},
			1, [2]int{1, 1}, [2]int{1, 1}, [2]int{4, 4}, 5000, false},
		{"no user timeout", TCPSettings{Keepalive: 41500 * time.Millisecond},
			1, [2]int{38, 42}, [2]int{42, 42}, [2]int{3, 3}, 0, false},
		{"no probes", TCPSettings{UserTimeout: 23 * time.Second}, 0, [2]int{}, [2]int{}, [2]int{}, 23000, false},
		{"off", TCPSettings{}, 0, [2]int{}, [2]int{}, [2]int{}, 0, false},
	}
	for _, secure := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, tls %v", tt.name, secure), func(t *testing.T) {
				peer := make(chan string, 1)
				b := startRaw(t, func(c *rawConn, r *http.Request) {
					peer <- c.RemoteAddr().String()
					c.send(switching(r))
					c.rest()
				})
				settings := defaults(b.addr)
				settings.Listeners[0].TCP = tt.tcp
				e, dial := startEither(t, secure, settings)
				c := dial()
				c.send(upgradeRequest("/"))
				c.upgraded()
				e.session(c) // its sockets are those that it keeps
				legs := map[string][2]string{
					"client":  {e.addr(), c.LocalAddr().String()},
					"backend": {<-peer, b.addr},
				}
				for name, leg := range legs {
					socket := findSocket(t, leg[0], leg[1])
					option := func(level, option int) int { return socket.option(t, level, option) }
					if got := option(unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != tt.alive {
						t.Errorf("%s: SO_KEEPALIVE is %d", name, got)
					}
					if tt.alive == 1 {
						idle, interval, count := option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
						if outside(idle, tt.idle) || outside(interval, tt.interval) || outside(count, tt.count) {
							t.Errorf("%s: TCP_KEEPIDLE is %d, TCP_KEEPINTVL %d, TCP_KEEPCNT %d", name, idle, interval, count)
						}
					}
					if got := option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got != tt.user {
						t.Errorf("%s: TCP_USER_TIMEOUT is %d", name, got)
					}
					if !tt.hasBuffer {
						continue
					}
					// The kernel doubles what it is told, for its own bookkeeping.
					if in, out := option(unix.SOL_SOCKET, unix.SO_RCVBUF), option(unix.SOL_SOCKET, unix.SO_SNDBUF); in != 16<<10 || out != 32<<10 {
						t.Errorf("%s: SO_RCVBUF is %d, SO_SNDBUF %d", name, in, out)
					}
				}
			})
		}
	}
}

// descriptorsEnv tells the test binary to be the process that runs out of descriptors.
const descriptorsEnv = "TIDEGATE_TEST_DESCRIPTORS"

// TestOutOfDescriptors runs itself in a process with few descriptors.
func TestOutOfDescriptors(t *testing.T) {
	if os.Getenv(descriptorsEnv) != "" {
		outOfDescriptors(t)
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), descriptorsEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestOutOfDescriptors") {
		t.Errorf("%v\n%s", err, out)
	}
}

// outOfDescriptors has accept fail for want of descriptors: the listener parks, sessions
// go on, and when there are descriptors again the connections that waited are served.
func outOfDescriptors(t *testing.T) {
	e := startEdge(t, defaults(echoBackend(t)))
	session := e.open("/")

	limit := unix.Rlimit{}
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 200
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		t.Fatal("there was no descriptor to begin with")
	}
	// A session takes four here, both ends of either leg; the copies that a loop wants are
	// not always to be had.
	for n := 4; n <= 7; n++ {
		for _, f := range files[:n] {
			f.Close()
		}
		c := e.open("/")
		c.alive()
		c.Close()
		e.eventually("the session is over", func() bool { return e.Totals().Live == 1 })
		for i := range files[:n] {
			e.eventually("its descriptors are free", func() bool {
				files[i], err = os.Open(os.DevNull)
				return err == nil
			})
		}
	}
	// One is left for the client's own end.
	files[0].Close()
	waiting := dialRaw(t, e.addr())
	waiting.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	e.eventually("accepting is paused", func() bool { return e.Totals().Shed["accept_error"] > 0 })
	session.send(clientFrame(1, "still here"))
	session.wantText("still here")

	for _, f := range files[1:] {
		f.Close()
	}
	if res := waiting.response(); res.StatusCode != 400 {
		t.Errorf("got %s", res.Status)
	}
	lines := e.logs.FilterMessage("accepting is paused").All()
	if len(lines) != 1 || lines[0].ContextMap()["out_of_descriptors"] != true {
		t.Errorf("logged %v, want one line", lines)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}
