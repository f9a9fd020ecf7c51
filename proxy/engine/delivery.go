package engine

import (
	"math"
	"time"
)

// Never is how long ago something was acknowledged that never was.
const Never time.Duration = math.MaxInt64

// Delivery is what a system knows of the bytes that it was given for a peer.
type Delivery struct {
	// Acked is how long ago the peer's system last acknowledged something, Sent how long ago
	// something was last sent to it.
	Acked, Sent time.Duration
	// Taken is how many bytes the peer's system has acknowledged altogether. A socket tells that
	// it has room again only once that is a good part of its buffer: a slow peer may take bytes
	// all the time before it does. An acknowledgement need not be one of more bytes.
	Taken uint64
	// Closed is true when bytes wait because the peer's system has no room for them: who
	// should read there does not.
	Closed bool
	// Queued is true when bytes have not been sent yet.
	Queued bool
	// Open is false once the peer has ended its stream, or the connection is broken.
	Open bool
}

// Silent says what is to become of a peer from which nothing has come since a Ping was
// sent, pongTimeout ago. The Ping may still be on its way behind other bytes: the peer is
// alive while its system acknowledges some. That it has acknowledged the Ping itself, soon
// after it was sent, is no life of its application. A peer whose system has no room has
// stopped reading; stopped is true when it has for writeTimeout (0 is for ever).
func (d Delivery) Silent(pongTimeout, writeTimeout time.Duration) (alive, stopped bool) {
	if d.Closed {
		stopped = writeTimeout > 0 && d.Sent >= writeTimeout
		return !stopped, stopped
	}
	return d.Acked < pongTimeout/2, false
}
