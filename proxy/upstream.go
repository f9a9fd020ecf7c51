package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/proxy/deflate"
	"github.com/tidegate/tidegate/proxy/pump"
	"github.com/tidegate/tidegate/proxy/relay"
	"github.com/tidegate/tidegate/tls"
)

// maxAnswerHead bounds the head of a backend's answer.
const maxAnswerHead = 64 << 10

// upstream is a connection to a backend that has answered the handshake.
type upstream struct {
	backend *balance.Backend
	leg
	in          *bufio.Reader
	limit       *answerReader
	res         *http.Response
	subprotocol string
	extension   string // the header for the client, empty: none
	compression relay.Compression
}

// answerReader reads a backend's answer up to a bound. It remembers what went wrong,
// because net/http takes a line that an error cuts for a bad one.
type answerReader struct {
	io.LimitedReader
	err error
}

func (r *answerReader) Read(p []byte) (int, error) {
	n, err := r.LimitedReader.Read(p)
	if err != nil && r.N > 0 {
		r.err = err
	}
	return n, err
}

// opened makes a leg of a session of the connection: with the bytes that came behind the
// 101.
func (u *upstream) opened() *leg {
	head, _ := u.in.Peek(u.in.Buffered())
	u.head = bytes.Clone(head)
	u.stream.SetDeadline(time.Time{})
	return &u.leg
}

// failure is an attempt at one backend that came to nothing.
type failure struct {
	kind     balance.FailureKind
	err      error
	dialling bool // no connection came of it, and so no byte of a request was sent
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail classifies an error of an attempt: what has been classified stays so, and whatever ran
// out of time is a timeout.
func fail(kind balance.FailureKind, err error) *failure {
	var known *failure
	if errors.As(err, &known) {
		return known
	}
	var timeout net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		kind = balance.FailureTimeout
	}
	return &failure{kind: kind, err: err}
}

// connect picks backends until one answers. The backend of the result is reserved: its
// Live is the caller's to Open or Release. Retries happen only here, before anything
// has reached the client.
func (h *handshake) connect(ctx context.Context) (*upstream, *refusal) {
	view := h.route.pool
	if d := view.Upstream.TotalTimeout; d > 0 {
		bounded, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		ctx = bounded
	}
	pick := h.affinity.request
	var last *failure
	for try := 0; try <= view.Upstream.Retries && !expired(ctx); try++ {
		b, err := view.pick(pick)
		if err != nil {
			h.hear(ctx) // the first word may also have come just now
			b, err = view.pick(pick)
		}
		if errors.Is(err, balance.ErrFull) {
			h.srv.stats.shed("backends_full")
			return nil, refuse(http.StatusServiceUnavailable, "full", "%s", h.affinity.full()).later()
		}
		if err != nil {
			break
		}
		start := time.Now()
		u, err := h.attempt(ctx, b)
		if err == nil {
			if u.res.StatusCode == http.StatusSwitchingProtocols { // a refusal is no measure
				b.Live.Answered(time.Since(start).Seconds())
				view.health.Connected(b)
			}
			return u, nil
		}
		b.Live.Release()
		if h.r.Context().Err() != nil {
			return nil, refuse(statusClientGone, "client_gone", "the client went away")
		}
		last = fail(balance.FailureConnect, err)
		if try > 0 && last.kind == balance.FailureTimeout && expired(ctx) {
			b.Live.Fail(last.kind) // those before it have used up its time
		} else {
			view.health.HandshakeFailed(b, last.kind, err)
		}
		if last.kind == balance.FailureTimeout {
			b.Live.Answered(time.Since(start).Seconds())
		}
		h.srv.noise.Warn("backend failed", zap.String("route", h.route.Name), zap.String("pool", view.Name),
			zap.String("backend", b.ID), zap.String("address", b.Addr), zap.Stringer("kind", last.kind), zap.Error(err))
		pick.Tried = append(pick.Tried, b)
	}
	switch {
	case h.r.Context().Err() != nil:
		return nil, refuse(statusClientGone, "client_gone", "the client went away")
	case last == nil && !expired(ctx):
		return nil, refuse(http.StatusServiceUnavailable, resultNoBackend, "%s", h.affinity.closed("new sessions")).later()
	case last == nil || last.kind == balance.FailureTimeout:
		return nil, refuse(http.StatusGatewayTimeout, "backend_timeout", "no backend answered in time")
	}
	return nil, refuse(http.StatusBadGateway, "backend_"+last.kind.String(), "no backend could be reached")
}

// hear waits, no longer than for a connection, until discovery has spoken of a pool that
// is new: at the start of the edge, and after a reload.
func (h *handshake) hear(ctx context.Context) {
	if d := h.route.pool.Upstream.ConnectTimeout; d > 0 {
		bounded, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		ctx = bounded
	}
	h.route.pool.hear(ctx)
}

// resultNoBackend is the result of a handshake for which no backend was eligible.
const resultNoBackend = "no_backend"

// expired reports whether ctx is done or about to be: a deadline set on a connection may
// fire before that of ctx, and no backend is to blame for time that is up.
func expired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// statusClientGone is for metrics only, as nginx has it: nobody is there to read it.
const statusClientGone = 499

// attempt connects to one backend and makes the handshake with it. The error is a
// *failure.
func (h *handshake) attempt(ctx context.Context, b *balance.Backend) (*upstream, error) {
	u, err := h.dial(ctx, b)
	if err != nil {
		return nil, err
	}
	deadline := time.Time{}
	if d := h.route.pool.Upstream.HandshakeTimeout; d > 0 {
		deadline = time.Now().Add(d)
	}
	if total, ok := ctx.Deadline(); ok && (deadline.IsZero() || total.Before(deadline)) {
		deadline = total
	}
	u.stream.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { u.stream.SetDeadline(time.Unix(1, 0)) })
	err = h.ask(u)
	if !stop() && err == nil {
		err = fail(balance.FailureTimeout, ctx.Err())
	}
	if err != nil {
		u.stream.Close()
		return nil, err
	}
	h.route.pool.report(b.Live, u.res.Header)
	return u, nil
}

// dial makes the connection of a handshake.
func (h *handshake) dial(ctx context.Context, b *balance.Backend) (*upstream, error) {
	l, err := h.dialLeg(ctx, b.Addr)
	if err != nil {
		return nil, err
	}
	u := &upstream{backend: b, leg: *l}
	u.limit = &answerReader{LimitedReader: io.LimitedReader{R: u.conn(), N: maxAnswerHead}}
	u.in = bufio.NewReaderSize(u.limit, 4<<10)
	return u, nil
}

// dialLeg makes a connection to a backend, with TLS where the pool has it.
func (h *handshake) dialLeg(ctx context.Context, addr string) (*leg, error) {
	settings := &h.route.pool.Upstream
	if settings.ConnectTimeout > 0 {
		bounded, cancel := context.WithTimeout(ctx, settings.ConnectTimeout)
		defer cancel()
		ctx = bounded
	}
	start := time.Now()
	conn, err := h.route.pool.reach(ctx, addr, h.endpoint.TCP, h.preface)
	if err != nil {
		return nil, fail(balance.FailureConnect, err)
	}
	l := &leg{stream: pump.NewStream(conn)}
	if settings.TLS != nil {
		cfg := settings.TLS
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName, _, _ = net.SplitHostPort(addr)
		}
		if l.tls, err = tls.Connect(ctx, l.stream, cfg); err != nil {
			conn.Close()
			return nil, fail(balance.FailureTLS, fmt.Errorf("tls to %s: %w", addr, err))
		}
	}
	h.route.pool.connect.Observe(time.Since(start).Seconds())
	return l, nil
}

// ask sends the request and reads the answer's head. A 101 is checked; any other answer
// is an answer.
func (h *handshake) ask(u *upstream) error {
	if _, err := u.conn().Write(h.request(u.backend)); err != nil {
		return fail(balance.FailureConnect, fmt.Errorf("sending the handshake: %w", err))
	}
	for informational := 0; ; informational++ {
		res, err := http.ReadResponse(u.in, &http.Request{Method: http.MethodGet})
		switch {
		case err != nil && u.limit.N <= 0:
			return fail(balance.FailureHandshake, errors.New("the head of the answer is over 64 KiB"))
		case err != nil:
			return fail(balance.FailureHandshake, fmt.Errorf("reading the answer: %w", cmp.Or(u.limit.err, err)))
		case res.StatusCode == http.StatusSwitchingProtocols:
			u.res = res
			if err := h.agree(u); err != nil {
				return fail(balance.FailureHandshake, err)
			}
			return nil
		case res.StatusCode >= 200:
			u.res = res
			return nil
		case informational == 5:
			return fail(balance.FailureHandshake, errors.New("too many informational answers"))
		}
	}
}

// agree checks a backend's 101, and finds out what it means for compression.
func (h *handshake) agree(u *upstream) (err error) {
	mode := h.route.WebSocket.Compression.Mode
	var offered deflate.Offers
	if mode == relay.Passthrough {
		offered = h.opening.offers
	}
	if u.subprotocol, u.extension, err = checkAnswer(u.res, h.opening, offered); err != nil {
		return err
	}
	u.compression = relay.Compression{}
	switch {
	case u.extension != "":
		u.compression.Mode = relay.Passthrough
	case mode == relay.Terminate:
		answer, params, ok := h.opening.offers.Accept()
		if ok {
			u.extension, u.compression = answer, h.route.WebSocket.Compression
			u.compression.WindowBits = params.ServerMaxWindowBits
		}
	}
	return nil
}

// request is the upstream request: the client's own, with the headers of one hop
// replaced by ours.
func (h *handshake) request(b *balance.Backend) []byte {
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "GET %s HTTP/1.1\r\nHost: %s\r\n", h.target(), h.host(b))
	h.header.Write(&buf)
	buf.WriteString("\r\n")
	return buf.Bytes()
}

// host is the Host of the upstream request.
func (h *handshake) host(b *balance.Backend) string {
	switch host := h.route.pool.Upstream.Host; host {
	case HostPreserve, "":
		return h.r.Host
	case HostBackend:
		return b.Addr
	default:
		return host
	}
}

// target is the request target, with the route's prefix replaced if the pool says so.
func (h *handshake) target() string {
	prefix := h.route.pool.Upstream.Path
	if prefix == "" {
		return h.r.URL.RequestURI()
	}
	target := prefix
	if rest := cutEscaped(h.r.URL.EscapedPath(), len(cmp.Or(h.route.Path, "/"))); rest != "" {
		target = strings.TrimSuffix(prefix, "/") + "/" + strings.TrimPrefix(rest, "/")
	}
	if h.r.URL.RawQuery != "" || h.r.URL.ForceQuery {
		target += "?" + h.r.URL.RawQuery
	}
	return target
}

// cutEscaped cuts the first n characters off a path, where an escape is one character:
// the route matched the decoded path, and what lies behind its prefix must stay as it was
// written.
func cutEscaped(path string, n int) string {
	for range n {
		if path[0] == '%' {
			path = path[2:]
		}
		path = path[1:]
	}
	return path
}
