package tls

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
)

// A Codec turns wire bytes into plaintext and back for one connection, after its
// handshake. It does no I/O, and one goroutine at a time uses it. [Layer] and
// [Stdlib] are the two that there are; [Connection.Detach] returns one of them.
type Codec interface {
	// Open takes wire bytes, among them those that an earlier call left, and may
	// overwrite them.
	//
	// plain is the plaintext of all complete records, contiguous. It aliases in
	// (Layer) or scratch (Stdlib) and is good until the next call; scratch must not
	// be empty, and is best 16 KiB or more. used is how many bytes of in were taken:
	// what remains is part of a record, which the caller keeps and presents again in
	// front of more bytes; it is at most [MaxRecordBytes] - 1 long. replyOut is
	// reply with whatever has to be written to the wire before anything that is
	// sealed later: the answer to a KeyUpdate, or an alert. again says that scratch
	// is full: the caller uses plain and calls Open with the rest of in, even if
	// that is empty.
	//
	// err is io.EOF after a close_notify, a [*PeerAlertError] after a fatal alert of
	// the peer, and a [*RecordError] after anything that the peer did wrong. plain
	// is what came before it, used is all of in, and every later call fails alike.
	// The end of the connection below is the caller's to see: without a close_notify
	// before it, the peer's data may have been cut off (RFC 8446 §6.1).
	Open(in, scratch, reply []byte) (plain []byte, used int, replyOut []byte, again bool, err error)

	// Seal appends to dst records that hold the bytes of segs, in order: as few as
	// possible, of at most 16 KiB each, so that small segments share a record. It
	// reads segs, which must not overlap the free part of dst, and does not keep
	// them. What it returned must reach the wire, in order and in full. The error is
	// [ErrWriteClosed], or tells why the connection is broken; dst is then unchanged.
	Seal(dst []byte, segs [][]byte) ([]byte, error)

	// CloseNotify appends a close_notify (RFC 8446 §6.1), after which nothing can be
	// sealed. It appends nothing if one was sent, or the connection is broken. Open
	// goes on as before.
	CloseNotify(dst []byte) []byte

	// ConnectionState says what the handshake agreed on.
	ConnectionState() cryptotls.ConnectionState

	// Forget lets go of what only ConnectionState needs, as far as that is possible. Who
	// keeps many idle connections calls it once it knows all that it wants; of the state, the
	// version, the suite and HandshakeComplete are sure to be right from then on.
	Forget()
}

// ErrWriteClosed is the error of writing after a close_notify was sent or the
// connection broke.
var ErrWriteClosed = errors.New("TLS write side is closed")

// An Alert is the description of an alert (RFC 8446 §6).
type Alert uint8

// Those that this package sends, or tells apart.
const (
	alertCloseNotify       Alert = 0
	alertUnexpectedMessage Alert = 10
	alertBadRecordMAC      Alert = 20
	alertRecordOverflow    Alert = 22
	alertIllegalParameter  Alert = 47
	alertDecodeError       Alert = 50
	alertProtocolVersion   Alert = 70
	alertInternalError     Alert = 80
	alertUserCanceled      Alert = 90
)

// String returns the words of crypto/tls for it.
func (a Alert) String() string { return cryptotls.AlertError(a).Error() }

// A PeerAlertError is a fatal alert that the peer sent. In TLS 1.3 every alert is one,
// save close_notify and user_canceled.
type PeerAlertError struct {
	Alert Alert
}

func (e *PeerAlertError) Error() string { return "peer sent an alert: " + e.Alert.String() }

// A RecordError says what the peer did wrong after the handshake.
type RecordError struct {
	// Alert is what the peer is told: the reply of [Codec.Open] carries it, unless
	// a close_notify was sent before.
	Alert Alert

	// Reason is for the log.
	Reason string
}

func (e *RecordError) Error() string { return fmt.Sprintf("%s (%s)", e.Reason, e.Alert) }
