package test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// gobwasPeer is an end in the hands of gobwas/ws, which leaves control frames to its
// user.
type gobwasPeer struct {
	link
	conn  net.Conn
	src   io.Reader
	state ws.State

	mu     sync.Mutex // one writer
	closed bool       // a Close went out
}

func dialGobwas(ctx context.Context, url string, protocols []string) (peer, error) {
	var d tap
	var extensions string
	dialer := ws.Dialer{NetDial: d.dial, TLSConfig: insecure(), Protocols: protocols,
		Header: ws.HandshakeHeaderHTTP{"Sec-WebSocket-Extensions": {offeredDeflate}},
		OnHeader: func(key, value []byte) error {
			if http.CanonicalHeaderKey(string(key)) == "Sec-Websocket-Extensions" {
				extensions += string(value)
			}
			return nil
		}}
	conn, br, hs, err := dialer.Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	p := &gobwasPeer{link: newLink(d.conn, hs.Protocol, extensions), conn: conn, src: conn, state: ws.StateClientSide}
	if br != nil {
		p.src = br
	}
	go p.read()
	return p, nil
}

func serveGobwas(t *testing.T) (string, <-chan peer) {
	up := ws.HTTPUpgrader{Protocol: func(offered string) bool { return slices.Contains(serverProtocols, offered) }}
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request, raw net.Conn) (peer, error) {
		conn, rw, hs, err := up.Upgrade(r, w)
		if err != nil {
			return nil, err
		}
		p := &gobwasPeer{link: newLink(raw, hs.Protocol, r.Header.Get("Sec-WebSocket-Extensions")), conn: conn, src: rw, state: ws.StateServerSide}
		go p.read()
		return p, nil
	})
}

// errClosed ends the reading of a gobwasPeer whose other end has sent its Close.
var errClosed = errors.New("closed")

func (p *gobwasPeer) read() {
	defer p.conn.Close()
	r := &wsutil.Reader{Source: p.src, State: p.state, CheckUTF8: true, OnIntermediate: p.control}
	for {
		h, err := r.NextFrame()
		if err == nil {
			err = p.frame(h, r)
		}
		if err != nil {
			if err != errClosed {
				p.inbox <- event{kind: "end", err: err}
			}
			return
		}
	}
}

// frame takes a control frame, or a message that begins.
func (p *gobwasPeer) frame(h ws.Header, r io.Reader) error {
	if h.OpCode.IsControl() {
		return p.control(h, r)
	}
	data, err := io.ReadAll(r)
	if err == nil {
		p.inbox <- event{kind: map[ws.OpCode]string{ws.OpText: "text", ws.OpBinary: "binary"}[h.OpCode], data: data}
	}
	return err
}

func (p *gobwasPeer) control(h ws.Header, r io.Reader) error {
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	switch h.OpCode {
	case ws.OpPing:
		p.inbox <- event{kind: "ping", data: data}
		return p.write(ws.NewPongFrame(data))
	case ws.OpPong:
		p.inbox <- event{kind: "pong", data: data}
		return nil
	}
	code, reason := ws.ParseCloseFrameData(data)
	if code == 0 {
		code = ws.StatusNoStatusRcvd
	}
	p.write(ws.NewCloseFrame(data)) // refused if ours went out before
	p.inbox <- event{kind: "close", code: int(code), reason: reason}
	return errClosed
}

// write sends one frame, none behind a Close.
func (p *gobwasPeer) write(f ws.Frame) error {
	if p.state.ClientSide() {
		f = ws.MaskFrame(f)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.closed = f.Header.OpCode == ws.OpClose
	return ws.WriteFrame(p.conn, f)
}

func (p *gobwasPeer) send(kind string, parts ...[]byte) error {
	op := map[string]ws.OpCode{"text": ws.OpText, "binary": ws.OpBinary}[kind]
	for i, part := range parts {
		if err := p.write(ws.NewFrame(op, i == len(parts)-1, part)); err != nil {
			return err
		}
		op = ws.OpContinuation
	}
	return nil
}

func (p *gobwasPeer) ping(payload string) error { return p.write(ws.NewPingFrame([]byte(payload))) }

func (p *gobwasPeer) close(code int, reason string) error {
	if code == int(ws.StatusNoStatusRcvd) {
		return p.write(ws.NewCloseFrame(nil))
	}
	return p.write(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))
}
