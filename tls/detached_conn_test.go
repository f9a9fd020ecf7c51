package tls

import (
	"bufio"
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// engines that a Connection is tested with; a detached one needs TLS 1.3.
var engines = []Engine{EngineAuto, EngineStdlib}

// accepted13 makes one connection and returns the server's end, with a client that can
// do everything.
func accept13(t testing.TB, engine Engine) (server *Connection, client *Layer, conn *prefixed) {
	t.Helper()
	got, done := make(chan *Connection), make(chan struct{})
	e := serveEdge(t, oneCertificate(t, ServerSettings{}), engine, func(c *Connection) error {
		got <- c
		<-done
		return nil
	})
	t.Cleanup(func() { close(done) })
	layer, below := dialLayer(t, e.addr, resuming(cryptotls.VersionTLS13))
	server = <-got
	if seen := <-e.arrived; seen.detached != (engine == EngineAuto) {
		t.Fatal("not what was to be tested")
	}
	return server, layer, below.(*prefixed)
}

func (c *prefixed) tcp() *net.TCPConn { return c.Conn.(*net.TCPConn) }

func mustWrite(t testing.TB, conn net.Conn, p []byte) {
	t.Helper()
	_, err := conn.Write(p)
	must(t, err)
}

func TestConnReads(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.String(), func(t *testing.T) {
			server, client, conn := accept13(t, engine)
			read := func(n int) string {
				t.Helper()
				p := make([]byte, n)
				k, err := server.Read(p)
				must(t, err)
				return string(p[:k])
			}
			mustWrite(t, conn, client.data(t, "abc"))
			if got := read(2) + read(2) + fmt.Sprint(server.Read(nil)); got != "abc0 <nil>" {
				t.Errorf("got %q", got)
			}
			// A deadline within a record loses nothing.
			wire := client.data(t, "defg")
			for i := range wire {
				mustWrite(t, conn, wire[i:i+1])
				if i+1 == len(wire) {
					break
				}
				must(t, server.SetReadDeadline(time.Now().Add(time.Microsecond)))
				if n, err := server.Read(make([]byte, 9)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("after %d bytes: %d, %v", i+1, n, err)
				}
			}
			must(t, server.SetReadDeadline(time.Time{}))
			if got := read(9); got != "defg" {
				t.Errorf("got %q", got)
			}
			// A record that is larger than the first buffer, then many small ones.
			large := strings.Repeat("0123456789", 1600)
			wire = client.data(t, large)
			for range 300 {
				wire = append(wire, client.data(t, "small")...)
			}
			go conn.Write(wire)
			got, err := io.ReadAll(io.LimitReader(server, int64(len(large)+1500)))
			if err != nil || string(got) != large+strings.Repeat("small", 300) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestConnEnds(t *testing.T) {
	for _, engine := range engines {
		for name, c := range map[string]struct {
			send func(t *testing.T, l *Layer, conn *prefixed)
			want error
		}{
			"close_notify": {func(t *testing.T, l *Layer, conn *prefixed) { mustWrite(t, conn, l.CloseNotify(l.data(t, "data"))) }, io.EOF},
			"end of stream": {func(t *testing.T, l *Layer, conn *prefixed) {
				mustWrite(t, conn, l.data(t, "data"))
				conn.tcp().CloseWrite()
			}, io.EOF},
			"within a record": {func(t *testing.T, l *Layer, conn *prefixed) {
				mustWrite(t, conn, append(l.data(t, "data"), l.data(t, "lost")[:20]...))
				conn.tcp().CloseWrite()
			}, io.ErrUnexpectedEOF},
			"within a header": {func(t *testing.T, l *Layer, conn *prefixed) {
				mustWrite(t, conn, append(l.data(t, "data"), 23, 3))
				conn.tcp().CloseWrite()
			}, io.ErrUnexpectedEOF},
		} {
			t.Run(engine.String()+"/"+name, func(t *testing.T) {
				server, client, conn := accept13(t, engine)
				c.send(t, client, conn)
				got := make([]byte, 4)
				if _, err := io.ReadFull(server, got); err != nil || string(got) != "data" {
					t.Fatalf("got %q, %v", got, err)
				}
				for range 2 {
					if n, err := server.Read(got); n != 0 || err != c.want {
						t.Errorf("%d bytes, %v, want %v", n, err, c.want)
					}
				}
				// The other direction is open still.
				mustWrite(t, server, []byte("answer"))
				if got, err := readLayer(conn, client, 6); err != nil || string(got) != "answer" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
	}
}

func TestConnCloses(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.String(), func(t *testing.T) {
			t.Run("CloseWrite", func(t *testing.T) {
				server, client, conn := accept13(t, engine)
				mustWrite(t, server, []byte("last words"))
				must(t, server.CloseWrite())
				if got, err := readLayer(conn, client, 100); err != io.EOF || string(got) != "last words" {
					t.Errorf("got %q, %v", got, err)
				}
				if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("below: %d, %v, want the end of the stream", n, err)
				}
				if _, err := server.Write([]byte("x")); err == nil {
					t.Error("a Write after CloseWrite")
				}
				mustWrite(t, conn, client.data(t, "still"))
				if got, err := io.ReadAll(io.LimitReader(server, 5)); err != nil || string(got) != "still" {
					t.Errorf("got %q, %v", got, err)
				}
			})
			t.Run("Close", func(t *testing.T) {
				server, client, conn := accept13(t, engine)
				must(t, server.Close())
				if _, err := readLayer(conn, client, 1); err != io.EOF {
					t.Errorf("the client sees %v", err)
				}
				if err := server.Close(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a second Close: %v", err)
				}
				if _, err := server.Write([]byte("x")); err == nil {
					t.Error("a Write after Close")
				}
			})
			t.Run("Close breaks a Write off", func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				below := &entered{Conn: far, writes: make(chan struct{}, 100)}
				accepted, failed := make(chan *Connection, 1), make(chan error, 1)
				store := oneCertificate(t, ServerSettings{})
				go func() {
					conn, err := store.Accept(t.Context(), below, engine)
					failed <- err
					accepted <- conn
				}()
				clientLayer(t, near, withoutTickets(cryptotls.VersionTLS13))
				must(t, <-failed)
				server := <-accepted
				for len(below.writes) > 0 {
					<-below.writes
				}
				wrote := make(chan error)
				go func() {
					_, err := server.Write([]byte("nobody reads this"))
					wrote <- err
				}()
				<-below.writes
				must(t, server.Close())
				if err := <-wrote; err == nil {
					t.Error("the Write went on")
				}
			})
			t.Run("a deadline", func(t *testing.T) {
				server, _, _ := accept13(t, engine)
				must(t, server.SetWriteDeadline(time.Now().Add(time.Millisecond)))
				var err error
				for err == nil {
					_, err = server.Write(make([]byte, 1<<20))
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				must(t, server.SetWriteDeadline(time.Time{}))
				if _, again := server.Write([]byte("x")); again == nil {
					t.Error("part of a record was written, and a Write went on behind it")
				}
			})
		})
	}
}

// entered tells of each Write when it begins.
type entered struct {
	net.Conn
	writes chan struct{}
}

func (c *entered) Write(p []byte) (int, error) {
	c.writes <- struct{}{}
	return c.Conn.Write(p)
}

// Reads, writes, deadlines and the end, all at once (with the race detector).
func TestConnAtOnce(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.String(), func(t *testing.T) {
			server, client, conn := accept13(t, engine)
			var all sync.WaitGroup
			const total = 200_000
			all.Go(func() { // the client: updates its keys again and again
				for sent := 0; sent < total; {
					wire := client.data(t, strings.Repeat("u", 1000))
					sent += 1000
					if sent%20_000 == 0 {
						wire = client.KeyUpdate(wire, true)
					}
					if _, err := conn.Write(wire); err != nil {
						t.Error(err)
						return
					}
				}
			})
			all.Go(func() {
				if n, err := io.Copy(io.Discard, io.LimitReader(server, total)); n != total {
					t.Errorf("the server has read %d, %v", n, err)
				}
			})
			for range 2 {
				all.Go(func() {
					for range total / 1000 {
						if _, err := server.Write(bytes.Repeat([]byte("d"), 1000)); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Go(func() {
				for range 100 {
					server.SetDeadline(time.Now().Add(20 * time.Second))
					server.ConnectionState()
				}
			})
			// The reading half of the client's layer is used by this goroutine, its
			// writing half by the other; it owes no replies, as the server asks for none.
			if got, err := readLayer(conn, client, 2*total); err != nil || len(got) != 2*total || strings.Trim(string(got), "d") != "" {
				t.Errorf("the client has read %d, %v", len(got), err)
			}
			all.Wait()
		})
	}
}

// A request is read by net/http, which has read ahead and may be reading when the
// connection is hijacked; what follows it is the codec's.
func TestDetachAfterHijack(t *testing.T) {
	store := oneCertificate(t, ServerSettings{NextProtos: []string{"http/1.1"}})
	for _, engine := range engines {
		t.Run(engine.String(), func(t *testing.T) {
			var detached sync.WaitGroup
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.TLS == nil || r.TLS.ServerName != "a.test" || r.TLS.NegotiatedProtocol != "http/1.1" {
					t.Errorf("TLS of the request: %+v", r.TLS)
				}
				raw, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				ahead, _ := rw.Reader.Peek(rw.Reader.Buffered())
				conn := raw.(*Connection)
				fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
				codec, wire, plain := conn.Detach()
				if _, ok := codec.(*Layer); ok != (engine == EngineAuto) {
					t.Errorf("the codec is a %T", codec)
				}
				plain = append(bytes.Clone(ahead), plain...)
				if _, err := conn.Read(make([]byte, 1)); err != net.ErrClosed {
					t.Errorf("Read after Detach: %v", err)
				}
				if _, err := conn.Write([]byte("x")); err != net.ErrClosed {
					t.Errorf("Write after Detach: %v", err)
				}
				if err := conn.CloseWrite(); err != net.ErrClosed {
					t.Errorf("CloseWrite after Detach: %v", err)
				}
				conn.NetConn().SetDeadline(time.Now().Add(20 * time.Second))
				if err := echoDetached(conn.NetConn(), codec, wire, plain, 700); err != nil {
					t.Error(err)
				}
				conn.Close()
				detached.Done()
			})
			listener := &queue{conns: make(chan net.Conn), done: make(chan struct{})}
			server := &http.Server{Handler: handler}
			stopped := make(chan struct{})
			go func() { defer close(stopped); server.Serve(listener) }()
			t.Cleanup(func() { server.Close(); <-stopped })
			e := serveEdge(t, store, engine, func(c *Connection) error {
				listener.conns <- c
				<-listener.done
				return nil
			})
			t.Cleanup(func() { listener.Close() }) // before the cleanup of serveEdge, which waits
			config := resuming(cryptotls.VersionTLS13)
			config.NextProtos = []string{"http/1.1"}
			for _, size := range []int{0, 1, 100, 3000, 5000, 50_000} {
				conn, err := dialEdge(t, e.addr, config)
				must(t, err)
				detached.Add(1)
				data := bytes.Repeat([]byte("z"), size)
				wrote := make(chan error, 1)
				go func() {
					// The first bytes are in the request's record and in the one behind it.
					_, err := conn.Write(append([]byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), data[:size/2]...))
					if err == nil && size > 0 {
						_, err = conn.Write(data[size/2:])
					}
					wrote <- errors.Join(err, conn.CloseWrite())
				}()
				reader := bufio.NewReader(conn)
				response, err := http.ReadResponse(reader, nil)
				must(t, err)
				if response.StatusCode != http.StatusSwitchingProtocols {
					t.Fatal(response.Status)
				}
				got, err := io.ReadAll(reader)
				if err := errors.Join(err, <-wrote); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("got %d bytes of %d: %v", len(got), size, err)
				}
				detached.Wait()
			}
		})
	}
}

// queue is a listener of connections that were accepted elsewhere.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

// Detach hands over what was read and not opened, what was opened and not read, and an
// end that was seen already.
func TestDetachLeftovers(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.String(), func(t *testing.T) {
			server, client, conn := accept13(t, engine)
			wire := client.data(t, "0123456789")
			wire = append(wire, client.data(t, "abcdef")...)
			wire = client.CloseNotify(wire)
			mustWrite(t, conn, wire)
			if _, err := io.ReadFull(server, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			codec, left, plain := server.Detach()
			got := bytes.Clone(plain)
			for _, err := conn.tcp().Write(nil); err == nil; { // read on where Detach stopped
				more, used, reply, again, openErr := codec.Open(left, make([]byte, 100), nil)
				got = append(got, more...)
				left = left[used:]
				if len(reply) > 0 {
					t.Errorf("a reply of %d bytes", len(reply))
				}
				if openErr != nil {
					err = openErr
				}
				if err == io.EOF {
					break
				}
				if !again {
					p := make([]byte, 100)
					n, readErr := server.NetConn().Read(p)
					must(t, readErr)
					left = append(left, p[:n]...)
				}
			}
			if string(got) != "456789abcdef" {
				t.Errorf("got %q", got)
			}
			// The records are the codec's now: Close must not write any.
			must(t, server.Close())
			rest, _ := io.ReadAll(conn.Conn)
			if rest = append(conn.before, rest...); records(t, rest) > 1 || engine == EngineAuto && len(rest) > 0 && bodyBytes(rest) < 100 {
				t.Errorf("%d bytes came after Detach", len(rest))
			}
			if len(codec.CloseNotify(nil)) == 0 {
				t.Error("the other direction is closed")
			}
		})
	}
}

func TestClient(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	pair := ca.names(t, "a.test")
	store := mustStore(t, ServerSettings{Certificates: []KeyPairFiles{dir.pair(t, "a", pair)}})
	for version, number := range versions {
		for _, detach := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/detached %v", version, detach), func(t *testing.T) {
				server := serveEdge(t, store, EngineAuto, echoConn)
				config := resuming(number)
				config.InsecureSkipVerify, config.RootCAs = false, ca.pool()
				for i := range 2 {
					below, err := net.Dial("tcp", server.addr)
					must(t, err)
					below.SetDeadline(time.Now().Add(20 * time.Second))
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					conn, err := Connect(ctx, below, config)
					cancel()
					must(t, err)
					if conn.ConnectionState().DidResume != (i > 0) {
						t.Errorf("connection %d: resumed %v", i, conn.ConnectionState().DidResume)
					}
					mustWrite(t, conn, []byte("ping"))
					if detach {
						codec, wire, plain := conn.Detach()
						got := plain
						p, scratch := make([]byte, 10), make([]byte, 10)
						for len(got) < 4 {
							more, used, reply, again, err := codec.Open(wire, scratch, nil)
							must(t, err)
							if len(reply) > 0 {
								t.Error("an answer to tickets")
							}
							got, wire = append(got, more...), wire[used:]
							if !again && len(got) < 4 {
								n, err := below.Read(p)
								must(t, err)
								wire = append(wire, p[:n]...)
							}
						}
						if string(got) != "ping" || codec.ConnectionState().Version != number {
							t.Errorf("got %q", got)
						}
						mustWrite(t, below, codec.CloseNotify(nil))
						below.Close()
					} else {
						if err := readFull(conn, "ping"); err != nil {
							t.Error(err)
						}
						must(t, conn.Close())
					}
					<-server.arrived
					<-server.ended
				}
			})
		}
	}
	// crypto/tls's own refusals.
	server := serveEdge(t, store, EngineAuto, echoConn)
	below, err := net.Dial("tcp", server.addr)
	must(t, err)
	defer below.Close()
	if _, err := Connect(t.Context(), below, &cryptotls.Config{ServerName: "a.test"}); err == nil {
		t.Error("a certificate of an unknown CA was accepted")
	}
}

func readFull(conn net.Conn, want string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

// dialClient makes a handshake with Client.
func dialClient(t testing.TB, addr string, config *cryptotls.Config) *Connection {
	t.Helper()
	below, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { below.Close() })
	below.SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := Connect(t.Context(), below, config)
	must(t, err)
	return conn
}
