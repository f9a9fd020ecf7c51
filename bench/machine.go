package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machine is what the figures were measured on.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Memory   int64             `json:"memory_bytes"`
	Kernel   string            `json:"kernel"`
	System   string            `json:"system"`
	Go       string            `json:"go"`
	Versions map[string]string `json:"versions"`
	Load     string            `json:"load_average"` // before it began
}

func readMachine(ctx context.Context, o *options) machine {
	m := machine{Go: runtime.Version(), Versions: map[string]string{}}
	cpuinfo := readFile("/proc/cpuinfo")
	m.CPU = afterColon(cpuinfo, "model name")
	m.Cores = bytes.Count(cpuinfo, []byte("\nprocessor")) + 1
	m.Memory, _ = field(readFile("/proc/meminfo"), "MemTotal")
	m.Kernel = strings.TrimSpace(string(readFile("/proc/sys/kernel/osrelease")))
	m.System = strings.Trim(afterEquals(readFile("/etc/os-release"), "PRETTY_NAME"), `"`)
	m.Load = strings.Join(strings.Fields(string(readFile("/proc/loadavg")))[:3], " ")
	version := func(name string, pick func(string) string, args ...string) {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err == nil {
			m.Versions[name] = pick(string(out))
		}
	}
	version("tidegate", firstLine, o.tidegate, "version")
	version("haproxy", func(s string) string {
		return strings.TrimSuffix(firstLine(s), " - https://haproxy.org/") + ", " + lineWith(s, "Running on OpenSSL")
	}, o.haproxy, "-vv")
	if o.caddy != "" { // "caddy version" knows only that of a released binary
		version("caddy", caddyVersion, o.caddy, "build-info")
	}
	version("nginx", func(s string) string { return firstLine(s) + ", " + lineWith(s, "OpenSSL") }, o.nginx, "-V")
	return m
}

// caddyVersion is in what the binary was built of: "dep", the module, its version.
func caddyVersion(info string) string {
	words := strings.Fields(lineWith(info, "\tgithub.com/caddyserver/caddy/v2\t"))
	if len(words) < 3 {
		return ""
	}
	return "Caddy " + words[2]
}

func readFile(path string) []byte {
	b, _ := os.ReadFile(path) // what is not there is not shown
	return b
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimSpace(line)
}

func lineWith(s, part string) string {
	for line := range strings.Lines(s) {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func afterColon(b []byte, name string) string {
	_, value, _ := strings.Cut(lineWith(string(b), name), ":")
	return strings.TrimSpace(value)
}

func afterEquals(b []byte, name string) string {
	_, value, _ := strings.Cut(lineWith(string(b), name+"="), "=")
	return value
}

// cores is the idle time of each core. That is kept exactly, where busy times are what ticks
// have seen: they miss a load that runs between ticks, or see it always.
type cores struct {
	at   time.Time
	idle []time.Duration
}

func readCores() cores { return parseCores(readFile("/proc/stat")) }

func parseCores(stat []byte) cores {
	c := cores{at: time.Now()}
	for line := range bytes.Lines(stat) {
		words := strings.Fields(string(line))
		if len(words) < 9 || !strings.HasPrefix(words[0], "cpu") || words[0] == "cpu" {
			continue
		}
		var ticks int64
		for i, w := range words[1:9] {
			if n, err := strconv.ParseInt(w, 10, 64); err == nil && (i == 3 || i == 4) { // idle, iowait
				ticks += n
			}
		}
		c.idle = append(c.idle, time.Duration(ticks)*(time.Second/100))
	}
	return c
}

// othersOf is which share of a core others than the one that used own seconds had: a
// figure is only as good as this is small.
func (c cores) othersOf(now cores, core int, own float64) float64 {
	wall := now.at.Sub(c.at).Seconds()
	if core >= len(c.idle) || core >= len(now.idle) || wall <= 0 {
		return 0
	}
	return max(0, (wall-(now.idle[core]-c.idle[core]).Seconds()-own)/wall)
}
