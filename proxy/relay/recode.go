package relay

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/deflate"
	"github.com/tidegate/tidegate/proxy/frame"
)

// Compression is what a session has agreed about permessage-deflate (RFC 7692).
type Compression struct {
	Mode CompressionMode
	// WindowBits is the edge's own window toward the client, 8 to 15, or 0 for 15. This
	// and what follows is for Terminate.
	WindowBits uint8
	// Level is from 1, fast, to 9, small; messages below MinBytes are not compressed.
	Level    int
	MinBytes int
	// MaxInflatedBytes bounds what a message of the client inflates to; 0 is no limit.
	MaxInflatedBytes int64
}

// CompressionMode says who compresses.
type CompressionMode uint8

const (
	// NoCompression: no message may be compressed.
	NoCompression CompressionMode = iota
	// Passthrough: client and backend compress, and the edge passes on what they say.
	Passthrough
	// Terminate: the edge inflates what the client says, and compresses what the backend
	// says.
	Terminate
)

const (
	// rsv1 is the bit of a compressed message, as in ws.Header.Rsv (RFC 7692 §6).
	rsv1 = 4
	// recodeBytes is how much is inflated into one frame.
	recodeBytes = 16 << 10
	// inflaterBytes is what an inflater holds while it is busy.
	inflaterBytes = 64 << 10
	// recodeTurn is how much is inflated in one Feed, so that other sessions get theirs.
	recodeTurn = 4 * recodeBytes
)

// recoder is what a session knows that ends compression at the edge. It holds nothing
// between messages.
type recoder struct {
	compressor deflate.Compressor
	inflater   deflate.Inflater
	message    []byte // compressed, of the client, as far as it has come
	inflated   int64  // of the message that is being inflated
	busy       bool   // one is
	op         [numSides]ws.OpCode
	opened     [numSides]bool // a frame of the present message has gone on
	dropped    bool           // the present message of the client goes nowhere
}

// recodes decides whether a message that begins goes on in other frames than it comes.
func (r *Relay) recodes(from Side, h ws.Header) bool {
	c := &r.opt.Compression
	if from == Client && r.pol != nil && r.pol.recoder != nil {
		r.pol.recoder.dropped = false
	}
	if c.Mode != Terminate || from == Client && h.Rsv&rsv1 == 0 ||
		from == Backend && h.Fin && h.Length < int64(c.MinBytes) {
		return false
	}
	p := r.pol.recoder
	p.op[from], p.opened[from] = h.OpCode, false
	return true
}

// recode passes on what has come of a data frame as frames of the edge's own. last is the
// end of the message.
func (r *Relay) recode(from Side, p []byte, last bool, now time.Duration, out *Buffers) error {
	if from == Backend {
		r.compress(p, last, out)
		return nil
	}
	return r.collectCompressed(p, last, now, out)
}

// compress sends a piece of the backend's message, compressed by itself: it refers to
// nothing before it, so that no compressor is kept while the rest is still to come.
func (r *Relay) compress(p []byte, last bool, out *Buffers) {
	d := r.pol.recoder
	if len(p) == 0 && !last {
		return
	}
	start := len(out.own)
	own := append(out.own, make([]byte, frame.MaxHeaderBytes)...)
	own = d.compressor.Write(own, p)
	own = d.compressor.Finish(own)
	if !last {
		own = append(own, 0, 0, 0xff, 0xff) // RFC 7692 §7.2.1: the tail goes only from the end
	}
	payload := own[start+frame.MaxHeaderBytes:]
	h := ws.Header{Fin: last, OpCode: ws.OpContinuation, Length: int64(len(payload))}
	if !d.opened[Backend] {
		h.OpCode, h.Rsv = d.op[Backend], rsv1
		if last && len(payload) >= len(p) {
			// It got no smaller.
			h.Rsv, h.Length = 0, int64(len(p))
			own = append(own[:start+frame.MaxHeaderBytes], p...)
			payload = own[start+frame.MaxHeaderBytes:]
		}
	}
	d.opened[Backend] = !last
	at := start + frame.MaxHeaderBytes - putHeader(own[start:start+frame.MaxHeaderBytes], h)
	out.own = own
	out.add(own[at : start+frame.MaxHeaderBytes+len(payload) : start+frame.MaxHeaderBytes+len(payload)])
}

// collectCompressed takes a piece of a message of the client, and inflates the message
// when it is whole.
func (r *Relay) collectCompressed(p []byte, last bool, now time.Duration, out *Buffers) error {
	d, in := r.pol.recoder, &r.in[Client]
	key := in.key
	in.key = frame.RotateKey(key, len(p))
	if !last || len(d.message) > 0 {
		at := len(d.message)
		d.message = append(d.message, p...)
		ws.Cipher(d.message[at:], key, 0)
		p = d.message
	} else {
		p = out.copy(p) // in one piece: nothing is kept if it inflates to little
		ws.Cipher(p, key, 0)
	}
	if !last {
		return nil
	}
	d.inflated, d.busy = 0, true
	d.inflater.Start(p)
	if err := r.inflate(now, out); err != nil {
		return err
	}
	if d.busy && len(d.message) == 0 {
		d.message = append(d.message, p...) // it has to outlive out
		d.inflater.Moved(d.message)
	}
	return nil
}

// inflate sends what the client's message inflates to, as much as is this session's turn;
// then the rest is Held.
func (r *Relay) inflate(now time.Duration, out *Buffers) error {
	d, in := r.pol.recoder, &r.in[Client]
	for turn := 0; turn < recodeTurn; {
		start := len(out.own)
		own := append(out.own, make([]byte, frame.MaxHeaderBytes+recodeBytes)...)
		payload := own[start+frame.MaxHeaderBytes:]
		n, done, err := d.inflater.Next(payload)
		payload = payload[:n]
		if err != nil {
			return ErrDeflate
		}
		if d.inflated += int64(n); r.tooBig(d.inflated) {
			return ErrInflatedTooBig
		}
		if d.op[Client] == ws.OpText && r.opt.ValidateUTF8 &&
			(!in.utf8.Valid(payload, [4]byte{}) || done && !in.utf8.Complete()) {
			return frame.ErrText
		}
		turn += max(n, recodeBytes/8)
		if n == 0 && !done {
			continue
		}
		h := ws.Header{Fin: done, OpCode: ws.OpContinuation, Masked: true, Length: int64(n)}
		if !d.opened[Client] {
			h.OpCode = d.op[Client]
		}
		d.opened[Client] = !done
		rand.Read(own[start : start+4])
		copy(h.Mask[:], own[start:])
		ws.Cipher(payload, h.Mask, 0)
		at := start + frame.MaxHeaderBytes - putHeader(own[start:start+frame.MaxHeaderBytes], h)
		end := start + frame.MaxHeaderBytes + n
		out.own = own[:end]
		out.add(own[at:end:end])
		if r.opt.Migrate != nil {
			r.record(own[at:end])
		}
		if done {
			r.endInflating()
			r.release(Backend, now, out)
			return nil
		}
	}
	in.stopped = true
	return nil
}

// tooBig reports whether a message of the client may not inflate to as much.
func (r *Relay) tooBig(n int64) bool {
	most, inflated := r.opt.MaxMessageBytes, r.opt.Compression.MaxInflatedBytes
	return most > 0 && n > most || inflated > 0 && n > inflated
}

// inflating reports whether a message of the client is being inflated.
func (r *Relay) inflating() bool {
	return r.pol != nil && r.pol.recoder != nil && r.pol.recoder.busy
}

// endInflating gives back what a message of the client held.
func (r *Relay) endInflating() {
	if r.pol != nil && r.pol.recoder != nil {
		d := r.pol.recoder
		d.inflater.Abandon()
		d.busy, d.message = false, nil
	}
}

// dropCollected gives back what a message of the client holds that has not come whole, or
// not gone on; nor will the rest of it.
func (r *Relay) dropCollected() {
	if in := &r.in[Client]; in.recoded && (r.inflating() || in.left > 0 || in.dec.Fragmented()) {
		r.endInflating()
		r.pol.recoder.dropped, in.drop = true, true
	}
}

// putHeader writes a frame's header to the end of p and returns its length.
func putHeader(p []byte, h ws.Header) int {
	var b [frame.MaxHeaderBytes]byte
	b[0] = h.Rsv<<4 | byte(h.OpCode)
	if h.Fin {
		b[0] |= 0x80
	}
	n := 2
	switch {
	case h.Length < 126:
		b[1] = byte(h.Length)
	case h.Length < 1<<16:
		b[1] = 126
		binary.BigEndian.PutUint16(b[2:], uint16(h.Length))
		n = 4
	default:
		b[1] = 127
		binary.BigEndian.PutUint64(b[2:], uint64(h.Length))
		n = 10
	}
	if h.Masked {
		b[1] |= 0x80
		n += copy(b[n:], h.Mask[:])
	}
	copy(p[len(p)-n:], b[:n])
	return n
}
