package tls

import (
	"bytes"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"fmt"
)

// minTicketKeyBytes is the strength of the keys that are derived.
const minTicketKeyBytes = 32

// ticketKey is what crypto/tls derives its AES and HMAC keys from.
type ticketKey [32]byte

// parseTicketKey derives the key of a ticket key file: the SHA-256 of its whole
// content. Any format will do, as long as all edges hold the same bytes; a hash
// rather than the first 32 bytes, because the files of nginx and HAProxy begin
// with a key *name* of 16 bytes that is sent in the clear.
func parseTicketKey(file string, data []byte) (ticketKey, error) {
	const remedy = "make one with: openssl rand -out FILE 48"
	if len(data) < minTicketKeyBytes {
		return ticketKey{}, fileError(file, fmt.Errorf("%d bytes are too few for a ticket key, %d are needed", len(data), minTicketKeyBytes), remedy)
	}
	// A file that was allocated but never filled (truncate, fallocate).
	if bytes.Count(data, data[:1]) == len(data) {
		return ticketKey{}, fileError(file, fmt.Errorf("all bytes of the ticket key are 0x%02x", data[0]), remedy)
	}
	return sha256.Sum256(data), nil
}

// newTicketing returns a Config that holds nothing but ticket keys. Without keys
// crypto/tls makes, rotates and forgets its own, for as long as this Config lives.
func newTicketing(keys []part[ticketKey]) *cryptotls.Config {
	config := &cryptotls.Config{}
	if len(keys) == 0 {
		return config
	}
	values := make([][32]byte, len(keys))
	for i, key := range keys {
		values[i] = key.value
	}
	config.SetSessionTicketKeys(values)
	return config
}

func (s *Store) sealTicket(state cryptotls.ConnectionState, session *cryptotls.SessionState) ([]byte, error) {
	return s.current.Load().ticketing.EncryptTicket(state, session)
}

// openTicket returns nil without an error for a ticket that no key opens: the
// handshake then goes on in full.
func (s *Store) openTicket(identity []byte, state cryptotls.ConnectionState) (*cryptotls.SessionState, error) {
	return s.current.Load().ticketing.DecryptTicket(identity, state)
}
