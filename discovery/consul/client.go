package consul

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	// maxAnswerBytes bounds one answer, after decompression: some ten thousand
	// instances with all their checks. A larger one is an error.
	maxAnswerBytes = 64 << 20
	// maxErrorBytes bounds the body of an error, which ends up in the log.
	maxErrorBytes = 1 << 10

	dialTimeout = 5 * time.Second
)

var errAnswerTooLarge = errors.New("it is too large")

// endpoint is where the agent listens.
type endpoint struct {
	scheme, host, prefix string
	socket               string // path of a Unix socket, or ""
	auth                 *api.HttpBasicAuth
}

// parseAddress reads Config.Address, or the environment's if it is empty.
func parseAddress(address string, tls TLS) (endpoint, error) {
	if address == "" {
		address = os.Getenv(api.HTTPAddrEnvName)
	}
	if address == "" {
		address = "127.0.0.1:8500"
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		if path == "" {
			return endpoint{}, errors.New("address: unix:// without a path")
		}
		if tls != (TLS{}) {
			return endpoint{}, errors.New("address: tls is of no use on a unix socket")
		}
		return endpoint{scheme: "http", host: "consul.sock", socket: path}, nil
	}
	if !strings.Contains(address, "://") {
		ssl, _ := strconv.ParseBool(os.Getenv(api.HTTPSSLEnvName))
		if ssl || tls != (TLS{}) {
			address = "https://" + address
		} else {
			address = "http://" + address
		}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return endpoint{}, fmt.Errorf("address: %w", errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https":
		return endpoint{}, fmt.Errorf("address: scheme %q is not http, https or unix", u.Scheme)
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return endpoint{}, errors.New("address: want http://host:port, https://host:port or unix:///path")
	case u.Scheme == "http" && tls != (TLS{}):
		return endpoint{}, errors.New("address: tls is set, but the address is http")
	}
	e := endpoint{scheme: u.Scheme, host: u.Host, prefix: strings.TrimSuffix(u.Path, "/")}
	if u.User != nil {
		password, _ := u.User.Password()
		e.auth = &api.HttpBasicAuth{Username: u.User.Username(), Password: password}
	}
	return e, nil
}

// newTransport returns the connections to the agent.
func newTransport(e endpoint, tls TLS) (*http.Transport, error) {
	tlsConfig, err := tls.config()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: dialTimeout,
		IdleConnTimeout:     90 * time.Second,
	}
	if e.socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", e.socket)
		}
	}
	return t, nil
}

// config reads the files once, so that a mistake is reported before anything starts.
func (t TLS) config() (*cryptotls.Config, error) {
	c := &cryptotls.Config{MinVersion: cryptotls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: no certificate in %s", t.CA)
		}
	}
	if t.Cert != "" {
		if _, err := cryptotls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
			return nil, fmt.Errorf("tls.cert: %w", err)
		}
		c.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
			pair, err := cryptotls.LoadX509KeyPair(t.Cert, t.Key)
			return &pair, err
		}
	}
	return c, nil
}

// newClient wraps transport into Consul's client, which takes answers up to maxAnswer
// bytes. The token and the
// datacenter are given with each query.
func newClient(e endpoint, transport http.RoundTripper, maxAnswer int64) (*api.Client, error) {
	return api.NewClient(&api.Config{
		Address:    e.host,
		Scheme:     e.scheme,
		PathPrefix: e.prefix,
		HttpAuth:   e.auth,
		HttpClient: &http.Client{
			Transport: bounded{transport, maxAnswer},
			// net/http would carry X-Consul-Token to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
}

// bounded cuts off answers that are too large: Consul's client reads all of a body.
type bounded struct {
	next      http.RoundTripper
	maxAnswer int64
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: b.maxAnswer}
	} else {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxErrorBytes), resp.Body}
	}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errAnswerTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
