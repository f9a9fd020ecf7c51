package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// listen serves each connection with handle until the test ends, and waits for them.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return "ws://" + ln.Addr().String()
}

// listenNumbered is listen for those who tell connections apart: they are numbered from 0.
func listenNumbered(t *testing.T, handle func(n int, conn net.Conn)) string {
	var next atomic.Int64
	return listen(t, func(conn net.Conn) { handle(int(next.Add(1)-1), conn) })
}

// refuse answers an opening handshake with 429.
func refuse(conn net.Conn) {
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
		io.WriteString(conn, "HTTP/1.1 429 Too Many Requests\r\n\r\n")
	}
}

// readFrame reads a frame of 16 MiB at most.
func readFrame(in io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(in); err != nil {
		return f, err
	}
	if f.Header.Length > 16<<20 {
		return f, fmt.Errorf("a frame of %d bytes", f.Header.Length)
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(in, f.Payload)
	return f, err
}

// wsServer upgrades, and hands each frame of the client to answer, which writes what it
// likes and returns false to end the connection. Closes are answered.
func wsServer(t *testing.T, answer func(conn net.Conn, n int, f ws.Frame) bool) string {
	return listen(t, func(conn net.Conn) {
		if _, err := ws.Upgrade(conn); err != nil {
			return
		}
		in := bufio.NewReader(conn)
		for n := 0; ; n++ {
			f, err := readFrame(in)
			if err != nil {
				return
			}
			f = ws.UnmaskFrameInPlace(f)
			if f.Header.OpCode == ws.OpClose {
				ws.WriteFrame(conn, ws.NewCloseFrame(f.Payload))
				return
			}
			if !answer(conn, n, f) {
				return
			}
		}
	})
}

// TestHarmIsSeen has servers that harm messages.
func TestHarmIsSeen(t *testing.T) {
	send := func(conn net.Conn, payloads ...[]byte) bool {
		for _, p := range payloads {
			ws.WriteFrame(conn, ws.NewBinaryFrame(p))
		}
		return true
	}
	var held [][]byte // of one connection, for the cases that reorder and misdeliver
	for _, c := range []struct {
		name   string
		answer func(conn net.Conn, n int, f ws.Frame) bool
		want   Messages
	}{
		{"lost", func(conn net.Conn, n int, f ws.Frame) bool {
			return n == 3 || n == 5 || send(conn, f.Payload)
		}, Messages{Lost: 2}},
		{"the last is lost", func(conn net.Conn, n int, f ws.Frame) bool {
			return n == 9 || send(conn, f.Payload)
		}, Messages{Lost: 1}},
		{"doubled", func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 4 {
				send(conn, f.Payload)
			}
			return send(conn, f.Payload)
		}, Messages{Doubled: 1}},
		{"reordered", func(conn net.Conn, n int, f ws.Frame) bool {
			if held = append(held, slices.Clone(f.Payload)); n%2 == 0 {
				return true
			}
			p := held
			held = nil
			return send(conn, p[1], p[0])
		}, Messages{Reordered: 5}},
		{"changed", func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 2 {
				f.Payload[40] ^= 1
			}
			return send(conn, f.Payload)
		}, Messages{Lost: 1, Unexpected: 1}},
		{"shortened", func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 2 {
				f.Payload = f.Payload[:63]
			}
			return send(conn, f.Payload)
		}, Messages{Lost: 1, Unexpected: 1}},
		{"lengthened", func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 2 {
				f.Payload = append(f.Payload, 0)
			}
			return send(conn, f.Payload)
		}, Messages{Lost: 1, Unexpected: 1}},
		{"of another type", func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 2 {
				return wsutil.WriteServerText(conn, f.Payload) == nil
			}
			return send(conn, f.Payload)
		}, Messages{Lost: 1, Unexpected: 1}},
		{"another's", func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 2 {
				f.Payload[2] ^= 1 // the connection's number
			}
			return send(conn, f.Payload)
		}, Messages{Lost: 1, Misdelivered: 1}},
		{"a greeting", func(conn net.Conn, n int, f ws.Frame) bool {
			if n == 0 {
				wsutil.WriteServerText(conn, []byte("welcome"))
			}
			return send(conn, f.Payload)
		}, Messages{Unexpected: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			held = nil
			o := Options{URL: wsServer(t, c.answer), Connections: 1, Size: 64, Rate: 100, Duration: 100 * time.Millisecond,
				Grace: 150 * time.Millisecond}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			m := r.Messages
			if m.Due != 10 || m.Sent != 10 || m.Received != 10-c.want.Lost {
				t.Errorf("%d sent, %d received", m.Sent, m.Received)
			}
			m.Due, m.Sent, m.Received, m.PerSecond = 0, 0, 0, 0
			if m != c.want {
				t.Errorf("harm %+v, want %+v", m, c.want)
			}
		})
	}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(net.Conn)
		code   int
		kind   string
	}{
		{"Close", func(conn net.Conn) {
			ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(1012, "restart")))
			io.Copy(io.Discard, conn)
		}, 1012, ""},
		{"Close without a code", func(conn net.Conn) {
			ws.WriteFrame(conn, ws.NewCloseFrame(nil))
			io.Copy(io.Discard, conn)
		}, 1005, ""},
		{"end", func(net.Conn) {}, 1006, ""},
		{"reset", func(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0) }, 1006, "reset"},
		{"masked frame", func(conn net.Conn) {
			ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte("x"))))
			io.Copy(io.Discard, conn)
		}, 1006, "protocol"},
		{"half a frame", func(conn net.Conn) { conn.Write([]byte{0x82, 5, 1}) }, 1006, ""},
	} {
		for engine, goroutines := range engines {
			t.Run(c.name+"/"+engine, func(t *testing.T) {
				t.Parallel()
				url := listen(t, func(conn net.Conn) {
					if _, err := ws.Upgrade(conn); err != nil {
						return
					}
					if _, err := io.ReadFull(conn, make([]byte, 6+64)); err == nil { // the first message
						c.answer(conn)
					}
				})
				r, err := Run(t.Context(), Options{URL: url, Connections: 3, Size: 64, Duration: 10 * time.Second,
					Grace: 5 * time.Second, goroutines: goroutines})
				if err == nil || r == nil {
					t.Fatalf("Run: %v, although all connections end", err)
				}
				if r.Closes[c.code] != 3 || len(r.Closes) != 1 {
					t.Errorf("closes %v, want 3 with %d", r.Closes, c.code)
				}
				if r.Messages.Lost != 3 {
					t.Errorf("%d lost", r.Messages.Lost)
				}
				switch {
				case c.kind == "" && len(r.Errors) != 0:
					t.Errorf("errors %+v", r.Errors)
				case c.kind != "" && (len(r.Errors) != 1 || r.Errors[0].Kind != c.kind || r.Errors[0].Count != 3):
					t.Errorf("errors %+v, want 3 of %s", r.Errors, c.kind)
				}
			})
		}
	}
}

func TestFailedHandshakes(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	respond := func(response string) string {
		return listen(t, func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				io.WriteString(conn, response)
			}
		})
	}
	wss := "wss://" + serve(t, &Server{TLS: serverTLS})
	for _, c := range []struct {
		name, url, kind string
		timeout         time.Duration
	}{
		{"refused", "ws://" + closed.Addr().String(), "dial_refused", 0},
		{"503", respond("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), "upgrade_status_503", 0},
		{"200", respond("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "upgrade_status_200", 0},
		{"no HTTP", respond("hello\r\n\r\n"), "upgrade", 0},
		{"no answer", respond(""), "upgrade_end", 0},
		{"silence", listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }), "upgrade_timeout", 50 * time.Millisecond},
		{"unknown authority", strings.Replace(wss, "127.0.0.1", "localhost", 1), "tls_certificate", 0},
		{"no TLS", strings.Replace(listen(t, func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			io.Copy(io.Discard, conn)
		}), "ws:", "wss:", 1), "tls", 0},
		{"silence for TLS", strings.Replace(listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }), "ws:", "wss:", 1),
			"tls_timeout", 50 * time.Millisecond},
	} {
		for _, mode := range []Mode{Echo, Connect} {
			t.Run(c.name+"/"+string(mode), func(t *testing.T) {
				o := short(Options{URL: c.url, Mode: mode, Connections: 2, Size: 64, Timeout: c.timeout})
				if c.kind != "tls_certificate" {
					o.TLS = clientTLS
				}
				r, err := Run(t.Context(), o)
				var f *failure
				if r != nil || !errors.As(err, &f) || f.kind != c.kind {
					t.Fatalf("report %v, error %v, want %s", r != nil, err, c.kind)
				}
			})
		}
	}
}

// TestSomeFail: what cannot be opened is reported, the rest goes on.
func TestSomeFail(t *testing.T) {
	url := listenNumbered(t, func(n int, conn net.Conn) {
		if n%2 == 1 {
			refuse(conn)
			return
		}
		if _, err := ws.Upgrade(conn); err != nil {
			return
		}
		io.Copy(conn, conn) // masked frames are no echo
	})
	r, err := Run(t.Context(), short(Options{URL: url, Mode: Idle, Connections: 8, Duration: time.Second, Grace: 100 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	if h := r.Handshakes; h.Attempted != 8 || h.Completed != 4 || h.Failed != 4 {
		t.Errorf("handshakes %+v", h)
	}
	if len(r.Errors) == 0 || r.Errors[len(r.Errors)-1].Kind != "upgrade_status_429" {
		t.Errorf("errors %+v", r.Errors)
	}
}
