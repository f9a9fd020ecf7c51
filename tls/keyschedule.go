package tls

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	cryptotls "crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// suite is a cipher suite of TLS 1.3 (RFC 8446 §B.4). All of them have nonces of 12
// bytes and tags of 16.
type suite struct {
	id        uint16
	keyBytes  int
	hash      func() hash.Hash
	hashBytes int // of the hash, and so of a traffic secret
	aead      func(key []byte) (cipher.AEAD, error)
}

const maxSecretBytes = sha512.Size384

var suites = [...]suite{
	{cryptotls.TLS_AES_128_GCM_SHA256, 16, sha256.New, sha256.Size, newGCM},
	{cryptotls.TLS_AES_256_GCM_SHA384, 32, sha512.New384, sha512.Size384, newGCM},
	{cryptotls.TLS_CHACHA20_POLY1305_SHA256, chacha20poly1305.KeySize, sha256.New, sha256.Size, chacha20poly1305.New},
}

// suiteOf returns nil for a suite that is not ours to speak.
func suiteOf(id uint16) *suite {
	for i := range suites {
		if suites[i].id == id {
			return &suites[i]
		}
	}
	return nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// expandLabel is HKDF-Expand-Label without a context (RFC 8446 §7.1).
func (s *suite) expandLabel(secret []byte, label string, length int) ([]byte, error) {
	info := make([]byte, 0, 32)
	info = binary.BigEndian.AppendUint16(info, uint16(length))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "...)
	info = append(info, label...)
	info = append(info, 0)
	return hkdf.Expand(s.hash, secret, string(info), length)
}

// half protects the records of one direction (RFC 8446 §5.2, §5.3).
type half struct {
	aead   cipher.AEAD
	seq    uint64               // of the next record
	iv     uint64               // the last 8 bytes of the IV: seq is added to them
	nonce  [12]byte             // begins with the first 4 bytes of the IV
	secret [maxSecretBytes]byte // application_traffic_secret_N; its first hashBytes
}

// setKeys derives the keys of a traffic secret (RFC 8446 §7.3), which it copies.
func (h *half) setKeys(s *suite, secret []byte) error {
	key, err := s.expandLabel(secret, "key", s.keyBytes)
	if err != nil {
		return err
	}
	iv, err := s.expandLabel(secret, "iv", len(h.nonce))
	if err != nil {
		return err
	}
	aead, err := s.aead(key)
	clear(key)
	if err != nil {
		return err
	}
	h.aead, h.seq = aead, 0
	copy(h.nonce[:4], iv)
	h.iv = binary.BigEndian.Uint64(iv[4:])
	copy(h.secret[:], secret)
	return nil
}

// update goes on to the next generation of keys (RFC 8446 §7.2). The old secret is
// overwritten: what was sent before cannot be read with what is known after.
func (h *half) update(s *suite) error {
	next, err := s.expandLabel(h.secret[:s.hashBytes], "traffic upd", s.hashBytes)
	if err != nil {
		return err
	}
	return h.setKeys(s, next)
}

// nonceOf returns the nonce of a record, good until the next call.
func (h *half) nonceOf(seq uint64) []byte {
	binary.BigEndian.PutUint64(h.nonce[4:], h.iv^seq)
	return h.nonce[:]
}

// secrets takes the traffic secrets of one connection from what crypto/tls writes to
// the KeyLogWriter of its Config: one line for each secret, its label, the client's
// random and the secret, the latter two in hexadecimal.
type secrets struct {
	client, server       [maxSecretBytes]byte
	clientLen, serverLen int
}

var errKeyLog = errors.New("a traffic secret that cannot be used")

// Write implements io.Writer. An error ends the handshake.
func (s *secrets) Write(line []byte) (int, error) {
	label, rest, _ := bytes.Cut(line, []byte(" "))
	_, value, _ := bytes.Cut(bytes.TrimSuffix(rest, []byte("\n")), []byte(" "))
	into, length := &s.client, &s.clientLen
	switch string(label) {
	case "CLIENT_TRAFFIC_SECRET_0":
	case "SERVER_TRAFFIC_SECRET_0":
		into, length = &s.server, &s.serverLen
	default:
		return len(line), nil
	}
	if *length != 0 || hex.DecodedLen(len(value)) > len(into) {
		return 0, errKeyLog
	}
	n, err := hex.Decode(into[:], value)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errKeyLog, err)
	}
	*length = n
	return len(line), nil
}
