package loop

import "time"

const (
	wheelTick  = 16 * time.Millisecond
	wheelSlots = 1024 // one turn of the wheel is some sixteen seconds
)

// Timer tells somebody on its loop that its time has come, within a tick of 16 ms. The
// zero value with To set is ready.
type Timer struct {
	// To is told, with the timer not set.
	To         Expirer
	at         time.Duration
	next, prev *Timer
	slot       int32 // where it stands, plus 1; 0: it is not set
	due        bool  // its time has come in the present turn
}

// Expirer is told that a timer's time has come.
type Expirer interface{ Expired() }

// wheel is a hashed timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing
// Wheels", scheme 6): setting and stopping a timer costs the same however many there
// are.
type wheel struct {
	slots   [wheelSlots]*Timer
	tick    int64 // everything up to it has been looked at
	count   int
	soonest time.Duration // no timer is due before it
	due     []*Timer
}

// Set sets t to fire at a time of Now, or moves it there.
func (l *Loop) Set(t *Timer, at time.Duration) {
	if t.slot != 0 {
		if t.at == at {
			return
		}
		l.wheel.remove(t)
	}
	t.at, t.due = at, false
	l.wheel.insert(t)
}

// Stop keeps t from firing.
func (l *Loop) Stop(t *Timer) {
	t.due = false
	if t.slot != 0 {
		l.wheel.remove(t)
	}
}

// tickOf is the first tick that is not before at.
func tickOf(at time.Duration) int64 { return int64((at + wheelTick - 1) / wheelTick) }

func (w *wheel) insert(t *Timer) {
	k := max(tickOf(t.at), w.tick+1) % wheelSlots
	t.slot = int32(k) + 1
	t.next, t.prev = w.slots[k], nil
	if t.next != nil {
		t.next.prev = t
	}
	w.slots[k] = t
	if w.count == 0 || t.at < w.soonest {
		w.soonest = t.at
	}
	w.count++
}

func (w *wheel) remove(t *Timer) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.slots[t.slot-1] = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.next, t.prev, t.slot = nil, nil, 0
	w.count--
}

// next returns a time before which nothing is due; ok is false when no timer is set.
func (w *wheel) next() (at time.Duration, ok bool) { return w.soonest, w.count > 0 }

// advance fires what is due.
func (w *wheel) advance(now time.Duration) {
	if w.count == 0 || now < w.soonest {
		if w.count == 0 {
			w.tick = int64(now / wheelTick)
		}
		return
	}
	last := int64(now / wheelTick)
	for tick := max(w.tick+1, last-wheelSlots+1); tick <= last; tick++ {
		for t := w.slots[tick%wheelSlots]; t != nil; {
			next := t.next
			if tickOf(t.at) <= last {
				w.remove(t)
				t.due = true
				w.due = append(w.due, t)
			}
			t = next
		}
	}
	w.tick = max(w.tick, last)
	w.settle()
	// A function may set or stop any timer, those that are due in this turn included.
	for i, t := range w.due {
		w.due[i] = nil
		if t.due {
			t.due = false
			t.To.Expired()
		}
	}
	w.due = w.due[:0]
}

// settle finds a new bound for what is due next: the first slot that has a timer for this
// turn of the wheel.
func (w *wheel) settle() {
	w.soonest = time.Duration(w.tick+wheelSlots) * wheelTick
	if w.count == 0 {
		return
	}
	for tick := w.tick + 1; tick < w.tick+wheelSlots; tick++ {
		for t := w.slots[tick%wheelSlots]; t != nil; t = t.next {
			if tickOf(t.at) <= tick {
				w.soonest = time.Duration(tick) * wheelTick
				return
			}
		}
	}
}
