package tls

import (
	"context"
	"crypto/cipher"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
)

var benchSizes = []int{64, 1 << 10, 16 << 10}

// benchSuites are in a fixed order, for benchstat.
var benchSuites = []string{"AES-128-GCM", "ChaCha20-Poly1305"}

// The AEAD alone, which a record cannot do without, in place as in a Layer.
func BenchmarkBareSeal(b *testing.B) {
	forEach(b, func(b *testing.B, aead cipher.AEAD, _ uint16, size int) {
		buf, nonce, header := make([]byte, size+1, size+100), make([]byte, 12), make([]byte, 5)
		for b.Loop() {
			aead.Seal(buf[:0], nonce, buf, header)
		}
	})
}

func BenchmarkBareOpen(b *testing.B) {
	forEach(b, func(b *testing.B, aead cipher.AEAD, _ uint16, size int) {
		nonce, header := make([]byte, 12), make([]byte, 5)
		sealed := aead.Seal(nil, nonce, make([]byte, size+1), header)
		buf := make([]byte, len(sealed))
		for b.Loop() {
			copy(buf, sealed)
			if _, err := aead.Open(buf[:0], nonce, buf, header); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func forEach(b *testing.B, run func(b *testing.B, aead cipher.AEAD, id uint16, size int)) {
	for _, name := range benchSuites {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				suite := suiteOf(suitesByName[name])
				aead, err := suite.aead(make([]byte, suite.keyBytes))
				must(b, err)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				run(b, aead, suite.id, size)
			})
		}
	}
}

func BenchmarkLayerSeal(b *testing.B) {
	forEach(b, func(b *testing.B, _ cipher.AEAD, id uint16, size int) {
		_, server := layers(b, id)
		segs, wire := [][]byte{make([]byte, 4), make([]byte, size-4)}, make([]byte, 0, size+100)
		for b.Loop() {
			server.write.seq = 0 // no key is updated
			wire, _ = server.Seal(wire[:0], segs)
		}
	})
}

func BenchmarkLayerOpen(b *testing.B) {
	forEach(b, func(b *testing.B, _ cipher.AEAD, id uint16, size int) {
		client, server := layers(b, id)
		wire := client.data(b, string(make([]byte, size)))
		buf := make([]byte, len(wire))
		for b.Loop() {
			copy(buf, wire)
			server.read.seq = 0
			if _, _, _, _, err := server.Open(buf, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Ten records in one read: what follows the first is moved.
func BenchmarkLayerOpenTen(b *testing.B) {
	for _, size := range []int{64, 1 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			client, server := layers(b, cryptotls.TLS_AES_128_GCM_SHA256)
			var wire []byte
			for range 10 {
				wire = append(wire, client.data(b, string(make([]byte, size)))...)
			}
			buf := make([]byte, len(wire))
			b.SetBytes(int64(10 * size))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, wire)
				server.read.seq = 0
				if _, _, _, _, err := server.Open(buf, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The fallback, both ways, since a replay would end it.
func BenchmarkEchoInMemory(b *testing.B) {
	store := oneCertificate(b, ServerSettings{})
	for _, engine := range engines {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("%s/%d", engine, size), func(b *testing.B) {
				client, server := inMemory(b, store, engine, withoutTickets(cryptotls.VersionTLS13))
				segs, scratch := [][]byte{make([]byte, size)}, make([]byte, 32<<10)
				var wire, back []byte
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					// The client's part costs the same with both.
					wire, _ = client.Seal(wire[:0], segs)
					plain, _, _, _, err := server.Open(wire, scratch, nil)
					must(b, err)
					back, err = server.Seal(back[:0], [][]byte{plain})
					must(b, err)
					if _, _, _, _, err = client.Open(back, scratch, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkKeyUpdate(b *testing.B) {
	_, server := layers(b, cryptotls.TLS_AES_128_GCM_SHA256)
	wire := make([]byte, 0, 100)
	b.ReportAllocs()
	for b.Loop() {
		wire = server.KeyUpdate(wire[:0], false)
	}
}

// A handshake over a socket, client included: what Accept adds to crypto/tls's is the
// difference between the first two and "bare". Heap is what one idle server end keeps
// after Detach and Forget.
func BenchmarkAccept(b *testing.B) {
	store := oneCertificate(b, ServerSettings{})
	for _, resume := range []bool{false, true} {
		for _, how := range []string{"auto", "stdlib", "bare"} {
			b.Run(fmt.Sprintf("%s/resumed %v", how, resume), func(b *testing.B) {
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				must(b, err)
				defer listener.Close()
				config := resuming(cryptotls.VersionTLS13)
				config.CurvePreferences = []cryptotls.CurveID{cryptotls.X25519}
				resumed := false
				handshake := func() {
					failed := make(chan error, 1)
					go func() {
						below, err := net.Dial("tcp", listener.Addr().String())
						if err == nil {
							if !resume {
								config.ClientSessionCache = cryptotls.NewLRUClientSessionCache(1)
							}
							conn := cryptotls.Client(below, config)
							_, readErr := conn.Read(make([]byte, 1)) // the ticket, and the end
							if conn.ConnectionState().HandshakeComplete {
								readErr = nil
							}
							resumed = conn.ConnectionState().DidResume
							err = errors.Join(readErr, below.Close())
						}
						failed <- err
					}()
					below, err := listener.Accept()
					must(b, err)
					switch how {
					case "bare":
						conn := cryptotls.Server(below, store.ServerConfig())
						must(b, conn.HandshakeContext(context.Background()))
					default:
						engine := EngineAuto
						if how == "stdlib" {
							engine = EngineStdlib
						}
						conn, err := store.Accept(context.Background(), below, engine)
						must(b, err)
						conn.Detach()
					}
					below.Close()
					must(b, <-failed)
				}
				handshake()
				b.ReportAllocs()
				for b.Loop() {
					if handshake(); resumed != resume {
						b.Fatalf("resumed: %v", resumed)
					}
				}
			})
		}
	}
}

// What an idle connection keeps on the heap, its AEADs included.
func BenchmarkIdleHeap(b *testing.B) {
	store := oneCertificate(b, ServerSettings{})
	for _, engine := range engines {
		b.Run(engine.String(), func(b *testing.B) {
			const n = 200
			var before, after runtime.MemStats
			codecs := make([]Codec, n)
			heap := func(m *runtime.MemStats) {
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(m)
			}
			for b.Loop() {
				clear(codecs)
				inMemory(b, store, engine, withoutTickets(cryptotls.VersionTLS13))
				heap(&before)
				for i := range codecs {
					_, codecs[i] = inMemory(b, store, engine, withoutTickets(cryptotls.VersionTLS13))
					if l, ok := codecs[i].(*Layer); ok {
						l.Forget()
					}
				}
				heap(&after)
			}
			b.ReportMetric(float64(int64(after.HeapAlloc-before.HeapAlloc))/n, "B/conn")
			runtime.KeepAlive(codecs)
		})
	}
}
