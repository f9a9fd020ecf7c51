// Package consultest runs a real Consul agent for the tests of other packages.
//
// It owns the agent's process, its directory and its ports: every agent that a test
// starts is killed by its process id when the test ends, and on Linux when the test
// process dies. Nothing is shared between agents, so tests may run in parallel, in one
// process and in several.
//
//	func TestMain(m *testing.M) { os.Exit(consultest.Main(m).Run()) } // only for Shared
//
//	agent := consultest.Shared(t)            // or Start(t, consultest.Options{…})
//	agent.Register(t, consultest.Service{ID: "web1", Name: "web", Port: 8080})
//	agent.Maintenance(t, "web1", true)
//
// A shared agent is one per test process and the fast choice; its users take service
// names of their own. Tests that stop the agent, need ACLs or put the node into
// maintenance start their own.
//
// Where there is no agent to be found a test is skipped with the command that builds
// one, and fails if CI is set.
package consultest
