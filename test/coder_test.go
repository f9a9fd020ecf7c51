package test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	coder "github.com/coder/websocket"
)

// coderPeer is an end in the hands of coder/websocket.
type coderPeer struct {
	link
	c      *coder.Conn
	ctx    context.Context // of its Reads
	cancel context.CancelFunc

	code     atomic.Int64 // that close was called with; 0: it was not
	answered chan error   // what came of it
}

func dialCoder(ctx context.Context, url string, protocols []string) (peer, error) {
	var d tap
	p := &coderPeer{}
	client := &http.Client{Transport: &http.Transport{DialContext: d.dial, TLSClientConfig: insecure()}}
	c, res, err := coder.Dial(ctx, url, &coder.DialOptions{HTTPClient: client, Subprotocols: protocols,
		CompressionMode: coder.CompressionContextTakeover, OnPingReceived: p.onPing, OnPongReceived: p.onPong})
	if err != nil {
		return nil, err
	}
	p.begin(c, d.conn, res.Header.Get("Sec-WebSocket-Extensions"))
	return p, nil
}

func serveCoder(t *testing.T) (string, <-chan peer) {
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request, raw net.Conn) (peer, error) {
		p := &coderPeer{}
		c, err := coder.Accept(w, r, &coder.AcceptOptions{Subprotocols: serverProtocols,
			CompressionMode: coder.CompressionContextTakeover, OnPingReceived: p.onPing, OnPongReceived: p.onPong})
		if err != nil {
			return nil, err
		}
		p.begin(c, raw, r.Header.Get("Sec-WebSocket-Extensions"))
		return p, nil
	})
}

func (p *coderPeer) begin(c *coder.Conn, raw net.Conn, extensions string) {
	p.c, p.link = c, newLink(raw, c.Subprotocol(), extensions)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	c.SetReadLimit(-1)
	p.answered = make(chan error, 1)
	go p.read()
}

func (p *coderPeer) onPing(_ context.Context, payload []byte) bool {
	p.inbox <- event{kind: "ping", data: slices.Clone(payload)}
	return true
}

func (p *coderPeer) onPong(_ context.Context, payload []byte) {
	p.inbox <- event{kind: "pong", data: slices.Clone(payload)}
}

func (p *coderPeer) read() {
	defer p.cancel()
	for {
		kind, data, err := p.c.Read(p.ctx)
		var closed coder.CloseError
		switch {
		case errors.As(err, &closed):
			p.inbox <- event{kind: "close", code: int(closed.Code), reason: closed.Reason}
			return
		case err != nil && p.code.Load() != 0:
			// Close has read the answer; it returns nil if the code is the same.
			if err = <-p.answered; err == nil {
				p.inbox <- event{kind: "close", code: int(p.code.Load())}
				return
			}
			fallthrough
		case err != nil:
			p.c.CloseNow()
			p.inbox <- event{kind: "end", err: err}
			return
		}
		p.inbox <- event{kind: map[coder.MessageType]string{coder.MessageText: "text", coder.MessageBinary: "binary"}[kind], data: data}
	}
}

func (p *coderPeer) send(kind string, parts ...[]byte) error {
	op := map[string]coder.MessageType{"text": coder.MessageText, "binary": coder.MessageBinary}[kind]
	if len(parts) == 1 {
		return p.c.Write(context.Background(), op, parts[0])
	}
	w, err := p.c.Writer(context.Background(), op)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return w.Close()
}

// ping has a payload of coder's choice and returns with the Pong.
func (p *coderPeer) ping(string) error {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	return p.c.Ping(ctx)
}

// close goes on in the background: coder waits for the end of the connection.
func (p *coderPeer) close(code int, reason string) error {
	p.code.Store(int64(code))
	go func() { p.answered <- p.c.Close(coder.StatusCode(code), reason) }()
	return nil
}
