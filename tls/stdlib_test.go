package tls

import (
	"bytes"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// inMemory makes a handshake over a pipe and detaches both ends; the client's is
// crypto/tls's.
func inMemory(t testing.TB, store *Store, engine Engine, config *cryptotls.Config) (client *Stdlib, server Codec) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	accepted := make(chan *Connection, 1)
	failed := make(chan error, 1)
	go func() {
		conn, err := store.Accept(t.Context(), far, engine)
		failed <- err
		accepted <- conn
	}()
	conn, err := Connect(t.Context(), near, config)
	must(t, errors.Join(err, <-failed))
	codec, wire, plain := conn.Detach()
	serverCodec, serverWire, serverPlain := (<-accepted).Detach()
	if len(wire)+len(plain)+len(serverWire)+len(serverPlain) > 0 {
		t.Fatal("something was left")
	}
	return codec.(*Stdlib), serverCodec
}

// withoutTickets: over a pipe nobody would read them.
func withoutTickets(version uint16) *cryptotls.Config {
	config := resuming(version)
	config.ClientSessionCache = nil
	return config
}

// Both ways in memory, with random sizes and pieces, for each suite that crypto/tls
// can be talked into.
func TestCodecsInMemory(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	configs := map[string]*cryptotls.Config{"TLS 1.3": withoutTickets(cryptotls.VersionTLS13)}
	for _, id := range forwardSecretAEADs {
		config := withoutTickets(cryptotls.VersionTLS12)
		config.CipherSuites = []uint16{id}
		configs[cryptotls.CipherSuiteName(id)] = config
	}
	for name, config := range configs {
		if name != "TLS 1.3" && !bytes.Contains([]byte(name), []byte("ECDSA")) {
			continue // the certificate's key
		}
		for _, engine := range engines {
			t.Run(fmt.Sprintf("%s/%s", name, engine), func(t *testing.T) {
				client, server := inMemory(t, store, engine, config)
				for _, way := range [][2]Codec{{client, server}, {server, client}} {
					for _, piece := range []int{1, 1500, 20_000, 1 << 30} {
						for _, size := range []int{0, 1, 100, 16384, 16385, 60_000} {
							if piece == 1 && size > 1000 {
								continue
							}
							pieces := func() int { return piece }
							if piece == 20_000 {
								pieces = func() int { return 1 + rand.IntN(piece) }
							}
							data := make([]byte, size)
							for i := range data {
								data[i] = byte(rand.Uint32())
							}
							var segs [][]byte
							for rest := data; len(rest) > 0; {
								n := 1 + rand.IntN(len(rest))
								segs, rest = append(segs, rest[:n]), rest[n:]
							}
							wire, err := way[0].Seal(nil, segs)
							must(t, err)
							if want := (size + maxPlaintextBytes - 1) / maxPlaintextBytes; records(t, wire) != want {
								t.Fatalf("%d records for %d bytes in %d segments", records(t, wire), size, len(segs))
							}
							got := feed(t, way[1], wire, pieces, 1+rand.IntN(20_000))
							if got.err != nil || !bytes.Equal(got.plain, data) || len(got.reply) > 0 {
								t.Fatalf("%T: got %d bytes of %d, %v", way[1], len(got.plain), size, got.err)
							}
						}
					}
				}
				for _, way := range [][2]Codec{{client, server}, {server, client}} {
					if got := feed(t, way[1], way[0].CloseNotify(nil), byteByByte, 10); got.err != io.EOF {
						t.Errorf("%T after close_notify: %v", way[1], got.err)
					}
					if again := way[0].CloseNotify([]byte("x")); string(again) != "x" {
						t.Errorf("%T closes twice", way[0])
					}
					if dst, err := way[0].Seal([]byte("x"), [][]byte{[]byte("y")}); !errors.Is(err, ErrWriteClosed) || string(dst) != "x" {
						t.Errorf("%T: sealed %q, %v", way[0], dst, err)
					}
				}
			})
		}
	}
}

// A scratch that is smaller than what there is.
func TestStdlibAsksToBeCalledAgain(t *testing.T) {
	client, server := inMemory(t, oneCertificate(t, ServerSettings{}), EngineStdlib, withoutTickets(cryptotls.VersionTLS13))
	data := bytes.Repeat([]byte("0123456789"), 5000)
	wire, err := client.Seal(nil, [][]byte{data})
	must(t, err)
	scratch := make([]byte, 1000)
	var got []byte
	for calls := 1; ; calls++ {
		plain, used, _, again, err := server.Open(wire, scratch, nil)
		must(t, err)
		got, wire = append(got, plain...), wire[used:]
		if !again {
			if len(wire) > 0 || calls < 50 {
				t.Errorf("%d bytes are left after %d calls", len(wire), calls)
			}
			break
		}
	}
	if !bytes.Equal(got, data) {
		t.Errorf("got %d bytes of %d", len(got), len(data))
	}
}

// What goes wrong at the peer, as the fallback reports it: the same types as a Layer.
func TestStdlibErrors(t *testing.T) {
	store := oneCertificate(t, ServerSettings{})
	record := func(c Codec) []byte {
		wire, err := c.Seal(nil, [][]byte{[]byte("data")})
		must(t, err)
		return wire
	}
	for version, number := range versions {
		for name, c := range map[string]struct {
			wire  func(client Codec) []byte
			alert Alert
		}{
			"forged":   {func(client Codec) []byte { w := record(client); w[len(w)-1] ^= 1; return w }, alertBadRecordMAC},
			"replayed": {func(client Codec) []byte { w := record(client); return slices.Concat(w, w) }, alertBadRecordMAC},
			"too long": {func(client Codec) []byte { return []byte{23, 3, 3, 0xff, 0xff} }, alertRecordOverflow},
			"version":  {func(client Codec) []byte { return []byte{23, 3, 9, 0, 1, 0} }, alertProtocolVersion},
		} {
			t.Run(version+"/"+name, func(t *testing.T) {
				client, server := inMemory(t, store, EngineStdlib, withoutTickets(number))
				got := feed(t, server, c.wire(client), inOne, 100)
				if e, ok := errors.AsType[*RecordError](got.err); !ok || e.Alert != c.alert {
					t.Fatalf("the server reports %v", got.err)
				}
				if _, err := server.Seal(nil, [][]byte{[]byte("x")}); !errors.Is(err, ErrWriteClosed) {
					t.Errorf("the connection goes on: %v", err)
				}
				back := feed(t, client, got.reply, inOne, 100)
				if e, ok := errors.AsType[*PeerAlertError](back.err); !ok || e.Alert != c.alert {
					t.Errorf("the client reports %v", back.err)
				}
			})
		}
	}
}

// An idle connection must not hold large buffers, nor the connection below.
func TestStdlibLetsGo(t *testing.T) {
	_, server := inMemory(t, oneCertificate(t, ServerSettings{}), EngineStdlib, withoutTickets(cryptotls.VersionTLS13))
	memory := server.(*Stdlib).memory
	if memory.conn != nil || memory.wire.buf != nil || memory.in != nil || memory.out != nil || memory.takeover != nil {
		t.Errorf("%+v", memory)
	}
	if memory.LocalAddr() != nil || memory.RemoteAddr() != nil || memory.Close() != nil {
		t.Error("memory has an address or cannot be closed")
	}
}
