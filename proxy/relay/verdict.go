package relay

import (
	"errors"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// Verdict says how and through whom a session ended.
type Verdict struct {
	// Cause is why; 0 while the session is open.
	Cause Cause
	// Code is what the client was told or told us: 1005 a Close without a code, 1006 no
	// Close at all.
	Code ws.StatusCode
	// Reason is the text that went with the code. It may be a peer's: untrusted.
	Reason string
	// Why names what it was in one word: closed and gone where a side ended the session in
	// one of these ways, else the rule, limit or timeout, such as utf8 or idle_timeout.
	Why string
	// Err is the *frame.Error of a peer that broke a rule.
	Err *frame.Error
}

// Cause is why a session ended.
type Cause uint8

const (
	// ClientClosed and BackendClosed: that side sent the first Close.
	ClientClosed Cause = iota + 1
	BackendClosed
	// ClientGone and BackendGone: that side ended its stream without a Close.
	ClientGone
	BackendGone
	// ClientViolation and BackendViolation: that side broke the protocol or a limit.
	ClientViolation
	BackendViolation
	// EdgeClosed: the edge ended the session, by Close.
	EdgeClosed
)

// String returns the cause as it stands in logs.
func (c Cause) String() string {
	return [...]string{"open", "client_closed", "backend_closed", "client_gone", "backend_gone",
		"client_violation", "backend_violation", "edge_closed"}[c]
}

// Initiator returns who began the end: client, backend or edge. A session that the edge
// closes because of what a peer did is the edge's.
func (c Cause) Initiator() string {
	switch c {
	case ClientClosed, ClientGone:
		return "client"
	case BackendClosed, BackendGone:
		return "backend"
	}
	return "edge"
}

// By returns whose doing the end was: client, backend or edge. Unlike the initiator, it is
// the peer who broke a rule.
func (c Cause) By() string {
	switch c {
	case ClientClosed, ClientGone, ClientViolation:
		return "client"
	case BackendClosed, BackendGone, BackendViolation:
		return "backend"
	}
	return "edge"
}

// Limits that a peer exceeded.
var (
	ErrFrameTooBig    = &frame.Error{Code: ws.StatusMessageTooBig, Section: "RFC 6455 §10.4", Kind: "frame_size", Text: "frame too big"}
	ErrMessageTooBig  = &frame.Error{Code: ws.StatusMessageTooBig, Section: "RFC 6455 §10.4", Kind: "message_size", Text: "message too big"}
	ErrInflatedTooBig = &frame.Error{Code: ws.StatusMessageTooBig, Section: "RFC 6455 §10.4", Kind: "inflated_size", Text: "message inflates to too much"}
	ErrDeflate        = &frame.Error{Code: ws.StatusInvalidFramePayloadData, Section: "RFC 7692 §7.2.2", Kind: "deflate", Text: "compressed message is corrupt"}
	ErrFragments      = policy("fragments", "too many fragments")
	ErrMessageTimeout = policy("message_timeout", "message not finished in time")
	ErrControlRate    = policy("control_rate", "too many control frames")
	ErrMessageRate    = policy("message_rate", "too many messages")
	ErrByteRate       = policy("byte_rate", "too many bytes")
)

func policy(kind, text string) *frame.Error {
	return &frame.Error{Code: ws.StatusPolicyViolation, Section: "RFC 6455 §7.4.1", Kind: kind, Text: text}
}

// Words for Verdict.Why.
const (
	WhyClosed       = "closed"
	WhyGone         = "gone"
	WhyPongTimeout  = "pong_timeout"
	WhyWriteTimeout = "write_timeout"
)

// Ends by time.
var (
	idleEnding = Ending{ws.StatusGoingAway, ws.StatusGoingAway, "idle", "idle_timeout"}
	agedEnding = Ending{ws.StatusGoingAway, ws.StatusGoingAway, "maximum age reached", "max_age"}
)

// Codes that the edge chooses itself. gobwas/ws has no names for 1012.
const (
	// StatusServiceRestart tells a client that its backend went away: come back
	// (IANA registry of RFC 6455 §11.7).
	StatusServiceRestart ws.StatusCode = 1012
)

// Ending is how the edge ends a session of its own accord.
type Ending struct {
	// Client and Backend are the codes for the two sides.
	Client, Backend ws.StatusCode
	// Reason goes with both, at most 123 bytes of UTF-8.
	Reason string
	// Why is the word for Verdict.Why.
	Why string
}

func asViolation(err error) *frame.Error {
	var v *frame.Error
	if errors.As(err, &v) {
		return v
	}
	return &frame.Error{Code: ws.StatusProtocolError, Section: "RFC 6455", Text: err.Error()}
}
