package relay

import (
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// SlowConsumer is what happens when a client takes messages more slowly than its backend
// sends them. Toward a backend there is only backpressure.
type SlowConsumer uint8

const (
	// Backpressure reads no more from the backend than the client takes.
	Backpressure SlowConsumer = iota
	// CloseSlow ends a session for which more than MaxBuffered waits.
	CloseSlow
	// DropOldest drops the oldest whole messages of one frame that wait, as long as more
	// than MaxBuffered does. Where that is not enough there is backpressure.
	DropOldest
)

// outbox is what waits for a client that does not take it at once, as frames. Pings and
// Pongs pass what waits.
type outbox struct {
	entries []entry
	head    int // the first one that is still there
	cur     int // the one whose frame has not come whole, if left is not 0
	size    int // of all entries, with what they cost
	left    int64
	begun   bool      // the first entry has been taken in part, or is the rest of a frame that was
	chunks  [2][]byte // small frames are packed into them: messages, and parts of messages
	dec     frame.Decoder
}

// entry is a frame, or the rest of one.
type entry struct {
	bytes   []byte
	message bool // it is a message of one frame
	control bool // it is a Ping or Pong
}

const (
	// entryCost is what an entry takes beside its bytes.
	entryCost = 40
	// chunkBytes is how many bytes small frames are packed into at a time.
	chunkBytes = 4 << 10
)

// box is what waits for the client, or nil.
func (r *Relay) box() *outbox {
	if r.pol == nil {
		return nil
	}
	return r.pol.box
}

// Block says that bytes wait for a side which its socket has not taken: what is for it
// from now on is given to Queue. It has no effect with Backpressure.
func (r *Relay) Block(to Side) {
	if to != Client || r.opt.SlowConsumer == Backpressure || r.pol == nil || r.pol.box != nil {
		return
	}
	in := &r.in[peer(to)]
	b := &outbox{cur: -1, dec: frame.Decoder{RSV: 7}}
	if in.recoded {
		b.dec.SetFragmented(r.pol.recoder.opened[Backend])
	} else {
		b.dec.SetFragmented(in.dec.Fragmented() && !in.drop)
	}
	if !in.betweenFrames() {
		b.left = in.left
	}
	b.begun = b.left > 0
	r.pol.box = b
}

// Blocked reports whether what is for a side goes to Queue.
func (r *Relay) Blocked(to Side) bool { return to == Client && r.box() != nil }

// Queued returns how many bytes wait in the relay for a side, and what they cost.
func (r *Relay) Queued(to Side) int {
	if !r.Blocked(to) {
		return 0
	}
	return r.pol.box.size
}

// Buffered returns how many bytes the relay holds, and what they cost.
func (r *Relay) Buffered() int {
	n := r.Queued(Client)
	if m := r.moving(); m != nil {
		n += cap(m.held)
	}
	if r.pol != nil && r.pol.opening != nil {
		n += cap(r.pol.opening.bytes)
	}
	if r.pol != nil && r.pol.recoder != nil {
		n += cap(r.pol.recoder.message)
		if r.pol.recoder.busy {
			n += inflaterBytes
		}
	}
	return n
}

// Full reports whether a side's peer should not be read: too much waits, and nothing of
// it may be dropped.
func (r *Relay) Full(to Side) bool { return r.Blocked(to) && r.Queued(to) > r.opt.MaxBuffered }

// Queue keeps what is for a side that is blocked, and applies Options.SlowConsumer. It
// copies what it keeps.
func (r *Relay) Queue(to Side, segs [][]byte, now time.Duration) {
	b := r.box()
	for _, p := range segs {
		b.put(p)
	}
	if !r.Full(to) {
		return
	}
	switch r.opt.SlowConsumer {
	case CloseSlow:
		r.Shed(Ending{Client: r.opt.SlowConsumerCode, Backend: ws.StatusGoingAway, Reason: "slow consumer", Why: "slow_consumer"}, now, nil)
	case DropOldest:
		r.counts[peer(to)].Dropped += b.drop(r.opt.MaxBuffered)
	}
}

// Shed ends the session because of what waits for the client, which is dropped: all but
// the rest of a frame that it has in part. The Close goes behind that, or to toClient if
// the client was not blocked.
func (r *Relay) Shed(e Ending, now time.Duration, toClient *Buffers) {
	if r.Closing() {
		return
	}
	b := r.box()
	if b != nil && b.purge() {
		r.in[Backend].drop = true // the rest of a frame whose beginning is gone
	}
	r.dropCollected()
	var own, backend Buffers
	if b != nil {
		toClient = &own
	}
	r.close(e, now, toClient, &backend) // nothing goes there; a move is given up in Tick
	if next := &r.ending.pending[Client]; next.when == betweenMessage {
		next.when = betweenFrames
		r.release(Client, now, toClient)
	}
	for _, p := range own.Segments() {
		b.put(p)
	}
}

// Take moves some most bytes, or a few less or more, of what waits for a side to out, and
// unblocks the side when nothing waits any more.
func (r *Relay) Take(to Side, most int, out *Buffers) {
	b := r.box()
	for most > 0 && b.head < len(b.entries) {
		e := &b.entries[b.head]
		n := min(len(e.bytes), most)
		out.add(e.bytes[:n:n])
		most -= n
		b.size -= n
		e.bytes = e.bytes[n:]
		b.begun = true
		if len(e.bytes) > 0 {
			return
		}
		if b.left > 0 && b.cur == b.head {
			break // more of it is to come
		}
		b.size -= entryCost
		b.begun = false
		b.pop()
	}
	if b.head == len(b.entries) || len(b.entries[b.head].bytes) == 0 {
		r.pol.box = nil
	}
}

// Discard forgets what waits for a side that takes nothing more.
func (r *Relay) Discard(to Side) {
	if r.Blocked(to) {
		r.pol.box = nil
	}
}

// pop forgets the first entry.
func (b *outbox) pop() {
	b.entries[b.head] = entry{}
	b.head++
	b.compact()
}

// compact gives room back.
func (b *outbox) compact() {
	if b.head > 32 && b.head > len(b.entries)/2 {
		b.entries = slices.Delete(b.entries, 0, b.head)
		b.cur -= b.head
		b.head = 0
	}
}

// put appends bytes of the stream.
func (b *outbox) put(p []byte) {
	for len(p) > 0 {
		if b.left > 0 {
			if b.cur < 0 {
				b.cur = b.insert(entry{})
			}
			n := int(min(b.left, int64(len(p))))
			b.grow(&b.entries[b.cur], p[:n])
			if b.left -= int64(n); b.left == 0 {
				b.cur = -1
			}
			p = p[n:]
			continue
		}
		h, raw, n, err := b.dec.Next(p)
		p = p[n:]
		if err != nil || raw == nil {
			return // never: these are whole frames of the relay's own
		}
		e := entry{message: h.Fin && (h.OpCode == ws.OpText || h.OpCode == ws.OpBinary), control: h.OpCode.IsControl() && h.OpCode != ws.OpClose}
		at := b.insert(e)
		b.grow(&b.entries[at], raw)
		if b.left = h.Length; b.left > 0 {
			b.cur = at
		}
	}
}

// insert makes room for a frame: Pings and Pongs stand before data that has not been begun.
func (b *outbox) insert(e entry) (at int) {
	b.size += entryCost
	at = len(b.entries)
	if e.control {
		for at = b.head; at < len(b.entries) && (b.entries[at].control || at == b.head && b.begun); at++ {
		}
	}
	b.entries = slices.Insert(b.entries, at, e)
	return at
}

// grow appends p to an entry. What is packed into one chunk goes in the order in which it
// came, so that only the first one there and the last one are not full: messages go
// together, and apart from what is not dropped between them; Pings and Pongs pass both.
func (b *outbox) grow(e *entry, p []byte) {
	b.size += len(p)
	if e.control {
		e.bytes = append(e.bytes, p...)
		return
	}
	chunk := &b.chunks[0]
	if !e.message {
		chunk = &b.chunks[1]
	}
	if e.bytes == nil && len(p) <= chunkBytes/4 {
		if cap(*chunk)-len(*chunk) < len(p) {
			*chunk = make([]byte, 0, chunkBytes)
		}
		at := len(*chunk)
		*chunk = append(*chunk, p...)
		e.bytes = (*chunk)[at:]
		return
	}
	if n := len(e.bytes); n > 0 && n+len(p) <= chunkBytes/4 && cap(*chunk)-len(*chunk) >= len(p) && len(*chunk) > 0 &&
		&e.bytes[n-1] == &(*chunk)[len(*chunk)-1] {
		*chunk = append(*chunk, p...)
		e.bytes = (*chunk)[len(*chunk)-n-len(p):]
		return
	}
	e.bytes = append(e.bytes[:len(e.bytes):len(e.bytes)], p...)
}

// drop drops the oldest messages until no more than most is left, and returns how many.
func (b *outbox) drop(most int) (n uint64) {
	for at := b.head; at < len(b.entries) && b.size > most; at++ {
		e := b.entries[at]
		if !e.message || at == b.head && b.begun || b.left > 0 && at == b.cur {
			continue
		}
		b.size -= len(e.bytes) + entryCost
		copy(b.entries[b.head+1:at+1], b.entries[b.head:at]) // what stays before it is little
		b.entries[b.head] = entry{}
		b.head++
		n++
	}
	b.compact()
	return n
}

// purge drops everything but a frame that was begun. It reports whether the rest of a
// frame that is still coming is to be dropped too.
func (b *outbox) purge() (rest bool) {
	keep := b.head
	if b.begun && b.head < len(b.entries) {
		keep++
	}
	for _, e := range b.entries[keep:] {
		b.size -= len(e.bytes) + entryCost
	}
	rest = b.left > 0 && b.cur >= keep
	if rest {
		b.left, b.cur = 0, -1
		b.dec.SetFragmented(false)
	}
	b.entries = slices.Clone(b.entries[b.head:keep])
	if b.cur >= 0 {
		b.cur -= b.head
	}
	b.head, b.chunks = 0, [2][]byte{}
	return rest
}
