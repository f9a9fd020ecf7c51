//lint:file-ignore SA1019 x/net's Transport is the one client in Go with extended CONNECT

package proxy

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// withHTTP2 gives the first listener of settings a certificate and HTTP/2.
func withHTTP2(t *testing.T, settings Settings) Settings {
	settings = secured(t, settings)
	settings.Listeners[0].TLS.NextProtos = []string{"h2", "http/1.1"}
	return settings
}

// http2Client is one connection of HTTP/2 to the edge.
type http2Client struct {
	*http2.ClientConn
	conn net.Conn
	t    *testing.T
	ctx  context.Context
}

// dialHTTP2 makes a connection to the edge.
func (e *testEdge) dialHTTP2() *http2Client {
	e.t.Helper()
	conn := dialTLS(e.t, e.addr(), "h2")
	transport := &http2.Transport{}
	cc, err := transport.NewClientConn(conn)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	e.t.Cleanup(func() {
		cancel()
		cc.Close()
	})
	return &http2Client{cc, conn, e.t, ctx}
}

// dialTLS makes a TLS connection with a protocol.
func dialTLS(t *testing.T, addr, protocol string) *cryptotls.Conn {
	t.Helper()
	conn, err := cryptotls.Dial("tcp", addr, &cryptotls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if got := conn.ConnectionState().NegotiatedProtocol; got != protocol {
		t.Fatalf("the edge has chosen %q, want %q", got, protocol)
	}
	return conn
}

// connect is a sound extended CONNECT, with more headers; an empty value takes one out.
func (c *http2Client) connect(path string, more map[string]string) (*http.Request, *io.PipeWriter, context.CancelFunc) {
	u, err := url.Parse("https://edge.test" + path)
	if err != nil {
		c.t.Fatal(err)
	}
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(c.ctx)
	header := http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	for name, value := range more {
		if delete(header, name); value != "" {
			header[name] = []string{value}
		}
	}
	r := &http.Request{Method: http.MethodConnect, URL: u, Host: u.Host, Header: header, Body: out, ContentLength: -1}
	return r.WithContext(ctx), in, cancel
}

// answer is what the edge answers a CONNECT, with its body where it opens nothing.
func (c *http2Client) answer(path string, more map[string]string) (*http.Response, string) {
	c.t.Helper()
	r, in, cancel := c.connect(path, more)
	defer cancel()
	defer in.Close()
	res, err := c.RoundTrip(r)
	if err != nil {
		c.t.Fatalf("CONNECT %s: %v", path, err)
	}
	if res.StatusCode == http.StatusOK {
		return res, ""
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("reading the answer: %v", err)
	}
	return res, string(body)
}

// open opens a WebSocket.
func (c *http2Client) open(path string, more map[string]string) *http2Socket {
	c.t.Helper()
	r, in, cancel := c.connect(path, more)
	res, err := c.RoundTrip(r)
	if err != nil {
		c.t.Fatalf("CONNECT %s: %v", path, err)
	}
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		c.t.Fatalf("CONNECT %s: got %s: %s", path, res.Status, body)
	}
	s := &http2Socket{Reader: res.Body, PipeWriter: in, Conn: c.conn, res: res}
	s.rawConn = newRawConn(c.t, s)
	c.t.Cleanup(func() { in.Close(); cancel() })
	return s
}

// http2Socket is a WebSocket over HTTP/2, byte by byte.
type http2Socket struct {
	io.Reader
	*io.PipeWriter
	net.Conn
	*rawConn
	res *http.Response
}

func (s *http2Socket) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s *http2Socket) Write(p []byte) (int, error) { return s.PipeWriter.Write(p) }

// Close is END_STREAM.
func (s *http2Socket) Close() error                     { return s.PipeWriter.Close() }
func (s *http2Socket) SetDeadline(time.Time) error      { return nil }
func (s *http2Socket) SetReadDeadline(time.Time) error  { return nil }
func (s *http2Socket) SetWriteDeadline(time.Time) error { return nil }
func (s *http2Socket) LocalAddr() net.Addr              { return s.Conn.LocalAddr() }
func (s *http2Socket) RemoteAddr() net.Addr             { return s.Conn.RemoteAddr() }

// reset is RST_STREAM.
func (s *http2Socket) reset() { s.res.Body.Close() }

// echo sends a text message and wants it back.
func (s *http2Socket) echo(text string) {
	s.t.Helper()
	s.send(clientFrame(ws.OpText, text))
	s.wantText(text)
}

// wantStreamEnd wants END_STREAM, and no error, after what may still come.
func (s *http2Socket) wantStreamEnd() {
	s.t.Helper()
	if _, err := io.Copy(io.Discard, s.in); err != nil {
		s.t.Fatalf("the stream ended with %v", err)
	}
}

// bye closes the WebSocket in order.
func (s *http2Socket) bye() {
	s.t.Helper()
	s.send(clientFrame(ws.OpClose, "\x03\xe8"))
	s.wantClose(ws.StatusNormalClosure)
	s.wantStreamEnd()
}

// frameClient speaks HTTP/2 frame by frame.
type frameClient struct {
	*http2.Framer
	t      *testing.T
	conn   net.Conn
	block  bytes.Buffer
	coder  *hpack.Encoder
	stream uint32
}

// frames makes a connection to the edge on which frames are the test's.
func (e *testEdge) frames() *frameClient {
	e.t.Helper()
	conn := dialTLS(e.t, e.addr(), "h2")
	conn.SetDeadline(time.Now().Add(patience))
	f := &frameClient{Framer: http2.NewFramer(conn, conn), t: e.t, conn: conn, stream: 1}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.coder = hpack.NewEncoder(&f.block)
	io.WriteString(conn, http2.ClientPreface)
	if err := f.WriteSettings(); err != nil {
		e.t.Fatal(err)
	}
	return f
}

// request sends a request on the next stream and returns its status, or how it was reset.
func (f *frameClient) request(end bool, headers ...string) string {
	f.t.Helper()
	f.block.Reset()
	for i := 0; i < len(headers); i += 2 {
		f.coder.WriteField(hpack.HeaderField{Name: headers[i], Value: headers[i+1]})
	}
	id := f.stream
	f.stream += 2
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
		f.t.Fatal(err)
	}
	for {
		switch x := f.next().(type) {
		case *http2.MetaHeadersFrame:
			if x.StreamID == id {
				return x.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if x.StreamID == id {
				return "RST_STREAM " + x.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			return "GOAWAY " + x.ErrCode.String()
		}
	}
}

// next reads a frame.
func (f *frameClient) next() http2.Frame {
	f.t.Helper()
	x, err := f.ReadFrame()
	if err != nil {
		f.t.Fatalf("reading a frame: %v", err)
	}
	if s, ok := x.(*http2.SettingsFrame); ok && !s.IsAck() {
		f.WriteSettingsAck()
	}
	return x
}
