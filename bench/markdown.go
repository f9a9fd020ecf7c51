package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// writePage writes the page of r to a file, or to stdout. Notes say what the figures do
// not: why one is missed, and what was tried. They go into the page as they are.
func writePage(path, notes string, r *results) error {
	var page strings.Builder
	r.page(&page, notes)
	if path == "" {
		_, err := io.WriteString(os.Stdout, page.String())
		return err
	}
	return os.WriteFile(path, []byte(page.String()), 0o644)
}

// page is all of the Markdown.
func (r *results) page(w io.Writer, notes string) {
	p := &page{w: w, r: r}
	p.head()
	p.cpu()
	p.latency()
	p.throughput()
	p.spread()
	p.requests()
	p.idle()
	p.growth()
	if notes := strings.TrimSpace(notes); notes != "" {
		p.printf("%s\n\n", notes)
	}
	p.method()
	p.doubts()
}

type page struct {
	w io.Writer
	r *results
}

func (p *page) printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

func (p *page) head() {
	r, m := p.r, p.r.Machine
	p.printf("# Benchmarks\n\nThis page is written by `make bench` (`%s`, %s): change the generator in `bench/`, not the page.\n\n",
		r.Command, r.Started.Format("2006-01-02"))
	p.printf("| | |\n|---|---|\n")
	p.printf("| machine | %s, %d cores, %.0f GiB |\n", m.CPU, m.Cores, float64(m.Memory)/(1<<30))
	p.printf("| system | %s, Linux %s, %s |\n", m.System, m.Kernel, m.Go)
	for _, name := range versioned {
		if v := m.Versions[name]; v != "" {
			p.printf("| %s | %s |\n", name, v)
		}
	}
	p.printf("| load average before | %s |\n\n", m.Load)
	p.printf("Figures are medians over rounds (%d) of %.3g s each. HAProxy and nginx are shown with the cheapest of their settings\n"+
		"(named where it is not the first one). Ratios are Tidegate's figure over the other's: lower is better;\n"+
		"behind them is what Tidegate is to reach, and ✗ where it does not.\n\n", r.Rounds, r.Duration)
	p.later()
}

// of returns the measures of a kind that have samples.
func (p *page) of(k kind) (some []*measure) {
	for _, m := range measures() {
		if m.kind == k && slices.ContainsFunc(p.r.Samples, func(s *sample) bool { return s.Measure == m.name }) {
			some = append(some, m)
		}
	}
	return some
}

func (p *page) cpu() {
	rows := append(p.of(perMessage), p.of(perConnection)...)
	if len(rows) == 0 {
		return
	}
	p.printf("## CPU time of the proxy\n\nMicroseconds of one core for a message (an echo's way there and back counts as one) or a connection.\n\n")
	p.printf("| | HAProxy | nginx | Tidegate | / HAProxy | / nginx |\n|---|---|---|---|---|---|\n")
	for _, m := range rows {
		h, n, t := p.three(m.name, valueCPU, 0)
		p.printf("| %s | %s | %s | %s | %s | %s |\n", m.title, micro(h), micro(n), micro(t), ratio(t, h, m.targets["haproxy"]), ratio(t, n, m.targets["nginx"]))
	}
	p.printf("\n")
	if rows := p.of(perConnection); len(rows) > 0 {
		p.printf("Connections per second of CPU time:")
		for i, m := range rows {
			h, n, t := p.three(m.name, valueCPU, 0)
			if i > 0 {
				p.printf(";")
			}
			p.printf(" %s HAProxy %s, nginx %s, Tidegate %s", scheme(m.secure), perCPUSecond(h), perCPUSecond(n), perCPUSecond(t))
		}
		p.printf(".\n\n")
	}
}

// three are the figures of HAProxy, nginx and Tidegate.
func (p *page) three(measure, value string, sessions int) (h, n, t figure) {
	return p.r.cheapest(measure, "haproxy", value, sessions), p.r.cheapest(measure, "nginx", value, sessions),
		p.r.cheapest(measure, "tidegate", value, sessions)
}

func (p *page) latency() {
	rows := p.of(atFixedRate)
	if len(rows) == 0 {
		return
	}
	p.printf("## Latency at a fixed rate\n\nMicroseconds from when a message was due to its answer, p50 / p99, and the ratios of both.\n\n")
	p.printf("| | direct | HAProxy | nginx | Tidegate | / HAProxy | / nginx |\n|---|---|---|---|---|---|---|\n")
	for _, m := range rows {
		p.printf("| %s", m.title)
		all := map[string][2]figure{}
		for _, proxy := range []string{"direct", "haproxy", "nginx", "tidegate"} {
			// Both of one setting: the one with the lowest p50.
			p50 := p.r.cheapest(m.name, proxy, valueP50, 0)
			p99 := p.r.settingMedian(m.name, p50.setting, valueP99, 0)
			all[proxy] = [2]figure{p50, p99}
			p.printf(" | %s / %s%s", whole(p50), whole(p99), named(p50))
		}
		for _, proxy := range []string{"haproxy", "nginx"} {
			p.printf(" | %s / %s", ratio(all["tidegate"][0], all[proxy][0], 0), ratio(all["tidegate"][1], all[proxy][1], 0))
		}
		p.printf(" |\n")
	}
	p.printf("\n")
}

func (p *page) throughput() {
	rows := p.of(perMessage)
	rows = slices.DeleteFunc(rows, func(m *measure) bool { return m.load.Rate > 0 })
	rows = append(rows, p.of(perConnection)...)
	if len(rows) == 0 {
		return
	}
	p.printf("## What went through\n\nMessages or connections per second with the load generator and the backend sharing one core. Where a proxy\n" +
		"comes near to direct, the other core is the limit and not the proxy.\n\n")
	p.rates(rows, "direct", "haproxy", "nginx", "tidegate")
}

// spread shows how far apart rounds were: what is less than that is no difference.
func (p *page) spread() {
	rows := append(append(p.of(perMessage), p.of(perConnection)...), p.of(atFixedRate)...)
	if len(rows) == 0 {
		return
	}
	p.printf("## How far apart rounds were\n\nLowest – highest, of CPU time in microseconds, and of p99 at the fixed rate; and the ratio of the lowest figures, which\n" +
		"neighbours of the machine disturb least.\n\n| | HAProxy | nginx | Tidegate | / HAProxy | / nginx |\n|---|---|---|---|---|---|\n")
	for _, m := range rows {
		value := valueCPU
		if m.kind == atFixedRate {
			value = valueP99
		}
		h, n, t := p.three(m.name, value, 0)
		p.printf("| %s | %s | %s | %s | %s | %s |\n", m.title, h.span(), n.span(), t.span(), ratio(t.lowest(), h.lowest(), 0), ratio(t.lowest(), n.lowest(), 0))
	}
	p.printf("\n")
}

func (f figure) span() string {
	switch {
	case !f.ok:
		return nothing
	case f.least >= 100:
		return thousands(int(f.least+0.5)) + " – " + thousands(int(f.most+0.5))
	}
	return fmt.Sprintf("%.2f – %.2f", f.least, f.most)
}

// lowest is the figure of the round that had the lowest.
func (f figure) lowest() figure { return figure{value: f.least, ok: f.ok} }

// idleSamples is how many samples the memory of idle sessions has.
func (p *page) idleSamples(most int) (n int) {
	for _, m := range p.of(idleSessions) {
		count := 0
		for _, s := range p.r.Samples {
			if s.Measure == m.name && s.Setting == "tidegate" && int(s.Values[valueSessions]) == most {
				count++
			}
		}
		n = max(n, count)
	}
	return n
}

// sessions are the numbers of idle sessions that were measured.
func (p *page) sessions() (all []int) {
	for _, s := range p.r.Samples {
		if n := int(s.Values[valueSessions]); n > 0 && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

func (p *page) idle() {
	rows, counts := p.of(idleSessions), p.sessions()
	if len(rows) == 0 || len(counts) == 0 {
		return
	}
	most := counts[len(counts)-1]
	p.printf("## Idle sessions\n\nBytes of the process for each of %s sessions (RSS less that before the first session): medians of %d, each with a\n"+
		"process of its own.\n\n", thousands(most), p.idleSamples(most))
	p.printf("| | HAProxy | nginx | Tidegate | / HAProxy | / nginx |\n|---|---|---|---|---|---|\n")
	for _, m := range rows {
		h, n, t := p.three(m.name, valueRSS, most)
		p.printf("| %s | %s | %s | %s | %s | %s |\n", m.title, whole(h), whole(n), whole(t), ratio(t, h, m.targets["haproxy"]), ratio(t, n, m.targets["nginx"]))
	}
	p.printf("\nThe kernel's share for each session, all four ends (client, both of the proxy's, backend): socket buffers + kernel objects\n" +
		"(growth of `TCP: mem` in `/proc/net/sockstat`, growth of `Slab`).\n\n| | HAProxy | nginx | Tidegate |\n|---|---|---|---|\n")
	for _, m := range rows {
		p.printf("| %s", m.title)
		for _, proxy := range []string{"haproxy", "nginx", "tidegate"} {
			p.printf(" | %s + %s", whole(p.r.settingMedian(m.name, proxy, valueSockets, most)), whole(p.r.settingMedian(m.name, proxy, valueSlab, most)))
		}
		p.printf(" |\n")
	}
	p.printf("\n")
}

func (p *page) growth() {
	counts := p.sessions()
	if len(counts) < 2 {
		return
	}
	p.printf("## Growth\n\nBytes of the process per session, and, once, percent of a core while clients ping every %s: counted over as long,\n"+
		"once the sessions are %s old, at the first and the last number.\n\n| |", idlePing, idleRhythm)
	for _, n := range counts {
		p.printf(" %s sessions |", thousands(n))
	}
	p.printf("\n|---|%s\n", strings.Repeat("---|", len(counts)))
	for _, m := range p.of(idleSessions) {
		if m.memory.primer > 0 {
			continue
		}
		for _, proxy := range []string{"haproxy", "nginx", "tidegate"} {
			p.printf("| %s, %s |", m.title, proxy)
			for _, n := range counts {
				p.printf(" %s", whole(p.r.settingMedian(m.name, proxy, valueRSS, n)))
				if share := p.r.settingMedian(m.name, proxy, valueIdleCPU, n); share.ok {
					p.printf(", %s %%", tenths(share))
				}
				p.printf(" |")
			}
			p.printf("\n")
		}
	}
	p.printf("\n")
}

func (p *page) method() {
	p.printf(`## How it is measured

- Each proxy has one core, the load generator and the backend (`+"`tidegate bench`"+`) share another; all over loopback. The
  configurations are in `+"`bench/configs`"+`, with the reason of each line. Tidegate runs with its default policies.
- TLS 1.3, AES-128-GCM, X25519, a P-256 certificate, no resumption, for all; a sample with anything else is marked.
- Echo: %d connections with one message in flight each. Push: %d connections at %s messages a second together. Latency:
  %d connections at %s a second together, counted from when a message was due. Bulk: %d connections, messages of 16 KiB.
- CPU time is the process clock of the serving process over the measured time, divided by the messages that came back then.
- In each round every measure runs with every proxy, and the order turns from round to round.
- Memory: a proxy started for it, %.3g s of silence after the last session opened, nothing forced: neither a garbage
  collection nor a return of memory to the system but by the proxy itself (Tidegate does when it has become quiet, see
  [operations](operations.md#limits-of-the-system)). GOGC and GOMEMLIMIT are not in the environment; Tidegate sets its
  own pace of collections. The first sessions that a system ever holds cost it more: as many as will be go before, to no proxy.
- A session ticket is sent with each handshake by Tidegate and nginx, two by HAProxy, as they come.

`, echoConnections, pushConnections, thousands(pushRate), latencyConnections, thousands(latencyRate), bulkConnections, p.r.Settle)
}

// quiet is the share of the proxy's core that others may have.
const quiet = 0.05

// doubts tells how quiet the machine was and what was wrong with samples.
func (p *page) doubts() {
	var others []float64
	problems := map[string]int{}
	for _, s := range p.r.Samples {
		if v, ok := s.Values[valueOthers]; ok {
			others = append(others, v)
		}
		if s.Problem != "" {
			problems[fmt.Sprintf("%s, %s: %s", s.Measure, s.Setting, s.Problem)]++
		}
	}
	if len(others) > 0 {
		noisy := 0
		for _, v := range others {
			if v > quiet {
				noisy++
			}
		}
		p.printf("Others (interrupts included) had %.1f %% of the proxy's core in the median run and %.1f %% in the worst; in %d of %d\n"+
			"runs they had more than %.0f %%.\n", 100*median(others), 100*slices.Max(others), noisy, len(others), 100*quiet)
		if median(others) > quiet {
			p.printf("**The machine was not quiet: do not compare these figures with others.**\n")
		}
	}
	if len(problems) > 0 {
		p.printf("\nSamples with a problem:\n\n")
		for _, s := range slices.Sorted(mapKeys(problems)) {
			p.printf("- %s (%d×)\n", s, problems[s])
		}
	}
}

func mapKeys(m map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

const nothing = "–"

// named is the setting of a figure, if it is not the plain one.
func named(f figure) string {
	if _, variant, ok := strings.Cut(f.setting, ", "); ok {
		return " (" + variant + ")"
	}
	return ""
}

func micro(f figure) string {
	if !f.ok {
		return nothing
	}
	return fmt.Sprintf("%.2f%s", f.value, named(f))
}

func tenths(f figure) string {
	if !f.ok {
		return nothing
	}
	return fmt.Sprintf("%.1f", f.value)
}

func whole(f figure) string {
	if !f.ok {
		return nothing
	}
	return thousands(int(f.value + 0.5))
}

func perCPUSecond(f figure) string {
	if !f.ok || f.value <= 0 {
		return nothing
	}
	return thousands(int(1e6/f.value + 0.5))
}

// ratio shows a over b, and how that compares with what it is to be.
func ratio(a, b figure, target float64) string {
	f := a.over(b)
	switch {
	case !f.ok:
		return nothing
	case target == 0:
		return fmt.Sprintf("%.2f", f.value)
	case f.value > target:
		return fmt.Sprintf("%.2f (≤ %.2f ✗)", f.value, target)
	}
	return fmt.Sprintf("%.2f (≤ %.2f)", f.value, target)
}

// thousands writes 12,345.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
