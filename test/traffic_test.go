package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// talk is the client's side of one conversation with a talker.
type talk struct {
	url    string
	app    string // which talker answered
	conn   *websocket.Conn
	opened time.Time

	sent, echoed, pushed atomic.Uint64
	finish               chan struct{} // closed: say done
	ended                chan struct{} // closed: reading is over
	// Fixed once ended is closed.
	code   int // of the Close, 0: none came
	err    error
	at     time.Time
	wrong  string // first breach of the rules
	agreed bool   // both sides said done and what they counted is the same
}

// fleet is many conversations through an edge, each of which keeps talking until it is
// told to finish.
type fleet struct {
	t     *testing.T
	pace  time.Duration // mean time between two messages of a client; its talker has the same
	mu    sync.Mutex
	talks []*talk
	wg    sync.WaitGroup // writers
}

// maxDials bounds how many handshakes a test has in flight at once.
const maxDials = 16

func newFleet(t *testing.T, pace time.Duration) *fleet {
	f := &fleet{t: t, pace: pace}
	t.Cleanup(func() {
		for _, k := range f.talks {
			k.conn.Close()
			<-k.ended
		}
		f.wg.Wait()
	})
	return f
}

var dialer = websocket.Dialer{TLSClientConfig: insecure(), HandshakeTimeout: 20 * time.Second, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10}

// dialAll makes n handshakes, a few at a time. Of a refusal the status is kept.
func dialAll(n int, url func(i int) string, each func(i int, c *websocket.Conn, res *http.Response, err error)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxDials)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			c, res, err := dialer.Dial(url(i), nil)
			each(i, c, res, err)
			<-slots
		})
	}
	wg.Wait()
}

// open adds n conversations; url gives each its address, without a query.
func (f *fleet) open(n int, url func(i int) string) {
	f.t.Helper()
	dialAll(n, func(i int) string { return url(i) + "?every=" + f.pace.String() }, func(i int, c *websocket.Conn, res *http.Response, err error) {
		if err != nil {
			f.t.Errorf("session %d: %v", i, err)
			return
		}
		k := &talk{url: url(i), app: res.Header.Get("X-App"), conn: c, opened: time.Now(), finish: make(chan struct{}), ended: make(chan struct{})}
		f.mu.Lock()
		f.talks = append(f.talks, k)
		f.mu.Unlock()
		go k.read()
		f.wg.Go(func() { k.write(f.pace) })
	})
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// write sends until it is told to finish.
func (k *talk) write(pace time.Duration) {
	wait := time.NewTimer(rand.N(pace))
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
			wait.Reset(pace/2 + rand.N(pace))
			n := k.sent.Add(1)
			k.conn.WriteMessage(websocket.TextMessage, line("m", n)) // the reader notices
		case <-k.finish:
			k.conn.WriteMessage(websocket.TextMessage, []byte("done "+strconv.FormatUint(k.sent.Load(), 10)))
			return
		case <-k.ended:
			return
		}
	}
}

// read checks what comes until the connection ends.
func (k *talk) read() {
	defer close(k.ended)
	for {
		_, p, err := k.conn.ReadMessage()
		if err != nil {
			k.err, k.at = err, time.Now()
			if c, ok := errors.AsType[*websocket.CloseError](err); ok && c.Code != websocket.CloseAbnormalClosure {
				k.code = c.Code
			}
			return
		}
		k.take(p)
	}
}

func (k *talk) take(p []byte) {
	kind, n, ok := parseLine(p)
	counter := &k.echoed
	switch {
	case ok && kind == "done":
		k.agreed = n == k.pushed.Load() && k.echoed.Load() == k.sent.Load()
		if !k.agreed {
			k.breach("at the end %d pushes of %d and %d echoes of %d", k.pushed.Load(), n, k.echoed.Load(), k.sent.Load())
		}
		k.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(5*time.Second))
		return
	case kind == "p":
		counter = &k.pushed
	}
	if want := counter.Load() + 1; !ok || n != want || kind != "m" && kind != "p" {
		k.breach("got %.40q, want number %d", p, want)
	}
	counter.Add(1)
}

func (k *talk) breach(format string, args ...any) {
	if k.wrong == "" {
		k.wrong = fmt.Sprintf(format, args...)
	}
}

// over reports whether the conversation's connection has ended.
func (k *talk) over() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// live are the conversations that have not ended.
func (f *fleet) live() (list []*talk) {
	for _, k := range f.talks {
		if !k.over() {
			list = append(list, k)
		}
	}
	return list
}

// byApp counts the live conversations by talker.
func (f *fleet) byApp() map[string]int {
	n := map[string]int{}
	for _, k := range f.live() {
		n[k.app]++
	}
	return n
}

// untouched fails the test if any conversation has ended.
func (f *fleet) untouched(when string) {
	f.t.Helper()
	for _, k := range f.talks {
		if k.over() {
			f.t.Fatalf("%s: the session %s on %s, %v old, ended: %v", when, k.url, k.app, k.at.Sub(k.opened), k.err)
		}
	}
}

// flows waits until each live conversation has had an answer to a message that it sent
// after this call, and something that its talker said of its own accord.
func (f *fleet) flows(when string) {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	type mark struct{ sent, pushed uint64 }
	waiting := map[*talk]mark{}
	for _, k := range f.live() {
		waiting[k] = mark{k.sent.Load(), k.pushed.Load()}
	}
	for len(waiting) > 0 {
		for k, m := range waiting {
			if k.over() || k.echoed.Load() > m.sent && k.pushed.Load() > m.pushed {
				delete(waiting, k)
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			f.t.Fatalf("%s: %d of %d sessions stand still", when, len(waiting), len(f.live()))
		}
	}
}

// end finishes the live conversations in good order and checks all of them: numbers,
// counts, contents, and a Close 1000 of those that lived to the end. It returns how many
// messages went each way.
func (f *fleet) end() (up, down uint64) {
	f.t.Helper()
	finishing := f.live()
	for _, k := range finishing {
		close(k.finish)
	}
	patience := time.After(30 * time.Second)
	bad := 0
	for _, k := range finishing {
		select {
		case <-k.ended:
		case <-patience:
			f.t.Fatalf("session %s on %s has not finished: %d sent, %d echoed", k.url, k.app, k.sent.Load(), k.echoed.Load())
		}
		if !k.agreed || k.code != websocket.CloseNormalClosure {
			if bad++; bad < 10 {
				f.t.Errorf("session %s on %s ended with %v; %d sent, %d echoed: %s", k.url, k.app, k.err, k.sent.Load(), k.echoed.Load(), k.wrong)
			}
		}
	}
	for _, k := range f.talks {
		if k.wrong != "" {
			f.t.Errorf("session %s on %s: %s", k.url, k.app, k.wrong)
		}
		up, down = up+k.sent.Load(), down+k.echoed.Load()+k.pushed.Load()
	}
	f.wg.Wait()
	return up, down
}

// landings opens n sessions at url one after another and closes them again. It counts
// where they went: the name of a talker or, when refused, the HTTP status.
func landings(t *testing.T, n int, url string) map[string]int {
	t.Helper()
	where := map[string]int{}
	for range n {
		c, res, err := dialer.Dial(url, nil)
		switch {
		case err == nil:
			where[res.Header.Get("X-App")]++
			c.Close()
		case res != nil:
			where[strconv.Itoa(res.StatusCode)]++
		default:
			t.Fatal(err)
		}
	}
	return where
}

// TestConversationsAreChecked: what the other tests rely on, without an edge: either side
// notices what is lost, repeated, out of order or altered.
func TestConversationsAreChecked(t *testing.T) {
	m := func(n uint64) string { return string(line("m", n)) }
	p := func(n uint64) string { return string(line("p", n)) }
	b := newTalker(t, "b")
	for name, c := range map[string]struct {
		sent     uint64
		messages []string
		right    bool
	}{
		"in order":        {3, []string{m(1), p(1), m(2), p(2), m(3), "done 2"}, true},
		"echo lost":       {3, []string{m(1), m(3)}, false},
		"echo twice":      {3, []string{m(1), m(1)}, false},
		"out of order":    {3, []string{m(2), m(1), m(3)}, false},
		"push lost":       {0, []string{p(1), p(3)}, false},
		"last push lost":  {0, []string{p(1), "done 2"}, false},
		"last echo lost":  {2, []string{m(1), "done 0"}, false},
		"altered":         {1, []string{m(1)[:len(m(1))-1] + "?"}, false},
		"cut":             {1, []string{m(1)[:len(m(1))-1]}, false},
		"of another kind": {1, []string{"x" + m(1)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _, err := dialer.Dial("ws://"+b.addr+"/", nil) // for the Close only
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			k := &talk{conn: conn}
			k.sent.Store(c.sent)
			for _, text := range c.messages {
				k.take([]byte(text))
			}
			if (k.wrong == "") != c.right {
				t.Errorf("noticed %q", k.wrong)
			}
		})
	}

	for i, c := range []struct {
		messages []string
		right    bool
	}{
		{[]string{m(1), m(2), "done 2"}, true}, {[]string{m(1), m(3)}, false}, {[]string{m(1), m(1)}, false}, {[]string{m(2)}, false},
		{[]string{m(1), "done 2"}, false}, {[]string{m(1)[:20]}, false}, {[]string{m(1), "done 1", m(2)}, false},
	} {
		conn, _, err := dialer.Dial("ws://"+b.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		before := len(b.stats().Wrong)
		for _, text := range c.messages {
			conn.WriteMessage(websocket.TextMessage, []byte(text))
		}
		conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(5*time.Second))
		for err == nil { // until it has read all
			_, _, err = conn.ReadMessage()
		}
		conn.Close()
		if noticed := len(b.stats().Wrong) > before; noticed == c.right {
			t.Errorf("conversation %d: noticed is %v: %v", i, noticed, b.stats().Wrong)
		}
	}
}
