package main

import (
	"cmp"
	"strings"
)

// requests is the section of plain HTTP requests.
func (p *page) requests() {
	rows := p.of(perRequest)
	if len(rows) == 0 {
		return
	}
	p.printf("## Plain HTTP requests\n\nMicroseconds of one core of the proxy for a request and its answer of that many bytes (POST: a request of that many, an\n"+
		"answer of 64 B). HTTP/1.1 on %d connections that stay, each with one request at a time, and connections to the backend\n"+
		"that stay. Every answer is checked whole. Clients and backend are part of the benchmark and share the other core.\n\n", requestConnections)
	p.printf("| | HAProxy | nginx | Caddy | Tidegate | / HAProxy | / nginx | / Caddy |\n|---|---|---|---|---|---|---|---|\n")
	for _, m := range rows {
		h, n, t := p.three(m.name, valueCPU, 0)
		c := p.r.cheapest(m.name, "caddy", valueCPU, 0)
		p.printf("| %s | %s | %s | %s | %s | %s | %s | %s |\n", m.title, micro(h), micro(n), micro(c), micro(t),
			ratio(t, h, m.targets["haproxy"]), ratio(t, n, m.targets["nginx"]), ratio(t, c, m.targets["caddy"]))
	}
	p.printf("\nRequests per second, where near to direct the other core is the limit:\n\n")
	p.rates(rows, "direct", "haproxy", "nginx", "caddy", "tidegate")
}

// titles of the columns.
var titles = map[string]string{"haproxy": "HAProxy", "caddy": "Caddy", "tidegate": "Tidegate"}

// rates is a table of what went through each proxy, with the setting that takes the least
// CPU time.
func (p *page) rates(rows []*measure, proxies ...string) {
	p.printf("|")
	for _, proxy := range proxies {
		p.printf(" | %s", cmp.Or(titles[proxy], proxy))
	}
	p.printf(" |\n|---%s|\n", strings.Repeat("|---", len(proxies)))
	for _, m := range rows {
		p.printf("| %s", m.title)
		for _, proxy := range proxies {
			f := p.r.cheapest(m.name, proxy, valueCPU, 0)
			if !f.ok { // direct has none
				f.setting = proxy
			}
			p.printf(" | %s", whole(p.r.settingMedian(m.name, f.setting, valueRate, 0)))
		}
		p.printf(" |\n")
	}
	p.printf("\n")
}

// later tells of the runs that were merged into this one.
func (p *page) later() {
	for _, l := range p.r.Later {
		var names []string
		for _, m := range measures() {
			for _, name := range l.Measures {
				if m.name == name {
					names = append(names, m.title)
				}
			}
		}
		p.printf("Of another run (`%s`, %s, %d rounds of %.3g s, load average before %s", l.Command, l.Started.Format("2006-01-02"),
			l.Rounds, l.Duration, l.Machine.Load)
		for _, name := range versioned {
			if v := l.Machine.Versions[name]; v != "" && v != p.r.Machine.Versions[name] {
				p.printf(", %s", v)
			}
		}
		p.printf("):\n%s.\n\n", strings.Join(names, ", "))
	}
}

// versioned are the programs whose version is shown.
var versioned = []string{"tidegate", "haproxy", "nginx", "caddy"}
