package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxTies bounds how many pairs are reported. A file in which so many routes tie has one
// mistake, such as a generator that leaves the match out.
const maxTies = 100

// validateTies reports pairs of routes that the same request can match while neither
// is more specific. The most specific one is found by host (exact, then the longest
// wildcard, then none), then by the length of the path, then by the number of header
// conditions, then by protocol (websocket or http before any). So a tie needs
//
//   - a host entry that both have, or no hosts in either,
//   - the same path,
//   - equally many header conditions, of which none asks for another value of the
//     same header than the other route does,
//   - the same protocol: websocket and http never match the same request, and either
//     is more specific than any.
func (v *validator) validateTies() {
	type place struct {
		host, path, protocol string
		conditions           int
	}
	at := map[place][]int{}
	reported := map[[2]int]bool{}
	for i := range v.file.Routes {
		if len(reported) >= maxTies {
			return
		}
		m := v.file.Routes[i].Match
		if !v.usable(join(element("routes", i), "match")) || v.isIncomplete(i) {
			continue
		}
		hosts := m.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, host := range hosts {
			p := place{host, m.Path, m.Protocol, len(m.Headers)}
			for _, j := range at[p] {
				pair := [2]int{j, i}
				if len(reported) < maxTies && !reported[pair] && !exclusive(v.file.Routes[j].Match.Headers, m.Headers) {
					reported[pair] = true
					v.reportTie(j, i, host)
				}
			}
			if !slices.Contains(at[p], i) {
				at[p] = append(at[p], i)
			}
		}
	}
}

// isIncomplete reports a route that is no mapping at all.
func (v *validator) isIncomplete(i int) bool {
	r := v.file.Routes[i]
	return r.Name == "" && r.Pool == ""
}

// exclusive reports whether no request fulfils both conditions.
func exclusive(a, b map[string]string) bool {
	for name, value := range a {
		if other, ok := b[name]; ok && other != value {
			return true
		}
	}
	return false
}

func (v *validator) reportTie(first, second int, host string) {
	a, b := v.file.Routes[first], v.file.Routes[second]
	what := "any host"
	if host != "" {
		what = "host " + host
	}
	what += ", path " + quote(b.Match.Path)
	if n := len(b.Match.Headers); n > 0 {
		what += fmt.Sprintf(", headers %s and %s", headerNames(a.Match.Headers), headerNames(b.Match.Headers))
	}
	if b.Match.Protocol != "any" {
		what += ", protocol " + b.Match.Protocol
	}
	v.add(join(element("routes", second), "match"),
		"route %s ties with route %s (%s at %s): %s; make one of them more specific",
		quote(b.Name), quote(a.Name), element("routes", first), v.at(element("routes", first)), what)
}

func headerNames(headers map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(headers)), "+")
}
