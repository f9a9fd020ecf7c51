package health

import (
	"go.uber.org/zap"

	"github.com/tidegate/tidegate/balance"
)

// rounding is what a share of a whole number may be off by in floating point.
const rounding = 1e-9

// review has all of the pool used while too few of those that discovery and the operator
// offer are healthy. Newcomers that still wait for their first probe do not count and are
// not used: it takes no longer than the probe's timeout. The lock is held.
func (m *Monitor) review() {
	offered, healthy := 0, 0
	for _, x := range m.members {
		if !x.offered() || x.verdict.pending {
			continue
		}
		offered++
		if !x.verdict.failing && !x.record.outlier {
			healthy++
		}
	}
	panics := float64(healthy) < m.settings.Passive.PanicThreshold*float64(offered)-rounding
	for _, x := range m.members {
		x.backend.Live.Set(balance.Panicking, panics && !x.verdict.pending)
	}
	if panics == m.panic {
		return
	}
	m.panic = panics
	counts := []zap.Field{zap.Int("healthy", healthy), zap.Int("of", offered)}
	if panics {
		m.note(zap.WarnLevel, "too few backends are healthy, all of the pool are used", counts...)
	} else {
		m.note(zap.InfoLevel, "enough backends are healthy again", counts...)
	}
}
