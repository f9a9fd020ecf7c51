package load

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// tally is what one worker, or one goroutine of connect mode, has counted.
type tally struct {
	// Messages that were due in the measured time.
	sent, received         uint64
	bytesSent, bytesRcvd   uint64
	inTime                 uint64 // answers that came in the measured time, whenever they were due
	attempts               uint64 // connect mode: to open a connection
	late, held             uint64
	worstLate              int64
	latency                *hdrhistogram.Histogram // ns; nil without messages
	pingsSent, pingsAnswer uint64

	// From the start.
	lost, doubled, reordered uint64
	unexpected, misdelivered uint64
	closes                   map[int]uint64
	faults                   faults
}

// maxLatency is the largest time that a histogram holds; longer ones count as it.
const maxLatency = int64(10 * time.Minute)

// newHistogram keeps nanoseconds with three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatency, 3) }

func newTally() *tally {
	return &tally{latency: newHistogram(), closes: map[int]uint64{}, faults: faults{}}
}

// record counts a latency. One below zero, of clocks that were set, counts as 0.
func record(h *hdrhistogram.Histogram, ns int64) { h.RecordValue(min(max(ns, 0), maxLatency)) }

func (t *tally) merge(o *tally) {
	t.sent += o.sent
	t.received += o.received
	t.inTime += o.inTime
	t.attempts += o.attempts
	t.bytesSent += o.bytesSent
	t.bytesRcvd += o.bytesRcvd
	t.late += o.late
	t.held += o.held
	t.worstLate = max(t.worstLate, o.worstLate)
	t.pingsSent += o.pingsSent
	t.pingsAnswer += o.pingsAnswer
	t.lost += o.lost
	t.doubled += o.doubled
	t.reordered += o.reordered
	t.unexpected += o.unexpected
	t.misdelivered += o.misdelivered
	if o.latency != nil {
		t.latency.Merge(o.latency)
	}
	for code, n := range o.closes {
		t.closes[code] += n
	}
	t.faults.merge(o.faults)
}

// Latency is a distribution of times in seconds. Its zero value is that of nothing.
type Latency struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean_seconds"`
	P50   float64 `json:"p50_seconds"`
	P90   float64 `json:"p90_seconds"`
	P99   float64 `json:"p99_seconds"`
	P999  float64 `json:"p999_seconds"`
	Max   float64 `json:"max_seconds"`
}

func latencyOf(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(p float64) float64 { return seconds(h.ValueAtQuantile(p)) }
	return Latency{Count: uint64(h.TotalCount()), Mean: seconds(int64(h.Mean())), P50: at(50), P90: at(90), P99: at(99),
		P999: at(99.9), Max: seconds(h.Max())}
}

// seconds of ns, to the nanosecond.
func seconds(ns int64) float64 { return math.Round(float64(ns)) / 1e9 }
