package main

import (
	"bufio"
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// certificates are what the backend and the clients of a run have.
func certificates(t *testing.T) (server, client *cryptotls.Config) {
	t.Helper()
	dir := t.TempDir()
	if err := writeCertificate(dir); err != nil {
		t.Fatal(err)
	}
	pair, err := cryptotls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{roots: x509.NewCertPool()}
	b.roots.AddCert(pair.Leaf)
	return &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}}, b.tls()
}

// TestRequests: all measures of plain requests get what they ask for.
func TestRequests(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	for _, m := range requestMeasures() {
		var server, client *cryptotls.Config
		if m.secure {
			server, client = serverTLS, clientTLS
		}
		a, err := newAnswers(server)
		if err != nil {
			t.Fatal(err)
		}
		ticks := time.Duration(0)
		cpu := func() (time.Duration, error) { ticks += time.Second; return ticks, nil }
		r, err := m.requests.run(t.Context(), a.addr(), client, &options{warmup: 10 * time.Millisecond, duration: 500 * time.Millisecond}, cpu)
		a.close()
		if err != nil {
			t.Fatal(err)
		}
		if r.answers == 0 || r.perSecond <= 0 || r.cpu != time.Second || r.problem(m) != "" {
			t.Errorf("%s: %+v, %s", m.name, r, r.problem(m))
		}
	}
}

// TestAnswers: the backend speaks HTTP to other clients too, and refuses what a proxy is
// not to make of the requests.
func TestAnswers(t *testing.T) {
	a, err := newAnswers(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, body := range []string{"", "a body"} {
		r, err := client.Post("http://"+a.addr()+"/300", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != 200 || !bytes.Equal(got, content[:300]) {
			t.Errorf("%d, %d bytes, %v", r.StatusCode, len(got), err)
		}
	}
	for _, bad := range []string{"GET /64 HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1\r\n\r\n", "GET /65537 HTTP/1.1\r\n\r\n", "GET /-1 HTTP/1.1\r\n\r\n",
		"POST /1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "POST /1 HTTP/1.1\r\nContent-Length: x\r\n\r\n"} {
		conn, err := net.Dial("tcp", a.addr())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, bad)
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || r.StatusCode != 400 {
			t.Errorf("%q: %v, %v", bad, r, err)
		}
		conn.Close()
	}
}

// answering is a connection whose other end has said something, a byte at a time.
type answering struct {
	net.Conn
	io.Reader
}

func (a answering) Read(p []byte) (int, error) { return a.Reader.Read(p) }

// TestWrongAnswers: what is no whole answer does not count.
func TestWrongAnswers(t *testing.T) {
	good := string(answerOf(3))
	for answer, want := range map[string]string{
		good:                                    "",
		good[:len(good)-1]:                      "closed by the proxy",
		"":                                      "closed by the proxy",
		good + "H":                              "more came",
		strings.Replace(good, ": 3", ": 4", 1):  "length is 4, not 3",
		good[:len(good)-1] + "x":                "other content",
		"HTTP/1.1 426 Upgrade Required\r\n\r\n": "426",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n": "length is 0",
	} {
		for name, split := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader} {
			if name == "bytes" && want == "more came" {
				continue // it comes with the next answer
			}
			conn := answering{Reader: split(strings.NewReader(answer))}
			got := ""
			if err := (&requester{conn: conn, size: 3}).answer(&headReader{conn: conn, buf: make([]byte, maxHead+maxAnswer)}); err != nil {
				got = reason(err)
			}
			if !strings.Contains(got, want) || (want == "") != (got == "") {
				t.Errorf("%q, %s: %q does not say %q", answer, name, got, want)
			}
		}
	}
}

// TestRefusedRequests: an edge that answers otherwise gives no figures, and the run goes on.
func TestRefusedRequests(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	defer func() {
		server.Close()
		<-done
	}()
	m := requestMeasures()[0]
	nothing := func() (time.Duration, error) { return 0, nil }
	o := &options{warmup: time.Millisecond, duration: time.Millisecond}
	r, err := m.requests.run(t.Context(), ln.Addr().String(), nil, o, nothing)
	if err != nil || r.answers != 0 || r.problem(m) != fmt.Sprintf("%d × HTTP/1.1 404 Not Found", requestConnections) {
		t.Errorf("%+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.requests.run(ctx, ln.Addr().String(), nil, o, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func TestRequestProblems(t *testing.T) {
	m := &measure{secure: true}
	r := &answered{faults: map[string]int{"reset": 2, "closed": 1},
		tls: &load.TLS{Version: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", Curve: "X25519"}}
	if got := r.problem(m); got != "1 × closed; 2 × reset" {
		t.Error(got)
	}
	r.tls.Curve = "P-256"
	if got := r.problem(m); !strings.Contains(got, "TLS is") {
		t.Error(got)
	}
}
