package test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	wire "encoding/binary" // binary is the program under test
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// rawEnd is one end of a connection of which the test writes and reads the bytes.
type rawEnd struct {
	net.Conn
	t      *testing.T
	r      *bufio.Reader
	req    *http.Request // at a backend, the request that opened it
	client bool
	pings  int // of the edge's own that it has answered
}

func newRawEnd(t *testing.T, conn net.Conn, client bool) *rawEnd {
	r := bareEnd(conn, client)
	r.adopt(t)
	return r
}

// bareEnd is an end that no test has yet.
func bareEnd(conn net.Conn, client bool) *rawEnd {
	return &rawEnd{Conn: conn, r: bufio.NewReaderSize(conn, 64<<10), client: client}
}

// adopt makes the end a test's.
func (r *rawEnd) adopt(t *testing.T) {
	r.SetDeadline(time.Now().Add(3 * soon)) // so that nothing hangs
	t.Cleanup(func() { r.Close() })
	r.t = t
}

// dialRaw connects to a listener, with TLS if secure.
func dialRaw(t *testing.T, addr string, secure bool) *rawEnd {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	if secure {
		conn = tls.Client(conn, insecure())
	}
	return newRawEnd(t, conn, true)
}

// opening is a client's handshake request.
func opening(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// switching is a backend's answer to the request that opened r.
func (r *rawEnd) switching() string {
	h := sha1.Sum([]byte(r.req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(h[:]) + "\r\n\r\n"
}

// rawBackend is an app server of which the test is every byte.
type rawBackend struct{ ln net.Listener }

// listenRaw listens on loopback, with TLS if there is a configuration.
func listenRaw(t *testing.T, cfg *tls.Config) *rawBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	if cfg != nil {
		ln = tls.NewListener(ln, cfg)
	}
	return &rawBackend{ln}
}

func (b *rawBackend) addr() string { return b.ln.Addr().String() }

// accept takes a connection and reads the request on it.
func (b *rawBackend) accept(t *testing.T) *rawEnd {
	t.Helper()
	conn, err := b.ln.Accept()
	must(t, err)
	r := newRawEnd(t, conn, false)
	r.req, err = http.ReadRequest(r.r)
	must(t, err)
	return r
}

// connect opens a session between two raw ends.
func connect(t *testing.T, addr string, secure bool, path string, backend *rawBackend) (c, b *rawEnd) {
	t.Helper()
	c = dialRaw(t, addr, secure)
	c.write([]byte(opening(path)))
	b = backend.accept(t)
	b.write([]byte(b.switching()))
	c.wantSwitching()
	return c, b
}

func (r *rawEnd) who() string {
	if r.client {
		return "client"
	}
	return "backend"
}

func (r *rawEnd) write(p []byte) {
	r.t.Helper()
	if _, err := r.Write(p); err != nil {
		r.t.Fatalf("%s: %v", r.who(), err)
	}
}

func (r *rawEnd) wantSwitching() {
	r.t.Helper()
	must(r.t, r.switched())
}

// switched reads a 101.
func (r *rawEnd) switched() error {
	res, err := http.ReadResponse(r.r, nil)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("%s: got %s, want a 101", r.who(), res.Status)
	}
	return err
}

// readFrame reads a frame; of what a client sends the mask is taken off.
func (r *rawEnd) readFrame() (h ws.Header, payload []byte, err error) {
	if h, err = ws.ReadHeader(r.r); err != nil {
		return h, nil, err
	}
	if h.Masked == r.client {
		return h, nil, fmt.Errorf("masked: %v", h.Masked)
	}
	payload = make([]byte, h.Length)
	if _, err = io.ReadFull(r.r, payload); err == nil && h.Masked {
		ws.Cipher(payload, h.Mask, 0)
	}
	return h, payload, err
}

// want reads exactly the given bytes.
func (r *rawEnd) want(p []byte) {
	r.t.Helper()
	if err := r.match(p); err != nil {
		r.t.Fatal(err)
	}
}

// match is want for other goroutines than the test's.
func (r *rawEnd) match(p []byte) error {
	buf := make([]byte, 256<<10)
	for at := 0; at < len(p); {
		n, err := r.r.Read(buf[:min(len(buf), len(p)-at)])
		if !bytes.Equal(buf[:n], p[at:at+n]) {
			return fmt.Errorf("%s: %d bytes from %d of %d on are not what was sent", r.who(), n, at, len(p))
		}
		at += n
		if err != nil && at < len(p) {
			return fmt.Errorf("%s: after %d of %d bytes: %w", r.who(), at, len(p), err)
		}
	}
	return nil
}

// wantClose reads a Close; reason "*" is any.
func (r *rawEnd) wantClose(code int, reason string) {
	r.t.Helper()
	h, p, err := r.readFrame()
	if err != nil || h.OpCode != ws.OpClose || !h.Fin || h.Rsv != 0 {
		r.t.Fatalf("%s: got frame %+v %.40q, %v, want Close %d", r.who(), h, p, err, code)
	}
	got, text := ws.ParseCloseFrameData(p)
	if int(got) != code || reason != "*" && text != reason {
		r.t.Fatalf("%s: got Close %d %q, want %d %q", r.who(), got, text, code, reason)
	}
}

// wantEnd reads the end of the stream: orderly, or, where that may be, torn.
func (r *rawEnd) wantEnd() {
	r.t.Helper()
	p, err := io.ReadAll(r.r)
	var timeout net.Error
	if len(p) > 0 || errors.As(err, &timeout) && timeout.Timeout() {
		r.t.Fatalf("%s: got %d bytes %.40x, %v, want the end of the stream", r.who(), len(p), p, err)
	}
}

// reset ends the connection with RST.
func (r *rawEnd) reset() {
	conn := r.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// finish ends our direction in order.
func (r *rawEnd) finish() {
	r.t.Helper()
	must(r.t, r.Conn.(interface{ CloseWrite() error }).CloseWrite())
}

// frame is the bytes of a frame from this end.
func (r *rawEnd) frame(fin bool, op ws.OpCode, payload []byte) []byte {
	return frameBytes(fin, op, payload, r.client)
}

// frameBytes is a frame in its shortest form; masked with a random mask.
func frameBytes(fin bool, op ws.OpCode, payload []byte, masked bool) []byte {
	p := []byte{byte(op)}
	if fin {
		p[0] |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		p = append(p, byte(n))
	case n < 1<<16:
		p = wire.BigEndian.AppendUint16(append(p, 126), uint16(n))
	default:
		p = wire.BigEndian.AppendUint64(append(p, 127), uint64(n))
	}
	if !masked {
		return append(p, payload...)
	}
	var mask [4]byte
	rand.Read(mask[:])
	p[1] |= 0x80
	p = append(p, mask[:]...)
	start := len(p)
	p = append(p, payload...)
	ws.Cipher(p[start:], mask, 0)
	return p
}

func closeBytes(code int, reason string, masked bool) []byte {
	return frameBytes(true, ws.OpClose, append(wire.BigEndian.AppendUint16(nil, uint16(code)), reason...), masked)
}

// scrape returns the value of a series of the edge's metrics, 0 if it is not there.
func (e *edge) scrape(series string) float64 {
	e.t.Helper()
	res, err := http.Get("http://" + e.waitLog("running", nil)["admin"].(string) + "/metrics")
	must(e.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(e.t, err)
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			fmt.Sscan(rest, &v)
			return v
		}
	}
	return 0
}
