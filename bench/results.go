package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The values of samples.
const (
	valueCPU      = "cpu_us"         // of the proxy, per message, connection or request
	valueP50      = "p50_us"         // latency
	valueP99      = "p99_us"         // latency
	valueRate     = "per_second"     // messages, connections or requests
	valueLate     = "late_share"     // of the messages, by the generator's fault
	valueOthers   = "others_share"   // of the proxy's core, used by others
	valueSessions = "sessions"       // idle
	valueRSS      = "rss_bytes"      // per session
	valuePSS      = "pss_bytes"      // per session
	valueSockets  = "sockets_bytes"  // per session, buffers of all four ends
	valueSlab     = "slab_bytes"     // per session, kernel objects of all four ends
	valueIdleCPU  = "idle_cpu_share" // percent of a core
)

// sample is one run of one measure with one setting.
type sample struct {
	Measure string             `json:"measure"`
	Proxy   string             `json:"proxy"`
	Setting string             `json:"setting"`
	Round   int                `json:"round"`
	Values  map[string]float64 `json:"values"`
	Problem string             `json:"problem,omitempty"`
}

func (s *sample) String() string {
	var all []string
	for _, name := range []string{valueSessions, valueCPU, valueP50, valueP99, valueRate, valueRSS, valuePSS, valueSockets, valueSlab, valueIdleCPU, valueLate, valueOthers} {
		if v, ok := s.Values[name]; ok {
			all = append(all, fmt.Sprintf("%s %.4g", name, v))
		}
	}
	if s.Problem != "" {
		all = append(all, "!! "+s.Problem)
	}
	return strings.Join(all, "  ")
}

// heading is what a run was.
type heading struct {
	Started  time.Time `json:"started"`
	Command  string    `json:"command"`
	Machine  machine   `json:"machine"`
	Rounds   int       `json:"rounds"`
	Duration float64   `json:"duration_seconds"`
	Warmup   float64   `json:"warmup_seconds"`
	Settle   float64   `json:"settle_seconds"`
}

// results is a run of this program, or one into which others have been merged.
type results struct {
	heading
	Later   []*later  `json:"later,omitempty"`
	Samples []*sample `json:"samples"` // the last field, see write
}

// later is a run that has given samples to another one's.
type later struct {
	heading
	Measures []string `json:"measures"`
}

func newResults(ctx context.Context, o *options) *results {
	return &results{heading: heading{Started: time.Now().UTC().Truncate(time.Second), Command: o.command, Machine: readMachine(ctx, o),
		Rounds: o.rounds, Duration: o.duration.Seconds(), Warmup: o.warmup.Seconds(), Settle: o.settle.Seconds()}}
}

// write writes JSON, a sample on each line.
func (r *results) write(path string) error {
	head := *r
	head.Samples = nil
	b, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		return err
	}
	b, last := bytes.CutSuffix(b, []byte("null\n}"))
	if !last {
		return errors.New("the samples are not the last field")
	}
	b = append(b, '[')
	for i, s := range r.Samples {
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, "\n    "...), line...)
	}
	b = append(b, "\n  ]\n}"...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func readResults(path string) (*results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return r, nil
}

// figure is the median of a value over rounds.
type figure struct {
	value       float64
	least, most float64 // over rounds
	setting     string
	ok          bool
}

// settingMedian is the median of a value of a setting; sessions selects among those of
// idle sessions, 0 is any. Samples with a problem do not count, and where these are more
// than half, there is no figure.
func (r *results) settingMedian(measure, setting, value string, sessions int) figure {
	var good []float64
	bad := 0
	for _, s := range r.Samples {
		if s.Measure != measure || s.Setting != setting || sessions > 0 && int(s.Values[valueSessions]) != sessions {
			continue
		}
		switch v, ok := s.Values[value]; {
		case s.Problem != "":
			bad++
		case ok:
			good = append(good, v)
		}
	}
	if len(good) == 0 || len(good) < bad {
		return figure{}
	}
	return figure{value: median(good), least: slices.Min(good), most: slices.Max(good), setting: setting, ok: true}
}

// cheapest is the lowest median among the settings of a proxy.
func (r *results) cheapest(measure, proxy, value string, sessions int) (best figure) {
	for _, s := range settings() {
		if s.proxy != proxy {
			continue
		}
		f := r.settingMedian(measure, s.name, value, sessions)
		if f.ok && (!best.ok || f.value < best.value) {
			best = f
		}
	}
	return best
}

// over is the ratio of two figures.
func (f figure) over(o figure) figure {
	if !f.ok || !o.ok || o.value <= 0 {
		return figure{}
	}
	return figure{value: f.value / o.value, ok: true}
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	if mid := len(all) / 2; len(all)%2 == 0 {
		return (all[mid-1] + all[mid]) / 2
	} else {
		return all[mid]
	}
}
