package tls

// The record types of RFC 8446 §B.1.
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeApplicationData  = 23
)

// Sizes of records (RFC 8446 §5.1, §5.2).
const (
	recordHeaderBytes = 5
	tagBytes          = 16
	maxPlaintextBytes = 1 << 14
	maxBodyBytes      = maxPlaintextBytes + 256 // of what follows the header in TLS 1.3

	// recordOverheadBytes is what protection adds: header, inner type, tag.
	recordOverheadBytes = recordHeaderBytes + 1 + tagBytes
)

// MaxRecordBytes is the size on the wire of the largest record of TLS 1.3. A buffer
// that cannot hold one more than what is left over lets a connection stall.
const MaxRecordBytes = recordHeaderBytes + maxBodyBytes

// bodyBytes returns how many bytes follow the header, of which in must hold all 5.
func bodyBytes(in []byte) int { return int(in[3])<<8 | int(in[4]) }

// checkHeader refuses a record by its header alone, so that nothing waits for, or
// buffers, a body that cannot be right. The order is crypto/tls's, and so are the
// alerts.
func checkHeader(in []byte) error {
	switch {
	case in[1] != 3 || in[2] != 3:
		// RFC 8446 §5.2 fixes the version; another one means that the peer and we
		// have lost step.
		return &RecordError{alertProtocolVersion, "record version is not 0x0303"}
	case bodyBytes(in) > maxBodyBytes:
		return &RecordError{alertRecordOverflow, "record is too long"}
	case in[0] == typeChangeCipherSpec:
		// RFC 8446 §5: allowed only before the peer's Finished.
		return &RecordError{alertUnexpectedMessage, "change_cipher_spec after the handshake"}
	case in[0] != typeApplicationData:
		return &RecordError{alertUnexpectedMessage, "record is not protected"}
	}
	return nil
}

// open removes the protection of one whole record, in place, and returns its
// content and inner type (RFC 8446 §5.2, §5.4).
func (h *half) open(record []byte) (content []byte, innerType byte, err error) {
	body := record[recordHeaderBytes:]
	inner, err := h.aead.Open(body[:0], h.nonceOf(h.seq), body, record[:recordHeaderBytes])
	if err != nil {
		return nil, 0, &RecordError{alertBadRecordMAC, "record was not sealed by the peer, or not as the next one"}
	}
	h.seq++
	if len(inner) > maxPlaintextBytes+1 {
		return nil, 0, &RecordError{alertRecordOverflow, "content of a record is too long"}
	}
	end := len(inner) - 1
	for end >= 0 && inner[end] == 0 { // padding
		end--
	}
	if end < 0 {
		return nil, 0, &RecordError{alertUnexpectedMessage, "record has no type"}
	}
	return inner[:end], inner[end], nil
}

// seal makes a record of the content that lies in dst behind head and the room for
// the record's header.
func (h *half) seal(dst []byte, head int, innerType byte) []byte {
	body := head + recordHeaderBytes
	dst = append(dst, innerType)
	n := len(dst) - body + tagBytes
	header := dst[head:body]
	header[0], header[1], header[2], header[3], header[4] = typeApplicationData, 3, 3, byte(n>>8), byte(n)
	dst = h.aead.Seal(dst[:body], h.nonceOf(h.seq), dst[body:], header)
	h.seq++
	return dst
}
