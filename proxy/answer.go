package proxy

import (
	"net/http"
	"time"
)

// answer is where ReverseProxy writes what a backend has answered. It keeps to what the client
// can take: its version of HTTP, and its pace.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController // of that
	p       *plain
	last    bool          // of its connection
	timeout time.Duration // without progress, of HTTP/2; 0 is none, or that of the connection
}

func newAnswer(w http.ResponseWriter, p *plain, last bool) *answer {
	a := &answer{ResponseWriter: w, control: http.NewResponseController(w), p: p, last: last}
	if p.r.ProtoMajor > 1 {
		a.timeout = p.route.WebSocket.WriteTimeout
	}
	return a
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader writes the head. Informational ones are for clients that know of them (RFC 9110
// §15.2), and a head that comes before the request has ended does not wait for that.
func (a *answer) WriteHeader(status int) {
	h := a.Header()
	if status < 200 {
		if a.p.r.ProtoAtLeast(1, 1) {
			for _, name := range hopByHop {
				delete(h, name)
			}
			a.ResponseWriter.WriteHeader(status)
		}
		return
	}
	if a.last {
		h.Set("Connection", "close")
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // none is made up
	}
	if a.p.r.ProtoMajor == 1 && a.p.body != nil && !a.p.body.whole() {
		// net/http would read the rest itself first, unless the connection ends with the answer.
		h.Set("Connection", "close")
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write writes all of p, and gives a client of HTTP/2 its time for each frame of it.
func (a *answer) Write(p []byte) (written int, err error) {
	if a.timeout == 0 {
		return a.ResponseWriter.Write(p)
	}
	for len(p) > 0 && err == nil {
		n := 0
		a.within(a.timeout)
		n, err = a.ResponseWriter.Write(p[:min(len(p), chunkBytes)])
		p, written = p[n:], written+n
	}
	a.within(0)
	return written, err
}

// FlushError sends what has been written.
func (a *answer) FlushError() error {
	a.within(a.timeout)
	err := a.control.Flush()
	a.within(0)
	return err
}

// end gives what is left in buffers its time.
func (a *answer) end() { a.within(a.timeout) }

// within bounds how long the client may take nothing; 0 is no bound.
func (a *answer) within(d time.Duration) {
	if a.timeout == 0 {
		return
	}
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	a.control.SetWriteDeadline(until)
}
