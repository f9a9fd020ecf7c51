package balance

import (
	"math"
	"strconv"
)

// LoadMeta is the key of an instance's metadata that has its load, for as long as the backend
// does not report one itself.
const LoadMeta = "load"

// ReportAge is after how many calls of [Live.AgeReport] a report is forgotten.
const ReportAge = 12

// ParseLoad returns the load that a text is: a finite number that is not negative. The text is
// not trusted.
func ParseLoad(text string) (load float64, ok bool) {
	if len(text) > 64 {
		return 0, false
	}
	load, err := strconv.ParseFloat(text, 64)
	return load, err == nil && usableLoad(load)
}

func usableLoad(load float64) bool { return load >= 0 && !math.IsInf(load, 1) }

// Report says which load the backend has reported just now. What is no finite number from 0
// on is ignored.
func (l *Live) Report(load float64) {
	if !usableLoad(load) {
		return
	}
	value := math.Float32bits(float32(min(load, math.MaxFloat32)))
	l.report.Store(uint64(value)<<32 | uint64(l.Sessions())<<ageBits | ReportAge)
}

// AgeReport makes the last report one call older. One that is not renewed is forgotten in the
// end, lest a backend that was busy once, and for that gets no sessions whose answers could
// say otherwise, get none for ever.
func (l *Live) AgeReport() {
	v := l.report.Load()
	if v&ageMask > 0 {
		l.report.CompareAndSwap(v, v-1) // if not, there is a new one
	}
}

// Reported returns the load that the backend has reported last, and how many sessions it had
// then; ok is false if there is no report, or none that counts any more.
func (l *Live) Reported() (load float64, sessions int64, ok bool) {
	v := l.report.Load()
	return float64(math.Float32frombits(uint32(v >> 32))), int64(uint32(v) >> ageBits), v&ageMask > 0
}

// A report is 32 bits of the load, 28 of the number of sessions and, lowest, 4 of how many
// calls of AgeReport it survives.
const (
	ageBits = 4
	ageMask = 1<<ageBits - 1
)

// reported is the gauge of least_load: the load that is to be expected. With load v that was
// reported at s sessions, or that the metadata say since there were s sessions, it is
//
//	n ≥ s: v + each × (n − s)      n < s: v × n ⁄ s
//
// where n is the number of sessions and dials in flight, and each what a session of the pool
// makes: the sum of all v by the sum of all s. So sessions that the backend did not know of
// when it reported count as any others, and a storm does not pile on the one that was least
// loaded before. A backend without a report counts as the mean of the others, and what it
// has more sessions than their mean is added. Where nobody reports the load decides.
type reported struct{ meta []loadReport }

type loadReport struct {
	load     float64
	sessions int64
	ok       bool
}

func newReported(entrants []entrant) *reported {
	g := &reported{make([]loadReport, len(entrants))}
	for i := range entrants {
		b := entrants[i].backend
		load, ok := ParseLoad(b.Meta[LoadMeta])
		g.meta[i] = loadReport{min(load, math.MaxFloat32), b.Live.Sessions(), ok}
	}
	return g
}

// of returns what is known of the load of entrant i.
func (g *reported) of(i int, e *entrant) loadReport {
	if load, sessions, ok := e.live.Reported(); ok {
		return loadReport{load, sessions, true}
	}
	return g.meta[i]
}

// survey returns the mean of all reports, what one session makes, and the mean of sessions.
func (g *reported) survey(entrants []entrant) (s survey) {
	var known, loads, sessions float64
	for i := range entrants {
		if e := &entrants[i]; e.live.Eligible() {
			if r := g.of(i, e); r.ok {
				known++
				loads += r.load
				sessions += float64(r.sessions)
			}
		}
	}
	if known > 0 {
		s.mean, s.sessions = loads/known, sessions/known
		s.each = loads / max(1, sessions) // before there are any, one makes all of it
	}
	return s
}

func (g *reported) cost(i int, e *entrant, load int64, s survey) float64 {
	r := g.of(i, e)
	n, known := float64(load), float64(r.sessions)
	switch {
	case !r.ok:
		return s.mean + s.each*max(0, n-s.sessions)
	case n < known:
		return r.load * n / known
	}
	return r.load + s.each*(n-known)
}
