package test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// gorillaPeer is an end in the hands of gorilla/websocket.
type gorillaPeer struct {
	link
	c *gorilla.Conn
}

func dialGorilla(ctx context.Context, url string, protocols []string) (peer, error) {
	var d tap
	dialer := gorilla.Dialer{NetDialContext: d.dial, TLSClientConfig: insecure(), Subprotocols: protocols, EnableCompression: true}
	c, res, err := dialer.DialContext(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	return newGorillaPeer(c, d.conn, res.Header.Get("Sec-WebSocket-Extensions")), nil
}

func serveGorilla(t *testing.T) (string, <-chan peer) {
	up := gorilla.Upgrader{Subprotocols: serverProtocols, EnableCompression: true}
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request, raw net.Conn) (peer, error) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return nil, err
		}
		return newGorillaPeer(c, raw, r.Header.Get("Sec-WebSocket-Extensions")), nil
	})
}

func newGorillaPeer(c *gorilla.Conn, raw net.Conn, extensions string) *gorillaPeer {
	p := &gorillaPeer{newLink(raw, c.Subprotocol(), extensions), c}
	c.SetPingHandler(func(data string) error {
		p.inbox <- event{kind: "ping", data: []byte(data)}
		return c.WriteControl(gorilla.PongMessage, []byte(data), time.Now().Add(soon))
	})
	c.SetPongHandler(func(data string) error {
		p.inbox <- event{kind: "pong", data: []byte(data)}
		return nil
	})
	go p.read()
	return p
}

func (p *gorillaPeer) read() {
	defer p.c.Close()
	for {
		kind, data, err := p.c.ReadMessage()
		var closed *gorilla.CloseError
		switch {
		case errors.As(err, &closed) && closed.Code != gorilla.CloseAbnormalClosure:
			p.inbox <- event{kind: "close", code: closed.Code, reason: closed.Text}
			return
		case err != nil:
			p.inbox <- event{kind: "end", err: err}
			return
		}
		p.inbox <- event{kind: map[int]string{gorilla.TextMessage: "text", gorilla.BinaryMessage: "binary"}[kind], data: data}
	}
}

// send makes frames of the size of gorilla's write buffer of what has several parts.
func (p *gorillaPeer) send(kind string, parts ...[]byte) error {
	op := map[string]int{"text": gorilla.TextMessage, "binary": gorilla.BinaryMessage}[kind]
	if len(parts) == 1 {
		return p.c.WriteMessage(op, parts[0])
	}
	w, err := p.c.NextWriter(op)
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

func (p *gorillaPeer) ping(payload string) error {
	return p.c.WriteControl(gorilla.PingMessage, []byte(payload), time.Now().Add(soon))
}

func (p *gorillaPeer) close(code int, reason string) error {
	return p.c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason), time.Now().Add(soon))
}
