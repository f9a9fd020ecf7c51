package config

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

// request is what routes of TestTies are matched with.
type request struct {
	host      string
	path      string
	headers   map[string]string
	websocket bool
}

// specificity of a match for one request, by the rules of the contract; nil if it does
// not match. It is written from the side of requests, and shares nothing with ties.go.
func specificity(m Match, r request) []int {
	host := -1
	for _, entry := range m.Hosts {
		switch suffix, wildcard := strings.CutPrefix(entry, "*"); {
		case entry == r.host:
			host = 1000
		case wildcard && strings.HasSuffix(r.host, suffix):
			host = max(host, len(suffix))
		}
	}
	if len(m.Hosts) == 0 {
		host = 0
	}
	if host < 0 {
		return nil
	}
	if m.Path != "/" && r.path != m.Path && !strings.HasPrefix(r.path, m.Path+"/") {
		return nil
	}
	for name, value := range m.Headers {
		if r.headers[name] != value {
			return nil
		}
	}
	protocol := 1
	switch m.Protocol {
	case "any":
		protocol = 0
	case "websocket":
		if !r.websocket {
			return nil
		}
	case "http":
		if r.websocket {
			return nil
		}
	}
	return []int{host, len(m.Path), len(m.Headers), protocol}
}

// tiesFor reports whether some request is matched by both equally well.
func tiesFor(a, b Match, requests []request) bool {
	for _, r := range requests {
		sa, sb := specificity(a, r), specificity(b, r)
		if sa != nil && sb != nil && fmt.Sprint(sa) == fmt.Sprint(sb) {
			return true
		}
	}
	return false
}

var (
	someHosts   = []string{"a.x.org", "b.x.org", "*.x.org", "*.org", "*.a.x.org"}
	somePaths   = []string{"/", "/p", "/p/q", "/pq"}
	someHeaders = []map[string]string{
		nil, {"H": "1"}, {"H": "2"}, {"K": "1"}, {"H": "1", "K": "1"}, {"H": "1", "K": "2"}, {"H": "2", "K": "2"},
	}
	someProtocols = []string{"any", "websocket", "http"}
)

// someRequests has a request for every combination that can tell the matches apart.
func someRequests() []request {
	var all []request
	for _, host := range []string{"a.x.org", "b.x.org", "c.x.org", "c.a.x.org", "y.org", "z.com"} {
		for _, path := range []string{"/", "/p", "/p/q", "/p/q/r", "/pq", "/z"} {
			for _, h := range []string{"", "1", "2"} {
				for _, k := range []string{"", "1", "2"} {
					headers := map[string]string{"H": h, "K": k}
					all = append(all, request{host, path, headers, false}, request{host, path, headers, true})
				}
			}
		}
	}
	return all
}

func randomMatch(rnd *rand.Rand) Match {
	m := Match{
		Path:     somePaths[rnd.IntN(len(somePaths))],
		Headers:  maps.Clone(someHeaders[rnd.IntN(len(someHeaders))]),
		Protocol: someProtocols[rnd.IntN(len(someProtocols))],
	}
	for _, i := range rnd.Perm(len(someHosts))[:rnd.IntN(3)] {
		m.Hosts = append(m.Hosts, someHosts[i])
	}
	return m
}

// TestTies compares the rule with what it is for: some request to which two routes
// are equally good.
func TestTies(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	requests := someRequests()
	found := 0
	for range 3000 {
		a, b := randomMatch(rnd), randomMatch(rnd)
		// Most ties need much in common.
		if rnd.IntN(2) == 0 {
			b.Path = a.Path
		}
		if rnd.IntN(2) == 0 {
			b.Protocol = a.Protocol
		}
		if rnd.IntN(2) == 0 {
			b.Hosts = a.Hosts
		}
		v := &validator{report: newReport("x.yaml"), file: &File{Routes: []Route{
			{Name: "a", Pool: "p", Match: a}, {Name: "b", Pool: "p", Match: b},
		}}}
		v.validateTies()
		want := tiesFor(a, b, requests)
		if got := len(v.diags) == 1; got != want {
			t.Fatalf("tie of %+v and %+v: %v (%v), want %v", a, b, got, v.diags, want)
		}
		if want {
			found++
		}
	}
	if found < 50 {
		t.Errorf("only %d ties among the samples", found)
	}
}

// TestManyTies shows that a file full of them is reported in short time and space.
func TestManyTies(t *testing.T) {
	v := &validator{report: newReport("x.yaml"), file: &File{}}
	for i := range 5000 {
		v.file.Routes = append(v.file.Routes, Route{Name: fmt.Sprint(i), Pool: "p", Match: Match{Path: "/", Protocol: "any"}})
	}
	v.validateTies()
	if got := len(v.diags); got != maxTies {
		t.Errorf("%d messages, want %d", got, maxTies)
	}
}
