package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/balance"
)

// reportHeader returns the header in which backends report their load; nil if nobody wants to
// know.
func (v *poolView) reportHeader() *string {
	if v.Balance.Policy != leastLoad || v.LoadHeader == "" {
		return nil
	}
	name := http.CanonicalHeaderKey(v.LoadHeader)
	return &name
}

// report takes note of the load that a backend reports in the headers of an answer, if it does
// and if the pool's policy goes by it. It may be called from anywhere, also for answers to
// probes. Nothing is counted or logged of what is no load: the backend may say what it likes.
func (p *pool) report(live *balance.Live, header http.Header) {
	name := p.reports.Load()
	if name == nil {
		return
	}
	if values := header[*name]; len(values) == 1 {
		if load, ok := balance.ParseLoad(values[0]); ok {
			live.Report(load)
		}
	}
}

// ageReports has reports forgotten that are a minute old, until ctx is done.
func (p *pool) ageReports(ctx context.Context) {
	tick := time.NewTicker(reportPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, b := range p.registry.Backends() {
				b.Live.AgeReport()
			}
		}
	}
}
