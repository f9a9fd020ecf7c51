package load

import "time"

// usage is a reading of the process that is measured.
type usage struct {
	at       time.Time
	cpu      time.Duration
	received uint64
	ok       bool
}

// usage reads the CPU time of the process that the options name.
func (r *run) usage() (u usage) {
	u.at = time.Now()
	if r.o.CPUOf != 0 {
		var err error
		u.cpu, err = CPUTime(r.o.CPUOf)
		u.ok = err == nil
	}
	for _, w := range r.workers {
		u.received += w.pubAnswered.Load()
	}
	return u
}

// since is what has happened between two readings; nil if they tell nothing.
func (u usage) since(before usage) *CPU {
	if !u.ok || !before.ok {
		return nil
	}
	c := &CPU{Seconds: (u.cpu - before.cpu).Seconds(), Wall: u.at.Sub(before.at).Seconds(), Messages: u.received - before.received}
	if c.Messages > 0 {
		c.PerMessage = c.Seconds / float64(c.Messages)
	}
	return c
}
