package admin

import (
	"fmt"
	"unicode/utf8"

	"github.com/tidegate/tidegate/internal/closecode"
)

// DefaultCloseCode is the code of a session closed through the API when none is asked
// for: policy violation (RFC 6455 §7.4.1).
const DefaultCloseCode = 1008

// maxReasonBytes is what a control frame leaves beside the code (RFC 6455 §5.5).
const maxReasonBytes = 125 - 2

// CheckClose returns an ErrBadCode or ErrBadReason unless an endpoint may send a Close
// with this code and reason.
func CheckClose(code int, reason string) error {
	if !closecode.Sendable(code) {
		return fmt.Errorf("%w %d: want %s", ErrBadCode, code, closecode.Ranges)
	}
	if len(reason) > maxReasonBytes {
		return fmt.Errorf("%w: %d bytes, %d fit into a Close frame", ErrBadReason, len(reason), maxReasonBytes)
	}
	if !utf8.ValidString(reason) {
		return fmt.Errorf("%w: it is not UTF-8", ErrBadReason)
	}
	return nil
}
