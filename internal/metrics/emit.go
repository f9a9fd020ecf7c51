package metrics

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/histogram"
)

// backendStates are all states that the contract names. A backend always has one
// series for each, so that a query never meets a gap.
var backendStates = [...]string{"up", "slow_start", "draining", "ejected", "down", "removed"}

// emitter sends constant metrics to one scrape.
type emitter struct{ out chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.value(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) counter(d *prometheus.Desc, n uint64, labels ...string) {
	e.value(d, prometheus.CounterValue, float64(n), labels)
}

// counters sends one counter for each key of by, the key being the last label.
func (e emitter) counters(d *prometheus.Desc, by map[string]uint64, labels ...string) {
	for key, n := range by {
		e.counter(d, n, append(labels[:len(labels):len(labels)], key)...)
	}
}

func (e emitter) value(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, t, v, labelValues(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.out <- m
}

func (e emitter) histogram(d *prometheus.Desc, h histogram.Snapshot, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		buckets[bound] = h.Cumulative[i]
	}
	m, err := prometheus.NewConstHistogram(d, h.Count, h.Sum, buckets, labelValues(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.out <- m
}

func (e emitter) route(r *Route) {
	e.answers(&r.Answers, r.Name)
	e.histogram(handshakeDuration, r.HandshakeDuration, r.Name)
	e.traffic(&r.Upstream, r.Name, "upstream")
	e.traffic(&r.Downstream, r.Name, "downstream")
	for key, n := range closes(r.Closes) {
		e.counter(closesTotal, n, r.Name, key.code, key.initiator)
	}
	for _, end := range r.Ends {
		e.counter(sessionEndsTotal, end.Count, r.Name, end.By, end.Cause)
	}
	e.histogram(sessionDuration, r.SessionDuration, r.Name)
	e.histogram(pingRTT, r.PingRTT, r.Name)
}

func (e emitter) answers(a *Answers, route string) {
	e.counters(handshakesTotal, a.Handshakes, route)
	for code, n := range a.Requests {
		e.counter(requestsTotal, n, route, strconv.Itoa(code))
	}
}

func (e emitter) traffic(t *Traffic, route, direction string) {
	e.counter(messagesTotal, t.TextMessages, route, direction, "text")
	e.counter(messagesTotal, t.BinaryMessages, route, direction, "binary")
	e.counter(messagesDroppedTotal, t.MessagesDropped, route, direction)
	e.counter(messageBytesTotal, t.MessageBytes, route, direction)
	e.counter(framesTotal, t.Frames.Continuation, route, direction, "continuation")
	e.counter(framesTotal, t.Frames.Text, route, direction, "text")
	e.counter(framesTotal, t.Frames.Binary, route, direction, "binary")
	e.counter(framesTotal, t.Frames.Close, route, direction, "close")
	e.counter(framesTotal, t.Frames.Ping, route, direction, "ping")
	e.counter(framesTotal, t.Frames.Pong, route, direction, "pong")
}

func (e emitter) pool(p *Pool) {
	e.histogram(backendConnectDuration, p.ConnectDuration, p.Name)
	for i := range p.Backends {
		b := &p.Backends[i]
		e.gauge(backendSessionsActive, float64(b.Sessions), p.Name, b.ID)
		for _, state := range backendStates {
			e.gauge(backendState, zeroOrOne(b.State == state), p.Name, b.ID, state)
		}
		e.counter(backendPicksTotal, b.Picks, p.Name, b.ID)
		e.counters(backendFailuresTotal, b.Failures, p.Name, b.ID)
		if b.Draining {
			e.gauge(drainRemaining, float64(b.Remaining), p.Name, b.ID)
		}
	}
	if p.Migrations != nil {
		e.counters(migrationsTotal, p.Migrations, p.Name)
		e.counter(messagesInDoubtTotal, p.InDoubt, p.Name)
	}
	e.gauge(poolPanic, zeroOrOne(p.Panic), p.Name)
	e.counter(rebalancedTotal, p.Rebalanced, p.Name)
	e.gauge(discoveryStale, zeroOrOne(p.Stale), p.Name)
	if c := p.Consul; c != nil {
		e.gauge(consulIndex, float64(c.Index), p.Name)
		e.gauge(consulLastContact, unixSeconds(c.LastContact), p.Name)
		e.counter(consulErrorsTotal, c.Errors, p.Name)
	}
}

type closeKey struct{ code, initiator string }

// closes adds up what shares a series, because two series with the same labels would
// spoil the scrape.
func closes(list []Close) map[closeKey]uint64 {
	sums := make(map[closeKey]uint64, len(list))
	for _, c := range list {
		sums[closeKey{closeCode(c.Code), c.Initiator}] += c.Count
	}
	return sums
}

// closeCode is the label for a code: those that the registry of RFC 6455 §7.4 can
// define stand for themselves, and applications' own are bucketed, because a peer
// chooses them.
func closeCode(code uint16) string {
	switch {
	case code == 0:
		return "none"
	case code >= 1000 && code <= 1015:
		return strconv.Itoa(int(code))
	case code >= 3000 && code <= 3999:
		return "3xxx"
	case code >= 4000 && code <= 4999:
		return "4xxx"
	}
	return "other"
}

// labelValues makes labels fit for Prometheus, which takes UTF-8 only: bytes that are
// not become \xNN, so that ids which differ in them stay different series.
func labelValues(labels []string) []string {
	for i, label := range labels {
		if !utf8.ValidString(label) {
			labels[i] = escapeInvalid(label)
		}
	}
	return labels
}

func escapeInvalid(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && size == 1 {
			b.WriteString(`\x`)
			b.WriteByte(hex[s[0]>>4])
			b.WriteByte(hex[s[0]&0xf])
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

func zeroOrOne(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unixSeconds is t in seconds since 1970, 0 for the zero time.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
