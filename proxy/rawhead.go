package proxy

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// headGuard reads along what comes over a connection of HTTP/1 and looks for heads of requests
// that net/http repairs without a word, though another reader of the same bytes could take them
// for other requests (RFC 9112 §11.2): a length beside a transfer coding, or a transfer coding
// in HTTP/1.0. It parses nothing that is used: net/http does that, and what is forwarded is
// written anew.
//
// To know where the next head begins it skips bodies of a known length. At anything else it
// stops, and the request at which it did must be the connection's last one.
type headGuard struct {
	mu      sync.Mutex
	line    []byte // the present one, see keep
	cut     bool   // it is longer than what is kept
	first   bool   // of the request line
	heads   int    // that are complete
	skip    int64  // bytes of a body
	lengths int    // Content-Length headers of the present head
	length  int64  // by the last of them; negative: none that could be read
	coded   bool   // it has a Transfer-Encoding
	old     bool   // it is older than HTTP/1.1
	stopped int    // the number of the head at which it stopped; 0: it goes on
	why     string // that head is refused for; empty: it is not
}

// maxGuardedLine is how much of a line is kept: no name that matters is longer, with its value.
const maxGuardedLine = 256

func newHeadGuard() *headGuard { return &headGuard{first: true} }

// watch takes the next bytes of the connection.
func (g *headGuard) watch(p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(p) > 0 && g.stopped == 0 {
		if g.skip > 0 {
			n := min(g.skip, int64(len(p)))
			g.skip -= n
			p = p[n:]
			continue
		}
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		g.keep(part)
		if end < 0 {
			return
		}
		p = p[end+1:]
		g.endLine()
	}
}

// keep keeps what matters of a line: of a request line its end, of others the beginning.
func (g *headGuard) keep(part []byte) {
	if !g.first {
		room := maxGuardedLine - len(g.line)
		g.cut = g.cut || len(part) > room
		g.line = append(g.line, part[:min(len(part), room)]...)
		return
	}
	g.line = append(g.line, part[max(0, len(part)-maxGuardedLine):]...)
	if over := len(g.line) - maxGuardedLine; over > 0 {
		g.line = append(g.line[:0], g.line[over:]...)
	}
}

// endLine deals with a whole line.
func (g *headGuard) endLine() {
	line := bytes.TrimSuffix(g.line, []byte("\r"))
	switch {
	case g.first && len(line) == 0:
		// net/http passes over empty lines behind a POST, or refuses the connection.
	case g.first:
		// Whoever speaks no HTTP at all is net/http's to refuse.
		major, minor, _ := http.ParseHTTPVersion(string(line[bytes.LastIndexByte(line, ' ')+1:]))
		g.first, g.old = false, major < 1 || major == 1 && minor < 1
	case len(line) == 0:
		g.endHead()
	default:
		g.header(line)
	}
	g.line, g.cut = g.line[:0], false
}

func (g *headGuard) header(line []byte) {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return
	}
	switch {
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		g.coded = true
	case bytes.EqualFold(name, []byte("Content-Length")):
		g.lengths++
		g.length = -1
		if g.cut {
			return
		}
		if n, err := strconv.ParseUint(strings.Trim(string(value), " \t"), 10, 62); err == nil {
			g.length = int64(n)
		}
	}
}

func (g *headGuard) endHead() {
	g.heads++
	switch {
	case g.coded && g.lengths > 0:
		g.stop("the request has both a Content-Length and a Transfer-Encoding")
	case g.coded && g.old:
		g.stop("HTTP/1.0 has no Transfer-Encoding")
	case g.coded || g.length < 0:
		g.stop("")
	}
	g.skip = g.length
	g.first, g.lengths, g.length, g.coded = true, 0, 0, false
}

func (g *headGuard) stop(why string) {
	g.stopped, g.why = g.heads, why
	g.line = nil
}

// of returns what there is to say of the nth head, from 1: why it is refused, or that the
// connection has to end with its request.
func (g *headGuard) of(n int) (why string, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.stopped == 0 || n < g.stopped:
		return "", false
	case n > g.stopped:
		return "where the request before it ends is not certain", true
	}
	return g.why, true
}

// checkHead refuses a request that could be read in two ways, and has the connection end with
// one whose end the guard cannot tell.
func (h *handshake) checkHead(w http.ResponseWriter) *refusal {
	if h.conn.guard == nil {
		return nil
	}
	why, last := h.conn.guard.of(h.number)
	if h.last = last; last {
		w.Header().Set("Connection", "close")
	}
	if why != "" {
		return malformed("%s", why)
	}
	return nil
}
