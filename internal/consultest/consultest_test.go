package consultest

import (
	"testing"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Main(m)) }

func TestVersionAtLeast(t *testing.T) {
	for output, want := range map[string]bool{
		"Consul v1.22.7\nBuild Date": true,
		"Consul v1.15.0":             true,
		"Consul v2.0.0-rc1":          true,
		"Consul v1.14.9":             false,
		"Consul v0.99.0":             false,
		"Consul":                     false,
		"something else v1.22.7":     false,
		"":                           false,
	} {
		if got := versionAtLeast(output, 1, 15); got != want {
			t.Errorf("versionAtLeast(%q) = %v, want %v", output, got, want)
		}
	}
}

// only returns the one instance of a service.
func only(t *testing.T, a *Agent, service string) *api.ServiceEntry {
	t.Helper()
	entries, _, err := a.Client().Health().Service(service, "", false, &api.QueryOptions{RequireConsistent: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Fatalf("%d instances of %s, want 1", len(entries), service)
	}
	return entries[0]
}

func TestHelpers(t *testing.T) {
	a := Shared(t)
	a.Register(t, Service{ID: "h1", Name: "helpers", Port: 80, Tags: []string{"x"}})
	steps := []struct {
		name   string
		do     func()
		status string
		weight int
	}{
		{"registered", func() {}, api.HealthPassing, 1},
		{"warning", func() { a.SetCheck(t, "h1", api.HealthWarning) }, api.HealthWarning, 1},
		{"weight keeps the check", func() { a.SetWeight(t, "h1", 7, 0) }, api.HealthWarning, 7},
		{"critical", func() { a.SetCheck(t, "h1", api.HealthCritical) }, api.HealthCritical, 7},
		{"maintenance", func() { a.Maintenance(t, "h1", true) }, api.HealthMaint, 7},
		{"and back", func() { a.Maintenance(t, "h1", false) }, api.HealthCritical, 7},
		{"node maintenance", func() { a.NodeMaintenance(t, true) }, api.HealthMaint, 7},
		{"and back again", func() { a.NodeMaintenance(t, false) }, api.HealthCritical, 7},
	}
	for _, step := range steps {
		step.do()
		e := only(t, a, "helpers")
		if got := e.Checks.AggregatedStatus(); got != step.status {
			t.Errorf("%s: status %q, want %q", step.name, got, step.status)
		}
		if e.Service.Weights.Passing != step.weight {
			t.Errorf("%s: weight %d, want %d", step.name, e.Service.Weights.Passing, step.weight)
		}
	}
}

func TestPersistentAgentComesBack(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{Persistent: true})
	a.Register(t, Service{ID: "p1", Name: "kept", Port: 80})
	only(t, a, "kept")
	a.Maintenance(t, "p1", true) // which is no reason not to be ready
	a.Stop(t)
	if _, err := a.Client().Status().Leader(); err == nil {
		t.Fatal("a stopped agent answers")
	}
	a.Start(t)
	only(t, a, "kept")
}

func TestACL(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{ACL: true})
	a.Register(t, Service{ID: "s1", Name: "guarded", Port: 80})
	only(t, a, "guarded")
	token := a.NewToken(t, "some", `key_prefix "" { policy = "read" }`)
	entries, meta, err := a.Client().Health().Service("guarded", "", false, &api.QueryOptions{Token: token})
	if err != nil || len(entries) != 0 || !meta.ResultsFilteredByACLs {
		t.Errorf("%d instances, filtered %v, %v; want a filtered answer", len(entries), meta.ResultsFilteredByACLs, err)
	}
}
