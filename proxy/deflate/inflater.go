package deflate

import (
	"errors"
	"sync"
)

var (
	// ErrCorrupt is a message that is not DEFLATE (RFC 1951).
	ErrCorrupt = errors.New("compressed message is corrupt (RFC 7692 §7.2.2)")
	// ErrTruncated is a message that ends inside a DEFLATE block.
	ErrTruncated = errors.New("compressed message is cut short (RFC 7692 §7.2.2)")
)

// Inflater inflates messages one after another, each with an empty window at its start.
// Between messages it holds nothing; the zero value is ready. An Inflater must not be
// copied while a message is under way.
type Inflater struct {
	s *stream
}

// streams are the idle streams.
var streams = sync.Pool{New: func() any { return new(stream) }}

// Start begins a message, whose whole payload is given: the payloads of its frames in one
// piece, unmasked. The message is read until Next says done or returns an error, or until
// Abandon, and must not change before. A message that was under way is abandoned.
func (i *Inflater) Start(message []byte) {
	if i.s == nil {
		i.s = streams.Get().(*stream)
	}
	i.s.begin(message)
}

// Moved says that the message that is under way lies in message now, the same bytes.
func (i *Inflater) Moved(message []byte) { i.s.in = message }

// Next fills dst with the next inflated bytes and returns how many there are. done is the
// end of the message, and may come alone. Without it, fewer than len(dst) bytes, or none,
// mean that the message says much and holds little: a call begins at most 64 DEFLATE
// blocks, so that its time is bounded by len(dst) alone, and the next one goes on.
//
// The error is ErrCorrupt or ErrTruncated; the bytes that came before it are worth nothing.
// After done or an error Next must not be called before Start.
func (i *Inflater) Next(dst []byte) (n int, done bool, err error) {
	n, done, err = i.s.next(dst)
	if done || err != nil {
		i.Abandon()
	}
	return n, done, err
}

// Abandon gives up the message that is under way, if any.
func (i *Inflater) Abandon() {
	if i.s != nil {
		i.s.in = nil
		streams.Put(i.s)
		i.s = nil
	}
}
