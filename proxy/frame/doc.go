// Package frame reads the headers of WebSocket frames (RFC 6455 §5.2) out of a byte
// stream that may be cut anywhere.
//
// A [Decoder] is one direction of one connection. It is fed the bytes where a header
// is due, holds at most the 14 bytes of a header that was cut, and enforces every
// framing rule that a header can break: reserved bits and opcodes, masking, minimal
// lengths, the size and wholeness of control frames, and the order of fragments.
// Payload never passes through it: the caller skips the payload that a header
// declares and comes back with what follows.
//
// Invariants:
//   - nothing is allocated, whatever length a peer declares;
//   - the result does not depend on where the stream is cut;
//   - after an error a decoder must not be used again: the stream has lost its place.
//
// The package does no I/O and knows nothing of sessions. [ParseClose] reads the body
// of a Close frame (RFC 6455 §5.5.1, §7.4), and [Append] writes small frames of ours.
package frame
