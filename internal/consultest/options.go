package consultest

import (
	"encoding/json"
	"maps"
)

// Options choose what kind of agent starts. The zero value is a development agent: up
// in half a second, all in memory, no ACLs.
type Options struct {
	// Persistent keeps the catalog on disk, so that it is there again after
	// [Agent.Stop] and [Agent.Start]. Such an agent needs some seconds to elect itself.
	Persistent bool
	// ACL switches ACLs on, with everything denied by default. [Agent.Client] uses the
	// management token.
	ACL bool
	// Datacenter is its name; "" is dc1.
	Datacenter string
	// WAN opens the port on which datacenters are joined; see [Agent.JoinWAN].
	WAN bool
	// TLS serves HTTPS besides HTTP; nil does not.
	TLS *TLS
	// Config is added to the agent's configuration, key by key.
	Config map[string]any
}

// TLS names PEM files.
type TLS struct {
	CA, Cert, Key string
	// VerifyIncoming asks clients for a certificate of CA.
	VerifyIncoming bool
}

// ports of an agent; -1 is off.
type ports struct{ http, https, serf, wan, server int }

func (o Options) newPorts() (ports, error) {
	free, err := freePorts(5)
	if err != nil {
		return ports{}, err
	}
	p := ports{free[0], -1, free[1], -1, free[2]}
	if o.TLS != nil {
		p.https = free[3]
	}
	if o.WAN {
		p.wan = free[4]
	}
	return p, nil
}

// file returns the configuration of the agent as JSON.
func (o Options) file(p ports, node, data, token string) ([]byte, error) {
	datacenter := o.Datacenter
	if datacenter == "" {
		datacenter = "dc1"
	}
	c := map[string]any{
		"server":     true,
		"node_name":  node,
		"datacenter": datacenter,
		"bind_addr":  "127.0.0.1", "client_addr": "127.0.0.1",
		"ports": map[string]int{
			"http": p.http, "https": p.https, "serf_lan": p.serf, "serf_wan": p.wan, "server": p.server,
			"dns": -1, "grpc": -1, "grpc_tls": -1,
		},
		"connect":              map[string]bool{"enabled": false},
		"peering":              map[string]bool{"enabled": false},
		"performance":          map[string]int{"raft_multiplier": 1},
		"limits":               map[string]int{"http_max_conns_per_client": 10000},
		"disable_update_check": true,
		"leave_on_terminate":   false,
		"log_level":            "INFO",
	}
	if o.Persistent {
		c["bootstrap"], c["data_dir"] = true, data
	}
	if o.ACL {
		c["primary_datacenter"] = datacenter
		c["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"initial_management": token, "agent": token},
		}
	}
	if o.TLS != nil {
		c["tls"] = map[string]any{"https": map[string]any{
			"ca_file": o.TLS.CA, "cert_file": o.TLS.Cert, "key_file": o.TLS.Key,
			"verify_incoming": o.TLS.VerifyIncoming,
		}}
	}
	maps.Copy(c, o.Config)
	return json.MarshalIndent(c, "", " ")
}
