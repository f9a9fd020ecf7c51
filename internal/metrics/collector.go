package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler answers scrapes with the metrics of src and of the process. A series that
// cannot be shown is left out and reported to failed, which may be nil; the rest of
// the scrape is served. Handler may be called more than once.
func Handler(src Source, failed func(error)) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		NewCollector(src),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	opts := promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}
	if failed != nil {
		opts.ErrorLog = errorLog(failed)
	}
	return promhttp.HandlerFor(registry, opts)
}

// errorLog adapts a function to promhttp.Logger, which passes an explanation and the
// error.
type errorLog func(error)

func (f errorLog) Println(args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			f(err)
		}
	}
}

// NewCollector returns the collector of the tidegate_* metrics of src.
func NewCollector(src Source) prometheus.Collector { return &collector{src} }

type collector struct{ src Source }

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.src.Snapshot()
	e := emitter{out}
	for _, live := range s.Sessions {
		e.gauge(sessionsActive, float64(live.Active), live.Listener, live.Route)
	}
	for i := range s.Routes {
		e.route(&s.Routes[i])
	}
	e.answers(&s.Unrouted, "")
	e.gauge(requestsInFlight, float64(s.Requests))
	e.gauge(bufferedBytes, float64(s.Buffered))
	e.counters(shedTotal, s.Shed)
	for i := range s.Pools {
		e.pool(&s.Pools[i])
	}
	e.gauge(configGeneration, float64(s.Config.Generation))
	e.counters(configReloadsTotal, s.Config.Reloads)
	e.gauge(configLastReloadSuccess, zeroOrOne(s.Config.LastReloadOK))
	for _, cert := range s.Certificates {
		e.gauge(certificateNotAfter, unixSeconds(cert.NotAfter), cert.Listener, cert.Name)
	}
}
