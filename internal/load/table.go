package load

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteTable writes the report for people.
func (r *Report) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) // keeps its errors for Flush
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("url", "%q", r.URL)
	row("load", "%s", r.load())
	ended := ""
	if r.Interrupted {
		ended = ", ended early"
	}
	row("measured", "%.3gs after a warm-up of %.3gs%s", r.Duration, r.Warmup, ended)
	unstarted := ""
	if n := r.Handshakes.Unstarted; n > 0 {
		unstarted = fmt.Sprintf(", %d of %d due never begun", n, r.Handshakes.Due)
	}
	row("handshakes", "%d completed, %d failed%s, %.0f/s", r.Handshakes.Completed, r.Handshakes.Failed, unstarted, r.Handshakes.PerSecond)
	if t := r.TLS; t != nil {
		row("tls", "%s, %s, %s, %d resumed", t.Version, t.CipherSuite, t.Curve, t.Resumed)
	}
	if r.Mode != Connect && (r.Mode != Idle || r.Messages.Due > 0) {
		row("messages", "%d sent, %d received, %.0f/s%s", r.Messages.Sent, r.Messages.Received, r.Messages.PerSecond, r.unsent())
		row("bytes", "%d sent, %d received", r.Bytes.Sent, r.Bytes.Received)
	}
	if r.Mode != Connect {
		m := r.Messages
		row("harm", "%d lost, %d doubled, %d reordered, %d misdelivered, %d unexpected",
			m.Lost, m.Doubled, m.Reordered, m.Misdelivered, m.Unexpected)
	}
	if r.Pings.Sent > 0 {
		row("pings", "%d sent, %d answered", r.Pings.Sent, r.Pings.Answered)
	}
	if r.Rate > 0 {
		row("schedule", "%.2f%% late, at worst by %s; %d held up by %s",
			100*r.Schedule.Share, short3(r.Schedule.Worst), r.Schedule.Held, r.holder())
	}
	if len(r.Closes) > 0 {
		row("closes", "%s", r.closes())
	}
	if c := r.CPU; c != nil {
		row("cpu", "%.2fs in %.2fs%s", c.Seconds, c.Wall, perMessage(c))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	r.writeLatencies(out)
	for _, f := range r.Errors {
		fmt.Fprintf(out, "error %s: %d, such as %q\n", f.Kind, f.Count, f.Example)
	}
	return nil
}

// holder is what holds messages, or connections, up.
func (r *Report) holder() string {
	if r.Mode == Connect {
		return "connections in progress"
	}
	return "full connections"
}

func (r *Report) unsent() string {
	switch n := r.Messages.Unsent; {
	case n == 0:
		return ""
	case r.Mode == Push:
		return fmt.Sprintf("; %d of %d due never came", n, r.Messages.Due)
	default:
		return fmt.Sprintf("; %d of %d due never sent", n, r.Messages.Due)
	}
}

func (r *Report) load() string {
	s := fmt.Sprintf("%s, %d connections", r.Mode, r.Connections)
	if r.Mode != Connect && r.Size > 0 {
		s += fmt.Sprintf(", %s messages of %d bytes", r.Type, r.Size)
	}
	switch {
	case r.Rate > 0:
		s += ", " + strconv.FormatFloat(r.Rate, 'f', -1, 64) + "/s"
	case r.Mode != Idle:
		s += ", as fast as it goes"
	}
	return s
}

func (r *Report) closes() string {
	var codes []int
	for code := range r.Closes {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	var all []string
	for _, code := range codes {
		one := fmt.Sprintf("%d × %d", r.Closes[code], code)
		if code == 1006 {
			one += " (without a Close)"
		}
		all = append(all, one)
	}
	return strings.Join(all, ", ")
}

func perMessage(c *CPU) string {
	if c.Messages == 0 {
		return ""
	}
	return fmt.Sprintf(", %.2fµs for each of %d", c.PerMessage*1e6, c.Messages)
}

func (r *Report) writeLatencies(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tp50\tp90\tp99\tp99.9\tmax\tmean\t")
	line := func(name string, l Latency) {
		if l.Count > 0 {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, short3(l.P50), short3(l.P90), short3(l.P99), short3(l.P999), short3(l.Max), short3(l.Mean))
		}
	}
	line("handshake", r.Handshakes.Latency)
	if r.Mode != Connect {
		line("latency", r.Latency)
	}
	w.Flush()
}

// short3 shows seconds with three digits: 85.3µs, 1.2ms, 3.04s.
func short3(s float64) string {
	d := time.Duration(s * 1e9)
	unit := time.Nanosecond
	for u := d; u >= 1000; u /= 10 {
		unit *= 10
	}
	return d.Round(unit).String()
}
