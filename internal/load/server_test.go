package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// raw connects to a server and upgrades; behind is sent right behind the request.
func raw(t *testing.T, addr, uri string, behind ...byte) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	request := "GET " + uri + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"
	if _, err := conn.Write(append([]byte(request), behind...)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" ||
		resp.Header.Get("Sec-Websocket-Protocol") != "a" {
		t.Fatalf("answer %v", resp)
	}
	return conn, in
}

func masked(op ws.OpCode, fin bool, payload string) []byte {
	return ws.MustCompileFrame(ws.MaskFrameWith(ws.NewFrame(op, fin, []byte(payload)), [4]byte{1, 2, 3, 4}))
}

func TestServerEchoes(t *testing.T) {
	for engine, goroutines := range engines {
		t.Run(engine, func(t *testing.T) {
			addr := serve(t, &Server{goroutines: goroutines})
			first := masked(ws.OpText, true, "behind the request")
			conn, in := raw(t, addr, "/any/path?x=1", first...)
			expect := func(op ws.OpCode, fin bool, payload string) {
				t.Helper()
				f, err := readFrame(in)
				if err != nil {
					t.Fatal(err)
				}
				if f.Header.OpCode != op || f.Header.Fin != fin || f.Header.Masked || string(f.Payload) != payload {
					t.Fatalf("frame %+v %.40q, want %v %.40q", f.Header, f.Payload, op, payload)
				}
			}
			expect(ws.OpText, true, "behind the request")

			long := strings.Repeat("0123456789abcdef", 1<<16/16+1)
			stream := bytes.Join([][]byte{
				masked(ws.OpText, true, "one"), masked(ws.OpBinary, false, "two "), masked(ws.OpPing, true, "in between"),
				masked(ws.OpContinuation, false, ""), masked(ws.OpContinuation, true, "parts"), masked(ws.OpBinary, true, long),
				masked(ws.OpText, true, strings.Repeat("x", 126)), masked(ws.OpBinary, true, ""), masked(ws.OpPong, true, "unasked"),
			}, nil)
			go func() {
				for i := range stream[:300] { // a byte at a time, then the rest
					conn.Write(stream[i : i+1])
				}
				conn.Write(stream[300:])
			}()
			expect(ws.OpText, true, "one")
			expect(ws.OpBinary, false, "two ")
			expect(ws.OpPong, true, "in between")
			expect(ws.OpContinuation, false, "")
			expect(ws.OpContinuation, true, "parts")
			expect(ws.OpBinary, true, long)
			expect(ws.OpText, true, strings.Repeat("x", 126))
			expect(ws.OpBinary, true, "")
			conn.Write(masked(ws.OpClose, true, "\x0f\xa0bye"))
			expect(ws.OpClose, true, "\x0f\xa0bye")
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("after the Close: %v, want the end", err)
			}
		})
	}
}

func TestServerRefuses(t *testing.T) {
	addr := serve(t, &Server{})
	for uri, want := range map[string]int{
		"/?mode=push":                      400,
		"/?mode=push&size=23&rate=1":       400,
		"/?mode=push&size=40&text=1":       400,
		"/?mode=push&size=64&rate=NaN":     400,
		"/?mode=push&size=64&rate=-1":      400,
		"/?mode=push&size=99999999999":     400,
		"/?mode=push&size=64&rate=1&id=-1": 400,
		"/?mode=dance":                     400,
		"/":                                426, // no upgrade
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+uri, nil)
		if want != 426 {
			for k, v := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
				"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
				req.Header.Set(k, v)
			}
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want && !(want == 426 && resp.StatusCode == 400) {
			t.Errorf("%s: %d, want %d", uri, resp.StatusCode, want)
		}
	}
}

func TestServerRefusesBrokenFrames(t *testing.T) {
	addr := serve(t, &Server{})
	for name, b := range map[string][]byte{
		"unmasked":             ws.MustCompileFrame(ws.NewTextFrame([]byte("x"))),
		"reserved bit":         {0xc2, 0x80, 0, 0, 0, 0},
		"reserved opcode":      {0x83, 0x80, 0, 0, 0, 0},
		"long ping":            masked(ws.OpPing, true, strings.Repeat("x", 126)),
		"cut ping":             masked(ws.OpPing, false, ""),
		"stray continuation":   masked(ws.OpContinuation, true, ""),
		"start within message": append(masked(ws.OpText, false, ""), masked(ws.OpText, true, "")...),
		"length in 16 bits":    {0x82, 0xfe, 0, 125, 0, 0, 0, 0},
		"length in 64 bits":    {0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0},
		"negative length":      {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		conn, in := raw(t, addr, "/?mode=idle")
		conn.Write(b)
		f, err := readFrame(in)
		if err != nil || f.Header.OpCode != ws.OpClose || binary.BigEndian.Uint16(f.Payload) != 1002 {
			t.Errorf("%s: %v %v, want Close 1002", name, f, err)
		}
		if _, err := in.ReadByte(); err == nil {
			t.Errorf("%s: the connection goes on", name)
		}
	}
}

// TestServerPushes at the rate that was asked for, and without one.
func TestServerPushes(t *testing.T) {
	addr := serve(t, &Server{})
	_, in := raw(t, addr, "/?mode=push&size=100&rate=1000&id=5")
	plan := newLayout(Push, 100, false)
	begin := time.Now()
	for i := range 100 {
		f, err := readFrame(in)
		if err != nil {
			t.Fatal(err)
		}
		var m messageReader
		m.add(plan, f.Payload)
		s, ok := m.end(plan)
		if !ok || s.sequence != uint64(i) || s.connection != 5 || f.Header.OpCode != ws.OpBinary {
			t.Fatalf("message %d: %+v %t", i, s, ok)
		}
		if age := time.Since(time.Unix(0, s.due)); age < 0 || age > 10*time.Second {
			t.Fatalf("message %d was due %s ago", i, age)
		}
	}
	if took := time.Since(begin); took < 90*time.Millisecond {
		t.Errorf("100 messages of 1000/s took %s", took)
	}
}

// TestServerPushesWithoutPause: in order, and other connections are served meanwhile.
func TestServerPushesWithoutPause(t *testing.T) {
	for engine, goroutines := range engines {
		t.Run(engine, func(t *testing.T) {
			addr := serve(t, &Server{goroutines: goroutines})
			bulk, in := raw(t, addr, "/?mode=push&size=5000&rate=0")
			plan := newLayout(Push, 5000, false)
			for i := range 5000 {
				f, err := readFrame(in)
				if err != nil {
					t.Fatal(err)
				}
				var m messageReader
				m.add(plan, f.Payload)
				if s, ok := m.end(plan); !ok || s.sequence != uint64(i) {
					t.Fatalf("message %d: %+v %t", i, s, ok)
				}
			}
			_, other := raw(t, addr, "/", masked(ws.OpText, true, "x")...)
			if f, err := readFrame(other); err != nil || string(f.Payload) != "x" {
				t.Error(f, err)
			}
			bulk.Close()
		})
	}
}

// TestServerHoldsWhoDoesNotRead: a client that asks and does not take answers is not
// read any more, so its echo costs bounded memory.
func TestServerHoldsWhoDoesNotRead(t *testing.T) {
	for engine, goroutines := range engines {
		t.Run(engine, func(t *testing.T) {
			addr := serve(t, &Server{goroutines: goroutines})
			conn, in := raw(t, addr, "/")
			frame := masked(ws.OpBinary, true, strings.Repeat("x", 64<<10))
			written := 0
			for {
				conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				n, err := conn.Write(frame[written%len(frame):])
				if written += n; err != nil {
					break
				}
				if written > 256<<20 {
					t.Fatal("256 MB were taken")
				}
			}
			// All of it comes once it is read.
			go func() {
				conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
				conn.Write(frame[written%len(frame):])
				conn.Write(masked(ws.OpClose, true, "\x03\xe8"))
			}()
			for i := 0; ; i++ {
				f, err := readFrame(in)
				if err != nil {
					t.Fatal(err)
				}
				if f.Header.OpCode == ws.OpClose {
					if want := (written + len(frame) - 1) / len(frame); i != want && i != want+1 {
						t.Errorf("%d messages came back of %d", i, want)
					}
					return
				}
				if len(f.Payload) != 64<<10 {
					t.Fatalf("message of %d bytes", len(f.Payload))
				}
			}
		})
	}
}

func TestServerLeaves(t *testing.T) {
	for engine, goroutines := range engines {
		t.Run(engine, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- (&Server{goroutines: goroutines, Grace: 100 * time.Millisecond}).Serve(ctx, ln) }()
			_, in := raw(t, ln.Addr().String(), "/", masked(ws.OpText, true, "x")...)
			if _, err := readFrame(in); err != nil { // from now on it is no handshake any more
				t.Fatal(err)
			}
			handshaking, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer handshaking.Close()
			begin := time.Now()
			cancel()
			f, err := readFrame(in)
			if err != nil || f.Header.OpCode != ws.OpClose || binary.BigEndian.Uint16(f.Payload) != 1001 {
				t.Errorf("%v %v, want Close 1001", f, err)
			}
			// This client does not answer, so the grace runs out.
			if err := <-done; err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestServerWithAnotherClient: gobwas/ws over TLS, text.
func TestServerWithAnotherClient(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	addr := serve(t, &Server{TLS: serverTLS})
	conn, _, _, err := ws.Dialer{TLSConfig: clientTLS}.Dial(t.Context(), "wss://"+addr+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"grüße", strings.Repeat("y", 100_000)} {
		if err := wsutil.WriteClientText(conn, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := wsutil.ReadServerText(conn)
		if err != nil || string(got) != text {
			t.Fatalf("%.20q %v", got, err)
		}
	}
}
