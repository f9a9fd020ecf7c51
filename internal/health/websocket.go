package health

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

const (
	// maxPongDistance bounds what a backend may send before the Pong, in bytes.
	maxPongDistance = 1 << 20
	// closeTimeout bounds the wait for the answer to the Close of a probe, whose verdict it
	// does not change.
	closeTimeout = time.Second
)

// webSocket makes the opening handshake (RFC 6455 §4.1), sends a Ping, wants the Pong that
// belongs to it (§5.5.3), and closes with 1000.
func (t *target) webSocket(conn net.Conn) (http.Header, error) {
	var nonce [16 + 8]byte
	rand.Read(nonce[:])
	key, payload := base64.StdEncoding.EncodeToString(nonce[:16]), nonce[16:]
	res, in, err := t.ask(conn, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+key)
	if err != nil {
		return nil, err
	}
	if err := checkUpgrade(res, key); err != nil {
		return nil, err
	}
	if err := send(conn, ws.NewPingFrame(payload)); err != nil {
		return nil, fmt.Errorf("pinging: %w", err)
	}
	if err := awaitPong(conn, in, payload); err != nil {
		return nil, err
	}
	farewell(conn, in)
	return res.Header, nil
}

// checkUpgrade holds the answer to a handshake against RFC 6455 §4.1.
func checkUpgrade(res *http.Response, key string) error {
	switch {
	case res.StatusCode != http.StatusSwitchingProtocols:
		return statusError(res.StatusCode)
	case !hasToken(res.Header["Upgrade"], "websocket"), !hasToken(res.Header["Connection"], "upgrade"):
		return errors.New("the answer is no upgrade to websocket")
	case strings.TrimSpace(res.Header.Get("Sec-WebSocket-Accept")) != acceptOf(key):
		return errors.New("Sec-WebSocket-Accept is not that of the key")
	case res.Header.Get("Sec-WebSocket-Extensions") != "", res.Header.Get("Sec-WebSocket-Protocol") != "":
		return errors.New("the answer has what was not offered")
	}
	return nil
}

// acceptOf is the Sec-WebSocket-Accept of a key (RFC 6455 §4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func hasToken(lines []string, token string) bool {
	return slices.ContainsFunc(strings.Split(strings.Join(lines, ","), ","), func(t string) bool {
		return strings.EqualFold(strings.TrimSpace(t), token)
	})
}

func send(conn net.Conn, f ws.Frame) error { return ws.WriteFrame(conn, ws.MaskFrame(f)) }

// awaitPong reads up to the Pong with a payload. What else a backend says is not for a
// probe, but its own Ping is answered: it may wait for that before it does anything else.
func awaitPong(conn net.Conn, in *bufio.Reader, payload []byte) error {
	for {
		h, err := ws.ReadHeader(in)
		if err != nil {
			return fmt.Errorf("waiting for the Pong: %w", err)
		}
		if h.Masked || h.Rsv != 0 || h.OpCode.IsReserved() || h.OpCode.IsControl() && (h.Length > ws.MaxControlFramePayloadSize || !h.Fin) {
			return errors.New("waiting for the Pong: a frame that breaks RFC 6455")
		}
		if !h.OpCode.IsControl() {
			if _, err := io.CopyN(io.Discard, in, h.Length); err != nil {
				return fmt.Errorf("waiting for the Pong: %w", err)
			}
			continue
		}
		said := make([]byte, h.Length)
		if _, err := io.ReadFull(in, said); err != nil {
			return fmt.Errorf("waiting for the Pong: %w", err)
		}
		switch {
		case h.OpCode == ws.OpPong && bytes.Equal(said, payload):
			return nil
		case h.OpCode == ws.OpClose:
			code, _ := ws.ParseCloseFrameData(said)
			return fmt.Errorf("closed with %d instead of a Pong", code)
		case h.OpCode == ws.OpPing:
			if err := send(conn, ws.NewPongFrame(said)); err != nil {
				return fmt.Errorf("answering a Ping: %w", err)
			}
		}
	}
}

// farewell closes with 1000 and waits a while for the Close that answers it, so that the
// backend does not meet a reset.
func farewell(conn net.Conn, in *bufio.Reader) {
	err := send(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
	conn.SetReadDeadline(time.Now().Add(closeTimeout))
	for err == nil {
		var h ws.Header
		if h, err = ws.ReadHeader(in); err != nil || h.OpCode == ws.OpClose {
			return
		}
		_, err = io.CopyN(io.Discard, in, h.Length)
	}
}
