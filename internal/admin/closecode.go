package admin

import (
	"fmt"
	"unicode/utf8"
)

// DefaultCloseCode is the code of a session closed through the API when none is asked
// for: policy violation (RFC 6455 §7.4.1).
const DefaultCloseCode = 1008

// maxReasonBytes is what a control frame leaves beside the code (RFC 6455 §5.5).
const maxReasonBytes = 125 - 2

// CheckClose returns an ErrBadCode or ErrBadReason unless an endpoint may send a Close
// with this code and reason (RFC 6455 §7.4). 1004, 1005, 1006 and 1015 must not stand
// in a frame; those below 3000 that no standard defines must not either.
func CheckClose(code int, reason string) error {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return fmt.Errorf("%w %d: want 1000-1003, 1007-1014 or 3000-4999", ErrBadCode, code)
	}
	if len(reason) > maxReasonBytes {
		return fmt.Errorf("%w: %d bytes, %d fit into a Close frame", ErrBadReason, len(reason), maxReasonBytes)
	}
	if !utf8.ValidString(reason) {
		return fmt.Errorf("%w: it is not UTF-8", ErrBadReason)
	}
	return nil
}
