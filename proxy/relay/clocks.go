package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/gobwas/ws"

	"github.com/tidegate/tidegate/proxy/deflate"
	"github.com/tidegate/tidegate/proxy/frame"
)

// policies is what the policies of a session know that need to remember something. Nearly
// all sessions have one, so that what few need is apart.
type policies struct {
	wake    time.Duration // Tick is due, for what is not the ending's; 0: not at all
	control [numSides]bucket
	client  heartbeat // its next is 0 where that side is not pinged
	*rare             // not nil
}

// rare is what only some policies need.
type rare struct {
	clocks  *clocks // nil without policies that need it
	rates   *rates  // and so
	backend *heartbeat
	recoder *recoder // nil without Terminate
	box     *outbox  // what waits for the client, where that is the relay's; or nil
	proof   *proof   // nil without Options.Migrate
	opening *opening // nil where nothing is replayed
	move    *move    // nil unless the session changes its backend
	result  string   // of the last move that is over
}

// nothingRare is shared by sessions that need none of it. It is never changed.
var nothingRare rare

// beat returns the heartbeat of a side, or nil.
func (r *Relay) beat(side Side) *heartbeat {
	switch p := r.pol; {
	case p == nil:
		return nil
	case side == Backend:
		return p.backend
	case p.client.next == 0:
		return nil
	}
	return &r.pol.client
}

// heartbeat watches over a side with Pings of the edge's own (RFC 6455 §5.5.2).
type heartbeat struct {
	seen   time.Duration // life: bytes came, or went while some waited
	next   time.Duration // the next look at seen
	sent   time.Duration // the last Ping; once it is answered how long that took, below 0
	secret uint32        // begins the payload of our Pings, so that no one else's Pong is taken for ours
	count  uint16        // of our Pings; the other part of the payload
	own    uint16        // the last Ping or Pong that the side sent by itself, in beatTicks; it wraps
}

// pingBytes is the length of the payload of our Pings.
const pingBytes = 8

const (
	// pingJitter spreads Pings: an interval is up to this share shorter.
	pingJitter = 0.2
	// beatTicks is how many ticks an interval has.
	beatTicks = 256
	// steadyTicks is how long a side may be silent that has a heartbeat of its own, which is
	// no slower than that. It is looked at when a tick begins: one turn of the loop is enough
	// for many sessions.
	steadyTicks = beatTicks * 5 / 4
)

// clocks is what the policies that go by time know, beside heartbeats.
type clocks struct {
	expires time.Duration           // the session has reached its age; 0: it may grow old
	data    time.Duration           // data was last under way, either way
	began   [numSides]time.Duration // the message that is under way; 0: none is
}

// Begin starts what goes by time. It is called once, before anything else.
func (r *Relay) Begin(now time.Duration) {
	opt := r.opt
	p := policies{rare: &nothingRare}
	var some rare
	if opt.MaxAge > 0 || opt.IdleTimeout > 0 || opt.MessageTimeout > 0 {
		some.clocks = &clocks{data: now}
		if opt.MaxAge > 0 {
			some.clocks.expires = now + spread(opt.MaxAge, opt.MaxAgeJitter)
		}
	}
	if opt.Messages.On() || opt.Bytes.On() {
		some.rates = new(rates)
	}
	if opt.PingInterval > 0 && opt.Ping[Client] {
		p.client = r.newHeartbeat(now)
	}
	if opt.PingInterval > 0 && opt.Ping[Backend] {
		b := r.newHeartbeat(now)
		some.backend = &b
	}
	if c := opt.Compression; c.Mode == Terminate {
		some.recoder = &recoder{compressor: deflate.NewCompressor(c.Level, c.WindowBits)}
	}
	if m := opt.Migrate; m != nil {
		some.proof = newProof()
		if m.ReplayMessages > 0 {
			some.opening = new(opening)
		}
	}
	if some != nothingRare || opt.SlowConsumer != Backpressure {
		p.rare = new(rare)
		*p.rare = some
	}
	if p.rare != &nothingRare || p.client.next > 0 || opt.ControlFrames.On() {
		r.pol = &p
		r.plan()
	}
}

func (r *Relay) newHeartbeat(now time.Duration) heartbeat {
	long := uint16(1 << 15) // ago
	return heartbeat{seen: now, next: r.nextBeat(false, now), secret: rand.Uint32(), own: r.beatTick(now) - long}
}

// beatTick is the tick of a time, as far as a heartbeat keeps it.
func (r *Relay) beatTick(at time.Duration) uint16 {
	return uint16(at / max(r.opt.PingInterval/beatTicks, 1))
}

// nextBeat is when to look at a side that last gave a sign of life at a time. One that has
// no heartbeat of its own shall not be silent for longer than the interval; with one, ours
// only comes when its own is late.
func (r *Relay) nextBeat(steady bool, seen time.Duration) time.Duration {
	if !steady {
		return seen + spread(r.opt.PingInterval, pingJitter)
	}
	tick := max(r.opt.PingInterval/beatTicks, 1)
	at := seen + steadyTicks*tick
	return at - at%tick
}

// quiet reports whether a side has been silent for long enough to be pinged.
func (r *Relay) quiet(steady bool, seen, now time.Duration) bool {
	if steady {
		return now >= r.nextBeat(steady, seen)
	}
	return float64(now-seen) >= (1-pingJitter)*float64(r.opt.PingInterval)
}

// beats takes note of a Ping or Pong that a side has sent by itself. Some in a burst are no
// heartbeat, and a side with a much faster one is not pinged anyhow.
func (r *Relay) beats(side Side, now time.Duration) {
	if b := r.beat(side); b != nil {
		tick := r.beatTick(now)
		apart := tick - b.own
		r.out[side].steady = apart >= beatTicks/2 && apart <= steadyTicks
		b.own = tick
	}
}

// spread shortens d by up to a share of it, at random, so that what began together does
// not happen together.
func spread(d time.Duration, share float64) time.Duration {
	return d - time.Duration(rand.Float64()*share*float64(d))
}

// plan finds out when Tick is due while the session is open.
func (r *Relay) plan() {
	r.pol.wake = 0
	if r.ending != nil {
		return
	}
	if m := r.pol.move; m != nil {
		r.wakeBy(r.moveDue(m))
	} else if p := r.pol.proof; p != nil {
		r.wakeBy(p.due)
	}
	if c := r.pol.clocks; c != nil {
		r.wakeBy(c.expires)
		if r.opt.IdleTimeout > 0 {
			r.wakeBy(c.data + r.opt.IdleTimeout)
		}
		for _, began := range c.began {
			if began > 0 {
				r.wakeBy(began + r.opt.MessageTimeout)
			}
		}
	}
	for _, side := range []Side{Client, Backend} {
		if b := r.beat(side); b != nil {
			r.wakeBy(b.next)
		}
	}
	if rates := r.pol.rates; rates != nil {
		r.wakeBy(rates.until)
	}
}

// wakeBy has Tick called at a time, or sooner; 0 is not at all.
func (r *Relay) wakeBy(at time.Duration) {
	if p := r.pol; at > 0 && (p.wake == 0 || at < p.wake) {
		p.wake, r.rearm = at, true
	}
}

// Rearm reports whether Deadline has come closer, or a BackendRTT has come, since it was asked
// last. An engine asks after each Feed, since that is the call that rarely changes it.
func (r *Relay) Rearm() bool {
	was := r.rearm
	r.rearm = false
	return was
}

// note keeps the time of a message that a side has begun and not finished, for
// Options.MessageTimeout. There are clocks.
func (r *Relay) note(from Side, now time.Duration) {
	began := &r.pol.clocks.began[from]
	switch underWay := r.in[from].left > 0 || r.in[from].dec.Fragmented(); {
	case !underWay:
		*began = 0
	case *began == 0 && r.opt.MessageTimeout > 0:
		*began = now
		r.wakeBy(now + r.opt.MessageTimeout)
	}
}

// tickOpen is Tick while the session is open.
func (r *Relay) tickOpen(now time.Duration, waiting [numSides]bool, bufs [numSides]*Buffers) (a Action) {
	if r.pol == nil {
		return a
	}
	if c := r.pol.clocks; c != nil {
		switch {
		case c.expires > 0 && now >= c.expires:
			r.Close(agedEnding, now, bufs[Client], bufs[Backend])
			return a
		case r.opt.IdleTimeout > 0 && now >= c.data+r.opt.IdleTimeout && !waiting[Client] && !waiting[Backend] && !r.in[Client].stopped:
			r.Close(idleEnding, now, bufs[Client], bufs[Backend])
			return a
		case r.opt.IdleTimeout > 0 && now >= c.data+r.opt.IdleTimeout:
			c.data = now // some of it is still under way
		}
		for _, from := range []Side{Client, Backend} {
			began := &c.began[from]
			if *began == 0 || now < *began+r.opt.MessageTimeout {
				continue
			}
			if waiting[peer(from)] || r.in[from].stopped {
				*began = now // it is not its fault: nobody reads it
				continue
			}
			r.violation(from, ErrMessageTimeout, now, bufs[peer(from)], bufs[from])
			return a
		}
	}
	for _, side := range []Side{Client, Backend} {
		switch b := r.beat(side); {
		case b == nil || now < b.next:
		case side == Backend && r.moving() != nil:
			b.next = now + r.opt.PingInterval // it is asked in another way
		default:
			a.Suspect[side] = r.look(side, b, now, waiting, bufs[side])
		}
	}
	r.tickProof(now, bufs[Backend])
	if rates := r.pol.rates; rates != nil && now >= rates.until {
		rates.until = 0 // the engine goes on with what is Held
	}
	r.plan()
	return a
}

// look is a heartbeat's: it sends a Ping to a side that has been silent, and reports one
// that has not answered in time.
func (r *Relay) look(side Side, b *heartbeat, now time.Duration, waiting [numSides]bool, buf *Buffers) (suspect bool) {
	if waiting[side] || waiting[peer(side)] || r.out[side].owed || r.in[side].stopped {
		// The Ping has not left, or nobody reads the answer. Who takes nothing at all is
		// WriteTimeout's.
		b.seen = now
	}
	o := &r.out[side]
	switch {
	case o.pinged && b.seen <= b.sent && now < b.sent+r.opt.PongTimeout:
		b.next = b.sent + r.opt.PongTimeout
	case o.pinged && b.seen <= b.sent:
		b.sent = now // another PongTimeout, unless the engine gives the side up
		b.next = now + r.opt.PongTimeout
		return true
	case r.quiet(o.steady, b.seen, now):
		o.steady = false
		b.next = r.nextBeat(false, now)
		r.ping(side, b, now, buf)
	default:
		o.pinged = false
		b.next = r.nextBeat(o.steady, b.seen)
		if b.next <= now {
			b.next = now + r.opt.PingInterval/10
		}
	}
	return false
}

// ping sends a Ping, as soon as no frame is under way to the side.
func (r *Relay) ping(to Side, b *heartbeat, now time.Duration, buf *Buffers) {
	o := &r.out[to]
	if o.owed = !r.in[peer(to)].betweenFrames(); o.owed || o.closeSent || o.shut {
		return
	}
	if b.count++; b.count == 0 {
		b.count = 1 // around once: a Pong of 0 answers nothing
	}
	b.sent = now
	b.next = r.nextBeat(false, now)
	if o.pinged = r.opt.PongTimeout > 0; o.pinged {
		b.next = min(b.next, now+r.opt.PongTimeout)
	}
	r.wakeBy(b.next)
	var p [pingBytes]byte
	binary.BigEndian.PutUint32(p[:], b.secret)
	binary.BigEndian.PutUint32(p[4:], uint32(b.count))
	buf.addCopy(frame.Append(nil, ws.OpPing, p[:], to == Backend))
}

// ownPong reports whether a Pong answers a Ping of ours, which then goes no further.
func (r *Relay) ownPong(from Side, h ws.Header, payload []byte, now time.Duration) bool {
	b := r.beat(from)
	if b == nil || len(payload) != pingBytes {
		return false
	}
	var p [pingBytes]byte
	copy(p[:], payload)
	if h.Masked {
		ws.Cipher(p[:], h.Mask, 0)
	}
	count := binary.BigEndian.Uint32(p[4:])
	late := uint32(b.count) - count
	if binary.BigEndian.Uint32(p[:]) != b.secret || late >= uint32(b.count) {
		return false
	}
	if late == 0 && b.sent > 0 {
		if r.opt.RTT != nil {
			r.opt.RTT(now - b.sent)
		}
		r.out[from].pinged, b.sent = false, b.sent-now
		r.rearm = r.rearm || from == Backend
		if next := r.nextBeat(false, now); next < b.next {
			// It was awaited for longer than an interval, until the end of PongTimeout.
			b.next = next
			r.wakeBy(next)
		}
	}
	return true
}

// BackendRTT returns the time between a Ping of the edge's to the backend and its Pong, once;
// 0 if none has come since it was asked last. After a Feed in which one came, Rearm is true.
func (r *Relay) BackendRTT() (rtt time.Duration) {
	if b := r.beat(Backend); b != nil && b.sent < 0 {
		rtt, b.sent = -b.sent, 0
	}
	return rtt
}
