package load

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
)

// subscription is what a client asks of the backend, in the query of its URL:
//
//	?mode=echo                              (or nothing) every message comes back
//	?mode=push&size=64&rate=500&text=1      messages of this size at this rate; rate 0: without pause
//	?mode=idle                              messages are taken and not answered
//
// id comes back in each message. phase, from 0 to 1, is when in the interval between two
// messages they are due, by the backend's clock: so the connections of a run take turns the
// same way whenever each of them was opened.
type subscription struct {
	mode Mode
	size int
	rate float64
	text bool
	id   uint64

	phase float64
}

// reserved are the parameters of a subscription.
var reserved = []string{"mode", "size", "rate", "text", "id", "phase"}

func (s subscription) query() string {
	q := url.Values{"mode": {string(s.mode)}, "size": {strconv.Itoa(s.size)},
		"rate": {strconv.FormatFloat(s.rate, 'g', -1, 64)}, "id": {strconv.FormatUint(s.id, 10)},
		"phase": {strconv.FormatFloat(s.phase, 'g', 6, 64)}}
	if s.text {
		q.Set("text", "1")
	}
	return q.Encode()
}

// errMode is a mode that a backend cannot serve.
var errMode = errors.New("unknown mode")

// parseSubscription reads the query of a request's URI, which anybody may have written.
func parseSubscription(uri string) (s subscription, err error) {
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		return s, fmt.Errorf("reading the request's URI: %w", err)
	}
	q := u.Query()
	switch s.mode = Mode(q.Get("mode")); s.mode {
	case Push:
	case "", Echo:
		s.mode = Echo
		return s, nil
	case Idle:
		return s, nil
	default:
		return s, errMode
	}
	s.text = q.Get("text") == "1"
	if s.size, err = strconv.Atoi(q.Get("size")); err != nil || s.size < MinSize(Push, s.text) || s.size > MaxSize {
		return s, fmt.Errorf("size %q is not a number from %d to %d", q.Get("size"), MinSize(Push, s.text), MaxSize)
	}
	if s.rate, err = strconv.ParseFloat(q.Get("rate"), 64); err != nil || math.IsNaN(s.rate) || s.rate < 0 || s.rate > 1e9 {
		return s, fmt.Errorf("rate %q is not a number from 0 to 1e9", q.Get("rate"))
	}
	if id := q.Get("id"); id != "" {
		if s.id, err = strconv.ParseUint(id, 10, 64-sequenceBits); err != nil {
			return s, fmt.Errorf("id %q is not a number below %d", id, maxConnections)
		}
	}
	if phase := q.Get("phase"); phase != "" {
		if s.phase, err = strconv.ParseFloat(phase, 64); err != nil || !(s.phase >= 0 && s.phase <= 1) {
			return s, fmt.Errorf("phase %q is not a number from 0 to 1", phase)
		}
	}
	return s, nil
}
