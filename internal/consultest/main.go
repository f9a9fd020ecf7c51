package consultest

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// M is a *testing.M, or what goleak makes of it.
type M interface{ Run() int }

// Main wraps the tests of a package that use [Shared]: its Run stops the shared agent
// after them.
func Main(m M) M { return withShared{m} }

type withShared struct{ m M }

func (w withShared) Run() int {
	code := w.m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the shared consul agent:", err)
		code = max(code, 1)
	}
	return code
}

// shared is the agent of this process, once a test wanted it.
var shared sharedAgent

type sharedAgent struct {
	once  sync.Once
	agent *Agent
	err   error
}

func (s *sharedAgent) stop() error {
	if s.agent == nil {
		return nil
	}
	return s.agent.close()
}

// Shared returns the development agent that all tests of the process share; the first
// call starts it. The package's TestMain must run the tests through [Main].
func Shared(t testing.TB) *Agent {
	t.Helper()
	binary := Binary(t)
	shared.once.Do(func() {
		var dir string
		if dir, shared.err = os.MkdirTemp("", "consultest"); shared.err == nil {
			shared.agent, shared.err = launch(binary, dir, Options{})
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.agent
}
