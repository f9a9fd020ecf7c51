package load

import "time"

// Report is what a run has measured. Times are in seconds.
type Report struct {
	URL         string  `json:"url"`
	Mode        Mode    `json:"mode"`
	Type        string  `json:"message_type"` // binary | text
	Size        int     `json:"size_bytes"`
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate_per_second"` // as asked for; 0: as fast as answers come

	Started     time.Time `json:"started"`
	Warmup      float64   `json:"warmup_seconds"`
	Duration    float64   `json:"duration_seconds"` // measured, not asked for
	Interrupted bool      `json:"interrupted"`

	Handshakes Handshakes `json:"handshakes"`
	TLS        *TLS       `json:"tls,omitempty"`

	Messages Messages `json:"messages"`
	Bytes    Bytes    `json:"bytes"`
	Pings    Pings    `json:"pings"`
	// Latency is from when a message was due to its answer: of round trips in echo mode,
	// of one way in push mode (the clocks of both machines count), of Pings in idle mode.
	Latency  Latency  `json:"latency"`
	Schedule Schedule `json:"schedule"`

	Closes map[int]uint64 `json:"closes"` // by code; 1006: the connection ended without a Close
	Errors []Fault        `json:"errors"` // by kind, sorted
	CPU    *CPU           `json:"cpu,omitempty"`
}

// Handshakes tells how connections were opened. In connect mode those of the warm-up
// are left out, except for failures.
type Handshakes struct {
	// Due is how many connections the rate wanted opened in the measured time, in connect
	// mode; Unstarted those of them that were not even begun. Without a rate Due is Attempted.
	Due       uint64  `json:"due"`
	Unstarted uint64  `json:"unstarted"`
	Attempted int     `json:"attempted"`
	Completed int     `json:"completed"`
	Failed    int     `json:"failed"`
	PerSecond float64 `json:"completed_per_second"`
	// Latency is from dialling (at a fixed rate: from when it was due) to the answer of
	// the opening handshake, TLS included.
	Latency Latency `json:"latency"`
}

// TLS is what the first connection negotiated.
type TLS struct {
	Version     string `json:"version"`
	CipherSuite string `json:"cipher_suite"`
	Curve       string `json:"curve"`
	Resumed     int    `json:"resumed"` // connections that resumed a session
}

// Messages counts messages that were due in the measured time; the faults count from
// the start of the run. In push mode sent are those that came.
type Messages struct {
	// Due is how many the rate wanted sent, on all connections that were asked for, whatever
	// became of them; Unsent those of them that were not sent (in push mode: did not come)
	// before the run ended. Latency knows nothing of them, nor of those that are lost. Without
	// a rate Due is Sent. In push mode Due is at least so many: the backend's clock is its own.
	Due      uint64 `json:"due"`
	Unsent   uint64 `json:"unsent"`
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	// PerSecond counts answers that came within the measured time.
	PerSecond float64 `json:"received_per_second"`

	Lost         uint64 `json:"lost"`         // sent and never seen again
	Doubled      uint64 `json:"doubled"`      // seen once more
	Reordered    uint64 `json:"reordered"`    // seen after a later one
	Misdelivered uint64 `json:"misdelivered"` // those of another connection
	Unexpected   uint64 `json:"unexpected"`   // of another size or content than what was sent
}

// Bytes counts the payload of Messages.
type Bytes struct {
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
}

// Pings counts the Pings of idle mode.
type Pings struct {
	Sent     uint64 `json:"sent"`
	Answered uint64 `json:"answered"`
}

// Schedule tells whether the generator (in push mode: the backend) kept its own pace.
type Schedule struct {
	// Late messages were sent more than a millisecond after they were due although the
	// connection would have taken them: the generator had not enough CPU.
	Late  uint64  `json:"late"`
	Share float64 `json:"late_share"`
	Worst float64 `json:"worst_seconds"`
	// Held messages were late because the connection was full.
	Held uint64 `json:"held"`
}

// CPU is what another process used meanwhile.
type CPU struct {
	Seconds float64 `json:"seconds"`
	Wall    float64 `json:"wall_seconds"`
	// Messages were received meanwhile (in connect mode: connections completed).
	Messages   uint64  `json:"messages"`
	PerMessage float64 `json:"per_message_seconds"`
}

// report is made when no worker runs any more.
func (r *run) report(interrupted bool) *Report {
	o, t := r.o, r.total
	rep := &Report{
		URL: r.dialer.url.String(), Mode: o.Mode, Type: "binary", Size: o.Size, Connections: o.Connections, Rate: o.Rate,
		Started: r.started.UTC().Truncate(time.Millisecond), Warmup: o.Warmup.Seconds(), Duration: r.measured().Seconds(),
		Interrupted: interrupted,
		Handshakes: Handshakes{Due: uint64(r.attempted), Attempted: r.attempted, Completed: r.connected, Failed: r.failed,
			PerSecond: perSecond(uint64(r.connected), r.dialling), Latency: latencyOf(r.handshakes)},
		TLS: r.tls,
		Messages: Messages{Due: t.sent, Sent: t.sent, Received: t.received, PerSecond: perSecond(t.inTime, r.measured()),
			Lost: t.lost, Doubled: t.doubled, Reordered: t.reordered, Misdelivered: t.misdelivered, Unexpected: t.unexpected},
		Bytes:    Bytes{t.bytesSent, t.bytesRcvd},
		Pings:    Pings{t.pingsSent, t.pingsAnswer},
		Latency:  latencyOf(t.latency),
		Schedule: Schedule{Late: t.late, Worst: seconds(t.worstLate), Held: t.held},
		Closes:   t.closes, Errors: t.faults.list(), CPU: r.cpu,
	}
	if o.Text {
		rep.Type = "text"
	}
	begun := t.sent
	if o.Mode == Connect {
		begun = t.attempts
		rep.Latency = rep.Handshakes.Latency
		rep.Handshakes.PerSecond = perSecond(r.openedInTime, r.measured())
	}
	if begun > 0 {
		rep.Schedule.Share = float64(t.late) / float64(begun)
	}
	if o.Rate > 0 && o.Mode == Connect {
		rep.Handshakes.Due = newSchedule(r.start, o.Rate, 0, 1).count(r.from, r.until)
		rep.Handshakes.Unstarted = missing(rep.Handshakes.Due, t.attempts)
	} else if o.Rate > 0 {
		rep.Messages.Due = max(r.due(), t.sent)
		rep.Messages.Unsent = missing(rep.Messages.Due, t.sent)
	}
	return rep
}

// due is how many messages the rate wanted sent in the measured time.
func (r *run) due() (n uint64) {
	for i := range r.o.Connections {
		k := newSchedule(r.start, r.o.Rate, i, r.o.Connections).count(r.from, r.until)
		if r.o.Mode == Push && k > 0 {
			k-- // when the backend begins its turns is not known here
		}
		n += k
	}
	return n
}

func missing(due, begun uint64) uint64 { return due - min(due, begun) }

func perSecond(n uint64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}
