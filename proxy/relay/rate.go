package relay

import "time"

// Rate is how often something may happen: Burst at once, PerSecond on average. The zero
// value is no limit.
type Rate struct {
	PerSecond float64
	// Burst is at least 1 where PerSecond is not 0.
	Burst float64
}

// On reports whether there is a limit.
func (r Rate) On() bool { return r.PerSecond > 0 }

// bucket is the state of a Rate: when the bucket would be full again (the virtual
// scheduling form of ITU-T I.371's generic cell rate algorithm). The zero value is a full
// bucket.
type bucket struct{ full time.Duration }

// cost is the time in which n come back, at most some decades.
func (r Rate) cost(n float64) time.Duration {
	return time.Duration(min(n/r.PerSecond*float64(time.Second), 1<<60))
}

// room returns how much may happen now.
func (b *bucket) room(r Rate, now time.Duration) float64 {
	const rounding = 1e-6
	left := (r.cost(r.Burst) - max(0, b.full-now)).Seconds() * r.PerSecond
	return left + rounding + r.PerSecond/float64(time.Second) // a bucket's time is cut to nanoseconds
}

// take takes n out of the bucket. If there is not as much, it takes nothing and returns
// when there will be.
func (b *bucket) take(r Rate, n float64, now time.Duration) (at time.Duration, ok bool) {
	full := max(b.full, now) + r.cost(n)
	if at = full - r.cost(r.Burst); at > now {
		return at, false
	}
	b.full = full
	return 0, true
}

// rates is what the limits of the client's data know.
type rates struct {
	messages, bytes bucket
	until           time.Duration // nothing more is taken before
}

// limited reports whether a side's data has a rate.
func (r *Relay) limited(from Side) bool {
	return from == Client && r.pol != nil && r.pol.rates != nil
}

// hold leaves the rest of what a side sent for later.
func (r *Relay) hold(from Side, until time.Duration) {
	r.in[from].stopped = true
	r.pol.rates.until = until
	r.wakeBy(until)
}

// mayBegin asks whether the client may begin a message now. If it has to wait, at says
// until when. A session that is ending is not held up.
func (r *Relay) mayBegin(now time.Duration) (at time.Duration, err error) {
	if !r.opt.Messages.On() || r.ending != nil {
		return 0, nil
	}
	at, ok := r.pol.rates.messages.take(r.opt.Messages, 1, now)
	if !ok && !r.opt.Delay {
		return 0, ErrMessageRate
	}
	return at, nil
}

// mayPass returns how many of n bytes of the client may pass now; if not all, the rest is
// held.
func (r *Relay) mayPass(n int, now time.Duration) (int, error) {
	rate, b := r.opt.Bytes, &r.pol.rates.bytes
	if n == 0 || !rate.On() || r.ending != nil {
		return n, nil
	}
	allowed := min(n, int(b.room(rate, now)))
	if allowed < n {
		if !r.opt.Delay {
			return 0, ErrByteRate
		}
		// Not byte by byte: what passes at a time is a fiftieth of a second's worth, or
		// what the bucket holds.
		least := max(1, min(float64(n-allowed), rate.PerSecond/50, rate.Burst))
		b.take(rate, float64(allowed), now)
		wait := *b
		at, _ := wait.take(rate, least, now)
		r.hold(Client, max(at, now+1))
		return allowed, nil
	}
	b.take(rate, float64(n), now)
	return n, nil
}
