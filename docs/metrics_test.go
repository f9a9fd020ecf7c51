package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/metrics"
)

// nothing is a metrics.Source: what is described does not depend on it.
type nothing struct{}

func (nothing) Snapshot() metrics.Snapshot { return metrics.Snapshot{} }

var descForm = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

// exposed are the labels of all metrics by name.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() {
		metrics.NewCollector(nothing{}).Describe(descs)
		close(descs)
	}()
	all := map[string][]string{}
	for d := range descs {
		m := descForm.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("cannot read %s", d)
		}
		var labels []string
		if m[2] != "" {
			labels = strings.Split(m[2], ",")
		}
		all[m[1]] = labels
	}
	if len(all) < 10 {
		t.Fatalf("found %d metrics only", len(all))
	}
	return all
}

// TestMetricsTable holds the table of observability.md against the collector.
func TestMetricsTable(t *testing.T) {
	missing := exposed(t)
	for _, row := range read(t, "docs/observability.md").rows() {
		if !strings.HasPrefix(row[0], "tidegate_") {
			continue
		}
		want, ok := missing[row[0]]
		if !ok {
			t.Errorf("%s stands there twice or does not exist", row[0])
			continue
		}
		delete(missing, row[0])
		var labels []string
		for label := range strings.SplitSeq(row[2], ", ") {
			if name, ok := code(label); ok {
				labels = append(labels, name)
			}
		}
		if !slices.Equal(labels, want) {
			t.Errorf("%s has labels %q, the page says %q", row[0], want, labels)
		}
	}
	for name := range missing {
		t.Errorf("%s is not in the table", name)
	}
}

var metricName = regexp.MustCompile(`\btidegate_[a-z_]+`)

// TestMetricsInText holds every name that any page mentions against the collector.
func TestMetricsInText(t *testing.T) {
	known := exposed(t)
	for _, p := range pages(t) {
		for _, name := range metricName.FindAllString(p.text, -1) {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if trimmed, ok := strings.CutSuffix(name, suffix); ok {
					base = trimmed
				}
			}
			if _, ok := known[base]; !ok {
				t.Errorf("%s: there is no metric %s", p.name, name)
			}
		}
	}
}
