package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// requestBody is what a client sends, on its way to a backend. It knows whose fault it is when
// that does not come to its end.
type requestBody struct {
	in      io.Reader
	control *http.ResponseController
	timeout time.Duration // without a byte; 0: none
	stream  bool          // of HTTP/2, whose deadline ends it also while nobody reads

	mu   sync.Mutex
	over bool  // the request is: the connection is another one's
	err  error // what went wrong with the client
}

// Read reads from the client: what does not come in time is an error. Once all has come, the
// wait for the answer has no bound.
func (b *requestBody) Read(p []byte) (int, error) {
	if !b.expect(b.timeout) {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.in.Read(p)
	if err != nil || b.stream {
		b.expect(0)
	}
	if err != nil && err != io.EOF {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// expect bounds the wait for the next bytes; 0 is no bound. It reports whether there may be any.
func (b *requestBody) expect(within time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timeout > 0 && !b.over {
		var until time.Time
		if within > 0 {
			until = time.Now().Add(within)
		}
		b.control.SetReadDeadline(until)
	}
	return !b.over
}

// Close leaves the rest to net/http. The transport may read on until it has noticed.
func (b *requestBody) Close() error { return nil }

// end is the end of the request.
func (b *requestBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

// refusal is the answer to a body that did not come as announced, or nil.
func (b *requestBody) refusal() *refusal {
	b.mu.Lock()
	err := b.err
	b.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "malformed", "the body of the request did not come in time")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("the body of the request ends before its end")
	}
	return malformed("the body of the request cannot be read: %s", err)
}
