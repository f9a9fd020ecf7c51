package enginetest

import (
	"bytes"
	cryptotls "crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/relay"
)

// peer is one far end of a session under test: the client or the backend.
type peer struct {
	net.Conn
	t    *testing.T
	side relay.Side
}

func (p *peer) frame(op ws.OpCode, fin bool, payload []byte) []byte {
	f := ws.NewFrame(op, fin, bytes.Clone(payload))
	if p.side == relay.Client {
		f = ws.MaskFrameInPlace(f)
	}
	return ws.MustCompileFrame(f)
}

func (p *peer) send(b ...[]byte) {
	p.t.Helper()
	if _, err := p.Write(bytes.Join(b, nil)); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// next reads one frame and unmasks it.
func (p *peer) next() (ws.Frame, error) {
	var f ws.Frame
	var err error
	if f.Header, err = ws.ReadHeader(p); err != nil {
		return f, err
	}
	f.Payload = make([]byte, f.Header.Length)
	if _, err := io.ReadFull(p, f.Payload); err != nil {
		return f, err
	}
	if f.Header.Masked {
		f = ws.UnmaskFrameInPlace(f)
	}
	return f, nil
}

// expect reads one frame and holds it against what it should be.
func (p *peer) expect(op ws.OpCode, payload []byte) {
	p.t.Helper()
	f, err := p.next()
	if err != nil {
		p.t.Fatalf("expecting %v: %v", op, err)
	}
	if f.Header.OpCode != op || !bytes.Equal(f.Payload, payload) {
		p.t.Fatalf("got opcode %v with %d bytes (%.40q), want %v with %d (%.40q)", f.Header.OpCode, len(f.Payload), f.Payload, op, len(payload), payload)
	}
}

func (p *peer) expectEnd() {
	p.t.Helper()
	if b, err := io.ReadAll(p); err != nil || len(b) > 0 {
		p.t.Fatalf("want the end of the stream, got %d bytes (% .40x), %v", len(b), b, err)
	}
}

func (p *peer) closeWrite() {
	p.t.Helper()
	if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		p.t.Fatal(err)
	}
	if c, ok := p.Conn.(*cryptotls.Conn); ok {
		c.NetConn().(*net.TCPConn).CloseWrite()
	}
}

// reset ends the connection with RST.
func (p *peer) reset() {
	c, ok := p.Conn.(*net.TCPConn)
	if !ok {
		c = p.Conn.(*cryptotls.Conn).NetConn().(*net.TCPConn)
	}
	c.SetLinger(0)
	c.Close()
}

func body(code ws.StatusCode, reason string) []byte { return ws.NewCloseFrameBody(code, reason) }

// expectEndOrReset allows for a connection that was given up with data under way.
func (p *peer) expectEndOrReset() {
	p.t.Helper()
	if b, err := io.ReadAll(p); len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("want the end, got %d bytes, %v", len(b), err)
	}
}
