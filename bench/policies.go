package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// The policies of sessions are measured against each other, with -policies: Tidegate with
// those off that are on by default, as it comes, and with all on that a message meets; and
// another build as it comes, with -before.
const (
	policiesOff = `{ping: none, validate_utf8: false, control_frames_per_second: 0, max_message_size: 0}`
	policiesOn  = `{ping: both, max_frame_size: 1MiB, max_fragments: 1000, message_timeout: 30s,
    messages_per_second: 1000000, bytes_per_second: 1GiB, idle_timeout: 5m, max_age: 24h}`
)

func policySettings(before string) (all []*setting) {
	if before != "" {
		all = append(all, &setting{proxy: "tidegate", name: "before", template: "tidegate.yaml", binary: before, where: busy})
	}
	return append(all,
		&setting{proxy: "tidegate", name: "off", template: "tidegate.yaml", WebSocket: policiesOff},
		&setting{proxy: "tidegate", name: "default", template: "tidegate.yaml"},
		&setting{proxy: "tidegate", name: "on", template: "tidegate.yaml", WebSocket: policiesOn, where: busy})
}

// policyMeasures are of text, which is looked at, and of sessions that only the edge pings.
func policyMeasures() []*measure {
	var all []*measure
	for _, secure := range []bool{false, true} {
		for _, size := range []int{64, 1024} {
			all = append(all, &measure{name: fmt.Sprintf("%s-text-%d", scheme(secure), size), secure: secure,
				title: fmt.Sprintf("%s echo of %d bytes of text, CPU µs a message", scheme(secure), size),
				load:  load.Options{Mode: load.Echo, Size: size, Text: true, Connections: echoConnections}})
		}
	}
	return append(all, &measure{name: "wss-heartbeats", title: "idle wss sessions, % of a core", kind: idleSessions, secure: true,
		memory: &idle{silent: true, settle: 45 * time.Second, watch: 45 * time.Second}})
}

// policies prints the medians, and their ratios to the first setting.
func (r *results) policies(w io.Writer, o *options) {
	fmt.Fprintln(w, "| | setting | median | lowest | ratio |\n|---|---|---|---|---|")
	for _, m := range o.measures() {
		first := 0.0
		for _, s := range o.settings() {
			value := valueCPU
			if m.memory != nil {
				value = valueIdleCPU
			}
			var all []float64
			for _, x := range r.Samples {
				if v, ok := x.Values[value]; ok && x.Measure == m.name && x.Setting == s.name && x.Problem == "" {
					all = append(all, v)
				}
			}
			if len(all) == 0 {
				continue
			}
			mid := median(all)
			if first == 0 {
				first = mid
			}
			fmt.Fprintf(w, "| %s | %s | %.2f | %.2f | %.2f |\n", m.title, s.name, mid, slices.Min(all), mid/first)
		}
	}
}
