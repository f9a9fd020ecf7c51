package frame

import "github.com/gobwas/ws"

// Error is a breach of RFC 6455 by a peer. It is a constant of this package: compare
// with errors.Is.
type Error struct {
	// Code is the close code for the peer that broke the rule (RFC 6455 §7.4.1).
	Code ws.StatusCode
	// Section is where the rule stands, such as "RFC 6455 §5.5".
	Section string
	// Kind is what was wrong in one word, for metrics.
	Kind string
	// Text says what was wrong. It fits into the reason of a Close frame.
	Text string
}

// Error returns the text with its source.
func (e *Error) Error() string { return e.Text + " (" + e.Section + ")" }

func violation(section, text string) *Error {
	return &Error{Code: ws.StatusProtocolError, Section: "RFC 6455 " + section, Kind: "protocol", Text: text}
}

// What a header or the body of a Close frame can break.
var (
	ErrReservedBits     = violation("§5.2", "reserved bits set without an extension")
	ErrReservedOpCode   = violation("§5.2", "reserved opcode")
	ErrUnmasked         = violation("§5.1", "unmasked frame from a client")
	ErrMasked           = violation("§5.1", "masked frame from a server")
	ErrLengthNotMinimal = violation("§5.2", "length not in its shortest form")
	ErrLengthTopBit     = violation("§5.2", "length with the top bit set")
	ErrControlTooLong   = violation("§5.5", "control frame over 125 bytes")
	ErrControlFragment  = violation("§5.5", "fragmented control frame")
	ErrContinuation     = violation("§5.4", "continuation without a message to continue")
	ErrInterleaved      = violation("§5.4", "new message inside a fragmented one")
	ErrCloseLength      = violation("§5.5.1", "close frame with a body of one byte")
	ErrCloseCode        = violation("§7.4", "close code that must not be sent")
	ErrCloseReason      = &Error{Code: ws.StatusInvalidFramePayloadData, Section: "RFC 6455 §5.5.1", Kind: "utf8", Text: "close reason is not UTF-8"}
	ErrText             = &Error{Code: ws.StatusInvalidFramePayloadData, Section: "RFC 6455 §8.1", Kind: "utf8", Text: "text is not UTF-8"}
)
