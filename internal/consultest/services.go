package consultest

import (
	"testing"

	"github.com/hashicorp/consul/api"
)

// Service is an instance to register. Its check is passing at first and follows
// [Agent.SetCheck].
type Service struct {
	ID, Name string
	Address  string // "": the address of the node
	Port     int
	Tags     []string
	Meta     map[string]string
	// Passing and Warning are its weights in these states; both 0 leaves them to Consul,
	// which takes 1.
	Passing, Warning int
}

func checkID(service string) string { return "ttl:" + service }

// Register registers s, or replaces what is registered under its ID. The instance is
// deregistered when the test ends, if the agent is up then.
func (a *Agent) Register(t testing.TB, s Service) {
	t.Helper()
	a.mu.Lock()
	_, known := a.services[s.ID]
	a.services[s.ID] = s
	a.mu.Unlock()
	registration := &api.AgentServiceRegistration{
		ID: s.ID, Name: s.Name, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta,
	}
	if !known {
		// A check that is registered again starts anew: a weight changes without that.
		registration.Check = &api.AgentServiceCheck{CheckID: checkID(s.ID), TTL: "1h", Status: api.HealthPassing}
	}
	if s.Passing != 0 || s.Warning != 0 {
		registration.Weights = &api.AgentWeights{Passing: s.Passing, Warning: s.Warning}
	}
	must(t, a.client.Agent().ServiceRegister(registration))
	if !known {
		// Unlike its first status, one that was set survives a restart of the agent.
		a.SetCheck(t, s.ID, api.HealthPassing)
		t.Cleanup(func() {
			if _, still := a.service(s.ID); still && a.cmd != nil {
				// An agent that was restarted may have forgotten it.
				_ = a.client.Agent().ServiceDeregister(s.ID)
				a.forget(s.ID)
			}
		})
	}
}

// Deregister takes an instance out of the catalog.
func (a *Agent) Deregister(t testing.TB, id string) {
	t.Helper()
	a.forget(id)
	must(t, a.client.Agent().ServiceDeregister(id))
}

// SetWeight changes the weights of a registered instance. Consul refuses a passing
// weight below 1.
func (a *Agent) SetWeight(t testing.TB, id string, passing, warning int) {
	t.Helper()
	s, ok := a.service(id)
	if !ok {
		t.Fatalf("instance %q is not registered", id)
	}
	s.Passing, s.Warning = passing, warning
	a.Register(t, s)
}

// SetCheck sets the status of the instance's check: api.HealthPassing, HealthWarning
// or HealthCritical.
func (a *Agent) SetCheck(t testing.TB, id, status string) {
	t.Helper()
	must(t, a.client.Agent().UpdateTTL(checkID(id), "set by the test", status))
}

// Maintenance puts an instance into maintenance mode or takes it out.
func (a *Agent) Maintenance(t testing.TB, id string, on bool) {
	t.Helper()
	if on {
		must(t, a.client.Agent().EnableServiceMaintenance(id, "the test wants it"))
	} else {
		must(t, a.client.Agent().DisableServiceMaintenance(id))
	}
}

// NodeMaintenance puts the agent's node into maintenance mode or takes it out.
func (a *Agent) NodeMaintenance(t testing.TB, on bool) {
	t.Helper()
	if on {
		must(t, a.client.Agent().EnableNodeMaintenance("the test wants it"))
	} else {
		must(t, a.client.Agent().DisableNodeMaintenance())
	}
}

// JoinWAN makes a's datacenter know other's. Both agents need [Options.WAN].
func (a *Agent) JoinWAN(t testing.TB, other *Agent) {
	t.Helper()
	must(t, a.client.Agent().Join(other.wanAddress(), true))
}

func (a *Agent) service(id string) (Service, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.services[id]
	return s, ok
}

func (a *Agent) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.services, id)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
