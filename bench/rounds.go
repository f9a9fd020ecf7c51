package main

import (
	"cmp"
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// bench is one run of this program.
type bench struct {
	o         *options
	dir       string // temporary
	roots     *x509.CertPool
	processes []*process // of sessions
	sessions  backend
	answers   []*answers
	requests  backend
	results   *results
	began     time.Time
}

// backend is where proxies lead; the address with TLS is for the measures without a proxy.
type backend struct{ plain, secure string }

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
	if b.needsCaddy() {
		if o.caddy, err = buildCaddy(ctx, o); err != nil {
			return b, err
		}
	}
	b.results = newResults(ctx, o)
	return b, errors.Join(b.startBackends(ctx), b.startAnswers())
}

// needsCaddy tells whether a Caddy has to be built.
func (b *bench) needsCaddy() bool {
	return b.o.caddy == "" && slices.ContainsFunc(b.o.measures(), func(m *measure) bool {
		return b.o.only.MatchString(m.name) &&
			slices.ContainsFunc(b.chosen(m), func(s *setting) bool { return s.proxy == "caddy" })
	})
}

// startAnswers runs the backends of plain requests.
func (b *bench) startAnswers() error {
	pair, err := cryptotls.LoadX509KeyPair(filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem"))
	if err != nil {
		return err
	}
	for _, config := range []*cryptotls.Config{nil, {Certificates: []cryptotls.Certificate{pair}}} {
		a, err := newAnswers(config)
		if err != nil {
			return err
		}
		b.answers = append(b.answers, a)
	}
	b.requests = backend{b.answers[0].addr(), b.answers[1].addr()}
	return nil
}

// startBackends runs the backends of sessions.
func (b *bench) startBackends(ctx context.Context) error {
	for _, secure := range []bool{false, true} {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		args := []string{b.o.tidegate, "bench", "serve", "--listen", addr, "--workers", "1"}
		b.sessions.plain = cmp.Or(b.sessions.plain, addr)
		if secure {
			b.sessions.secure = addr
			args = append(args, "--tls-cert", filepath.Join(b.dir, "cert.pem"), "--tls-key", filepath.Join(b.dir, "key.pem"))
		}
		p, err := start("backend", b.o.loadCore, args...)
		if err != nil {
			return err
		}
		b.processes = append(b.processes, p)
		if err := p.ready(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close() {
	for _, p := range b.processes {
		p.stop()
	}
	for _, a := range b.answers {
		a.close()
	}
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// all runs the measures under load in rounds, then plain requests in rounds, then the
// measures of idle sessions.
func (b *bench) all(ctx context.Context) error {
	var loaded, plain, resting []*measure
	for _, m := range b.o.measures() {
		switch {
		case !b.o.only.MatchString(m.name):
		case m.requests != nil:
			plain = append(plain, m)
		case m.memory != nil:
			resting = append(resting, m)
		default:
			loaded = append(loaded, m)
		}
	}
	if len(loaded)+len(plain)+len(resting) == 0 {
		return &usageError{fmt.Errorf("-only %s: no measure has such a name (see -only list)", b.o.only)}
	}
	if err := b.rounds(ctx, loaded, b.sessions); err != nil {
		return err
	}
	if err := b.rounds(ctx, plain, b.requests); err != nil {
		return err
	}
	return b.idleRounds(ctx, resting)
}

// idleRounds measures idle sessions. The first that a system ever holds cost it more than
// those that follow: they go with no proxy, and are not measured.
func (b *bench) idleRounds(ctx context.Context, some []*measure) error {
	if len(some) > 0 && !b.o.quick {
		if err := b.unmeasured(ctx); err != nil {
			return err
		}
	}
	for round := range b.o.idleRounds {
		for _, m := range some {
			chosen := slices.DeleteFunc(b.chosen(m), func(s *setting) bool { return s.proxy == "direct" }) // no process
			for i := range chosen {
				if err := b.rest(ctx, m, chosen[(i+round)%len(chosen)], round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// chosen are the settings to try with a measure; a quick run tries no variants.
func (b *bench) chosen(m *measure) (some []*setting) {
	for _, s := range b.o.settings() {
		if b.o.proxies.MatchString(s.proxy) && (s.where == nil || s.where(m)) && !(b.o.quick && s.where != nil && s.variant()) {
			some = append(some, s)
		}
	}
	return some
}

// rounds keeps all proxies of a backend running; the ones that are not measured idle.
func (b *bench) rounds(ctx context.Context, some []*measure, to backend) error {
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
			p, err := b.startProxy(ctx, s, to)
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
	runtime.GC() // not in the middle
	debug.FreeOSMemory()
	began, err := p.cpuTime() // before the run
	if err != nil {
		return err
	}
	before := readCores()
	s := &sample{Measure: m.name, Proxy: p.proxy, Setting: p.name, Round: round, Values: map[string]float64{}}
	if m.requests != nil {
		err = b.plainRequests(ctx, m, p, s)
	} else {
		err = b.messages(ctx, m, p, s)
	}
	if err != nil {
		if p.process != nil && p.stderr.String() != "" {
			err = fmt.Errorf("%w (it says: %s)", err, p.stderr.String())
		}
		return fmt.Errorf("%s through %s: %w", m.name, p.name, err)
	}
	if p.process != nil {
		ended, err := p.cpuTime()
		if err != nil {
			return err
		}
		s.Values[valueOthers] = before.othersOf(readCores(), b.o.proxyCore, (ended - began).Seconds())
	}
	b.keep(s)
	return nil
}

// messages is one run of sessions under load.
func (b *bench) messages(ctx context.Context, m *measure, p *proxy, s *sample) error {
	o := m.load
	o.URL, o.TLS = p.url(m.secure), b.tls()
	o.Duration, o.Warmup = b.o.duration, b.o.warmup
	if p.process != nil {
		o.CPUOf = p.worker()
	}
	r, err := load.Run(ctx, o)
	if err != nil {
		return err
	}
	s.Problem = problem(m, r)
	s.Values[valueRate] = r.Messages.PerSecond
	switch m.kind {
	case perMessage:
		s.Values[valueP99] = r.Latency.P99 * 1e6
	case perConnection:
		s.Values[valueRate] = r.Handshakes.PerSecond
	case atFixedRate:
		s.Values[valueLate] = r.Schedule.Share
		s.Values[valueP50], s.Values[valueP99] = r.Latency.P50*1e6, r.Latency.P99*1e6
	}
	if r.CPU != nil {
		s.keepCPU(r.CPU)
	}
	return nil
}

// plainRequests is one run of plain HTTP requests.
func (b *bench) plainRequests(ctx context.Context, m *measure, p *proxy, s *sample) error {
	var config *cryptotls.Config
	if m.secure {
		config = b.tls()
	}
	r, err := m.requests.run(ctx, p.addr(m.secure), config, b.o, p.cpuTime)
	if err != nil {
		return err
	}
	s.Problem = r.problem(m)
	if r.answers > 0 {
		s.Values[valueRate] = r.perSecond
	}
	if p.process != nil {
		s.keepCPU(&load.CPU{Seconds: r.cpu.Seconds(), Messages: r.answers, PerMessage: r.cpu.Seconds() / float64(r.answers)})
	}
	return nil
}

// enoughCPU is the least CPU time that tells something, in seconds.
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

// lateShare is how many messages the generator itself may send late: where latency is
// measured, so few that they are not its 99th percentile.
var lateShare = map[kind]float64{perMessage: 0.05, perConnection: 0.05, atFixedRate: 0.005}

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
	if n := r.Messages.Unsent; n > 0 {
		say("%d of %d due never sent", n, r.Messages.Due)
	}
	if r.Schedule.Share > lateShare[m.kind] {
		say("%.1f%% sent late", 100*r.Schedule.Share)
	}
	if s := tlsProblem(m, r.TLS); s != "" {
		say("%s", s)
	}
	return strings.Join(all, "; ")
}

// tlsProblem says that another TLS was spoken than by the others.
func tlsProblem(m *measure, t *load.TLS) string {
	if m.secure && (t == nil || t.Version != "TLS 1.3" || t.CipherSuite != "TLS_AES_128_GCM_SHA256" || t.Curve != "X25519" || t.Resumed > 0) {
		return fmt.Sprintf("TLS is %+v", t)
	}
	return ""
}

// keep takes a sample and shows it.
func (b *bench) keep(s *sample) {
	b.results.Samples = append(b.results.Samples, s)
	fmt.Fprintf(os.Stderr, "%5.0fs  %-14s %-24s %s\n", time.Since(b.began).Seconds(), s.Measure, s.Setting, s)
}
