package main

import (
	"fmt"

	"github.com/tidegate/tidegate/internal/load"
)

// kind is what a measure reports.
type kind int

const (
	perMessage    kind = iota // CPU µs of the proxy for a message
	perConnection             // CPU µs of the proxy for a connection, opened and closed
	atFixedRate               // latency percentiles
	idleSessions              // memory and CPU of idle sessions
)

// measure is one thing that is measured with every proxy.
type measure struct {
	name, title string
	kind        kind
	secure      bool
	load        load.Options
	memory      *idle
	// targets are what Tidegate's figure over that proxy's is to be at most.
	targets map[string]float64
}

// The loads: connections enough to keep a proxy busy, and few enough that sockets and
// caches are not what is measured.
const (
	echoConnections    = 64
	pushConnections    = 100
	pushRate           = 50_000
	bulkConnections    = 8
	latencyRate        = 20_000
	latencyConnections = 100
	connectors         = 16
)

func measures() []*measure {
	var all []*measure
	targets := func(haproxy, nginx float64) map[string]float64 {
		t := map[string]float64{}
		if haproxy > 0 {
			t["haproxy"] = haproxy
		}
		if nginx > 0 {
			t["nginx"] = nginx
		}
		return t
	}
	add := func(m *measure) { all = append(all, m) }
	sizes := map[int]string{64: "64 B", 1024: "1 KiB", 16 << 10: "16 KiB"}
	for _, secure := range []bool{false, true} {
		scheme := scheme(secure)
		for _, size := range []int{64, 1024, 16 << 10} {
			m := &measure{name: fmt.Sprintf("%s-echo-%d", scheme, size), title: fmt.Sprintf("%s echo %s", scheme, sizes[size]),
				secure: secure, load: load.Options{Mode: load.Echo, Size: size, Connections: echoConnections}}
			switch {
			case secure:
				m.targets = targets(0.68, 0.80)
			case size < 16<<10:
				m.targets = targets(0.88, 1.00)
			}
			add(m)
		}
		for _, size := range []int{64, 1024} {
			m := &measure{name: fmt.Sprintf("%s-push-%d", scheme, size), secure: secure,
				title:   fmt.Sprintf("%s push %s, %d/s", scheme, sizes[size], pushRate),
				load:    load.Options{Mode: load.Push, Size: size, Rate: pushRate, Connections: pushConnections},
				targets: targets(1.00, 1.00)}
			if secure {
				m.targets = targets(0.75, 0.80)
			}
			add(m)
		}
	}
	add(&measure{name: "wss-bulk", title: "wss push 16 KiB without pause", secure: true, targets: targets(1.00, 0),
		load: load.Options{Mode: load.Push, Size: 16 << 10, Connections: bulkConnections}})
	for _, secure := range []bool{false, true} {
		scheme := scheme(secure)
		add(&measure{name: scheme + "-latency", title: fmt.Sprintf("%s echo 64 B, %d/s", scheme, latencyRate), kind: atFixedRate, secure: secure,
			load: load.Options{Mode: load.Echo, Size: 64, Rate: latencyRate, Connections: latencyConnections}})
	}
	for _, secure := range []bool{false, true} {
		m := &measure{name: scheme(secure) + "-connect", title: scheme(secure) + " connection, opened and closed", kind: perConnection, secure: secure,
			load: load.Options{Mode: load.Connect, Connections: connectors}, targets: targets(2.0, 0)}
		if secure {
			m.targets = targets(1.1, 0)
		}
		add(m)
	}
	for _, m := range []*measure{
		{name: "ws-idle", title: "ws idle", memory: &idle{}, targets: targets(0.30, 0.10)},
		{name: "wss-idle", title: "wss idle", secure: true, memory: &idle{}, targets: targets(0.25, 0.10)},
		{name: "wss-idle-16k", title: "wss idle after 16 KiB each way", secure: true, memory: &idle{primer: 16 << 10}, targets: targets(0.15, 0.10)},
	} {
		m.kind = idleSessions
		add(m)
	}
	return all
}

func scheme(secure bool) string {
	if secure {
		return "wss"
	}
	return "ws"
}

// url is where a measure connects.
func (p *proxy) url(secure bool) string {
	if secure {
		return "wss://" + p.secure + "/"
	}
	return "ws://" + p.plain + "/"
}
