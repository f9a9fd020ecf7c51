// Package closecode says which close codes an operator may ask for, in the configuration or
// the API. It imports nothing; what peers send is judged by package frame, by the same rule.
package closecode

// Ranges are the codes that may stand in a Close frame, for messages.
const Ranges = "1000-1003, 1007-1014 or 3000-4999"

// Sendable reports whether an endpoint may send a code (RFC 6455 §7.4). 1004, 1005, 1006
// and 1015 must not stand in a frame; those below 3000 that no standard defines must not
// either.
func Sendable(code int) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}
