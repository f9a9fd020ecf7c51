package consultest

import (
	"net"
	"strconv"
	"testing"

	"github.com/hashicorp/consul/api"
)

// NewToken makes a policy of the given name with rules in HCL, and a token that has
// it. The agent needs [Options.ACL].
func (a *Agent) NewToken(t testing.TB, name, rules string) string {
	t.Helper()
	_, _, err := a.client.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	must(t, err)
	token, _, err := a.client.ACL().TokenCreate(&api.ACLToken{
		Policies: []*api.ACLTokenPolicyLink{{Name: name}},
	}, nil)
	must(t, err)
	return token.SecretID
}

// SetPolicy replaces the rules of a policy that NewToken made.
func (a *Agent) SetPolicy(t testing.TB, name, rules string) {
	t.Helper()
	policy, _, err := a.client.ACL().PolicyReadByName(name, nil)
	must(t, err)
	policy.Rules = rules
	_, _, err = a.client.ACL().PolicyUpdate(policy, nil)
	must(t, err)
}

func (a *Agent) wanAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.ports.wan))
}
