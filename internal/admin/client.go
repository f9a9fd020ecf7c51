package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// clientTimeout bounds one call: what the server allows itself and a little more.
	clientTimeout = writeTimeout + 5*time.Second
	dialTimeout   = 5 * time.Second
	// maxAnswerBytes bounds an answer; the greatest honest one lists every backend.
	maxAnswerBytes = 256 << 20
)

// Client talks to the admin API of a running edge. It may be used by several
// goroutines.
type Client struct {
	address string   // as given
	base    *url.URL // scheme and host only
	token   string
	http    http.Client
}

// NewClient returns a client for the edge at address: host:port (without a host:
// localhost), http://host:port, https://host:port or unix:/path. With a token that is
// not empty every call carries it. The error is about the form of the address: nothing
// is connected yet.
func NewClient(address, token string) (*Client, error) {
	c := &Client{address: address, token: token}
	// No proxy of the environment stands between an operator and the edge, and a
	// redirect must not take the token elsewhere.
	transport := &http.Transport{TLSHandshakeTimeout: dialTimeout}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport.DialContext = dialer.DialContext
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if err := checkSocketPath(path); err != nil {
			return nil, err
		}
		c.base = &url.URL{Scheme: "http", Host: "localhost"}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	} else {
		base, err := parseBase(address)
		if err != nil {
			return nil, fmt.Errorf("%q is not an admin address: %w", address, err)
		}
		c.base = base
	}
	c.http = http.Client{
		Transport:     transport,
		Timeout:       clientTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func parseBase(address string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		host, port, err := net.SplitHostPort(address)
		if err != nil || port == "" {
			return nil, errors.New("want host:port, http://host:port or unix:/path")
		}
		if host == "" {
			host = "localhost"
		}
		address = "http://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("it is no URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("unknown scheme %q", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("it names no host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("want nothing but a scheme, a host and a port")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("bad port %q", p)
		}
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// UnreachableError says that nobody answered at an address.
type UnreachableError struct {
	Address string
	Err     error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no edge answers at %s: %v", e.Address, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// APIError is an answer that is not a success. Its texts come from the server.
type APIError struct {
	Status      int // of HTTP
	Message     string
	Diagnostics []Diagnostic // of a configuration that was rejected
	Body        []byte       // the JSON as it came
}

func (e *APIError) Error() string { return e.Message }

// Call sends one request, decodes the answer into into, unless that is nil, and
// returns the answer's JSON as it came. target is a path of this package, such as
// StatusPath or what SessionsPath returns. Errors are *UnreachableError, *APIError or
// about an answer that this API does not give.
func (c *Client) Call(ctx context.Context, method, target string, into any) ([]byte, error) {
	return c.Send(ctx, method, target, nil, into)
}

// Send is Call with a body, which is sent as JSON unless it is nil.
func (c *Client) Send(ctx context.Context, method, target string, body, into any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("calling the admin API: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+target, content)
	if err != nil {
		return nil, fmt.Errorf("calling the admin API: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &UnreachableError{c.address, withoutURL(err)}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", c.address, err)
	}
	if len(answer) > maxAnswerBytes {
		return nil, fmt.Errorf("the answer of %s is longer than %d bytes", c.address, maxAnswerBytes)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, c.refusal(resp.StatusCode, answer)
	}
	if into == nil {
		into = new(json.RawMessage)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return nil, fmt.Errorf("what answers at %s is not the admin API of an edge: %w", c.address, err)
	}
	return answer, nil
}

// refusal makes an APIError of an answer that looks like one.
func (c *Client) refusal(status int, body []byte) error {
	var answer errorAnswer
	if err := json.Unmarshal(body, &answer); err != nil || answer.Error == "" {
		return fmt.Errorf("what answers at %s is not the admin API of an edge: HTTP status %d", c.address, status)
	}
	return &APIError{Status: status, Message: answer.Error, Diagnostics: answer.Diagnostics, Body: body}
}

// withoutURL takes off what net/http puts around an error: the caller names the
// address as the user wrote it.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Status asks for the edge's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	_, err := c.Call(ctx, http.MethodGet, StatusPath, &st)
	return st, err
}

// Pools asks for all pools.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	var list PoolList
	_, err := c.Call(ctx, http.MethodGet, PoolsPath, &list)
	return list.Pools, err
}

// Backend asks for one backend.
func (c *Client) Backend(ctx context.Context, pool, id string) (Backend, error) {
	var b Backend
	_, err := c.Call(ctx, http.MethodGet, BackendPath(pool, id), &b)
	return b, err
}

// Drain drains a backend.
func (c *Client) Drain(ctx context.Context, pool, id string, d DrainRequest) (Backend, error) {
	var b Backend
	_, err := c.Send(ctx, http.MethodPost, DrainPath(pool, id), d, &b)
	return b, err
}

// Undrain ends the drain of a backend.
func (c *Client) Undrain(ctx context.Context, pool, id string) (Backend, error) {
	var b Backend
	_, err := c.Call(ctx, http.MethodPost, UndrainPath(pool, id), &b)
	return b, err
}

// Rebalance begins to rebalance a pool.
func (c *Client) Rebalance(ctx context.Context, pool string) (Rebalancing, error) {
	var r Rebalancing
	_, err := c.Call(ctx, http.MethodPost, RebalancePath(pool), &r)
	return r, err
}

// Sessions asks for one page of sessions; a Limit of 0 is DefaultLimit.
func (c *Client) Sessions(ctx context.Context, q SessionQuery) (SessionPage, error) {
	var page SessionPage
	_, err := c.Call(ctx, http.MethodGet, SessionsPath(q), &page)
	return page, err
}

// Session asks for one session.
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	var session Session
	_, err := c.Call(ctx, http.MethodGet, SessionPath(id), &session)
	return session, err
}

// CloseSession begins to close a session; code 0 is DefaultCloseCode.
func (c *Client) CloseSession(ctx context.Context, id string, code int, reason string) (Closing, error) {
	var done Closing
	_, err := c.Call(ctx, http.MethodDelete, ClosePath(id, code, reason), &done)
	return done, err
}

// Reload applies the edge's configuration file and returns the new generation.
func (c *Client) Reload(ctx context.Context) (uint64, error) {
	var done Reloaded
	_, err := c.Call(ctx, http.MethodPost, ReloadPath, &done)
	return done.Generation, err
}
