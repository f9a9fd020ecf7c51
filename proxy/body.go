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
	left    int64         // of its length; negative: that is not known. The reader's
	stream  bool          // of HTTP/2, whose deadline ends it also while nobody reads

	mu   sync.Mutex
	all  bool  // has come
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
	if b.left > 0 {
		b.left -= int64(n)
	}
	if err == io.EOF || b.left == 0 {
		b.mu.Lock()
		b.all = true
		b.mu.Unlock()
	}
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

// whole reports whether all of the body has come.
func (b *requestBody) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all
}

// end is the end of the request. Of HTTP/1, what of it has not come is awaited for a moment, and
// then the connection ends: to close it at once would take the answer away from a client that is
// still sending (RFC 9112 §9.6).
func (b *requestBody) end(conn *clientConn, cut bool) {
	b.mu.Lock()
	b.over = true
	left := !b.all && !b.stream
	b.mu.Unlock()
	if !left {
		return
	}
	if !cut {
		b.control.Flush()
		conn.CloseWrite()
		b.control.SetReadDeadline(time.Now().Add(lingering))
		io.CopyN(io.Discard, b.in, lingeringBytes)
	}
	b.control.SetReadDeadline(time.Unix(1, 0)) // net/http reads no more of it either
}

// How much of a body that nobody wants any more is waited for.
const (
	lingering      = time.Second
	lingeringBytes = 1 << 20
)

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
