package proxy

import (
	"math/rand/v2"
	"time"
)

// pacer spreads events evenly: time is cut into slots, and each event has a random moment
// of its own slot. Whatever happens to whoever follows it, in no second there are more than
// twice as many events as the mean says, and not more than one if that is below one.
//
// It reads no clock, so that it can be held against made-up ones.
type pacer struct {
	slot   time.Duration // 0: there is no pace, every moment has come
	spread float64       // which part of a slot, from its beginning, moments are drawn from
	slack  time.Duration // how late an event may be without moving those after it
	begins time.Time     // of the present slot
	moment time.Time     // of its event
}

// slackAtMost bounds what is made up for when a busy machine lets events be late. What one
// misses for longer is not: it would come as a burst.
const slackAtMost = 500 * time.Millisecond

// newPacer begins the first slot at now.
func newPacer(slot time.Duration, now time.Time) pacer {
	p := pacer{slot: slot, begins: now}
	// How many moments a second can hold: those of m slots lie within more than
	// m-1-spread slots, and a second has 1/slot of them.
	switch perSecond := float64(time.Second) / float64(slot); {
	case slot == 0 || perSecond >= 4:
		p.spread, p.slack = 1, slackAtMost
	case perSecond >= 1.5:
		p.spread = 1
	case perSecond >= 1:
		p.spread = 2 - perSecond
	default:
		p.spread = 1 - perSecond
	}
	p.draw()
	return p
}

func (p *pacer) draw() {
	p.moment = p.begins.Add(time.Duration(rand.Float64() * p.spread * float64(p.slot)))
}

// took says that the event of the present slot has happened, at its moment or later.
func (p *pacer) took(now time.Time) {
	if late := now.Sub(p.moment) - p.slack; late > 0 && p.slot > 0 {
		p.begins = p.begins.Add(late)
	}
	p.begins = p.begins.Add(p.slot)
	p.draw()
}

// lose lets go of the slots that have passed while nothing could happen: they are not made
// up for.
func (p *pacer) lose(now time.Time) {
	if now.After(p.begins.Add(p.slot)) {
		p.begins = now
		p.draw()
	}
}
