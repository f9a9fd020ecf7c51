package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/tidegate/tidegate/proxy/engine"
	"github.com/tidegate/tidegate/proxy/pump"
)

// chunkBytes is how much is given to HTTP/2 at a time: a frame of the size that every peer
// takes. A client makes progress when it has taken a chunk.
const chunkBytes = 16 << 10

var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// stream is a client's leg over a stream of HTTP/2: the body of an extended CONNECT and the
// answer to it. It is a pump.Conn.
//
// The answer belongs to the goroutine of the HTTP handler, which writes what Write hands it,
// from a buffer of its own: whoever writes can leave it at any time, whatever the connection
// below is stuck in. The handler returns when CloseWrite or Abort has been called. To return
// is to end our direction in order; x/net cannot do that and go on reading, but the relay
// has heard all that it wants by then.
type stream struct {
	conn     *clientConn
	body     io.ReadCloser
	protocol string // of :protocol
	secure   bool   // :scheme is https
	begun    bool   // a session has it; the handler's

	todo chan []byte   // for the handler to write; the chunk is its own until it has answered
	done chan error    // of what it has written; capacity 1
	over chan struct{} // closed when the handler is to return

	timeout time.Duration // for the writer only
	timer   *time.Timer   // likewise

	mu       sync.Mutex
	ended    bool // over is closed
	aborted  bool
	waiting  time.Time                // when the writer gave its chunk; zero: it has none
	control  *http.ResponseController // while the handler writes
	lastCall *time.Timer              // ends reading
}

func newStream(conn *clientConn, r *http.Request) *stream {
	return &stream{conn: conn, body: r.Body, todo: make(chan []byte), done: make(chan error, 1), over: make(chan struct{})}
}

// errAborted is what Write and Read return after Abort.
var errAborted = errors.New("the stream was aborted")

// run is the handler's part: it writes until the stream is over.
func (s *stream) run(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	for {
		select {
		case chunk := <-s.todo:
			if s.controlled(control) {
				_, err := w.Write(chunk)
				if err == nil {
					err = control.Flush()
				}
				s.controlled(nil)
				s.done <- err
			}
		case <-s.over:
			if s.aborted {
				panic(http.ErrAbortHandler) // RST_STREAM
			}
			return
		}
	}
}

// controlled says that the handler is about to write, so that Abort can end that, or that it
// no longer is. It reports whether the stream is still to be written to.
func (s *stream) controlled(by *http.ResponseController) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = by
	return !s.ended
}

// Read reads what the client sends. io.EOF is its END_STREAM, or follows CloseWrite.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.aborted:
			err = errAborted
		case s.ended:
			err = io.EOF
		}
	}
	return n, err
}

// Write writes all of p. It fails with os.ErrDeadlineExceeded when the client takes no chunk
// for the progress timeout.
func (s *stream) Write(p []byte) (written int, err error) {
	chunk := chunks.Get().(*[chunkBytes]byte)
	for len(p) > 0 {
		n := copy(chunk[:], p)
		if err := s.hand(chunk[:n]); err != nil {
			return written, err // the chunk may still be in use
		}
		p, written = p[n:], written+n
	}
	chunks.Put(chunk)
	return written, nil
}

// hand has the handler write a chunk and waits for it.
func (s *stream) hand(chunk []byte) error {
	s.wait(time.Now())
	defer s.wait(time.Time{})
	late := s.startTimer()
	select {
	case s.todo <- chunk:
	case <-s.over:
		return errAborted
	case <-late:
		return os.ErrDeadlineExceeded
	}
	select {
	case err := <-s.done:
		s.stopTimer()
		return err
	case <-s.over:
		return errAborted
	case <-late:
		return os.ErrDeadlineExceeded
	}
}

func (s *stream) wait(since time.Time) {
	s.mu.Lock()
	s.waiting = since
	s.mu.Unlock()
}

func (s *stream) startTimer() <-chan time.Time {
	switch {
	case s.timeout == 0:
		return nil
	case s.timer == nil:
		s.timer = time.NewTimer(s.timeout)
	default:
		s.timer.Reset(s.timeout)
	}
	return s.timer.C
}

func (s *stream) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// CloseWrite ends our direction: END_STREAM. What the client still sends is not read.
func (s *stream) CloseWrite() error { return s.end(false) }

// Abort ends the stream as it stands: RST_STREAM. After CloseWrite it does nothing.
func (s *stream) Abort() error { return s.end(true) }

func (s *stream) end(abort bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	s.ended, s.aborted = true, abort
	close(s.over)
	s.body.Close()
	if s.lastCall != nil {
		s.lastCall.Stop()
	}
	if s.control != nil {
		s.control.SetWriteDeadline(time.Unix(1, 0)) // the handler waits in a write
	}
	return nil
}

// SetReadDeadline has Read fail from t on; the zero time is never. What was there to read
// then is lost.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastCall != nil {
		s.lastCall.Stop()
	}
	if !t.IsZero() && !s.ended {
		s.lastCall = time.AfterFunc(time.Until(t), func() { s.body.Close() })
	}
	return nil
}

// SetProgressTimeout bounds how long a chunk may wait; 0 is for ever. It must not be called
// during a Write.
func (s *stream) SetProgressTimeout(d time.Duration) { s.timeout = d }

// Delivery is that of the connection, but for what the client's window for this stream says:
// while a chunk waits, the client has no room. What the client acknowledges of other streams
// is no life of this one, unless something of it may still be on its way.
func (s *stream) Delivery() engine.Delivery {
	d := s.conn.stream.Delivery()
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Open = d.Open && !s.ended; !s.waiting.IsZero() {
		d.Closed, d.Sent = true, time.Since(s.waiting)
	} else if !d.Queued {
		d.Acked = engine.Never
	}
	return d
}

var _ pump.Conn = (*stream)(nil)
