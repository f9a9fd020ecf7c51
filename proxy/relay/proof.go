package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/frame"
)

// proofPause is the least time between two Pings that ask a backend how far it has read.
const proofPause = time.Second

// proof is what is known of how far a backend has read what the client sent. A Pong shows
// that everything before its Ping was read (RFC 6455 §5.5.3, in order); that it was dealt
// with is taken for granted once the backend has had MoveOptions.Settle for it.
type proof struct {
	secret, count uint32        // the payload of the last Ping
	open          bool          // it is not answered
	asked         uint64        // how many messages had gone before it
	read          uint64        // how many have been read
	readAt        time.Duration // since when that is known; 0: nothing is
	sure          uint64        // how many had been dealt with
	due           time.Duration // the next Ping; 0: none is called for
	skip          bool          // the rest of the client's message goes nowhere
	feeding       bool          // Feed is at work on a session's one backend
}

func newProof() *proof { return &proof{secret: rand.Uint32()} }

// restart is the beginning with another backend, which is to get all messages from the
// n-th on.
func (p *proof) restart(n uint64) {
	p.open, p.due, p.readAt = false, 0, 0
	p.asked, p.read, p.sure = n, n, n
}

// prove sends a Ping that asks the backend how far it has read, between two frames.
func (r *Relay) prove(now time.Duration, toBackend *Buffers) {
	p := r.pol.proof
	p.count++
	p.open, p.asked, p.due = true, r.in[Client].count.Messages, 0
	var b [pingBytes]byte
	binary.BigEndian.PutUint32(b[:], p.secret)
	binary.BigEndian.PutUint32(b[4:], p.count)
	toBackend.addCopy(frame.Append(nil, ws.OpPing, b[:], true))
}

// proves reports whether a Pong of the backend answers such a Ping, and takes note.
func (r *Relay) proves(payload []byte, now time.Duration) bool {
	p := r.pol.proof
	if p == nil || len(payload) != pingBytes || binary.BigEndian.Uint32(payload) != p.secret {
		return false
	}
	if !p.open || binary.BigEndian.Uint32(payload[4:]) != p.count {
		return p.count-binary.BigEndian.Uint32(payload[4:]) < p.count
	}
	p.mature(r.opt.Migrate.Settle, now)
	p.open, p.read, p.readAt = false, p.asked, now
	if m := r.moving(); m != nil && m.phase == asked {
		m.phase, m.quiet = settling, now+r.opt.Migrate.Settle
		r.wakeBy(m.quiet)
	} else if m == nil {
		r.askAgain(now)
	}
	return true
}

// mature counts what was read long enough ago as dealt with.
func (p *proof) mature(settle, now time.Duration) {
	if p.readAt > 0 && now >= p.readAt+settle {
		p.sure = p.read
	}
}

// askAgain has the backend asked again in a while, if it was sent something since it was
// asked last.
func (r *Relay) askAgain(now time.Duration) {
	p := r.pol.proof
	if opt := r.opt.Migrate; !opt.OnFailure && len(opt.CloseCodes) == 0 {
		return
	}
	if p.due == 0 && !p.open && r.in[Client].count.Messages > p.asked {
		p.due = now + proofPause
		r.wakeBy(p.due)
	}
}

// tickProof asks the backend, if that is due and no frame is under way.
func (r *Relay) tickProof(now time.Duration, toBackend *Buffers) {
	p := r.pol.proof
	switch {
	case p == nil || p.due == 0 || now < p.due || r.moving() != nil:
	case r.in[Client].betweenFrames() && !r.inflating():
		r.prove(now, toBackend)
	default:
		p.due = now + proofPause/10
	}
}

// doubt returns how many messages went to the old backend and are not known to have been
// dealt with, one that went in part included.
func (r *Relay) doubt(m *move, now time.Duration) uint64 {
	p := r.pol.proof
	p.mature(r.opt.Migrate.Settle, now)
	n := m.passed - p.sure
	if m.phase < asked && !r.clientBetween() && !r.in[Client].drop && !r.in[Client].recoded {
		n++ // one that is inflated has gone nowhere yet, or counts already
	}
	return n
}

// wholeYet reports whether nothing has gone on of the client's message that is under way,
// since it is inflated when it is whole.
func (r *Relay) wholeYet() bool {
	return r.in[Client].recoded && !r.inflating()
}

// skipMessage drops the rest of the client's message, of which a backend that is lost has
// the beginning: no other backend is to get a part.
func (r *Relay) skipMessage() {
	in := &r.in[Client]
	switch {
	case r.wholeYet():
	case in.recoded:
		r.dropCollected()
	default:
		r.pol.proof.skip, in.drop = in.dec.Fragmented(), true
	}
}
