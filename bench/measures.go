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
	perRequest                // CPU µs of the proxy for a plain HTTP request
)

// measure is one thing that is measured with every proxy.
type measure struct {
	name, title string
	kind        kind
	secure      bool
	load        load.Options
	memory      *idle
	requests    *requests
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
	requestConnections = 64
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
	return append(all, requestMeasures()...)
}

// requestMeasures are of plain HTTP requests, Caddy among the proxies.
func requestMeasures() []*measure {
	caddy := map[string]float64{"caddy": 1.00}
	return []*measure{
		{name: "http-64", title: "http 64 B", kind: perRequest, requests: &requests{size: 64}, targets: caddy},
		{name: "http-16384", title: "http 16 KiB", kind: perRequest, requests: &requests{size: 16 << 10}, targets: caddy},
		{name: "http-post-1024", title: "http POST 1 KiB", kind: perRequest, requests: &requests{size: 64, post: 1 << 10}, targets: caddy},
		{name: "https-64", title: "https 64 B", kind: perRequest, secure: true, requests: &requests{size: 64}, targets: caddy},
		{name: "https-16384", title: "https 16 KiB", kind: perRequest, secure: true, requests: &requests{size: 16 << 10}, targets: caddy},
	}
}

// size is how many bytes the messages or answers have, 0 if there are none.
func (m *measure) size() int {
	if m.requests != nil {
		return m.requests.size
	}
	return m.load.Size
}

func scheme(secure bool) string {
	if secure {
		return "wss"
	}
	return "ws"
}

// url is where a measure connects.
func (p *proxy) url(secure bool) string { return scheme(secure) + "://" + p.addr(secure) + "/" }

func (p *proxy) addr(secure bool) string {
	if secure {
		return p.secure
	}
	return p.plain
}
