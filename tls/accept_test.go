package tls

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// arrival is what a server saw of a connection.
type arrival struct {
	state    cryptotls.ConnectionState
	detached bool
	firstSeq uint64 // of what it writes
	err      error  // of the handshake
}

// edge is a server on loopback that accepts with a store.
type edge struct {
	addr    string
	arrived chan arrival
	ended   chan error // how use has ended, for each connection
}

// serveEdge hands each connection to use and closes it afterwards.
func serveEdge(t testing.TB, store *Store, engine Engine, use func(*Connection) error) *edge {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	e := &edge{addr: listener.Addr().String(), arrived: make(chan arrival, 100), ended: make(chan error, 100)}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		for {
			below, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer below.Close()
				below.SetDeadline(time.Now().Add(20 * time.Second))
				conn, err := store.Accept(ctx, below, engine)
				if err != nil {
					e.arrived <- arrival{err: err}
					return
				}
				a := arrival{state: conn.ConnectionState(), detached: conn.layer != nil}
				if a.detached {
					a.firstSeq = conn.layer.write.seq
				}
				e.arrived <- a
				e.ended <- use(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		cancel()
		running.Wait()
	})
	return e
}

// echoConn uses a connection as net/http would.
func echoConn(conn *Connection) error {
	_, err := io.Copy(onlyConn{conn}, onlyConn{conn})
	return errors.Join(err, conn.CloseWrite())
}

type onlyConn struct{ net.Conn }

// echoCodec uses a connection as a loop would, n bytes at a time.
func echoCodec(n int) func(*Connection) error {
	return func(conn *Connection) error {
		codec, wire, plain := conn.Detach()
		return echoDetached(conn.NetConn(), codec, wire, plain, n)
	}
}

// echoLate reads some bytes before it goes over to the codec, in the middle of
// whatever there is.
func echoLate(conn *Connection) error {
	some := make([]byte, 3)
	n, err := conn.Read(some)
	if err != nil {
		return err
	}
	if _, err := conn.Write(some[:n]); err != nil {
		return err
	}
	return echoCodec(1000)(conn)
}

func echoDetached(below net.Conn, codec Codec, wire, plain []byte, n int) error {
	scratch, piece := make([]byte, 1000), make([]byte, n)
	var in, out []byte
	in = append(in, wire...)
	for {
		var err error
		if out, err = codec.Seal(out[:0], [][]byte{plain}); err != nil {
			return err
		}
		if len(out) > 0 { // what was left of the net.Conn
			if _, err = below.Write(out); err != nil {
				return err
			}
		}
		plain = nil
		again := true
		for again {
			var data, reply []byte
			var used int
			var openErr error
			data, used, reply, again, openErr = codec.Open(in, scratch, nil)
			if openErr != nil && openErr != io.EOF {
				below.Write(reply)
				return openErr
			}
			if reply, err = codec.Seal(reply, [][]byte{data[:len(data)/2], data[len(data)/2:]}); err != nil {
				return err
			}
			in = slices.Delete(in, 0, used)
			if openErr == io.EOF {
				reply = codec.CloseNotify(reply)
			}
			if len(reply) > 0 {
				if _, err := below.Write(reply); err != nil {
					return err
				}
			}
			if openErr == io.EOF {
				return nil
			}
		}
		k, err := below.Read(piece)
		in = append(in, piece[:k]...)
		if err != nil {
			return fmt.Errorf("reading below: %w", err)
		}
	}
}

// styles are the ways of using a connection.
var styles = map[string]func(*Connection) error{
	"conn":          echoConn,
	"codec":         echoCodec(32 << 10),
	"codec, 1 byte": echoCodec(1),
	"codec, 100":    echoCodec(100),
	"late":          echoLate,
}

// dialEdge makes a handshake of crypto/tls.
func dialEdge(t testing.TB, addr string, config *cryptotls.Config) (*cryptotls.Conn, error) {
	t.Helper()
	below, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { below.Close() })
	below.SetDeadline(time.Now().Add(20 * time.Second))
	conn := cryptotls.Client(below, config)
	return conn, conn.Handshake()
}

// exchange sends data in random pieces, expects it back while it does so, and closes.
func exchange(t testing.TB, conn *cryptotls.Conn, total int) {
	t.Helper()
	data := make([]byte, total)
	rand.NewChaCha8([32]byte{1}).Read(data)
	wrote := make(chan error, 1)
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(1+rand.IntN(40000)))
			if _, err := conn.Write(rest[:n]); err != nil {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
		wrote <- conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-wrote); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("sent %d bytes, got %d, equal %v: %v", len(data), len(got), bytes.Equal(got, data), err)
	}
}

func oneCertificate(t testing.TB, settings ServerSettings) *Store {
	t.Helper()
	ca, dir := newAuthority(t, "ca"), newFolder(t)
	settings.Certificates = []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))}
	return mustStore(t, settings)
}

func TestEcho(t *testing.T) {
	store := oneCertificate(t, ServerSettings{NextProtos: []string{"http/1.1"}})
	for version, number := range versions {
		for _, engine := range []Engine{EngineAuto, EngineStdlib} {
			for name, use := range styles {
				t.Run(fmt.Sprintf("%s/%s/%s", version, engine, name), func(t *testing.T) {
					server := serveEdge(t, store, engine, use)
					total := 300_000
					if name == "codec, 1 byte" {
						total = 30_000
					}
					for _, total := range []int{0, 1, total} {
						conn, err := dialEdge(t, server.addr, resuming(number))
						must(t, err)
						seen := <-server.arrived
						if want := engine == EngineAuto && number == cryptotls.VersionTLS13; seen.detached != want {
							t.Fatalf("detached: %v, want %v", seen.detached, want)
						}
						if name == "late" && total == 0 {
							conn.Close()
							<-server.ended
							continue
						}
						exchange(t, conn, total)
						if err := <-server.ended; err != nil {
							t.Fatal(err)
						}
					}
				})
			}
		}
	}
}

func TestWhoProtectsRecords(t *testing.T) {
	store := oneCertificate(t, ServerSettings{NextProtos: []string{"h2", "http/1.1"}})
	none := oneCertificate(t, ServerSettings{})
	for name, c := range map[string]struct {
		store    *Store
		engine   Engine
		version  uint16
		alpn     []string
		detached bool
	}{
		"no ALPN":          {store, EngineAuto, cryptotls.VersionTLS13, nil, true},
		"http/1.1":         {store, EngineAuto, cryptotls.VersionTLS13, []string{"http/1.1"}, true},
		"h2":               {store, EngineAuto, cryptotls.VersionTLS13, []string{"h2", "http/1.1"}, false},
		"server has none":  {none, EngineAuto, cryptotls.VersionTLS13, []string{"h2", "http/1.1"}, true},
		"TLS 1.2":          {store, EngineAuto, cryptotls.VersionTLS12, []string{"http/1.1"}, false},
		"stdlib":           {store, EngineStdlib, cryptotls.VersionTLS13, nil, false},
		"stdlib, http/1.1": {store, EngineStdlib, cryptotls.VersionTLS13, []string{"http/1.1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := serveEdge(t, c.store, c.engine, func(conn *Connection) error {
				if (conn.CryptoTLS() == nil) != c.detached {
					return errors.New("CryptoTLS says otherwise")
				}
				return echoConn(conn)
			})
			client := resuming(c.version)
			client.NextProtos = c.alpn
			conn, err := dialEdge(t, server.addr, client)
			must(t, err)
			exchange(t, conn, 1000)
			seen := <-server.arrived
			if seen.detached != c.detached || seen.state.NegotiatedProtocol != conn.ConnectionState().NegotiatedProtocol || seen.state.ServerName != "a.test" {
				t.Errorf("detached: %v, %+v", seen.detached, seen.state)
			}
			must(t, <-server.ended)
		})
	}
}

// FIPS mode is decided when a process starts.
func TestFIPSMode(t *testing.T) {
	if os.Getenv("TIDEGATE_TEST_FIPS") == "" {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFIPSMode$", "-test.v")
		command.Env = append(os.Environ(), "TIDEGATE_TEST_FIPS=1", "GODEBUG=fips140=on")
		if output, err := command.CombinedOutput(); err != nil || !strings.Contains(string(output), "--- PASS") {
			t.Fatalf("%v:\n%s", err, output)
		}
		return
	}
	server := serveEdge(t, oneCertificate(t, ServerSettings{}), EngineAuto, echoConn)
	conn, err := dialEdge(t, server.addr, resuming(cryptotls.VersionTLS13))
	must(t, err)
	exchange(t, conn, 100_000)
	if (<-server.arrived).detached {
		t.Error("a Layer has taken over in FIPS mode")
	}
}

func TestTicketsOfDetachedConnections(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	for name, use := range styles {
		t.Run(name, func(t *testing.T) {
			server, client := serveEdge(t, store, EngineAuto, use), resuming(cryptotls.VersionTLS13)
			for i := range 4 {
				conn, err := dialEdge(t, server.addr, client)
				must(t, err)
				exchange(t, conn, 5000)
				seen := <-server.arrived
				if want := i > 0; conn.ConnectionState().DidResume != want || seen.state.DidResume != want {
					t.Errorf("connection %d: resumed %v, %v", i, conn.ConnectionState().DidResume, seen.state.DidResume)
				}
				if !seen.detached || seen.firstSeq != 1 {
					t.Errorf("connection %d: detached %v, %d tickets", i, seen.detached, seen.firstSeq)
				}
			}
			// A client that cannot resume gets no ticket, and a restart of the edge
			// with the same keys changes nothing else.
			once := resuming(cryptotls.VersionTLS13)
			once.ClientSessionCache = nil
			conn, err := dialEdge(t, server.addr, once)
			must(t, err)
			exchange(t, conn, 5000)
			if seen := <-server.arrived; seen.firstSeq != 0 {
				t.Errorf("%d tickets", seen.firstSeq)
			}
		})
	}
	t.Run("with crypto/tls", func(t *testing.T) {
		// The two engines resume each other's sessions.
		auto, stdlib := serveEdge(t, store, EngineAuto, echoConn), serveEdge(t, store, EngineStdlib, echoConn)
		plain := serve(t, store.ServerConfig())
		client := resuming(cryptotls.VersionTLS13)
		for i, addr := range []string{auto.addr, stdlib.addr, auto.addr, plain.addr, auto.addr} {
			conn, err := dialEdge(t, addr, client)
			must(t, err)
			exchange(t, conn, 100)
			if conn.ConnectionState().DidResume != (i > 0) {
				t.Errorf("connection %d: resumed %v", i, conn.ConnectionState().DidResume)
			}
		}
	})
}

// large adds an extension that makes a certificate as large as it says.
func large(bytes int) option {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, bytes)})
	}
}

// The ticket of a client with a certificate holds the certificate, and so can take
// several records, in which case the server's first record has a higher number.
func TestClientCertificatesAndLargeTickets(t *testing.T) {
	ca, foreign, dir := newAuthority(t, "ca"), newAuthority(t, "foreign"), newFolder(t)
	store := mustStore(t, ServerSettings{
		Certificates: []KeyPairFiles{dir.pair(t, "a", ca.names(t, "a.test"))},
		ClientAuth:   ClientAuthRequire, ClientCAFile: dir.write(t, "ca.pem", ca.pem),
	})
	for name, c := range map[string]struct {
		bytes   int
		records uint64
	}{"small": {0, 1}, "just over a record": {16000, 2}, "large": {30000, 2}, "larger": {50000, 4}} {
		for style, use := range styles {
			t.Run(name+"/"+style, func(t *testing.T) {
				server := serveEdge(t, store, EngineAuto, use)
				leaf := ca.issue(t, ecdsaKey(t), []string{"client"}, large(c.bytes)).pair(t)
				client := showing(cryptotls.VersionTLS13, &leaf)
				client.ClientSessionCache = cryptotls.NewLRUClientSessionCache(8)
				for i := range 3 {
					conn, err := dialEdge(t, server.addr, client)
					must(t, err)
					exchange(t, conn, 40_000)
					seen := <-server.arrived
					if seen.state.DidResume != (i > 0) || !seen.detached || seen.firstSeq != c.records || len(seen.state.VerifiedChains) == 0 {
						t.Errorf("connection %d: resumed %v, detached %v, %d ticket records, want %d", i, seen.state.DidResume, seen.detached, seen.firstSeq, c.records)
					}
					must(t, <-server.ended)
				}
			})
		}
	}
	t.Run("refused", func(t *testing.T) {
		server := serveEdge(t, store, EngineAuto, echoConn)
		bad := foreign.names(t, "client").pair(t)
		for name, certificate := range map[string]*cryptotls.Certificate{"none": nil, "of a foreign CA": &bad} {
			conn, err := dialEdge(t, server.addr, showing(cryptotls.VersionTLS13, certificate))
			if err == nil {
				_, err = io.ReadAll(conn)
			}
			if seen := <-server.arrived; err == nil || seen.err == nil {
				t.Errorf("%s: %v at the client, %v at the server", name, err, seen.err)
			}
		}
	})
	t.Run("follows the CA file", func(t *testing.T) {
		server := serveEdge(t, store, EngineAuto, echoConn)
		certificate := ca.names(t, "client").pair(t)
		client := showing(cryptotls.VersionTLS13, &certificate)
		client.ClientSessionCache = cryptotls.NewLRUClientSessionCache(8)
		for range 2 {
			conn, err := dialEdge(t, server.addr, client)
			must(t, err)
			exchange(t, conn, 10)
			must(t, (<-server.arrived).err)
		}
		dir.write(t, "ca.pem", foreign.pem)
		reload(t, store, true)
		conn, err := dialEdge(t, server.addr, client)
		if err == nil {
			_, err = io.ReadAll(conn)
		}
		if seen := <-server.arrived; err == nil || seen.err == nil {
			t.Errorf("a CA that was taken away still counts: %v, %v", err, seen.err)
		}
	})
}

// corked holds back what is written from the second write on, that is, a client's
// flight with its Finished, until it is told to.
type corked struct {
	net.Conn
	writes int
	held   []byte
}

func (c *corked) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 1 {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// What a client sends right behind its Finished, in one segment, must not be lost.
func TestDataBehindFinished(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	for style, use := range styles {
		for _, engine := range []Engine{EngineAuto, EngineStdlib} {
			t.Run(fmt.Sprintf("%s/%s", style, engine), func(t *testing.T) {
				server := serveEdge(t, store, engine, use)
				for _, size := range []int{1, 500, 20_000} {
					below, err := net.Dial("tcp", server.addr)
					must(t, err)
					defer below.Close()
					below.SetDeadline(time.Now().Add(20 * time.Second))
					cork := &corked{Conn: below}
					config := resuming(cryptotls.VersionTLS13)
					config.CurvePreferences = []cryptotls.CurveID{cryptotls.X25519} // one ClientHello
					conn := cryptotls.Client(cork, config)
					must(t, conn.Handshake())
					data := bytes.Repeat([]byte("GET "), size)
					conn.Write(data)
					conn.CloseWrite()
					below.SetDeadline(time.Now().Add(20 * time.Second)) // CloseWrite has set one
					if _, err := below.Write(cork.held); err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
						t.Fatalf("got %d bytes of %d, %v", len(got), len(data), err)
					}
					must(t, <-server.ended)
				}
			})
		}
	}
}

// The same, with everything coming byte by byte.
func TestHandshakeByteByByte(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			done := make(chan error, 1)
			go func() {
				defer far.Close()
				conn, err := store.Accept(t.Context(), slowConn{far}, EngineAuto)
				if err == nil {
					err = echoLate(conn)
				}
				done <- err
			}()
			config := resuming(number)
			conn := cryptotls.Client(near, config)
			exchange(t, conn, 2000)
			must(t, <-done)
		})
	}
}

// slowConn reads one byte at a time.
type slowConn struct{ net.Conn }

func (c slowConn) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(len(p), 1)]) }

func TestAcceptEnds(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	pair := func(t *testing.T) (near, far net.Conn) {
		near, far = net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		return near, far
	}
	t.Run("with its context", func(t *testing.T) {
		_, far := pair(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		go cancel(nil)
		if _, err := store.Accept(ctx, far, EngineAuto); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := far.Write(nil); err == nil {
			t.Error("the connection is still open")
		}
	})
	t.Run("with the client", func(t *testing.T) {
		near, far := pair(t)
		go func() { near.Write([]byte{22, 3}); near.Close() }()
		if _, err := store.Accept(t.Context(), far, EngineAuto); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	t.Run("with plain HTTP", func(t *testing.T) {
		near, far := pair(t)
		go near.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		_, err := store.Accept(t.Context(), far, EngineAuto)
		if _, ok := errors.AsType[cryptotls.RecordHeaderError](err); !ok {
			t.Error(err)
		}
	})
	t.Run("of a client", func(t *testing.T) {
		near, far := pair(t)
		go func() { io.CopyN(io.Discard, far, 100); far.Close() }()
		if _, err := Connect(t.Context(), near, resuming(0)); err == nil {
			t.Error("no error")
		}
	})
}

// What was sent must add up, or crypto/tls goes on.
func TestTakeoverDoubts(t *testing.T) {
	secret := func(b byte) (s [maxSecretBytes]byte) { copy(s[:], bytes.Repeat([]byte{b}, 32)); return s }
	state := &cryptotls.ConnectionState{CipherSuite: cryptotls.TLS_AES_128_GCM_SHA256}
	own := func() *Layer {
		s := secret(2)
		l, err := newLayer(state, false, s[:32], s[:32], 0)
		must(t, err)
		return l
	}
	other := own()
	other.write.seq = 77
	foreign := other.data(t, "of the handshake keys")
	ticket := func(l *Layer) []byte { return l.forge(nil, typeHandshake, "\x04\x00\x00\x01x", 0) }
	for name, c := range map[string]struct {
		sent []byte
		seq  uint64
		ok   bool
	}{
		"nothing":               {nil, 0, true},
		"handshake only":        {slices.Concat([]byte{22, 3, 3, 0, 1, 0}, foreign), 0, true},
		"two tickets":           {func() []byte { l := own(); return slices.Concat(foreign, ticket(l), ticket(l)) }(), 2, true},
		"handshake after it":    {slices.Concat(ticket(own()), foreign), 0, false},
		"half a record":         {ticket(own())[:10], 0, false},
		"half a header":         {ticket(own())[:3], 0, false},
		"the same ticket twice": {slices.Concat(ticket(own()), ticket(own())), 0, false},
	} {
		taken := &takeover{secrets: secrets{client: secret(1), server: secret(2), clientLen: 32, serverLen: 32}, sent: c.sent}
		l, err := taken.layer(state)
		if (err == nil) != c.ok || c.ok && l.write.seq != c.seq {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// dialLayer makes a handshake of crypto/tls and goes on with a Layer of the client:
// something that can update its keys and do all that is forbidden.
func dialLayer(t testing.TB, addr string, config *cryptotls.Config) (*Layer, net.Conn) {
	t.Helper()
	below, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { below.Close() })
	below.SetDeadline(time.Now().Add(20 * time.Second))
	layer, tr := clientLayer(t, below, config)
	return layer, &prefixed{below, tr.wire.unread()}
}

func clientLayer(t testing.TB, below net.Conn, config *cryptotls.Config) (*Layer, *transport) {
	t.Helper()
	var s secrets
	config = config.Clone()
	config.KeyLogWriter = &s
	tr := &transport{conn: below}
	conn := cryptotls.Client(tr, config)
	must(t, conn.Handshake())
	state := conn.ConnectionState()
	layer, err := newLayer(&state, true, s.server[:s.serverLen], s.client[:s.clientLen], 0)
	must(t, err)
	return layer, tr
}

// prefixed reads what was read before.
type prefixed struct {
	net.Conn
	before []byte
}

func (c *prefixed) Read(p []byte) (int, error) {
	if len(c.before) > 0 {
		n := copy(p, c.before)
		c.before = c.before[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// readLayer reads until n bytes of data have come, or an error. What the layer has to
// answer is written.
func readLayer(conn net.Conn, layer *Layer, n int) (got []byte, err error) {
	buf := make([]byte, 0, 2*MaxRecordBytes)
	for len(got) < n {
		k, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+k]
		if err != nil {
			return got, err
		}
		plain, used, reply, _, openErr := layer.Open(buf, nil, nil)
		got = append(got, plain...)
		buf = append(buf[:0], buf[used:]...)
		if len(reply) > 0 {
			conn.Write(reply)
		}
		if openErr != nil {
			return got, openErr
		}
	}
	return got, nil
}

// A peer that updates its keys in the middle of everything, asking and not.
func TestKeyUpdatesOverSockets(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	for _, engine := range []Engine{EngineAuto, EngineStdlib} {
		for style, use := range styles {
			t.Run(fmt.Sprintf("%s/%s", engine, style), func(t *testing.T) {
				server := serveEdge(t, store, engine, use)
				layer, conn := dialLayer(t, server.addr, resuming(cryptotls.VersionTLS13))
				first := layer.read.secret
				for i := range 30 {
					message := strings.Repeat(fmt.Sprintf("%d,", i), 1+i*i)
					wire := layer.data(t, message[:1])
					if i%3 > 0 {
						wire = layer.KeyUpdate(wire, i%3 == 1)
					}
					wire = append(wire, layer.data(t, message[1:])...)
					if _, err := conn.Write(wire); err != nil {
						t.Fatal(err)
					}
					if got, err := readLayer(conn, layer, len(message)); err != nil || string(got) != message {
						t.Fatalf("round %d: got %d bytes of %d, %v", i, len(got), len(message), err)
					}
				}
				if layer.read.secret == first {
					t.Error("the server has not updated its keys")
				}
				conn.Write(layer.CloseNotify(nil))
				if _, err := readLayer(conn, layer, 1); err != io.EOF {
					t.Errorf("the server's end: %v", err)
				}
				must(t, <-server.ended)
			})
		}
	}
}

// What a client may not send, over sockets and with both engines: the server says so
// with an alert and reports it.
func TestForbiddenOverSockets(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	for name, c := range map[string]struct {
		send  func(l *Layer) []byte
		alert Alert
	}{
		"forged record":     {func(l *Layer) []byte { r := l.forge(nil, typeApplicationData, "x", 0); r[7] ^= 1; return r }, alertBadRecordMAC},
		"too long":          {func(l *Layer) []byte { return []byte{23, 3, 3, 0xff, 0xff} }, alertRecordOverflow},
		"version":           {func(l *Layer) []byte { return []byte{23, 3, 4, 0, 1, 0} }, alertProtocolVersion},
		"ClientHello again": {func(l *Layer) []byte { return l.forge(nil, typeHandshake, "\x14\x00\x00\x01x", 0) }, alertUnexpectedMessage},
		"unknown type":      {func(l *Layer) []byte { return l.forge(nil, 99, "x", 0) }, alertUnexpectedMessage},
		"empty records": {func(l *Layer) (r []byte) {
			for range 20 {
				r = l.forge(r, typeApplicationData, "", 3)
			}
			return r
		}, alertUnexpectedMessage},
	} {
		for _, engine := range []Engine{EngineAuto, EngineStdlib} {
			for style, use := range styles {
				if style == "late" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", name, engine, style), func(t *testing.T) {
					server := serveEdge(t, store, engine, use)
					layer, conn := dialLayer(t, server.addr, resuming(cryptotls.VersionTLS13))
					if _, err := conn.Write(append(layer.data(t, "good"), c.send(layer)...)); err != nil {
						t.Fatal(err)
					}
					got, err := readLayer(conn, layer, 100)
					e, ok := errors.AsType[*PeerAlertError](err)
					if !ok || e.Alert != c.alert {
						t.Errorf("the client was told %v, want %v", err, c.alert)
					}
					if len(got) > 0 && string(got) != "good" {
						t.Errorf("the echo is %q", got)
					}
					ended := <-server.ended
					if r, ok := errors.AsType[*RecordError](ended); style != "conn" && (!ok || r.Alert != c.alert) || ended == nil {
						t.Errorf("the server reports %v", ended)
					}
				})
			}
		}
	}
}

// A client that ends the connection one way or another.
func TestEnds(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	for _, engine := range []Engine{EngineAuto, EngineStdlib} {
		for style, use := range styles {
			if style == "late" {
				continue
			}
			run := func(name string, end func(l *Layer, conn net.Conn), check func(error) bool) {
				t.Run(fmt.Sprintf("%s/%s/%s", engine, style, name), func(t *testing.T) {
					server := serveEdge(t, store, engine, use)
					layer, conn := dialLayer(t, server.addr, resuming(cryptotls.VersionTLS13))
					end(layer, conn)
					if err := <-server.ended; !check(err) {
						t.Errorf("ended with %v", err)
					}
				})
			}
			isConn := style == "conn"
			run("close_notify", func(l *Layer, conn net.Conn) { conn.Write(l.CloseNotify(nil)) }, func(err error) bool { return err == nil })
			run("abruptly", func(_ *Layer, conn net.Conn) { conn.Close() }, func(err error) bool {
				// The end of the stream below is the codec's caller's to see; for a Connection
				// it is an end like any other, and the answer may meet a reset.
				return isConn || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) // a ticket that it did not read
			})
			run("within a record", func(l *Layer, conn net.Conn) {
				conn.Write(l.data(t, "whole")[:9])
				conn.(*prefixed).Conn.(*net.TCPConn).CloseWrite()
			}, func(err error) bool {
				return isConn && errors.Is(err, io.ErrUnexpectedEOF) || !isConn && errors.Is(err, io.EOF)
			})
			run("fatal alert", func(l *Layer, conn net.Conn) { conn.Write(l.forge(nil, typeAlert, "\x02\x50", 0)) }, func(err error) bool {
				e, ok := errors.AsType[*PeerAlertError](err)
				return isConn && engine == EngineStdlib && err != nil || ok && e.Alert == alertInternalError
			})
		}
	}
}
