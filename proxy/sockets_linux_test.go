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

// socketOption finds the socket of this process that leads from one address to another,
// and returns one of its options.
func socketOption(t *testing.T, local, remote string, level, option int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		fd, _ := strconv.Atoi(entry.Name())
		from, err1 := unix.Getsockname(fd)
		to, err2 := unix.Getpeername(fd)
		if err1 == nil && err2 == nil && addressOf(from) == local && addressOf(to) == remote {
			v, err := unix.GetsockoptInt(fd, level, option)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no socket from %s to %s", local, remote)
	return 0
}

func addressOf(a unix.Sockaddr) string {
	if in, ok := a.(*unix.SockaddrInet4); ok {
		return net.JoinHostPort(net.IP(in.Addr[:]).String(), strconv.Itoa(in.Port))
	}
	return ""
}

// TestSocketOptions looks at the sockets of both legs of a session.
func TestSocketOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		tcp       TCPSettings
		alive     int
		idle      int
		user      int
		hasBuffer bool
	}{
		{"set", TCPSettings{Keepalive: 17 * time.Second, UserTimeout: 23 * time.Second, ReceiveBuffer: 8 << 10, SendBuffer: 16 << 10}, 1, 17, 23000, true},
		{"off", TCPSettings{}, 0, 0, 0, false},
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
					option := func(level, option int) int { return socketOption(t, leg[0], leg[1], level, option) }
					if got := option(unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != tt.alive {
						t.Errorf("%s: SO_KEEPALIVE is %d", name, got)
					}
					if tt.alive == 1 {
						if idle, every := option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL); idle != tt.idle || every != tt.idle {
							t.Errorf("%s: TCP_KEEPIDLE is %d, TCP_KEEPINTVL %d", name, idle, every)
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
	if res := waiting.response(); res.StatusCode != 426 {
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
