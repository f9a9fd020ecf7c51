package tls

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// updateAfterRecords is the age, in records, at which keys are replaced, and
	// askAfterRecords that at which a peer who has not replaced its own is asked to.
	// RFC 8446 §5.5 allows AES-GCM 2^24.5 full records under one key;
	// ChaCha20-Poly1305 has no such limit and is treated alike.
	updateAfterRecords = 1 << 24
	askAfterRecords    = updateAfterRecords + updateAfterRecords/4

	// maxIdleRecords is how many empty records, user_canceled alerts and handshake
	// messages may come without application data between them. crypto/tls has the
	// same limit.
	maxIdleRecords = 16

	// A key update costs about ten times a short record. The peer may make
	// maxPeerUpdates of them, and one more for every recordsPerUpdate records.
	maxPeerUpdates   = 1024
	recordsPerUpdate = 8
)

// The handshake messages that may follow a handshake (RFC 8446 §4.6).
const (
	messageNewSessionTicket = 4
	messageKeyUpdate        = 24
)

// A Layer is the record protection of TLS 1.3 (RFC 8446 §5) for one connection whose
// handshake crypto/tls has made. Beside records with data it understands alerts and
// KeyUpdate (§4.6.3) and refuses everything else: this side of a handshake has no
// business with any other message, since neither authentication after the handshake
// nor early data is offered.
//
// It updates its own keys in time (§5.5), and asks a peer to do so that does not.
// It holds no buffer: apart from the two AEADs a Layer is a few hundred bytes, and
// Open and Seal allocate only when keys change.
type Layer struct {
	suite *suite
	state *cryptotls.ConnectionState // nil once forgotten

	// The reading half: Open.
	read      half
	readErr   error // what every later Open returns
	skip      int   // bytes of a handshake message that are of no interest and yet to come
	partial   [5]byte
	partialN  uint8 // bytes of a handshake message that partial holds
	idle      uint8 // what came without application data: see maxIdleRecords
	asked     bool  // the peer was asked to update its keys and has not yet
	owesReply bool  // the peer has asked for an update of ours, or has to be asked
	client    bool  // whether this end is the client
	updates   uint16

	// The writing half: Seal, CloseNotify and the replies of Open.
	write    half
	writeErr error
}

// newLayer returns the layer of one end of a connection. firstWrite is the sequence
// number of the next record to be written; records are read from 0 on.
func newLayer(state *cryptotls.ConnectionState, client bool, readSecret, writeSecret []byte, firstWrite uint64) (*Layer, error) {
	l := &Layer{suite: suiteOf(state.CipherSuite), state: state, client: client, updates: maxPeerUpdates}
	if l.suite == nil {
		return nil, fmt.Errorf("no record layer for cipher suite %s", cryptotls.CipherSuiteName(state.CipherSuite))
	}
	if len(readSecret) != l.suite.hashBytes || len(writeSecret) != l.suite.hashBytes {
		return nil, fmt.Errorf("%w: %d and %d bytes, want %d", errKeyLog, len(readSecret), len(writeSecret), l.suite.hashBytes)
	}
	if err := errors.Join(l.read.setKeys(l.suite, readSecret), l.write.setKeys(l.suite, writeSecret)); err != nil {
		return nil, fmt.Errorf("deriving record keys: %w", err)
	}
	l.write.seq = firstWrite
	return l, nil
}

// ConnectionState implements [Codec]. After [Layer.Forget] only the version, the
// suite and HandshakeComplete are set.
func (l *Layer) ConnectionState() cryptotls.ConnectionState {
	if l.state == nil {
		return cryptotls.ConnectionState{Version: cryptotls.VersionTLS13, HandshakeComplete: true, CipherSuite: l.suite.id}
	}
	return *l.state
}

// Forget implements [Codec]: the client's certificates are among what is let go of.
func (l *Layer) Forget() { l.state = nil }

// Open implements [Codec]. It needs no scratch and never asks to be called again.
func (l *Layer) Open(in, _, reply []byte) (plain []byte, used int, replyOut []byte, again bool, err error) {
	plain, used, err = l.open(in)
	if err != nil || l.owesReply {
		reply = l.reply(reply, err)
	}
	return plain, used, reply, false, err
}

// open is Open without the replies, so that it touches the reading half only.
func (l *Layer) open(in []byte) (plain []byte, used int, err error) {
	for l.readErr == nil {
		rest := in[used:]
		if len(rest) < recordHeaderBytes {
			return slices.Clip(plain), used, nil
		}
		if l.readErr = checkHeader(rest); l.readErr != nil {
			break
		}
		size := recordHeaderBytes + bodyBytes(rest)
		if len(rest) < size {
			return slices.Clip(plain), used, nil
		}
		used += size
		content, innerType, err := l.read.open(rest[:size])
		if err == nil {
			err = l.take(innerType, content)
		}
		switch {
		case err != nil:
			l.readErr = err
		case innerType != typeApplicationData:
		case len(plain) == 0:
			plain = content
		default:
			plain = append(plain, content...) // within in: content lies behind plain
		}
	}
	// RFC 8446 §6.1: what follows a close_notify is ignored.
	return slices.Clip(plain), len(in), l.readErr
}

// take judges one record and does what it asks for, except for keeping its data.
func (l *Layer) take(innerType byte, content []byte) error {
	if innerType == typeApplicationData && len(content) > 0 && l.partialN == 0 && l.skip == 0 {
		l.idle = 0
		if l.read.seq >= askAfterRecords && !l.asked {
			l.owesReply = true
		}
		return nil
	}
	if innerType != typeHandshake && (l.partialN > 0 || l.skip > 0) {
		return &RecordError{alertUnexpectedMessage, "record of another type within a handshake message"}
	}
	switch innerType {
	case typeApplicationData:
		return l.idled() // RFC 8446 §5.4 allows empty ones
	case typeAlert:
		return l.takeAlert(content)
	case typeHandshake:
		return l.takeHandshake(content)
	}
	return &RecordError{alertUnexpectedMessage, "record of unknown type"}
}

// idled counts what brings no data and is good for nothing in quantity.
func (l *Layer) idled() error {
	if l.idle++; l.idle > maxIdleRecords {
		return &RecordError{alertUnexpectedMessage, "too many records without data"}
	}
	return nil
}

func (l *Layer) takeAlert(content []byte) error {
	if len(content) != 2 {
		// RFC 8446 §5.1: neither empty, nor in pieces, nor several in one record.
		return &RecordError{alertUnexpectedMessage, "alert is not of two bytes"}
	}
	switch alert := Alert(content[1]); alert {
	case alertCloseNotify:
		return io.EOF
	case alertUserCanceled:
		return l.idled() // RFC 8446 §6.1: a close_notify follows
	default:
		return &PeerAlertError{alert} // whatever its level says: RFC 8446 §6
	}
}

// takeHandshake takes what one record holds of handshake messages. These may come in
// pieces, and several in one record.
func (l *Layer) takeHandshake(content []byte) error {
	if len(content) == 0 {
		return &RecordError{alertUnexpectedMessage, "empty handshake record"} // RFC 8446 §5.1
	}
	for len(content) > 0 {
		if l.skip > 0 {
			n := min(l.skip, len(content))
			l.skip, content = l.skip-n, content[n:]
			continue
		}
		l.partial[l.partialN] = content[0]
		l.partialN, content = l.partialN+1, content[1:]
		complete, err := l.takePartial()
		if err != nil {
			return err
		}
		if !complete {
			continue
		}
		requested := l.partial[4] == 1
		l.partialN = 0
		if len(content) > 0 {
			// RFC 8446 §5.1: messages must not span a key change.
			return &RecordError{alertUnexpectedMessage, "a KeyUpdate is not the last of its record"}
		}
		return l.peerUpdated(requested)
	}
	return nil
}

// takePartial looks at a handshake message each time a byte was added to it, refuses
// it as early as can be, and says whether a KeyUpdate is complete.
func (l *Layer) takePartial() (complete bool, err error) {
	update := l.partial[0] == messageKeyUpdate
	switch l.partialN {
	case 1:
		if !update && !(l.client && l.partial[0] == messageNewSessionTicket) {
			return false, &RecordError{alertUnexpectedMessage, fmt.Sprintf("handshake message of type %d after the handshake", l.partial[0])}
		}
	case 4:
		length := int(l.partial[1])<<16 | int(l.partial[2])<<8 | int(l.partial[3])
		if update && length != 1 {
			return false, &RecordError{alertDecodeError, "length of a KeyUpdate is not 1"}
		}
		if !update { // a ticket: nobody here would use it
			l.skip, l.partialN = length, 0
			return false, l.idled()
		}
	case 5:
		if l.partial[4] > 1 {
			return false, &RecordError{alertIllegalParameter, "KeyUpdate asks for something unknown"} // RFC 8446 §4.6.3
		}
		return true, nil
	}
	return false, nil
}

// peerUpdated follows the peer to its next keys (RFC 8446 §4.6.3).
func (l *Layer) peerUpdated(requested bool) error {
	if !l.asked {
		l.updates = uint16(min(uint64(l.updates)+l.read.seq/recordsPerUpdate, maxPeerUpdates))
		if l.updates == 0 {
			return &RecordError{alertUnexpectedMessage, "too many key updates"}
		}
		l.updates--
		if err := l.idled(); err != nil {
			return err
		}
	}
	if err := l.read.update(l.suite); err != nil {
		return &RecordError{alertInternalError, fmt.Sprintf("deriving record keys: %v", err)}
	}
	l.asked = false
	l.owesReply = l.owesReply || requested
	return nil
}

// reply appends what the peer has to be told after open returned err.
func (l *Layer) reply(dst []byte, err error) []byte {
	switch e := err.(type) {
	case *RecordError:
		dst = l.appendAlert(dst, 2, e.Alert)
		l.endWrite()
	case *PeerAlertError:
		l.endWrite() // RFC 8446 §6.2: no more data is sent
	default:
		if l.owesReply {
			// One answers all that were asked for since; a request of ours goes with it.
			ask := l.read.seq >= askAfterRecords && !l.asked
			l.asked = l.asked || ask
			dst = l.KeyUpdate(dst, ask)
		}
	}
	l.owesReply = false
	return dst
}

func (l *Layer) endWrite() {
	l.writeErr = ErrWriteClosed
	clear(l.write.secret[:])
}

// Seal implements [Codec].
func (l *Layer) Seal(dst []byte, segs [][]byte) ([]byte, error) {
	if l.writeErr != nil {
		return dst, l.writeErr
	}
	total := 0
	for _, seg := range segs {
		total += len(seg)
	}
	records := (total + maxPlaintextBytes - 1) / maxPlaintextBytes
	before := len(dst)
	dst = slices.Grow(dst, total+records*recordOverheadBytes)
	var seg []byte
	for ; records > 0; records-- {
		if l.write.seq >= updateAfterRecords {
			if dst = l.KeyUpdate(dst, false); l.writeErr != nil {
				return dst[:before], l.writeErr
			}
		}
		head := len(dst)
		dst = append(dst, 0, 0, 0, 0, 0)
		for room := min(total, maxPlaintextBytes); room > 0; {
			for len(seg) == 0 {
				seg, segs = segs[0], segs[1:]
			}
			n := min(room, len(seg))
			dst = append(dst, seg[:n]...)
			seg, room, total = seg[n:], room-n, total-n
		}
		dst = l.write.seal(dst, head, typeApplicationData)
	}
	return dst, nil
}

// CloseNotify implements [Codec].
func (l *Layer) CloseNotify(dst []byte) []byte {
	dst = l.appendAlert(dst, 1, alertCloseNotify)
	l.endWrite()
	return dst
}

// KeyUpdate appends a KeyUpdate (RFC 8446 §4.6.3) and goes on to the next keys for
// writing; request asks the peer to do the same. The Layer updates keys by itself
// when they get old: there is no need to call this other than to show that it works.
// It appends nothing once the write side is closed.
func (l *Layer) KeyUpdate(dst []byte, request bool) []byte {
	if l.writeErr != nil {
		return dst
	}
	requested := byte(0)
	if request {
		requested = 1
	}
	head := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, messageKeyUpdate, 0, 0, 1, requested)
	dst = l.write.seal(dst, head, typeHandshake)
	if err := l.write.update(l.suite); err != nil {
		l.writeErr = fmt.Errorf("deriving record keys: %w", err)
	}
	return dst
}

func (l *Layer) appendAlert(dst []byte, level byte, alert Alert) []byte {
	if l.writeErr != nil {
		return dst
	}
	head := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, level, byte(alert))
	return l.write.seal(dst, head, typeAlert)
}
