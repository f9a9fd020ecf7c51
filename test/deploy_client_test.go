package test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
)

// deployClient is a client of the apps of deploy_app_test.go. It notices what is doubled, out
// of order or altered; what is missing it notes, for the journals to explain.
type deployClient struct {
	number int
	end    *rawEnd
	pace   time.Duration
	ended  chan struct{} // closed: reading is over

	mu       sync.Mutex // held for the whole of a message that is sent
	sent     atomic.Uint64
	finished bool        // nothing more is said
	closed   bool        // a Close was sent
	left     atomic.Bool // the test had it leave

	heard   atomic.Int64  // when something came last, in Unix nanoseconds
	longest atomic.Int64  // time without anything, in nanoseconds
	reply   atomic.Uint64 // the last message that was answered

	said atomic.Uint64 // how many pushes came

	// Of the reader, fixed once ended is closed.
	partial  []byte            // of a message that has begun
	begun    bool              // it has
	missing  []uint64          // messages without an answer, below reply
	app      string            // the connection that pushes came from last
	pushes   map[string]uint64 // by connection
	agreed   bool              // done was answered, and the count is right
	code     int               // of the Close; 0: none came
	reason   string
	boundary bool // the Close came between two messages
	at       time.Time
	err      error
	wrong    string // first breach of the rules
}

// dialDeploy opens a session. Of a refusal the error has the status.
func dialDeploy(addr string, number int, pace time.Duration, query string) (*deployClient, error) {
	conn, err := net.DialTimeout("tcp", addr, soon)
	if err != nil {
		return nil, err
	}
	c := &deployClient{number: number, pace: pace, ended: make(chan struct{}), pushes: map[string]uint64{},
		end: &rawEnd{Conn: tls.Client(conn, insecure()), client: true}}
	c.end.r = bufio.NewReaderSize(c.end.Conn, 2<<10)
	c.end.SetDeadline(time.Now().Add(3 * soon))
	_, err = c.end.Write([]byte(opening(fmt.Sprintf("/?client=%d&every=%d%s", number, pace.Milliseconds(), query))))
	if err == nil {
		err = c.end.switched()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.end.SetDeadline(time.Time{})
	c.heard.Store(time.Now().UnixNano())
	go c.read()
	go c.write()
	return c, nil
}

// write sends at its pace until the session is over.
func (c *deployClient) write() {
	wait := time.NewTimer(rand.N(c.pace))
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
			wait.Reset(c.pace/2 + rand.N(c.pace))
			c.mu.Lock()
			if !c.finished {
				c.say(c.sent.Add(1))
			}
			c.mu.Unlock()
		case <-c.ended:
			return
		}
	}
}

// say sends message n, some in two frames with a pause between them. The reader notices
// errors.
func (c *deployClient) say(n uint64) {
	p := line("m", n)
	if n%8 != 3 {
		c.end.Write(c.end.frame(true, ws.OpText, p))
		return
	}
	c.end.Write(c.end.frame(false, ws.OpText, p[:len(p)/2]))
	time.Sleep(rand.N(20 * time.Millisecond)) // the message is under way for so long
	c.end.Write(c.end.frame(true, ws.OpContinuation, p[len(p)/2:]))
}

// close sends a Close, or the answer to one, unless that was done.
func (c *deployClient) close(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished = true; !c.closed {
		c.closed = true
		c.end.Write(closeBytes(code, "", true))
	}
}

// finish says done; the reader closes the session when that is answered.
func (c *deployClient) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished {
		c.finished = true
		c.end.Write(c.end.frame(true, ws.OpText, []byte("done "+strconv.FormatUint(c.sent.Load(), 10))))
	}
}

// read checks what comes until the connection ends.
func (c *deployClient) read() {
	defer close(c.ended)
	defer c.end.Close()
	for {
		h, p, err := c.end.readFrame()
		if err != nil {
			c.err, c.at = err, time.Now()
			return
		}
		now := time.Now().UnixNano()
		c.longest.Store(max(c.longest.Load(), now-c.heard.Swap(now)))
		switch h.OpCode {
		case ws.OpPing:
			c.mu.Lock()
			c.end.Write(c.end.frame(true, ws.OpPong, p))
			c.mu.Unlock()
		case ws.OpPong:
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(p)
			c.code, c.reason, c.boundary, c.at = int(code), reason, !c.begun, time.Now()
			c.close(int(code))
			return
		default:
			c.frame(h, p)
		}
	}
}

// frame puts a message together.
func (c *deployClient) frame(h ws.Header, p []byte) {
	if (h.OpCode == ws.OpContinuation) != c.begun {
		c.breach("a frame with opcode %d inside a message: %v", h.OpCode, c.begun)
	}
	c.partial, c.begun = append(c.partial, p...), !h.Fin
	if h.Fin {
		c.take(string(c.partial))
		c.partial = nil
	}
}

// take checks a message.
func (c *deployClient) take(text string) {
	kind, rest, _ := strings.Cut(text, " ")
	switch kind {
	case "m":
		c.answered([]byte(text))
	case "p":
		conn, rest, _ := strings.Cut(rest, " ")
		digits, content, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || content != pad(n) {
			c.breach("got %.40q", text)
			return
		}
		c.pushed(conn, n)
	case "done":
		conn, digits, _ := strings.Cut(rest, " ")
		c.agreed = strconv.FormatUint(c.pushes[conn], 10) == digits
		if !c.agreed {
			c.breach("has %d pushes of %s, which sent %s", c.pushes[conn], conn, digits)
		}
		c.close(1000)
	default:
		c.breach("got %.40q", text)
	}
}

// answered takes the answer to a message: later ones only.
func (c *deployClient) answered(p []byte) {
	_, n, ok := parseLine(p)
	before := c.reply.Load()
	if !ok || n <= before || n > c.sent.Load() {
		c.breach("got %.40q after the answer to %d", p, before)
		return
	}
	for lost := before + 1; lost < n; lost++ {
		c.missing = append(c.missing, lost)
	}
	c.reply.Store(n)
}

// pushed takes push n of a connection: the next one of the same, or the first of another.
func (c *deployClient) pushed(conn string, n uint64) {
	before, known := c.pushes[conn]
	if known && conn != c.app {
		c.breach("push %d of %s, which was left for %s", n, conn, c.app)
	}
	if n != before+1 {
		c.breach("push %d of %s after %d", n, conn, before)
	}
	c.app, c.pushes[conn] = conn, n
	c.said.Add(1)
}

func (c *deployClient) breach(format string, args ...any) {
	if c.wrong == "" {
		c.wrong = fmt.Sprintf(format, args...)
	}
}

// over reports whether the session has ended.
func (c *deployClient) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}
