package health

import (
	"bufio"
	"cmp"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// target is one probe of one backend.
type target struct {
	backend  *balance.Backend
	active   Active
	tls      *cryptotls.Config
	dialer   func(ctx context.Context, addr string) (net.Conn, error)
	host     string
	answered func(*balance.Backend, http.Header)
}

const (
	// maxAnswerHead bounds the head of an answer.
	maxAnswerHead = 64 << 10
	// maxInformational bounds how many 1xx answers come before the real one.
	maxInformational = 5
)

// errHead is an answer whose head does not end.
var errHead = errors.New("the head of the answer is over 64 KiB")

// statusError is an answer with a status that was not wanted.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// probe asks a backend once, until ctx is done. It returns the header of the answer, for
// probes that have one.
func probe(ctx context.Context, t target) (http.Header, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	switch t.active.Probe {
	case HTTP:
		return t.get(conn)
	case WebSocket:
		return t.webSocket(conn)
	}
	return nil, nil
}

// dial connects, with TLS where the pool has it.
func (t *target) dial(ctx context.Context) (net.Conn, error) {
	connect := t.dialer
	if connect == nil {
		connect = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", addr)
		}
	}
	conn, err := connect(ctx, t.backend.Addr)
	if err != nil || t.tls == nil {
		return conn, err
	}
	cfg := t.tls
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName, _, _ = net.SplitHostPort(t.backend.Addr)
	}
	secured := cryptotls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tls: %w", err)
	}
	return secured, nil
}

// get wants a 2xx. The body is not read.
func (t *target) get(conn net.Conn) (http.Header, error) {
	res, _, err := t.ask(conn, "Connection: close")
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode < 200 || res.StatusCode > 299:
		return nil, statusError(res.StatusCode)
	}
	return res.Header, nil
}

// ask sends a GET with more header lines and reads the head of the answer. What comes
// behind it is in the reader.
func (t *target) ask(conn net.Conn, lines ...string) (*http.Response, *bufio.Reader, error) {
	head := append([]string{"GET " + cmp.Or(t.active.Path, "/") + " HTTP/1.1",
		"Host: " + cmp.Or(t.host, t.backend.Addr), "User-Agent: tidegate-health"}, lines...)
	if _, err := io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n"); err != nil {
		return nil, nil, fmt.Errorf("asking: %w", err)
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswerHead}
	in := bufio.NewReader(limited)
	for range maxInformational + 1 {
		res, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
		switch {
		case err != nil && limited.N <= 0:
			return nil, nil, errHead
		case err != nil:
			return nil, nil, fmt.Errorf("reading the answer: %w", err)
		case res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols:
			limited.N = maxPongDistance
			return res, in, nil
		}
	}
	return nil, nil, errors.New("too many informational answers")
}
