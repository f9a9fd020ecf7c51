package consul

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/tidegate/tidegate/discovery"
)

// checkInstances fails if an instance breaks what the rest of the edge relies on.
func checkInstances(t *testing.T, set []discovery.Instance) {
	t.Helper()
	for _, i := range set {
		host, port, err := net.SplitHostPort(i.Addr)
		if err != nil || host == "" {
			t.Fatalf("address %q: %v", i.Addr, err)
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			t.Fatalf("port %q", port)
		}
		if i.ID == "" || len(i.ID) > maxIDBytes || !utf8.ValidString(i.ID) {
			t.Fatalf("id %q", i.ID)
		}
		if i.Weight < 0 || i.Weight > maxWeight || len(i.Tags) > maxTags || len(i.Meta) > maxMetaPairs {
			t.Fatalf("out of bounds: %+v", i)
		}
	}
}

func TestMapAddress(t *testing.T) {
	for _, tt := range []struct {
		name, service, node string
		port                int
		ports               api.ServicePorts
		want                string
		err                 error
	}{
		{"service", "10.0.0.2", "10.0.0.1", 80, nil, "10.0.0.2:80", nil},
		{"node", "", "10.0.0.1", 80, nil, "10.0.0.1:80", nil},
		{"name", "web.example.com", "", 65535, nil, "web.example.com:65535", nil},
		{"underscore", "web_1", "", 1, nil, "web_1:1", nil},
		{"IPv6", "2001:db8::1", "", 80, nil, "[2001:db8::1]:80", nil},
		{"IPv6 of the node", "", "::1", 80, nil, "[::1]:80", nil},
		{"IPv6 in brackets", "[2001:db8::1]", "", 80, nil, "[2001:db8::1]:80", nil},
		{"IPv6 zone", "fe80::1%eth0", "", 80, nil, "[fe80::1%eth0]:80", nil},
		{"default of several ports", "10.0.0.2", "", 0, api.ServicePorts{{Name: "a", Port: 81}, {Name: "b", Port: 82, Default: true}}, "10.0.0.2:82", nil},
		{"no address", "", "", 80, nil, "", errNoAddress},
		{"port in the address", "10.0.0.2:80", "", 80, nil, "", errNoAddress},
		{"URL", "http://10.0.0.2/", "", 80, nil, "", errNoAddress},
		{"line break", "web\r\nX: y", "", 80, nil, "", errNoAddress},
		{"zone that is none", "fe80::1%/x", "", 80, nil, "", errNoAddress},
		{"long", strings.Repeat("a", 256), "", 80, nil, "", errNoAddress},
		{"no port", "10.0.0.2", "", 0, nil, "", errNoPort},
		{"negative port", "10.0.0.2", "", -1, nil, "", errNoPort},
		{"port too high", "10.0.0.2", "", 65536, nil, "", errNoPort},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mapEntry(entry("a", func(e *api.ServiceEntry) {
				e.Service.Address, e.Node.Address = tt.service, tt.node
				e.Service.Port, e.Service.Ports = tt.port, tt.ports
			}), false)
			if got.Addr != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v; want %q, %v", got.Addr, err, tt.want, tt.err)
			}
			if got.ID != "dc1/n/a" {
				t.Errorf("id %q", got.ID)
			}
		})
	}
}

func TestMapState(t *testing.T) {
	check := func(id, status string) *api.HealthCheck { return &api.HealthCheck{CheckID: id, Status: status} }
	serf := check("serfHealth", api.HealthPassing)
	three := api.AgentWeights{Passing: 10, Warning: 3}
	for _, tt := range []struct {
		name    string
		checks  api.HealthChecks
		weights api.AgentWeights
		only    bool
		status  discovery.Status
		weight  int
	}{
		{"no checks", nil, three, true, discovery.Up, 10},
		{"passing", api.HealthChecks{serf, check("a", api.HealthPassing)}, three, true, discovery.Up, 10},
		{"warning", api.HealthChecks{serf, check("a", api.HealthWarning)}, three, false, discovery.Up, 3},
		{"warning, passing only", api.HealthChecks{serf, check("a", api.HealthWarning)}, three, true, discovery.Down, 3},
		{"warning weighs 0", api.HealthChecks{check("a", api.HealthWarning)}, api.AgentWeights{Passing: 10}, false, discovery.Up, 0},
		{"critical", api.HealthChecks{serf, check("a", api.HealthCritical), check("b", api.HealthWarning)}, three, false, discovery.Down, 10},
		{"dead node", api.HealthChecks{check("serfHealth", api.HealthCritical), check("a", api.HealthPassing)}, three, false, discovery.Down, 10},
		{"unknown status", api.HealthChecks{serf, check("a", "confused")}, three, false, discovery.Down, 10},
		{"nil check", api.HealthChecks{nil, serf}, three, false, discovery.Up, 10},
		{"service maintenance", api.HealthChecks{serf, check("_service_maintenance:a", api.HealthCritical)}, three, false, discovery.Maintenance, 10},
		{"node maintenance", api.HealthChecks{check("_node_maintenance", api.HealthCritical), serf}, three, true, discovery.Maintenance, 10},
		{"maintenance beats critical", api.HealthChecks{check("serfHealth", api.HealthCritical), check("_node_maintenance", api.HealthCritical)}, three, true, discovery.Maintenance, 10},
		{"no weights", nil, api.AgentWeights{}, false, discovery.Up, 1},
		{"no weights, warning", api.HealthChecks{check("a", api.HealthWarning)}, api.AgentWeights{}, false, discovery.Up, 1},
		{"weight 0", nil, api.AgentWeights{Warning: 1}, false, discovery.Up, 0},
		{"negative", nil, api.AgentWeights{Passing: -5}, false, discovery.Up, 0},
		{"huge", nil, api.AgentWeights{Passing: 1 << 30}, false, discovery.Up, maxWeight},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, weight := state(tt.checks, tt.weights, tt.only)
			if status != tt.status || weight != tt.weight {
				t.Errorf("%v, weight %d; want %v, %d", status, weight, tt.status, tt.weight)
			}
		})
	}
}

func TestMapIdentity(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*api.ServiceEntry)
		want   string
		err    error
	}{
		{"plain", func(*api.ServiceEntry) {}, "dc1/n/a", nil},
		{"no node name", func(e *api.ServiceEntry) { e.Node.Node = "" }, "", errIncomplete},
		{"no node", func(e *api.ServiceEntry) { e.Node = nil }, "", errIncomplete},
		{"no service", func(e *api.ServiceEntry) { e.Service = nil }, "", errIncomplete},
		{"no id", func(e *api.ServiceEntry) { e.Service.ID = "" }, "", errIncomplete},
		{"escape sequence", func(e *api.ServiceEntry) { e.Service.ID = "a\x1b[2J" }, "dc1/n/a\x1b[2J", errBadID},
		{"long", func(e *api.ServiceEntry) { e.Service.ID = strings.Repeat("é", 300) }, "dc1/n/" + strings.Repeat("é", 29), errBadID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mapEntry(entry("a", tt.change), false)
			if got.ID != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v; want %q, %v", got.ID, err, tt.want, tt.err)
			}
		})
	}
	if _, err := mapEntry(nil, false); !errors.Is(err, errIncomplete) {
		t.Errorf("nil entry: %v", err)
	}
}

func TestTagsAndMetaAreBounded(t *testing.T) {
	got, err := mapEntry(entry("a", func(e *api.ServiceEntry) {
		e.Service.Tags = []string{"keep", strings.Repeat("x", maxTagBytes+1)}
		e.Service.Meta = map[string]string{"k": strings.Repeat("x", maxMetaValueBytes+1), strings.Repeat("k", maxMetaKeyBytes+1): "v"}
		for i := range 100 {
			e.Service.Tags = append(e.Service.Tags, fmt.Sprint("t", i))
			e.Service.Meta[fmt.Sprintf("m%02d", i)] = "v"
		}
	}), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tags) != maxTags || got.Tags[0] != "keep" || got.Tags[1] != "t0" {
		t.Errorf("%d tags: %v", len(got.Tags), got.Tags)
	}
	if len(got.Meta) != maxMetaPairs || got.Meta["m00"] != "v" || got.Meta["m63"] != "v" {
		t.Errorf("%d pairs: %v", len(got.Meta), got.Meta)
	}
}
