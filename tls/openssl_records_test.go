package tls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// sClient is a running `openssl s_client`, which sends the lines that it is given and
// takes some of them as commands.
type sClient struct {
	input  io.WriteCloser
	output *watched
	wait   func() error
}

// startSClient connects; the process ends with the test at the latest.
func startSClient(t *testing.T, addr string, args ...string) *sClient {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("openssl is not on PATH, and nothing is skipped in CI")
		}
		t.Skip("openssl is not on PATH")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	command := exec.CommandContext(ctx, path, append([]string{"s_client", "-connect", addr, "-servername", "a.test"}, args...)...)
	input, err := command.StdinPipe()
	must(t, err)
	s := &sClient{input: input, output: &watched{grown: make(chan struct{})}}
	command.Stdout, command.Stderr = s.output, s.output
	must(t, command.Start())
	s.wait = sync.OnceValue(command.Wait)
	t.Cleanup(func() {
		input.Close()
		cancel()
		s.wait()
	})
	return s
}

// watched collects output and lets others wait for it.
type watched struct {
	mu    sync.Mutex
	all   []byte
	grown chan struct{} // closed when there is more
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, p...)
	close(w.grown)
	w.grown = make(chan struct{})
	return len(p), nil
}

func (w *watched) now() ([]byte, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all, w.grown
}

// expect waits until the output holds want, count times in all.
func (s *sClient) expect(t *testing.T, want string, count int) {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		all, grown := s.output.now()
		if bytes.Count(all, []byte(want)) >= count {
			return
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("no %q (%d times) in:\n%s", want, count, all)
		}
	}
}

func (s *sClient) say(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(s.input, line+"\n")
	must(t, err)
}

// decorate answers each piece of data with itself in brackets, so that it cannot be
// mistaken for s_client's own words.
func decorate(conn *Connection) error {
	codec, wire, plain := conn.Detach()
	below, scratch := conn.NetConn(), make([]byte, 1<<15)
	in := append([]byte(nil), wire...)
	if len(plain) > 0 {
		return errors.New("something was read already")
	}
	for {
		data, used, out, again, openErr := codec.Open(in, scratch, nil)
		if len(data) > 0 {
			var err error
			if out, err = codec.Seal(out, [][]byte{[]byte("<"), bytes.TrimRight(data, "\n"), []byte(">\n")}); err != nil {
				return err
			}
		}
		in = append(in[:0], in[used:]...)
		if openErr == io.EOF {
			out = codec.CloseNotify(out)
		}
		if _, err := below.Write(out); err != nil {
			return err
		}
		if openErr != nil {
			return openErr
		}
		if again {
			continue
		}
		piece := make([]byte, 13)
		n, err := below.Read(piece)
		if err != nil {
			return err
		}
		in = append(in, piece[:n]...)
	}
}

// Every suite, with keys that OpenSSL updates (k) and wants updated (K), then its end.
func TestOpenSSLUpdatesKeys(t *testing.T) {
	store := oneCertificate(t, ServerSettings{NextProtos: []string{"http/1.1"}})
	for _, engine := range engines {
		for _, suite := range []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"} {
			t.Run(fmt.Sprintf("%s/%s", engine, suite), func(t *testing.T) {
				t.Parallel()
				server := serveEdge(t, store, engine, decorate)
				client := startSClient(t, server.addr, "-tls1_3", "-ciphersuites", suite, "-alpn", "http/1.1")
				if seen := <-server.arrived; seen.err != nil || seen.detached != (engine == EngineAuto) {
					t.Fatalf("%+v", seen)
				}
				client.expect(t, "Cipher is "+suite, 1)
				updates := 0
				for i, line := range []string{"hello", "K", "after", "k", "again", "k", "K", "K", "last"} {
					if line == "k" || line == "K" {
						client.say(t, line)
						updates++
						client.expect(t, "KEYUPDATE", updates)
						continue
					}
					client.say(t, fmt.Sprintf("%s %d", line, i))
					client.expect(t, fmt.Sprintf("<%s %d>", line, i), 1)
				}
				client.say(t, "Q")
				if err := <-server.ended; err != io.EOF {
					t.Errorf("ended with %v", err)
				}
			})
		}
	}
}

// Much data at once, of which s_client makes full records.
func TestOpenSSLSendsMuch(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	for _, engine := range engines {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			t.Run(fmt.Sprintf("%s%s", engine, version), func(t *testing.T) {
				t.Parallel()
				var got []byte
				server := serveEdge(t, store, engine, func(conn *Connection) (err error) {
					got, err = io.ReadAll(conn)
					return errors.Join(err, conn.Close())
				})
				data := strings.Repeat("0123456789-\n", 30_000) // a piece that began with a letter could be a command
				client := startSClient(t, server.addr, version, "-quiet", "-no_ign_eof")
				client.say(t, data)
				must(t, client.input.Close())
				must(t, <-server.ended)
				if string(got) != data+"\n" {
					t.Errorf("got %d bytes of %d", len(got), len(data)+1)
				}
			})
		}
	}
}

// OpenSSL asks for another handshake (R), and may not have one.
func TestOpenSSLRenegotiates(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	server := serveEdge(t, store, EngineAuto, decorate)
	client := startSClient(t, server.addr, "-tls1_2")
	client.say(t, "hello")
	client.expect(t, "<hello>", 1)
	client.say(t, "R")
	err := <-server.ended
	if e, ok := errors.AsType[*RecordError](err); !ok || e.Alert != alertUnexpectedMessage {
		t.Errorf("ended with %v", err)
	}
	client.wait()
	client.expect(t, "unexpected message", 1)
}

// A session that began detached is resumed, detached again.
func TestOpenSSLResumesDetached(t *testing.T) {
	store, dir := oneCertificate(t, ServerSettings{}), newFolder(t)
	server := serveEdge(t, store, EngineAuto, decorate)
	for i, args := range [][]string{{"-sess_out", dir.path("session")}, {"-sess_in", dir.path("session")}} {
		client := startSClient(t, server.addr, append(args, "-tls1_3")...)
		seen := <-server.arrived
		if seen.state.DidResume != (i == 1) || !seen.detached || seen.firstSeq != 1 {
			t.Fatalf("connection %d: %+v", i, seen)
		}
		client.say(t, "hello")
		client.expect(t, "<hello>", 1)
		client.say(t, "Q")
		<-server.ended
		client.wait()
	}
}

// OpenSSL as the server of Client.
func TestOpenSSLServes(t *testing.T) {
	// -www answers a request and closes; its certificate is not verified here.
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	pair := dir.pair(t, "a", ca.names(t, "a.test"))
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not on PATH")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	command := exec.CommandContext(ctx, path, "s_server", "-accept", "127.0.0.1:0", "-cert", pair.CertFile, "-key", pair.KeyFile, "-rev")
	output := &sClient{output: &watched{grown: make(chan struct{})}}
	command.Stdout, command.Stderr = output.output, output.output
	must(t, command.Start())
	defer func() { cancel(); command.Wait() }()
	output.expect(t, "ACCEPT 127.0.0.1:", 1)
	all, _ := output.output.now()
	_, rest, _ := strings.Cut(string(all), "ACCEPT ")
	addr := strings.Fields(rest)[0]
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			conn := dialClient(t, addr, resuming(number))
			mustWrite(t, conn, []byte("stressed\n"))
			must(t, readFull(conn, "desserts\n"))
			codec, wire, plain := conn.Detach()
			if len(plain) > 0 {
				t.Error("something was left")
			}
			sealed, err := codec.Seal(nil, [][]byte{[]byte("dr"), []byte("awer\n")})
			must(t, err)
			mustWrite(t, conn.NetConn(), sealed)
			var got []byte
			for scratch := make([]byte, 100); len(got) < 7; {
				more, used, reply, _, err := codec.Open(wire, scratch, nil)
				must(t, err)
				if len(reply) > 0 {
					mustWrite(t, conn.NetConn(), reply)
				}
				if got, wire = append(got, more...), wire[used:]; len(got) < 7 {
					piece := make([]byte, 5)
					n, err := conn.NetConn().Read(piece)
					must(t, err)
					wire = append(wire, piece[:n]...)
				}
			}
			if string(got) != "reward\n" {
				t.Errorf("got %q", got)
			}
			mustWrite(t, conn.NetConn(), codec.CloseNotify(nil))
			must(t, conn.Close())
		})
	}
}
