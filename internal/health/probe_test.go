package health

import (
	"bufio"
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gorilla/websocket"

	"github.com/tidegate/tidegate/balance"
	"github.com/tidegate/tidegate/discovery"
)

// patience bounds what these tests wait for; only what is silent takes the short time.
const (
	patience = 20 * time.Second
	short    = 100 * time.Millisecond
)

// ask probes an address.
func ask(addr string, what Probe, cfg *cryptotls.Config, timeout time.Duration) (http.Header, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return probe(ctx, target{backend: &balance.Backend{Instance: discovery.Instance{Addr: addr}}, active: Active{Probe: what, Path: "/health?full=1"}, tls: cfg})
}

// serve runs a server that handles one connection after another as the test says.
func serve(t *testing.T, handle func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				handle(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// silent says nothing until the prober has gone.
func silent(c net.Conn) { io.Copy(io.Discard, c) }

// answering reads a request and answers with text.
func answering(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, text)
			silent(c)
		}
	}
}

// refusing is an address that refuses connections: a socket has it and does not listen, so
// that nobody else gets the port.
func refusing(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
}

func TestProbesThatFail(t *testing.T) {
	t.Parallel()
	trusting := &cryptotls.Config{InsecureSkipVerify: true}
	wrong := httptest.NewUnstartedServer(http.NotFoundHandler())
	wrong.Config.ErrorLog = log.New(io.Discard, "", 0)
	wrong.StartTLS()
	t.Cleanup(wrong.Close)
	wrongAddr := wrong.Listener.Addr().String()
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		name  string
		probe Probe
		addr  string
		tls   *cryptotls.Config
		want  string // in the reason
	}{
		{"tcp, refused", TCP, refusing(t), nil, "connection refused"},
		{"tcp, silent in TLS", TCP, serve(t, silent), trusting, "no answer in time"},
		{"tcp, no TLS there", TCP, serve(t, answeringAnything("HTTP/1.1 400 Bad Request\r\n\r\n")), trusting, "tls: first record does not look like a TLS handshake"},
		{"tcp, certificate of nobody", TCP, wrongAddr, &cryptotls.Config{}, "certificate signed by unknown authority"},
		{"tcp, certificate of somebody else", TCP, wrongAddr, &cryptotls.Config{RootCAs: rootsOf(wrong), ServerName: "other.test"}, "not other.test"},
		{"http, refused", HTTP, refusing(t), nil, "connection refused"},
		{"http, silent", HTTP, serve(t, silent), nil, "no answer in time"},
		{"http, ends", HTTP, serve(t, answering("")), nil, "no answer in time"},
		{"http, 500", HTTP, serve(t, answering("HTTP/1.1 500 Oops\r\n\r\n")), nil, "status 500"},
		{"http, a redirect", HTTP, serve(t, answering("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")), nil, "status 302"},
		{"http, 101", HTTP, serve(t, answering("HTTP/1.1 101 Switching Protocols\r\n\r\n")), nil, "status 101"},
		{"http, not HTTP", HTTP, serve(t, answering("SSH-2.0-OpenSSH_9.6\r\n\r\n")), nil, "malformed HTTP"},
		{"http, endless head", HTTP, serve(t, answering("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 100<<10))), nil, "over 64 KiB"},
		{"http, informational for ever", HTTP, serve(t, answering(strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 9))), nil, "too many informational"},
		{"websocket, 200", WebSocket, serve(t, answering(ok)), nil, "status 200"},
		{"websocket, 503", WebSocket, serve(t, answering("HTTP/1.1 503 Busy\r\n\r\n")), nil, "status 503"},
		{"websocket, other key", WebSocket, serve(t, answering("HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")), nil, "Sec-WebSocket-Accept"},
		{"websocket, other protocol", WebSocket, serve(t, answering("HTTP/1.1 101 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")), nil, "no upgrade to websocket"},
		{"websocket, subprotocol", WebSocket, serve(t, upgraded(nil, "Sec-WebSocket-Protocol: chat")), nil, "what was not offered"},
		{"websocket, silent", WebSocket, serve(t, silent), nil, "no answer in time"},
		{"websocket, never pongs", WebSocket, serve(t, upgraded(silentAfter)), nil, "no answer in time"},
		{"websocket, another pong", WebSocket, serve(t, upgraded(saying(ws.NewPongFrame([]byte("other"))))), nil, "no answer in time"},
		{"websocket, closes", WebSocket, serve(t, upgraded(saying(ws.NewCloseFrame(ws.NewCloseFrameBody(1013, "busy"))))), nil, "closed with 1013"},
		{"websocket, masks", WebSocket, serve(t, upgraded(saying(ws.MaskFrame(ws.NewTextFrame([]byte("hi")))))), nil, "breaks RFC 6455"},
		{"websocket, reserved bits", WebSocket, serve(t, upgraded(saying(ws.Frame{Header: ws.Header{Fin: true, Rsv: 4, OpCode: ws.OpText}}))), nil, "breaks RFC 6455"},
		{"websocket, ends", WebSocket, serve(t, upgraded(ending)), nil, "waiting for the Pong"},
		{"websocket, floods", WebSocket, serve(t, upgraded(flooding)), nil, "waiting for the Pong"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timeout := patience
			if tt.want == "no answer in time" {
				timeout = short
			}
			header, err := ask(tt.addr, tt.probe, tt.tls, timeout)
			if err == nil || header != nil {
				t.Fatalf("passed with %v, %v", header, err)
			}
			if got := brief(err); !strings.Contains(got, tt.want) {
				t.Errorf("reason %q, want %q", got, tt.want)
			}
		})
	}
}

// answeringAnything says text to whoever says something.
func answeringAnything(text string) func(net.Conn) {
	return func(c net.Conn) {
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			io.WriteString(c, text)
			silent(c)
		}
	}
}

// upgraded makes a sound handshake, with more header lines, and goes on as the test says.
func upgraded(then func(net.Conn, *bufio.Reader), lines ...string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		head := append([]string{"HTTP/1.1 101 Switching Protocols", "Upgrade: WebSocket", "Connection: keep-alive, Upgrade",
			"Sec-WebSocket-Accept: " + acceptOf(r.Header.Get("Sec-WebSocket-Key"))}, lines...)
		io.WriteString(c, strings.Join(head, "\r\n")+"\r\n\r\n")
		if then != nil {
			then(c, in)
		}
	}
}

func silentAfter(c net.Conn, in *bufio.Reader) { io.Copy(io.Discard, in) }

// ending reads the Ping and ends.
func ending(_ net.Conn, in *bufio.Reader) { io.CopyN(io.Discard, in, 2+4+8) }

func saying(f ws.Frame) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, in *bufio.Reader) {
		ws.WriteFrame(c, f)
		silentAfter(c, in)
	}
}

// flooding sends messages and never a Pong.
func flooding(c net.Conn, in *bufio.Reader) {
	for ws.WriteFrame(c, ws.NewBinaryFrame(make([]byte, 100<<10))) == nil {
	}
}

func rootsOf(srv *httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return roots
}

func TestProbesThatPass(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/health?full=1" || r.Header.Get("User-Agent") != "tidegate-health" {
			http.Error(w, r.RequestURI, http.StatusNotFound)
			return
		}
		w.Header().Set("X-Host", r.Host)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(secure.Close)
	cfg := &cryptotls.Config{RootCAs: rootsOf(secure)}
	addr := secure.Listener.Addr().String()

	if _, err := ask(serve(t, silent), TCP, nil, patience); err != nil {
		t.Errorf("tcp: %v", err)
	}
	if _, err := ask(addr, TCP, cfg, patience); err != nil {
		t.Errorf("tcp with TLS: %v", err)
	}
	header, err := ask(addr, HTTP, cfg, patience)
	if err != nil || header.Get("X-Host") != addr {
		t.Errorf("http: %v, %v", header, err)
	}
	header, err = ask(serve(t, answering("HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\nHTTP/1.1 299 Fine\r\nTidegate-Load: 0.25\r\n\r\n")), HTTP, nil, patience)
	if err != nil || header.Get("Tidegate-Load") != "0.25" {
		t.Errorf("http after 103: %v, %v", header, err)
	}
}

// TestHost is that of the settings where they name one.
func TestHost(t *testing.T) {
	t.Parallel()
	hosts := make(chan string, 1)
	addr := serve(t, func(c net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			hosts <- r.Host
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, host := range []string{"", "app.internal"} {
		_, err := probe(ctx, target{backend: &balance.Backend{Instance: discovery.Instance{Addr: addr}}, active: Active{Probe: HTTP, Path: "/"}, host: host})
		want := host
		if host == "" {
			want = addr
		}
		if got := <-hosts; err != nil || got != want {
			t.Errorf("Host %q, want %q; %v", got, want, err)
		}
	}
}

// TestWebSocketProbe is held to the letter by another implementation: masks, the Ping, and
// the Close 1000. The backend talks and pings before it answers.
func TestWebSocketProbe(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 1)
	var pinged, ponged string
	up := websocket.Upgrader{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, http.Header{"Tidegate-Load": {"0.75"}})
		if err != nil {
			ends <- err
			return
		}
		defer c.Close()
		answer := c.PingHandler()
		c.SetPingHandler(func(p string) error {
			pinged = p
			c.WriteMessage(websocket.TextMessage, []byte("welcome"))
			return c.WriteControl(websocket.PingMessage, []byte("you first"), time.Now().Add(patience))
		})
		c.SetPongHandler(func(p string) error { ponged = p; return answer(pinged) })
		_, _, err = c.ReadMessage()
		ends <- err
	}))
	t.Cleanup(srv.Close)
	header, err := ask(srv.Listener.Addr().String(), WebSocket, nil, patience)
	if err != nil || header.Get("Tidegate-Load") != "0.75" {
		t.Errorf("header %v, %v", header, err)
	}
	if err := <-ends; !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the backend saw %v, want Close 1000", err)
	}
	if len(pinged) != 8 || ponged != "you first" {
		t.Errorf("the backend got Ping %q and Pong %q", pinged, ponged)
	}
}

// TestProbeIsCancelled: who ends a prober does not wait for its backend.
func TestProbeIsCancelled(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	addr := serve(t, upgraded(func(c net.Conn, in *bufio.Reader) {
		close(asked)
		silentAfter(c, in)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-asked
		cancel()
	}()
	_, err := probe(ctx, target{backend: &balance.Backend{Instance: discovery.Instance{Addr: addr}}, active: Active{Probe: WebSocket}})
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}
