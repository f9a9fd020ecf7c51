package engine

import "time"

// Delivery is what a system knows of the bytes that it was given for a peer.
type Delivery struct {
	// Acked is how many the peer's system has acknowledged, ever.
	Acked uint64
	// Waiting is how many it has not.
	Waiting int
	// Closed is true when some wait because the peer's system has no room for them: who
	// should read there does not.
	Closed bool
}

// Watch judges a peer that does not answer a Ping by what its system acknowledges: the Ping
// may still be on its way behind other bytes. The zero value is ready.
type Watch struct {
	acked   uint64
	stopped time.Duration // since when the peer reads nothing, as far as was seen; 0: it does
}

// pingBytes is more than a Ping takes on the wire, with its record: that this was
// acknowledged is no life, since a system does so without its application.
const pingBytes = 128

// Pinged notes where a peer stands when it is sent a Ping.
func (w *Watch) Pinged(d Delivery) {
	w.acked = d.Acked
	if d.Waiting < pingBytes {
		w.acked += pingBytes
	}
}

// Silent says what is to become of a peer that has not answered in time: it is alive
// while bytes are acknowledged, or while there is no room for any, for writeTimeout at
// most (0 is for ever). stopped is true when it is over for the latter reason.
func (w *Watch) Silent(d Delivery, now, writeTimeout time.Duration) (alive, stopped bool) {
	if d.Acked > w.acked {
		*w = Watch{acked: d.Acked}
		return true, false
	}
	if !d.Closed {
		return false, false
	}
	if w.stopped == 0 {
		w.stopped = now
	}
	stopped = writeTimeout > 0 && now-w.stopped >= writeTimeout
	return !stopped, stopped
}
