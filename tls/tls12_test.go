package tls

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
)

// sealer12 protects records of TLS 1.2 with AES-128-GCM (RFC 5288), to forge what
// crypto/tls would not send.
type sealer12 struct {
	aead cipher.AEAD
	iv   [4]byte
	seq  uint64
}

func (s *sealer12) seal(recordType byte, content []byte) []byte {
	explicit := binary.BigEndian.AppendUint64(nil, s.seq)
	additional := append(bytes.Clone(explicit), recordType, 3, 3)
	additional = binary.BigEndian.AppendUint16(additional, uint16(len(content)))
	s.seq++
	n := len(explicit) + len(content) + tagBytes
	record := append([]byte{recordType, 3, 3, byte(n >> 8), byte(n)}, explicit...)
	return s.aead.Seal(record, append(s.iv[:], explicit...), content, additional)
}

// heard notes what is read.
type heard struct {
	net.Conn
	bytes []byte
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.bytes = append(h.bytes, p[:n]...)
	return n, err
}

// handshake12 makes a handshake in memory and returns both ends, and what seals as
// each of them would.
func handshake12(t testing.TB, store *Store, engine Engine) (client, server Codec, clientSealer, serverSealer *sealer12) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	accepted, failed := make(chan *Connection, 1), make(chan error, 1)
	go func() {
		conn, err := store.Accept(t.Context(), far, engine)
		failed <- err
		accepted <- conn
	}()
	var keyLog strings.Builder
	config := withoutTickets(cryptotls.VersionTLS12)
	config.CipherSuites = []uint16{cryptotls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	config.KeyLogWriter = &keyLog
	ear := &heard{Conn: near}
	conn, err := Connect(t.Context(), ear, config)
	must(t, errors.Join(err, <-failed))
	client, _, _ = conn.Detach()
	server, _, _ = (<-accepted).Detach()

	fields := strings.Fields(keyLog.String())
	if len(fields) != 3 || fields[0] != "CLIENT_RANDOM" {
		t.Fatalf("key log: %q", fields)
	}
	clientRandom, err := hex.DecodeString(fields[1])
	must(t, err)
	master, err := hex.DecodeString(fields[2])
	must(t, err)
	serverRandom := ear.bytes[recordHeaderBytes+4+2:][:32] // of the ServerHello
	// RFC 5246 §6.3: both keys, then both IVs.
	block := prf12(master, append([]byte("key expansion"), append(bytes.Clone(serverRandom), clientRandom...)...), 40)
	sealer := func(i int) *sealer12 {
		aead, err := newGCM(block[16*i : 16*i+16])
		must(t, err)
		return &sealer12{aead: aead, iv: [4]byte(block[32+4*i:]), seq: 1} // 0 was the Finished
	}
	return client, server, sealer(0), sealer(1)
}

// prf12 is P_SHA256 (RFC 5246 §5).
func prf12(secret, seed []byte, n int) (out []byte) {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}

// A client of TLS 1.2 that begins another handshake is refused, and so is a server
// that asks for one.
func TestRenegotiationIsRefused(t *testing.T) {
	const alertNoRenegotiation Alert = 100
	store := oneCertificate(t, ServerSettings{})
	for _, engine := range engines {
		t.Run(engine.String(), func(t *testing.T) {
			_, server, sealer, _ := handshake12(t, store, engine)
			if got := feed(t, server, sealer.seal(typeApplicationData, []byte("data")), of(7), 100); got.err != nil || string(got.plain) != "data" {
				t.Fatalf("the keys are wrong: %q, %v", got.plain, got.err)
			}
			wire := append(sealer.seal(typeHandshake, clientHello(t)), sealer.seal(typeApplicationData, []byte("more"))...)
			got := feed(t, server, wire, of(100), 100)
			if e, ok := errors.AsType[*RecordError](got.err); !ok || e.Alert != alertUnexpectedMessage || records(t, got.reply) != 1 || len(got.plain) > 0 {
				t.Errorf("got %q, %v, and a reply of %d bytes", got.plain, got.err, len(got.reply))
			}
			if _, err := server.Seal(nil, [][]byte{[]byte("x")}); err == nil {
				t.Error("the connection goes on")
			}
		})
	}
	client, _, _, sealer := handshake12(t, store, EngineAuto)
	wire := append(sealer.seal(typeHandshake, []byte{0, 0, 0, 0}), sealer.seal(typeApplicationData, []byte("more"))...)
	got := feed(t, client, wire, inOne, 100)
	if e, ok := errors.AsType[*RecordError](got.err); !ok || e.Alert != alertNoRenegotiation || records(t, got.reply) != 1 || len(got.plain) > 0 {
		t.Errorf("HelloRequest: got %q, %v, and a reply of %d bytes", got.plain, got.err, len(got.reply))
	}
}

// clientHello is one that crypto/tls sends.
func clientHello(t testing.TB) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		cryptotls.Client(near, withoutTickets(cryptotls.VersionTLS12)).Handshake()
		near.Close()
	}()
	hello := make([]byte, 4096)
	n, err := far.Read(hello)
	must(t, err)
	return hello[recordHeaderBytes:n]
}
