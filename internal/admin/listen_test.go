package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// socketPath is short: the path of a socket has room for about a hundred bytes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "a.sock")
}

func TestUnixSocket(t *testing.T) {
	path := socketPath(t)
	s := start(t, Options{Address: "unix:" + path})
	if s.Addr() != "unix:"+path {
		t.Errorf("address %q", s.Addr())
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	for headers, want := range map[string]int{
		"Host: anything.example": 200,
		"Host: ":                 200,
		"Host: a.example\nOrigin: https://evil.example":    403,
		"Host: a.example\nSec-Fetch-Site: cross-site":      403,
		"Host: a.example\nOrigin: http://a.example":        200,
		"Host: a.example\nOrigin: http://evil.a.example:1": 403,
	} {
		if got := ask(t, s, "GET /api/v1/status\n"+headers); got.status != want {
			t.Errorf("%q: status %d, want %d", headers, got.status, want)
		}
	}
}

// The mode must hold from the moment at which the socket has a name.
func TestUnixSocketIsNeverOpenToOthers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the mode of a socket's descriptor means nothing here")
	}
	path := socketPath(t)
	l, err := bindUnix(path) // listenUnix before its chmod
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
}

// Any answer but a refusal means that somebody has the socket.
func TestSocketOfAnotherKindIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	other, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := New(Options{Address: "unix:" + path, Edge: newFakeEdge()})
	if err := s.Listen(); err == nil {
		s.Close()
		t.Error("it took the place of another socket")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other socket is gone: %v", err)
	}
}

func TestStaleSocket(t *testing.T) {
	path := socketPath(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as a process leaves it that was killed
	dead.Close()
	s := start(t, Options{Address: "unix:" + path})
	if got := ask(t, s, "GET /livez"); got.status != 200 {
		t.Errorf("status %d", got.status)
	}
}

func TestSocketInUse(t *testing.T) {
	path := socketPath(t)
	s := start(t, Options{Address: "unix:" + path})
	second := New(Options{Address: "unix:" + path, Edge: newFakeEdge()})
	if err := second.Listen(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second server: %v", err)
	}
	if got := ask(t, s, "GET /livez"); got.status != 200 {
		t.Errorf("the first one answers %d", got.status)
	}
}

func TestPathThatIsNoSocket(t *testing.T) {
	path := socketPath(t)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Address: "unix:" + path, Edge: newFakeEdge()})
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("Listen: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// The socket goes with the server, so that the next one finds nothing stale.
func TestSocketIsRemovedAtTheEnd(t *testing.T) {
	path := socketPath(t)
	s := New(Options{Address: "unix:" + path, Edge: newFakeEdge()})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, address := range []string{
		taken.Addr().String(), "127.0.0.1", "127.0.0.1:port", "unix:", "unix:@abstract",
		"unix:" + filepath.Join(t.TempDir(), "no", "such", "directory"),
	} {
		s := New(Options{Address: address, Edge: newFakeEdge()})
		if err := s.Listen(); err == nil {
			t.Errorf("%q: no error", address)
			s.Close()
		} else if !strings.Contains(err.Error(), address) {
			t.Errorf("the error does not name %q: %v", address, err)
		}
		if s.Addr() != "" {
			t.Errorf("%q: address %q after a failure", address, s.Addr())
		}
		if err := s.Run(context.Background()); err == nil {
			t.Errorf("%q: Run went on", address)
		}
	}
}

func TestClose(t *testing.T) {
	s := New(Options{Address: "127.0.0.1:0", Edge: newFakeEdge()})
	if err := s.Close(); err != nil {
		t.Errorf("before Listen: %v", err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("after Listen: %v", err)
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

func TestWarnsOfAnOpenAddress(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	writeToken(t, token, "secret")
	for _, tt := range []struct {
		opts Options
		want int
	}{
		{Options{Address: "0.0.0.0:0"}, 1},
		{Options{Address: "0.0.0.0:0", TokenFile: token}, 0},
		{Options{Address: "127.0.0.1:0"}, 0},
		{Options{Address: "unix:" + socketPath(t)}, 0},
	} {
		core, logged := observer.New(zap.WarnLevel)
		tt.opts.Log = zap.New(core)
		s := New(tt.opts)
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if logged.Len() != tt.want {
			t.Errorf("%v: %d warnings, want %d", tt.opts.Address, logged.Len(), tt.want)
		}
	}
}

// A request that is being answered when Run ends is still answered.
func TestGracefulEnd(t *testing.T) {
	edge := newFakeEdge()
	begun, finish := make(chan struct{}), make(chan struct{})
	edge.reload = func(context.Context) (uint64, error) {
		close(begun)
		<-finish
		return 9, nil
	}
	s := New(Options{Address: "127.0.0.1:0", Edge: edge})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	answered := make(chan answer, 1)
	go func() { answered <- ask(t, s, "POST /api/v1/reload") }()
	<-begun
	cancel()
	close(finish)
	if got := <-answered; got.status != 200 || got.body != `{"generation":9}`+"\n" {
		t.Errorf("status %d: %s", got.status, got.body)
	}
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestSlowHeader runs the server on pipes under a fake clock: who does not finish a
// request head is cut off, and who says nothing after a request too.
func TestSlowHeader(t *testing.T) {
	for name, tt := range map[string]struct {
		sent  string
		after time.Duration
	}{
		"nothing":        {"", readHeaderTimeout},
		"half a head":    {"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A", readHeaderTimeout},
		"idle keepalive": {"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipeListener()
				s := New(Options{Address: "127.0.0.1:0", Edge: newFakeEdge()})
				s.serveOn(l)
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- s.Run(ctx) }()
				client, server := net.Pipe()
				l.conns <- server
				begun := time.Now()
				go func() { _, _ = io.WriteString(client, tt.sent) }()
				if _, err := io.Copy(io.Discard, client); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took < tt.after || took > tt.after+time.Second {
					t.Errorf("the connection ended after %v, want %v", took, tt.after)
				}
				client.Close()
				cancel()
				if err := <-ran; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// pipeListener hands out the connections that a test puts into it.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// A request that does not end is cut off after a moment's grace, on a fake clock.
func TestEndWithoutGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edge := newFakeEdge()
		edge.reload = func(ctx context.Context) (uint64, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		l := newPipeListener()
		s := New(Options{Address: "127.0.0.1:0", Edge: edge})
		s.serveOn(l)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx) }()
		client, server := net.Pipe()
		defer client.Close()
		l.conns <- server
		if _, err := io.WriteString(client, "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ended := time.Now()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(ended); took < shutdownGrace || took > shutdownGrace+time.Second {
			t.Errorf("Run ended after %v, want %v", took, shutdownGrace)
		}
	})
}

func TestSocketFails(t *testing.T) {
	l := newPipeListener()
	s := New(Options{Address: "127.0.0.1:0", Edge: newFakeEdge()})
	s.serveOn(l)
	l.Close()
	if err := s.Run(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}
