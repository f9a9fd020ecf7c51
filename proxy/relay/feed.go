package relay

import (
	"bytes"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// Feed takes bytes that came from a side and appends to out what goes to its peer and
// to back what goes back. out aliases p. Feed never blocks. It returns how much of p it
// took: all of it, unless Held says that the rest has to wait. What comes after a side's
// Close is discarded.
//
// The error is the *frame.Error of a side that broke a rule; by then both sides have
// been dealt with, and the engine goes on as after any other call.
func (r *Relay) Feed(from Side, p []byte, now time.Duration, out, back *Buffers) (n int, err error) {
	if r.opt.Migrate != nil && !r.pol.proof.feeding {
		return r.feedMovable(from, p, now, out, back)
	}
	in := &r.in[from]
	in.stopped = false
	if b := r.beat(from); b != nil {
		b.seen = now
	}
	all := len(p)
	for err == nil && !in.closed && !in.broken && !in.ended && !in.stopped {
		switch {
		case from == Client && r.inflating() && (r.out[Backend].closeSent || r.out[Backend].shut):
			r.endInflating() // nothing goes behind a Close
		case from == Client && r.inflating():
			if err = r.inflate(now, out); err == nil && !r.inflating() {
				r.inflatedEnd(now, out)
			}
		case in.held != nil && in.held.head.OpCode.IsControl():
			if len(p) == 0 {
				return all, nil
			}
			var whole *heldFrame
			if p, whole = in.collect(p); whole != nil {
				n := len(whole.bytes) - int(whole.head.Length)
				err = r.controlFrame(from, whole.head, whole.bytes[:n], whole.bytes[n:], now, out)
			}
		case in.held != nil:
			p, err = r.start(from, in.held.head, in.held.bytes, p, now, out)
		case len(p) == 0:
			return all, nil
		case in.left > 0:
			p, err = r.payload(from, nil, in.left, p, now, out)
		default:
			h, raw, n, bad := in.dec.Next(p)
			if err = bad; err == nil && raw != nil {
				split := n < len(raw)
				p, err = r.begin(from, h, raw, split, p[n:], now, out)
			} else {
				p = p[n:]
			}
		}
	}
	if err != nil {
		err = r.violation(from, err, now, out, back)
	}
	if in.stopped {
		return all - len(p), nil
	}
	return all, err
}

// Held reports whether Feed left something of what a side sent, which is to be fed again
// with what comes behind it, and from when on. Until then the side is not read.
func (r *Relay) Held(from Side) (until time.Duration, held bool) {
	if !r.in[from].stopped {
		return 0, false
	}
	if r.limited(from) && r.ending == nil {
		until = r.pol.rates.until
	}
	if m := r.moving(); m != nil && from == Client && m.full(r.opt.Migrate) {
		until = forever // a later call of the engine goes on with it
	}
	return until, true
}

// begin takes the header of a new frame and as much of the payload in rest as belongs to
// it. split says that raw lives in the decoder, not in fed bytes.
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
			raw = out.copy(raw)
		}
		return rest[n:], r.controlFrame(from, h, raw, rest[:n], now, out)
	}
	if err := in.admit(h, r.opt); err != nil {
		return nil, err
	}
	if split {
		raw = out.copy(raw)
	}
	return r.start(from, h, raw, rest, now, out)
}

// start takes a data frame that may begin: its header, and what there is behind it.
func (r *Relay) start(from Side, h ws.Header, raw, rest []byte, now time.Duration, out *Buffers) ([]byte, error) {
	in := &r.in[from]
	if r.limited(from) && h.OpCode != ws.OpContinuation {
		switch at, err := r.mayBegin(now); {
		case err != nil:
			return nil, err
		case at > 0:
			r.hold(from, at)
			if in.held == nil {
				in.held = &heldFrame{h, bytes.Clone(raw)}
			}
			return rest, nil
		}
	}
	in.held = nil
	in.key = h.Mask
	in.drop = r.out[peer(from)].closeSent || r.out[peer(from)].shut || r.opt.Migrate != nil && r.passedBy(from, h)
	if h.OpCode != ws.OpContinuation {
		in.recoded = r.recodes(from, h)
	} else if from == Client && in.recoded && r.pol.recoder.dropped {
		in.drop = true
	}
	if !in.drop {
		r.countFrame(from, h.OpCode)
	}
	return r.payload(from, raw, h.Length, rest, now, out)
}

// admit applies the limits to the header of a data frame.
func (in *input) admit(h ws.Header, opt *Options) error {
	if h.OpCode != ws.OpContinuation {
		in.size, in.fragments = 0, 0
		in.text = h.OpCode == ws.OpText
		in.check = in.text && opt.ValidateUTF8 && h.Rsv == 0
		in.utf8 = frame.UTF8{}
	}
	if in.fragments++; opt.MaxFragments > 0 && int(in.fragments) > opt.MaxFragments {
		return ErrFragments
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

// payload passes on what p holds of a data frame, of which left bytes have not come, and
// returns the rest of p. head is the frame's header if it has not gone on yet: what is
// refused at its first bytes leaves nothing behind.
func (r *Relay) payload(from Side, head []byte, left int64, p []byte, now time.Duration, out *Buffers) ([]byte, error) {
	in := &r.in[from]
	n := len(p)
	if int64(n) > left {
		n = int(left)
	}
	if r.limited(from) {
		var err error
		if n, err = r.mayPass(n, now); err != nil {
			return nil, err
		}
	}
	if in.check {
		if !in.utf8.Valid(p[:n], in.key) || int64(n) == left && !in.dec.Fragmented() && !in.utf8.Complete() {
			return nil, frame.ErrText
		}
		in.key = frame.RotateKey(in.key, n)
	}
	if !in.drop {
		in.count.Bytes += uint64(n)
		r.counts[from].Bytes += uint64(n)
		if in.recoded {
			if err := r.recode(from, p[:n], int64(n) == left && !in.dec.Fragmented(), now, out); err != nil {
				return nil, err
			}
		} else {
			out.add(head)
			out.add(p[:n])
			if r.opt.Migrate != nil && from == Client {
				r.record(head, p[:n])
			}
		}
	}
	in.left = left - int64(n)
	if in.left == 0 {
		r.frameEnd(from, now, out)
	}
	if r.pol != nil && r.pol.clocks != nil {
		r.pol.clocks.data = now
		r.note(from, now)
	}
	return p[n:], nil
}

// betweenFrames reports whether a frame of the edge's own may go out now in the direction
// of what comes in here.
func (in *input) betweenFrames() bool { return in.left == 0 || in.drop || in.recoded }

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
	if r.opt.Migrate != nil {
		r.migratableEnd(from, now, out)
	} else if to := peer(from); r.out[to].owed {
		r.ping(to, r.beat(to), now, out)
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

// controlFrame takes a whole control frame.
func (r *Relay) controlFrame(from Side, h ws.Header, raw, payload []byte, now time.Duration, out *Buffers) error {
	if h.OpCode == ws.OpClose {
		return r.closeFrame(from, h, raw, payload, now, out)
	}
	if rate := r.opt.ControlFrames; rate.On() && r.pol != nil {
		if _, ok := r.pol.control[from].take(rate, 1, now); !ok {
			return ErrControlRate
		}
	}
	if h.OpCode == ws.OpPong && (r.ownPong(from, h, payload, now) || from == Backend && r.opt.Migrate != nil && r.proves(payload, now)) {
		return nil
	}
	r.beats(from, now)
	if to := &r.out[peer(from)]; to.closeSent || to.shut {
		return nil
	}
	r.countFrame(from, h.OpCode)
	if m := r.moving(); m != nil && from == Client && m.holding() {
		r.controlMoving(m, h, raw, payload)
		return nil
	}
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
	if from == Backend && r.opt.Migrate != nil && r.keepsClient(code, reason, now, out) {
		return nil
	}
	cause := ClientClosed
	if from == Backend {
		cause = BackendClosed
	}
	e := r.endBy(Verdict{Cause: cause, Code: code, Reason: reason, Why: WhyClosed})
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
