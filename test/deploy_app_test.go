package test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// The app servers of deploys, in Go and in JavaScript (npm/deploy.js), hold conversations
// that outlive them: the client numbers what it says, whoever answers.
//
//	client                      app
//	m 1 …  ──────────────────►
//	       ◄──────────────────  m 1 …            the same bytes again
//	       ◄──────────────────  p CONN 1 …       of its own accord; each connection counts anew
//	done N ──────────────────►  it says nothing more of its own accord
//	       ◄──────────────────  done CONN M      after p CONN M
//
// The query has the number of the client, how many milliseconds the app lets pass between
// two pushes (every), and whether each message is to be one frame (whole). On SIGTERM an app
// sends Close 1012 to everybody and exits once they have gone. Everything is written to a
// journal, a line at a time, so that also SIGKILL leaves it complete:
//
//	open CONN CLIENT ATTEMPT    a handshake; ATTEMPT is 0 without Tidegate-Attempt
//	got CONN N                  message N has come
//	push CONN N MS              push N was sent, at this Unix time
//	late CONN N MS              message N was not answered, because of a Close; it came so long ago
//	end CONN M                  the connection is over; M pushes were sent before the app's Close
const (
	deployEnv        = "TIDEGATE_TEST_DEPLOY"
	deployJournalEnv = "TIDEGATE_TEST_JOURNAL"
)

// deployServer is the inside of an app server in Go.
type deployServer struct {
	name    string
	journal *os.File
	opened  atomic.Int64

	mu       sync.Mutex
	conns    map[*deployConn]bool
	stopping bool
}

// runDeployApp serves until stdin ends or SIGTERM comes.
func runDeployApp(name, journal string) int {
	s := &deployServer{name: name, conns: map[*deployConn]bool{}}
	var err error
	if s.journal, err = os.OpenFile(journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println(ln.Addr())
	go http.Serve(ln, http.HandlerFunc(s.serve))
	orphaned := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(orphaned) }()
	select {
	case <-term:
		ln.Close()
		s.leave()
	case <-orphaned:
	}
	return 0
}

func (s *deployServer) note(words ...any) { s.journal.WriteString(fmt.Sprintln(words...)) }

// leave tells everybody that the app restarts, and waits until they have gone.
func (s *deployServer) leave() {
	s.mu.Lock()
	s.stopping = true
	for c := range s.conns {
		go c.close(websocket.CloseServiceRestart, "restarting")
	}
	s.mu.Unlock()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		left := len(s.conns)
		s.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// deployConn is one connection of an app server. What has no other word is guarded by mu,
// which is held for the whole of a message: a Close comes between two.
type deployConn struct {
	id   string
	conn *websocket.Conn
	mu   sync.Mutex

	whole        bool
	pushed       uint64
	silent, shut bool
}

func (s *deployServer) serve(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	attempt := r.Header.Get("Tidegate-Attempt")
	if attempt == "" {
		attempt = "0"
	}
	// A buffer so small makes several frames of a message that is not written at once.
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, ReadBufferSize: 1 << 10, WriteBufferSize: 16}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &deployConn{id: fmt.Sprintf("%s/%d", s.name, s.opened.Add(1)), conn: conn, whole: query.Has("whole")}
	s.note("open", c.id, query.Get("client"), attempt)
	conn.SetCloseHandler(func(code int, _ string) error { c.close(code, ""); return nil })
	s.mu.Lock()
	s.conns[c] = true
	stopping := s.stopping
	s.mu.Unlock()
	if stopping {
		c.close(websocket.CloseServiceRestart, "restarting")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var pushing sync.WaitGroup
	every, _ := strconv.Atoi(query.Get("every"))
	pushing.Go(func() { s.push(ctx, c, time.Duration(every)*time.Millisecond) })
	s.answer(c)
	cancel()
	pushing.Wait()
	s.note("end", c.id, c.pushed)
	conn.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// answer reads until the connection ends.
func (s *deployServer) answer(c *deployConn) {
	for {
		_, p, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		came := time.Now()
		kind, rest, _ := strings.Cut(string(p), " ")
		n, _, _ := strings.Cut(rest, " ")
		if kind != "done" {
			s.note("got", c.id, n)
		}
		c.mu.Lock()
		if kind == "done" {
			c.silent = true
			p = fmt.Appendf(nil, "done %s %d", c.id, c.pushed)
		}
		err = websocket.ErrCloseSent
		if !c.shut {
			err = c.conn.WriteMessage(websocket.TextMessage, p)
		}
		c.mu.Unlock()
		if err != nil && kind != "done" {
			s.note("late", c.id, n, time.Since(came).Milliseconds())
		}
	}
}

// push speaks of its own accord until ctx is done.
func (s *deployServer) push(ctx context.Context, c *deployConn, every time.Duration) {
	wait := time.NewTimer(rand.N(every))
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
			wait.Reset(every/2 + rand.N(every))
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		n := c.pushed + 1
		if c.silent || c.shut || c.send(n) != nil {
			c.mu.Unlock()
			return
		}
		c.pushed = n
		c.mu.Unlock()
		s.note("push", c.id, n, time.Now().UnixMilli())
	}
}

// send writes push n, some in several frames with a pause between them.
func (c *deployConn) send(n uint64) error {
	p := fmt.Appendf(nil, "p %s %d %s", c.id, n, pad(n))
	if n%8 != 5 || c.whole {
		return c.conn.WriteMessage(websocket.TextMessage, p)
	}
	w, err := c.conn.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	w.Write(p[:20])
	time.Sleep(rand.N(20 * time.Millisecond)) // the message is under way for so long
	w.Write(p[20:])
	return w.Close()
}

// close sends a Close, or the answer to one, between two messages.
func (c *deployConn) close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shut {
		c.shut = true
		c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(soon))
	}
}

// deployApp is an app server's process.
type deployApp struct {
	*talker
	npm     bool
	journal string // its path
}

// newDeployApp starts an app server in Go or JavaScript.
func newDeployApp(t *testing.T, name string, npm bool) *deployApp {
	t.Helper()
	a := &deployApp{npm: npm, journal: filepath.Join(t.TempDir(), name+".journal")}
	cmd := exec.Command("node", "deploy.js", name, a.journal)
	cmd.Dir = "npm"
	if !npm {
		self, err := os.Executable()
		must(t, err)
		cmd = exec.Command(self)
		cmd.Env = append(os.Environ(), deployEnv+"="+name, deployJournalEnv+"="+a.journal)
	}
	a.talker = launch(t, name, cmd)
	return a
}

// restart ends the process as an operator does, with SIGTERM.
func (a *deployApp) restart() {
	if !a.dead {
		a.dead = true
		a.cmd.Process.Signal(syscall.SIGTERM)
		a.cmd.Wait()
	}
}

func (a *deployApp) kind() string { return pickOf(a.npm, "go", "npm") }
