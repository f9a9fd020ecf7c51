package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestHeadGuardInParts cuts what comes at every byte: it makes no difference.
func TestHeadGuardInParts(t *testing.T) {
	t.Parallel()
	const fine = "GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nTransfer-Encoding: chunked\n\n\r\n"
	const bad = "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	all := fine + bad
	for i := range len(all) {
		g := newHeadGuard()
		g.watch([]byte(all[:i]))
		g.watch([]byte(all[i:]))
		for n := 1; n <= 2; n++ {
			if why, last := g.of(n); why != "" || last {
				t.Errorf("cut at %d: request %d is refused for %q, last %v", i, n, why, last)
			}
		}
		if why, last := g.of(3); why == "" || !last {
			t.Errorf("cut at %d: the third request passes", i)
		}
	}
}

// TestHeadGuardKeepsStep with net/http: over the empty lines that it passes over, and lengths
// that are longer than what the guard keeps of a line.
func TestHeadGuardKeepsStep(t *testing.T) {
	t.Parallel()
	const first = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
	const bad = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, empty := range []string{"", "\r\n", "\r\n\r\n", "\n"} {
		g := newHeadGuard()
		g.watch([]byte(first + empty + bad))
		if why, _ := g.of(2); why == "" {
			t.Errorf("behind %q a request with two lengths passes", empty)
		}
	}
	g := newHeadGuard()
	g.watch([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + strings.Repeat("0", 240) + "18\r\n\r\nGET / HTTP/1.1\r\n\r\n" + bad))
	if _, last := g.of(1); !last {
		t.Error("a length that cannot be followed does not end the connection")
	}
	if why, _ := g.of(2); why == "" {
		t.Error("what follows it passes")
	}
}

var (
	lengthLine = regexp.MustCompile(`(?mi)^content-length:`)
	codingLine = regexp.MustCompile(`(?mi)^transfer-encoding:`)
)

// FuzzHeadGuard has net/http read the same bytes: of each request that it takes for one, the
// guard has seen the same head, unless it stopped at an earlier one, behind which nothing is
// read.
func FuzzHeadGuard(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\nHost: x\n\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 300) + "\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		g := newHeadGuard()
		g.watch(p)
		all := bytes.NewReader(p)
		in := bufio.NewReader(all)
		at := func() int { return len(p) - all.Len() - in.Buffered() }
		for n := 1; ; n++ {
			begin := at()
			r, err := http.ReadRequest(in)
			if err != nil {
				return // refused: nothing behind it is read
			}
			head := string(p[begin:at()])
			length, coding := lengthLine.MatchString(head), codingLine.MatchString(head)
			why, last := g.of(n)
			if (coding && (length || !r.ProtoAtLeast(1, 1))) != (why != "") {
				t.Fatalf("request %d is refused for %q:\n%q", n, why, head)
			}
			if last {
				return
			}
			if len(r.TransferEncoding) > 0 {
				t.Fatalf("request %d is chunked, and what follows is read:\n%q", n, head)
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
		}
	})
}
