package main

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// bench is one run of this program.
type bench struct {
	o                           *options
	dir                         string // temporary
	roots                       *x509.CertPool
	backends                    []*process
	plainBackend, secureBackend string
	results                     *results
	began                       time.Time
}

// newBench prepares what all measures need. The caller closes it.
func newBench(ctx context.Context, o *options) (b *bench, err error) {
	b = &bench{o: o, began: time.Now()}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	var programs []string
	for name, path := range map[string]string{"haproxy": o.haproxy, "nginx": o.nginx} {
		if o.proxies.MatchString(name) && !o.policies {
			programs = append(programs, path)
		}
	}
	if err := install(ctx, programs...); err != nil {
		return b, err
	}
	if b.dir, err = os.MkdirTemp("", "tidegate-bench-"); err != nil {
		return b, err
	}
	if err := writeCertificate(b.dir); err != nil {
		return b, err
	}
	pem, err := os.ReadFile(filepath.Join(b.dir, "cert.pem"))
	if err != nil {
		return b, err
	}
	b.roots = x509.NewCertPool()
	b.roots.AppendCertsFromPEM(pem)
	if o.tidegate == "" {
		if o.tidegate, err = buildTidegate(ctx, b.dir, o); err != nil {
			return b, err
		}
	}
	b.results = newResults(ctx, o)
	return b, b.startBackends(ctx)
}

// startBackends runs the backend of the proxies, and one with TLS for the measures
// without a proxy.
func (b *bench) startBackends(ctx context.Context) error {
	for _, secure := range []bool{false, true} {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		args := []string{b.o.tidegate, "bench", "serve", "--listen", addr, "--workers", "1"}
		if b.plainBackend == "" {
			b.plainBackend = addr
		} else {
			b.secureBackend = addr
		}
		if secure {
			args = append(args, "--tls-cert", filepath.Join(b.dir, "cert.pem"), "--tls-key", filepath.Join(b.dir, "key.pem"))
		}
		p, err := start("backend", b.o.loadCore, args...)
		if err != nil {
			return err
		}
		b.backends = append(b.backends, p)
		if err := p.ready(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close() {
	for _, p := range b.backends {
		p.stop()
	}
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// all runs the measures under load in rounds, then those of idle sessions.
func (b *bench) all(ctx context.Context) error {
	var loaded, resting []*measure
	for _, m := range b.o.measures() {
		switch {
		case !b.o.only.MatchString(m.name):
		case m.memory != nil:
			resting = append(resting, m)
		default:
			loaded = append(loaded, m)
		}
	}
	if len(loaded)+len(resting) == 0 {
		return &usageError{fmt.Errorf("-only %s: no measure has such a name (see -only list)", b.o.only)}
	}
	if err := b.rounds(ctx, loaded); err != nil {
		return err
	}
	for _, m := range resting {
		for _, s := range b.chosen(m) {
			if s.proxy == "direct" {
				continue // no process whose memory it would be
			}
			if err := b.rest(ctx, m, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// chosen are the settings to try with a measure; a quick run tries no variants.
func (b *bench) chosen(m *measure) (some []*setting) {
	for _, s := range b.o.settings() {
		if b.o.proxies.MatchString(s.proxy) && (s.where == nil || s.where(m) && !b.o.quick) {
			some = append(some, s)
		}
	}
	return some
}

// rounds keeps all proxies running; the ones that are not measured idle.
func (b *bench) rounds(ctx context.Context, some []*measure) error {
	running := map[string]*proxy{}
	defer func() {
		for _, p := range running {
			p.end()
		}
	}()
	for _, m := range some {
		for _, s := range b.chosen(m) {
			if running[s.name] != nil {
				continue
			}
			p, err := b.startProxy(ctx, s)
			if err != nil {
				return err
			}
			running[s.name] = p
		}
	}
	for round := range b.o.rounds {
		for _, m := range some {
			chosen := b.chosen(m)
			for i := range chosen {
				p := running[chosen[(i+round)%len(chosen)].name]
				if err := b.one(ctx, m, p, round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// one runs one measure with one proxy once.
func (b *bench) one(ctx context.Context, m *measure, p *proxy, round int) error {
	o := m.load
	o.URL, o.TLS = p.url(m.secure), b.tls()
	o.Duration, o.Warmup = b.o.duration, b.o.warmup
	if p.process != nil {
		o.CPUOf = p.worker()
	}
	runtime.GC() // not in the middle
	debug.FreeOSMemory()
	var began time.Duration // CPU time of the proxy before the run
	if p.process != nil {
		var err error
		if began, err = cpuTime(p.worker()); err != nil {
			return err
		}
	}
	before := readCores()
	r, err := load.Run(ctx, o)
	if err != nil {
		if p.process != nil && p.stderr.String() != "" {
			err = fmt.Errorf("%w (it says: %s)", err, p.stderr.String())
		}
		return fmt.Errorf("%s through %s: %w", m.name, p.name, err)
	}
	s := &sample{Measure: m.name, Proxy: p.proxy, Setting: p.name, Round: round, Values: map[string]float64{}, Problem: problem(m, r)}
	s.Values[valueRate] = r.Messages.PerSecond
	switch m.kind {
	case perMessage:
		s.Values[valueP99] = r.Latency.P99 * 1e6
	case perConnection:
		s.Values[valueRate] = r.Handshakes.PerSecond
	case atFixedRate:
		s.Values[valueP50], s.Values[valueP99] = r.Latency.P50*1e6, r.Latency.P99*1e6
	}
	if r.CPU != nil {
		ended, err := cpuTime(p.worker())
		if err != nil {
			return err
		}
		s.Values[valueOthers] = before.othersOf(readCores(), b.o.proxyCore, (ended - began).Seconds())
		s.keepCPU(r.CPU)
	}
	b.keep(s)
	return nil
}

// enoughCPU is the least CPU time that tells something: it is counted in hundredths.
const enoughCPU = 0.1

// keepCPU takes the CPU time of the proxy, unless that was hardly given any: what is
// measured then is the machine's other work.
func (s *sample) keepCPU(c *load.CPU) {
	if c.Seconds >= enoughCPU && c.Messages > 0 {
		s.Values[valueCPU] = c.PerMessage * 1e6
		return
	}
	if s.Problem != "" {
		s.Problem += "; "
	}
	s.Problem += fmt.Sprintf("%.2f s of CPU time for %d messages tell nothing", c.Seconds, c.Messages)
}

// tls is what the load generator offers: the one curve that all proxies have, so that
// none does more for a handshake.
func (b *bench) tls() *cryptotls.Config {
	return &cryptotls.Config{RootCAs: b.roots, ServerName: "localhost", MinVersion: cryptotls.VersionTLS13,
		CurvePreferences: []cryptotls.CurveID{cryptotls.X25519}}
}

// problem says why a sample is not to be trusted.
func problem(m *measure, r *load.Report) string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if h := r.Messages; h.Lost+h.Doubled+h.Reordered+h.Misdelivered+h.Unexpected > 0 {
		say("%d lost, %d doubled, %d reordered, %d misdelivered, %d unexpected", h.Lost, h.Doubled, h.Reordered, h.Misdelivered, h.Unexpected)
	}
	for _, f := range r.Errors {
		say("%d × %s", f.Count, f.Kind)
	}
	if n := r.Closes[1000]; len(r.Closes) != 1 || n == 0 {
		say("closes %v", r.Closes)
	}
	if m.load.Rate > 0 && r.Messages.PerSecond < 0.98*m.load.Rate {
		say("%.0f of %.0f messages a second", r.Messages.PerSecond, m.load.Rate)
	}
	if r.Schedule.Share > 0.05 {
		say("%.0f%% sent late", 100*r.Schedule.Share)
	}
	if t := r.TLS; m.secure && (t == nil || t.Version != "TLS 1.3" || t.CipherSuite != "TLS_AES_128_GCM_SHA256" || t.Curve != "X25519" || t.Resumed > 0) {
		say("TLS is %+v", t)
	}
	return strings.Join(all, "; ")
}

// keep takes a sample and shows it.
func (b *bench) keep(s *sample) {
	b.results.Samples = append(b.results.Samples, s)
	fmt.Fprintf(os.Stderr, "%5.0fs  %-14s %-24s %s\n", time.Since(b.began).Seconds(), s.Measure, s.Setting, s)
}
