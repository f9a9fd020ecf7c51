package consul

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/hashicorp/consul/api"

	"github.com/tidegate/tidegate/discovery"
)

// What a registration may put into memory, logs and labels. Consul bounds meta itself
// (64 pairs, keys of 128 and values of 512 bytes); tags it does not.
const (
	maxIDBytes        = 512
	maxTags           = 64
	maxTagBytes       = 256
	maxMetaPairs      = 64
	maxMetaKeyBytes   = 128
	maxMetaValueBytes = 512
	maxWeight         = 65535
)

var (
	errIncomplete = errors.New("it has no node, service or id")
	errBadID      = errors.New("its id is longer than 512 bytes or has control characters")
	errNoAddress  = errors.New("neither the service nor its node has a usable address")
	errNoPort     = errors.New("it has no port")
)

// mapEntries turns an answer into instances. Entries that cannot be one are passed to
// skip with their ID (as far as there is one) and left out.
func mapEntries(entries []*api.ServiceEntry, passingOnly bool, skip func(id string, why error)) []discovery.Instance {
	instances := make([]discovery.Instance, 0, len(entries))
	for _, entry := range entries {
		instance, err := mapEntry(entry, passingOnly)
		if err != nil {
			skip(instance.ID, err)
			continue
		}
		instances = append(instances, instance)
	}
	return instances
}

// mapEntry returns at least the ID together with an error, if there is one.
func mapEntry(entry *api.ServiceEntry, passingOnly bool) (discovery.Instance, error) {
	if entry == nil || entry.Node == nil || entry.Service == nil ||
		entry.Node.Node == "" || entry.Service.ID == "" {
		return discovery.Instance{}, errIncomplete
	}
	node, service := entry.Node, entry.Service
	id := node.Datacenter + "/" + node.Node + "/" + service.ID
	if !isID(id) {
		return discovery.Instance{ID: strings.ToValidUTF8(id[:min(len(id), 64)], "")}, errBadID
	}
	instance := discovery.Instance{ID: id, Node: node.Node, Datacenter: node.Datacenter}
	var err error
	if instance.Addr, err = address(node, service); err != nil {
		return instance, err
	}
	instance.Status, instance.Weight = state(entry.Checks, service.Weights, passingOnly)
	instance.Tags = boundTags(service.Tags)
	instance.Meta = boundMeta(service.Meta)
	return instance, nil
}

// address returns host:port: the service's address, else its node's. A service with
// several ports is reached on its default one.
func address(node *api.Node, service *api.AgentService) (string, error) {
	host := service.Address
	if host == "" {
		host = node.Address
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if !isHost(host) {
		return "", errNoAddress
	}
	port := service.DefaultPort()
	if port < 1 || port > 65535 {
		return "", errNoPort
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// isHost reports whether host may be an IP address (with zone) or a name. A name is
// resolved only when it is dialled; here it must just not be able to be anything else.
func isHost(host string) bool {
	if host == "" || len(host) > 255 {
		return false
	}
	if strings.Contains(host, ":") {
		address, zone, _ := strings.Cut(host, "%")
		return net.ParseIP(address) != nil && isName(zone)
	}
	return isName(host)
}

// isName reports whether s has only letters, digits and -._ of ASCII.
func isName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || !(unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-._", r))
	})
}

// isID reports whether id may go into logs, labels and tables as it is.
func isID(id string) bool {
	return id != "" && len(id) <= maxIDBytes && !strings.ContainsFunc(id, unicode.IsControl)
}

// state aggregates the checks of an instance: maintenance, then critical, then
// warning, then passing. A status that Consul does not have counts as critical.
func state(checks api.HealthChecks, weights api.AgentWeights, passingOnly bool) (discovery.Status, int) {
	var maintenance, critical, warning bool
	for _, check := range checks {
		switch {
		case check == nil:
		case check.CheckID == api.NodeMaint, strings.HasPrefix(check.CheckID, api.ServiceMaintPrefix):
			maintenance = true
		case check.Status == api.HealthPassing:
		case check.Status == api.HealthWarning:
			warning = true
		default:
			critical = true
		}
	}
	weight := weights.Passing
	if warning && !critical && !maintenance {
		weight = weights.Warning
	}
	if weights == (api.AgentWeights{}) {
		weight = 1 // Consul refuses Passing below 1: there are none
	}
	weight = min(max(weight, 0), maxWeight)
	switch {
	case maintenance:
		return discovery.Maintenance, weight
	case critical, warning && passingOnly:
		return discovery.Down, weight
	}
	return discovery.Up, weight
}

// boundTags drops tags that are too long rather than cut them, so that none turns into
// another one.
func boundTags(tags []string) []string {
	var kept []string
	for _, tag := range tags {
		if len(tag) <= maxTagBytes && len(kept) < maxTags {
			kept = append(kept, tag)
		}
	}
	return kept
}

// boundMeta drops pairs that are too long, and of too many those that sort last.
func boundMeta(meta map[string]string) map[string]string {
	var keys []string
	for key, value := range meta {
		if len(key) <= maxMetaKeyBytes && len(value) <= maxMetaValueBytes {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	kept := make(map[string]string, min(len(keys), maxMetaPairs))
	for _, key := range keys[:min(len(keys), maxMetaPairs)] {
		kept[key] = meta[key]
	}
	return kept
}
