package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/internal/load"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
}

// made are results with round figures.
func made() *results {
	r := &results{heading: heading{Started: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Command: "bin/bench -quick", Rounds: 3, Duration: 2.5, Settle: 8,
		Machine: machine{CPU: "Some CPU", Cores: 2, Memory: 8 << 30, Kernel: "6.1", System: "Some Linux", Go: "go1.26", Load: "0.01 0.02 0.03",
			Versions: map[string]string{"tidegate": "tidegate v1", "haproxy": "HAProxy 2.6", "nginx": "nginx 1.22"}}}}
	add := func(measure, setting string, values map[string]float64) {
		proxy, _, _ := strings.Cut(setting, ",")
		for round := range 3 { // around the middle one
			s := &sample{Measure: measure, Proxy: proxy, Setting: setting, Round: round, Values: map[string]float64{}}
			for k, v := range values {
				s.Values[k] = v
				if k != valueSessions {
					s.Values[k] = v * []float64{1, 3, 0.5}[round]
				}
			}
			r.Samples = append(r.Samples, s)
		}
	}
	for measure, cpu := range map[string]float64{"ws-echo-64": 10, "wss-push-64": 20, "ws-connect": 50, "wss-connect": 400} {
		add(measure, "direct", map[string]float64{valueRate: 100_000})
		add(measure, "haproxy", map[string]float64{valueCPU: cpu, valueRate: 90_000, valueOthers: 0.01})
		add(measure, "haproxy, edge-triggered", map[string]float64{valueCPU: cpu * 0.9, valueRate: 91_000, valueOthers: 0.02})
		add(measure, "nginx", map[string]float64{valueCPU: cpu * 1.1, valueRate: 80_000, valueOthers: 0.03})
		add(measure, "tidegate", map[string]float64{valueCPU: cpu * 0.75, valueRate: 99_000, valueOthers: 0.01})
	}
	add("http-64", "direct", map[string]float64{valueRate: 60_000})
	for setting, cpu := range map[string]float64{"haproxy": 15, "nginx": 18, "nginx, proxy_buffering": 17, "caddy": 80, "tidegate": 40} {
		add("http-64", setting, map[string]float64{valueCPU: cpu, valueRate: 1e6 / cpu})
		add("https-64", setting, map[string]float64{valueCPU: 2 * cpu, valueRate: 5e5 / cpu})
	}
	for _, setting := range []string{"direct", "haproxy", "haproxy, splice-auto", "nginx", "tidegate"} {
		add("ws-latency", setting, map[string]float64{valueP50: 100 + float64(len(setting)), valueP99: 1234})
	}
	for _, measure := range []string{"ws-idle", "wss-idle"} {
		for _, n := range []float64{1000, 9000} {
			for setting, size := range map[string]float64{"haproxy": 5000, "nginx": 20000, "tidegate": 1000} {
				add(measure, setting, map[string]float64{valueSessions: n, valueRSS: size, valueSockets: 10, valueSlab: 18000, valueIdleCPU: n / 9000})
			}
		}
	}
	r.Samples[0].Problem = "5 × reset"
	return r
}

func TestPage(t *testing.T) {
	r := made()
	// Maps above are in no order, the page must not mind.
	for _, s := range r.Samples {
		s.Problem = ""
		if s.Measure == "ws-connect" && s.Round == 1 && s.Proxy == "nginx" {
			s.Problem = "5 × reset"
		}
	}
	r.Later = []*later{{heading: heading{Started: r.Started, Command: "bin/bench -only ^https", Rounds: 5, Duration: 1,
		Machine: machine{Load: "0.5 0.4 0.3", Versions: map[string]string{"tidegate": "tidegate v2", "nginx": "nginx 1.22", "caddy": "Caddy v2"}}},
		Measures: []string{"https-64", "http-64"}}}
	path := filepath.Join(t.TempDir(), "samples.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "page.md")
	if err := run(&options{render: path, out: out}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/page.md"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestPageOfNothing: a run of a few measures makes a page too.
func TestPageOfNothing(t *testing.T) {
	var b bytes.Buffer
	(&results{}).page(&b, "")
	if s := b.String(); strings.Contains(s, "## CPU") || strings.Contains(s, "NaN") || strings.Contains(s, "%!") {
		t.Error(s)
	}
}

// TestConfigurations: Tidegate takes its own, and the variants of the others differ in
// what they are about.
func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	if err := writeCertificate(dir); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, s := range slices.Concat(settings(), policySettings("")[:1], policySettings("")[2:]) {
		if s.proxy == "direct" {
			continue
		}
		v := struct {
			*setting
			ends
		}{s, ends{"127.0.0.1:50001", "127.0.0.1:50002", "127.0.0.1:50003", "127.0.0.1:50004", dir, maxSessions}}
		text, err := render(s.template, v)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(text)]; ok {
			t.Errorf("%s is the same as %s", s.name, other)
		}
		seen[string(text)] = s.name
		for _, addr := range []string{v.Plain, v.Secure, v.Backend} {
			if s.proxy == "caddy" { // its sites are ports
				addr = strings.TrimPrefix(addr, "127.0.0.1")
			}
			if !bytes.Contains(text, []byte(addr)) {
				t.Errorf("%s: %s is not there", s.name, addr)
			}
		}
		if s.proxy == "tidegate" {
			if _, err := config.Parse("tidegate.yaml", text, nil); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestStarvedSample: a proxy that got no CPU time is not cheap.
func TestStarvedSample(t *testing.T) {
	for _, c := range []struct {
		cpu  load.CPU
		kept bool
	}{
		{load.CPU{Seconds: 0, Messages: 0}, false},
		{load.CPU{Seconds: 0.01, Messages: 9000, PerMessage: 0.01 / 9000}, false},
		{load.CPU{Seconds: 0.5, Messages: 0}, false},
		{load.CPU{Seconds: 0.5, Messages: 50_000, PerMessage: 1e-5}, true},
	} {
		s := &sample{Values: map[string]float64{}}
		s.keepCPU(&c.cpu)
		if _, kept := s.Values[valueCPU]; kept != c.kept || (s.Problem == "") != c.kept {
			t.Errorf("%+v: %s", c.cpu, s)
		}
	}
}

func TestProblems(t *testing.T) {
	good := func() *load.Report {
		return &load.Report{Closes: map[int]uint64{1000: 5}, Messages: load.Messages{Sent: 9, Received: 9, PerSecond: 50_000},
			TLS: &load.TLS{Version: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", Curve: "X25519"}}
	}
	m := &measure{secure: true, load: load.Options{Rate: 50_000}}
	if got := problem(m, good()); got != "" {
		t.Error(got)
	}
	for says, change := range map[string]func(*load.Report){
		"1 lost":      func(r *load.Report) { r.Messages.Lost = 1 },
		"2 × reset":   func(r *load.Report) { r.Errors = []load.Fault{{Kind: "reset", Count: 2}} },
		"closes":      func(r *load.Report) { r.Closes[1006] = 1 },
		"of 50000":    func(r *load.Report) { r.Messages.PerSecond = 40_000 },
		"10.0% sent":  func(r *load.Report) { r.Schedule.Share = 0.1 },
		"3 of 12 due": func(r *load.Report) { r.Messages.Unsent, r.Messages.Due = 3, 12 },
		"X25519MLKEM": func(r *load.Report) { r.TLS.Curve = "X25519MLKEM768" },
		"CHACHA":      func(r *load.Report) { r.TLS.CipherSuite = "TLS_CHACHA20_POLY1305_SHA256" },
		"Resumed:1":   func(r *load.Report) { r.TLS.Resumed = 1 },
		"TLS is":      func(r *load.Report) { r.TLS = nil },
	} {
		r := good()
		change(r)
		if got := problem(m, r); !strings.Contains(got, says) {
			t.Errorf("%q does not say %q", got, says)
		}
	}
}

// TestLateLatency: where latency is measured, few late messages are too many.
func TestLateLatency(t *testing.T) {
	r := &load.Report{Closes: map[int]uint64{1000: 5}, Schedule: load.Schedule{Share: 0.02}}
	if got := problem(&measure{}, r); got != "" {
		t.Error(got)
	}
	if got := problem(&measure{kind: atFixedRate}, r); got != "2.0% sent late" {
		t.Errorf("%q", got)
	}
}

// TestBadSamplesDoNotCount, and where they are most there is no figure.
func TestBadSamplesDoNotCount(t *testing.T) {
	one := func(v float64, problem string) *sample {
		return &sample{Measure: "m", Setting: "s", Values: map[string]float64{valueCPU: v}, Problem: problem}
	}
	r := &results{Samples: []*sample{one(1, "lost"), one(5, ""), one(7, ""), one(6, "")}}
	if f := r.settingMedian("m", "s", valueCPU, 0); f != (figure{value: 6, least: 5, most: 7, setting: "s", ok: true}) {
		t.Errorf("%+v", f)
	}
	r.Samples = append(r.Samples, one(1, "lost"), one(1, "lost"), one(1, "lost"))
	if f := r.settingMedian("m", "s", valueCPU, 0); f.ok {
		t.Errorf("%+v, though 4 of 7 had a problem", f)
	}
}

func TestMeasures(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range measures() {
		if seen[m.name] || m.title == "" || (m.kind == idleSessions) != (m.memory != nil) {
			t.Errorf("%+v", m)
		}
		seen[m.name] = true
	}
	if len(seen) != 23 {
		t.Errorf("%d measures", len(seen))
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-nope"}, {"more"}, {"-only", "("}, {"-proxies", "["}, {"-sessions", "3,2"}, {"-sessions", "10000"},
		{"-rounds", "0"}, {"-notes", "n.md"}, {"-duration", "0s"}, {"-merge", "a"}, {"-into", "a"},
		{"-merge", "a", "-into", "b", "-render", "b"}, {"-load-core", "0"}, {"-quick", "-rounds", "3"}, {"-settle", "1s", "-quick"},
		{"-idle-rounds", "0"}, {"-warmup", "-1s"}} {
		_, err := parse(args)
		if _, wrong := errors.AsType[*usageError](err); !wrong {
			t.Errorf("%v: %v", args, err)
		}
	}
	o, err := parse([]string{"-quick", "-only", "echo"})
	if err != nil || o.rounds != 1 || len(o.sessions) != 1 || !o.only.MatchString("ws-echo-64") {
		t.Errorf("%+v %v", o, err)
	}
}

func TestCaddyVersion(t *testing.T) {
	for info, want := range map[string]string{
		"go1.26\npath\tx\nbuild\t-trimpath=true\ndep\tgithub.com/caddyserver/caddy/v2\tv2.11.9\th1:jct=\n": "Caddy v2.11.9",
		"mod\tgithub.com/caddyserver/caddy/v2\tv2.1.0\t\n":                                                 "Caddy v2.1.0",
		"nothing": "",
	} {
		if got := caddyVersion(info); got != want {
			t.Errorf("%q: %q, want %q", info, got, want)
		}
	}
}

func TestProc(t *testing.T) {
	smaps := []byte("55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:               11832 kB\nPss:                9000 kB\nPss_Dirty:  4 kB\n")
	if n, err := field(smaps, "Pss"); n != 9000<<10 || err != nil {
		t.Error(n, err)
	}
	for _, bad := range []string{"", "Rss:", "Rss: x kB", "Rss: 5 MB"} {
		if n, err := field([]byte(bad), "Rss"); err == nil {
			t.Errorf("%q is %d", bad, n)
		}
	}
	sockstat := []byte("sockets: used 300\nTCP: inuse 35 orphan 0 tw 8 alloc 40 mem 17\nUDP: inuse 3 mem 99\n")
	if n, err := socketPages(sockstat); n != 17 || err != nil {
		t.Error(n, err)
	}
	for _, bad := range []string{"", "TCP: inuse 35 mem", "TCP: mem x"} {
		if n, err := socketPages([]byte(bad)); err == nil {
			t.Errorf("%q is %d", bad, n)
		}
	}
	before := parseCores([]byte("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 100 500 50 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\nintr 5\n"))
	after := parseCores([]byte("cpu0 150 0 130 590 60 0 20 0 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\n"))
	after.at = before.at.Add(2 * time.Second)
	if got := before.othersOf(after, 0, 0.6); got < 0.199 || got > 0.201 { // 1 s busy, 0.6 s of it ours, in 2 s
		t.Error(got)
	}
	if got := before.othersOf(after, 7, 0); got != 0 {
		t.Error(got)
	}
}
