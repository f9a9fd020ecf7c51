package relay

import (
	"bytes"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// Feed takes bytes that came from a side and appends to out what goes to its peer and
// to back what goes back. out aliases p. Feed never blocks and takes all of p; what
// comes after a side's Close is discarded.
//
// The error is the *frame.Error of a side that broke a rule; by then both sides have
// been dealt with, and the engine goes on as after any other call.
func (r *Relay) Feed(from Side, p []byte, now time.Duration, out, back *Buffers) error {
	in := &r.in[from]
	for len(p) > 0 && !in.closed && !in.broken && !in.ended {
		switch {
		case in.left > 0:
			p = r.payload(from, p, now, out)
		case in.held != nil:
			var whole *heldFrame
			if p, whole = in.collect(p); whole != nil {
				n := len(whole.bytes) - int(whole.head.Length)
				if err := r.control(from, whole.head, whole.bytes[:n], whole.bytes[n:], now, out); err != nil {
					return r.violation(from, err, now, out, back)
				}
			}
		default:
			h, raw, n, err := in.dec.Next(p)
			if err == nil && raw != nil {
				split := n < len(raw)
				p, err = r.begin(from, h, raw, split, p[n:], now, out)
			} else {
				p = p[n:]
			}
			if err != nil {
				return r.violation(from, err, now, out, back)
			}
		}
	}
	return nil
}

// begin takes the header of a new frame and, of a control frame, as much of the payload
// in rest as belongs to it. split says that raw lives in the decoder, not in fed bytes.
func (r *Relay) begin(from Side, h ws.Header, raw []byte, split bool, rest []byte, now time.Duration, out *Buffers) ([]byte, error) {
	in := &r.in[from]
	if h.OpCode.IsControl() {
		n := int(h.Length)
		if len(rest) < n {
			held := append(make([]byte, 0, len(raw)+n), raw...)
			in.held = &heldFrame{h, append(held, rest...)}
			return nil, nil
		}
		if split {
			raw = bytes.Clone(raw) // the decoder's, and what goes out outlives the call
		}
		return rest[n:], r.control(from, h, raw, rest[:n], now, out)
	}
	if err := in.admit(h, r.opt); err != nil {
		return nil, err
	}
	in.left = h.Length
	in.drop = r.out[peer(from)].closeSent || r.out[peer(from)].shut
	if !in.drop {
		r.countFrame(from, h.OpCode)
		if split {
			out.addCopy(raw)
		} else {
			out.add(raw)
		}
	}
	if in.left == 0 {
		r.frameEnd(from, now, out)
	}
	return rest, nil
}

// admit applies the limits to the header of a data frame.
func (in *input) admit(h ws.Header, opt *Options) error {
	if h.OpCode != ws.OpContinuation {
		in.size, in.text = 0, h.OpCode == ws.OpText
	}
	if opt.MaxFrameBytes > 0 && h.Length > opt.MaxFrameBytes {
		return ErrFrameTooBig
	}
	if opt.MaxMessageBytes > 0 && h.Length > opt.MaxMessageBytes-in.size {
		return ErrMessageTooBig
	}
	in.size += min(h.Length, 1<<62-in.size)
	return nil
}

// payload passes on what p holds of the present data frame and returns the rest of p.
func (r *Relay) payload(from Side, p []byte, now time.Duration, out *Buffers) []byte {
	in := &r.in[from]
	n := len(p)
	if int64(n) > in.left {
		n = int(in.left)
	}
	if !in.drop {
		in.count.Bytes += uint64(n)
		r.counts[from].Bytes += uint64(n)
		out.add(p[:n])
	}
	in.left -= int64(n)
	if in.left == 0 {
		r.frameEnd(from, now, out)
	}
	return p[n:]
}

func (r *Relay) countFrame(from Side, op ws.OpCode) {
	r.in[from].count.Frames++
	r.counts[from].Frames[opIndex(op)]++
}

// frameEnd is the moment between a data frame from a side and whatever comes next.
func (r *Relay) frameEnd(from Side, now time.Duration, out *Buffers) {
	in := &r.in[from]
	if !in.dec.Fragmented() && !in.drop {
		kind := 1
		if in.text {
			kind = 0
		}
		in.count.Messages++
		r.counts[from].Messages[kind]++
	}
	r.release(peer(from), now, out)
}

// collect takes what p holds of a control frame that was cut, and returns the frame once
// it is whole.
func (in *input) collect(p []byte) (rest []byte, whole *heldFrame) {
	h := in.held
	n := min(len(p), cap(h.bytes)-len(h.bytes))
	h.bytes = append(h.bytes, p[:n]...)
	if len(h.bytes) < cap(h.bytes) {
		return p[n:], nil
	}
	in.held = nil
	return p[n:], h
}

// control takes a whole control frame.
func (r *Relay) control(from Side, h ws.Header, raw, payload []byte, now time.Duration, out *Buffers) error {
	if h.OpCode == ws.OpClose {
		return r.closeFrame(from, h, raw, payload, now, out)
	}
	if to := &r.out[peer(from)]; to.closeSent || to.shut {
		return nil
	}
	r.countFrame(from, h.OpCode)
	out.add(raw)
	out.add(payload)
	return nil
}

// closeFrame takes a Close frame: the first Close goes on to the peer as it came, and so
// does the answer to one that the peer sent.
func (r *Relay) closeFrame(from Side, h ws.Header, raw, payload []byte, now time.Duration, out *Buffers) error {
	in, to := &r.in[from], peer(from)
	var body [frame.MaxControlBytes]byte
	n := copy(body[:], payload)
	if h.Masked {
		ws.Cipher(body[:n], h.Mask, 0)
	}
	code, reason, err := frame.ParseClose(body[:n])
	if err != nil {
		return err
	}
	in.closed, in.code = true, code
	r.countFrame(from, ws.OpClose)
	cause := ClientClosed
	if from == Backend {
		cause = BackendClosed
	}
	e := r.endBy(Verdict{Cause: cause, Code: code, Reason: reason})
	o := &r.out[to]
	if !o.closeSent && !o.shut {
		if r.out[from].ours {
			// It answers our Close; its peer gets ours too, not an echo of it.
			r.release(to, now, out)
		} else {
			o.closeSent, e.pending[to] = true, pending{}
			out.add(raw)
			out.add(payload)
		}
	}
	r.settle(now)
	return nil
}
