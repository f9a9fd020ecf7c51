package test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A conversation is numbered both ways, and each side checks that what it gets has no
// gap, no repetition and nothing out of order:
//
//	client                      talker
//	m 1 …  ──────────────────►  m 1 is expected
//	       ◄──────────────────  m 1 …            the same bytes again
//	       ◄──────────────────  p 1 …            of its own accord, at its own pace
//	done N ──────────────────►  N were expected; it says nothing more of its own accord
//	       ◄──────────────────  done M           after p M

// talkerEnv makes a process of this test binary a talker: an app server that can be
// killed as one.
const talkerEnv = "TIDEGATE_TEST_TALKER"

// pad is the content of message n: mostly short, sometimes of the lengths that need the
// longer frame headers (RFC 6455 §5.2).
func pad(n uint64) string {
	size := 32
	switch {
	case n%128 == 77:
		size = 70_000
	case n%16 == 9:
		size = 300
	}
	return strings.Repeat(string(rune('a'+n%26)), size)
}

func line(kind string, n uint64) []byte {
	return []byte(kind + " " + strconv.FormatUint(n, 10) + " " + pad(n))
}

// parseLine takes a message apart; ok says that its content is what its number asks for.
func parseLine(p []byte) (kind string, n uint64, ok bool) {
	kind, rest, _ := strings.Cut(string(p), " ")
	digits, content, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(digits, 10, 64)
	return kind, n, err == nil && (kind == "done" || content == pad(n))
}

// talkerStats are what a talker counted.
type talkerStats struct {
	Live     int64
	Messages uint64
	Wrong    []string // what did not follow the rules of a conversation
}

// talkerServer is the inside of a talker.
type talkerServer struct {
	name     string
	live     atomic.Int64
	messages atomic.Uint64
	mu       sync.Mutex
	wrong    []string
}

// runTalker serves until stdin ends, as it does when the tests die.
func runTalker(name string) int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s := &talkerServer{name: name}
	mux := http.NewServeMux()
	mux.HandleFunc("/stats", s.stats)
	mux.HandleFunc("/", s.talk)
	go http.Serve(ln, mux)
	fmt.Println(ln.Addr())
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func (s *talkerServer) stats(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	json.NewEncoder(w).Encode(talkerStats{s.live.Load(), s.messages.Load(), s.wrong})
}

func (s *talkerServer) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) < 20 {
		s.wrong = append(s.wrong, s.name+": "+fmt.Sprintf(format, args...))
	}
}

// talk holds one conversation. Its query says how often the talker speaks of its own
// accord.
func (s *talkerServer) talk(w http.ResponseWriter, r *http.Request) {
	every, _ := time.ParseDuration(r.URL.Query().Get("every"))
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10}
	c, err := up.Upgrade(w, r, http.Header{"X-App": {s.name}})
	if err != nil {
		return
	}
	s.live.Add(1)
	out := &talkerOut{conn: c}
	stop := make(chan struct{})
	var pushing sync.WaitGroup
	if every > 0 {
		pushing.Go(func() { out.push(every, stop) })
	}
	defer func() {
		close(stop)
		c.Close()
		pushing.Wait()
		s.live.Add(-1)
	}()
	var got uint64
	for done := false; ; {
		_, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		kind, n, ok := parseLine(p)
		switch {
		case !ok || done:
			s.fault("%s got %.40q after %d messages", r.URL, p, got)
		case kind == "done":
			done = true
			if n != got {
				s.fault("%s got %d messages of %d", r.URL, got, n)
			}
			out.done()
		case kind != "m" || n != got+1:
			s.fault("%s got %.40q after message %d", r.URL, p, got)
		default:
			got++
			s.messages.Add(1)
			out.write(p)
		}
	}
}

// talkerOut is the writing side of a talker's conversation.
type talkerOut struct {
	mu     sync.Mutex
	conn   *websocket.Conn
	pushed uint64
	silent bool
}

func (o *talkerOut) write(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conn.WriteMessage(websocket.TextMessage, p) // the reader notices
}

func (o *talkerOut) push(every time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		o.mu.Lock()
		if o.silent || o.conn.WriteMessage(websocket.TextMessage, line("p", o.pushed+1)) != nil {
			o.mu.Unlock()
			return
		}
		o.pushed++
		o.mu.Unlock()
	}
}

func (o *talkerOut) done() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.silent = true
	o.conn.WriteMessage(websocket.TextMessage, []byte("done "+strconv.FormatUint(o.pushed, 10)))
}

// talker is a talker's process.
type talker struct {
	t          *testing.T
	name, addr string
	port       int
	cmd        *exec.Cmd
	dead       bool
}

func newTalker(t *testing.T, name string) *talker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), talkerEnv+"="+name)
	return launch(t, name, cmd)
}

// launch starts the process of an app server, which says its address first and ends when
// stdin does.
func launch(t *testing.T, name string, cmd *exec.Cmd) *talker {
	t.Helper()
	b := &talker{t: t, name: name, cmd: cmd}
	b.cmd.Stderr = os.Stderr
	stdin, err := b.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.kill(); stdin.Close() })
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("talker %s: %v", name, err)
	}
	b.addr = strings.TrimSpace(addr)
	_, port, _ := net.SplitHostPort(b.addr)
	b.port, _ = strconv.Atoi(port)
	return b
}

// kill ends the process with SIGKILL.
func (b *talker) kill() {
	if !b.dead {
		b.dead = true
		b.cmd.Process.Kill()
		b.cmd.Wait()
	}
}

// stats asks the process, past the edge.
func (b *talker) stats() (s talkerStats) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.addr+"/stats", nil)
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatalf("talker %s: %v", b.name, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		b.t.Fatalf("talker %s: %v", b.name, err)
	}
	return s
}
