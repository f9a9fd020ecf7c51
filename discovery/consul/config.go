package consul

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Consistency says which server may answer, and how sure it must be of its answer.
// https://developer.hashicorp.com/consul/api-docs/features/consistency
type Consistency string

const (
	// Stale lets any server answer. It is the default ("" means the same): it survives
	// the loss of the leader and spreads the load.
	Stale Consistency = "stale"
	// Default lets the leader answer.
	Default Consistency = "default"
	// Consistent makes the leader ask a quorum first whether it still is the leader.
	Consistent Consistency = "consistent"
)

// maxWait is Consul's own limit for a blocking query.
const maxWait = 10 * time.Minute

// Config says which service to follow and how. Only Service has to be set.
type Config struct {
	// Address is http://, https:// or unix:// and where the agent listens; a plain
	// host:port is https if TLS is set and http otherwise. Empty: the environment's
	// CONSUL_HTTP_ADDR, else http://127.0.0.1:8500.
	Address string
	// Service is the name of the service.
	Service string
	// Datacenters in order of preference; see the package comment. Empty: the agent's own.
	Datacenters []string
	// Tags must all be there on an instance.
	Tags []string
	// Filter is a Consul filter expression over health entries, empty for none. A
	// mistake in it is Consul's to report: it looks like an error of every query.
	Filter string
	// PassingOnly says that instances with a warning take no new sessions.
	PassingOnly bool
	// Consistency of the queries; "" is Stale.
	Consistency Consistency
	// TokenFile holds the ACL token. It is read again every second, and a new token is
	// used at once. Empty: CONSUL_HTTP_TOKEN_FILE, else the token in CONSUL_HTTP_TOKEN.
	TokenFile string
	// TLS is for an https address.
	TLS TLS
	// Wait is how long a blocking query may block, from 1s to 10m; 0 means 5m.
	Wait time.Duration
	// Debounce gathers the changes of that time into one publish, counted from the
	// first of them, so that a steady stream of changes cannot postpone it. The first
	// set is published at once. 0 publishes every change.
	Debounce time.Duration
	// EmptyProtection doubts an answer that lost too much.
	EmptyProtection EmptyProtection
	// SnapshotFile keeps the last good set for a cold start without Consul. Empty:
	// none. Its directory must exist.
	SnapshotFile string
	// Logger gets a line when trouble begins and ends; nil logs nothing.
	Logger *zap.Logger
}

// TLS names PEM files.
type TLS struct {
	// CA verifies the agent's certificate; empty: the system's roots.
	CA string
	// Cert and Key are the edge's own certificate, both or neither. They are read for
	// each new connection, so that a renewed pair needs no restart.
	Cert, Key string
}

// EmptyProtection doubts an answer that lost many instances at once.
type EmptyProtection struct {
	// MaxLoss is the share of the instances, above 0 up to 1, whose loss at once is
	// doubted. 0 means 1: only an answer that lost all of them.
	MaxLoss float64
	// Hold is how long such an answer is doubted; 0 believes it at once.
	Hold time.Duration
}

// withDefaults returns c with every zero value that means something else replaced.
func (c Config) withDefaults() Config {
	if c.TokenFile == "" {
		c.TokenFile = os.Getenv("CONSUL_HTTP_TOKEN_FILE")
	}
	if c.Consistency == "" {
		c.Consistency = Stale
	}
	if c.Wait == 0 {
		c.Wait = 5 * time.Minute
	}
	if c.EmptyProtection.MaxLoss == 0 {
		c.EmptyProtection.MaxLoss = 1
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Datacenters = slices.Clone(c.Datacenters)
	c.Tags = slices.Clone(c.Tags)
	return c
}

// validate reports everything that is wrong with c. It is called after withDefaults.
func (c Config) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case c.Service == "":
		wrong("service: no name")
	case strings.ContainsAny(c.Service, "/?#") || strings.Trim(c.Service, ".") == "":
		wrong("service: %q is no service name", c.Service)
	}
	for i, dc := range c.Datacenters {
		if dc == "" {
			wrong("datacenters[%d]: no name", i)
		} else if slices.Contains(c.Datacenters[:i], dc) {
			wrong("datacenters[%d]: %q is there twice", i, dc)
		}
	}
	if !slices.Contains([]Consistency{Stale, Default, Consistent}, c.Consistency) {
		wrong("consistency: unknown value %q", c.Consistency)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		wrong("tls: cert and key belong together")
	}
	if c.Wait < time.Second || c.Wait > maxWait {
		wrong("wait: %v is not between 1s and %v", c.Wait, maxWait)
	}
	if c.Debounce < 0 {
		wrong("debounce: %v is negative", c.Debounce)
	}
	if p := c.EmptyProtection; !(p.MaxLoss > 0 && p.MaxLoss <= 1) {
		wrong("empty_protection.max_loss: %v is not a share from 0 to 1", p.MaxLoss)
	} else if p.Hold < 0 {
		wrong("empty_protection.hold: %v is negative", p.Hold)
	}
	if c.SnapshotFile != "" {
		if info, err := os.Stat(filepath.Dir(c.SnapshotFile)); err != nil {
			wrong("snapshot_file: %w", err)
		} else if !info.IsDir() {
			wrong("snapshot_file: %s is not a directory", filepath.Dir(c.SnapshotFile))
		}
	}
	return errors.Join(errs...)
}
