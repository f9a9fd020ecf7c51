package config

import (
	"slices"
	"strings"
)

// nicknames are what users of other proxies call things. They are suggested like a
// correct spelling, where the thing exists.
var nicknames = map[string]string{
	"servers":         "backends",
	"endpoints":       "backends",
	"targets":         "backends",
	"upstreams":       "pools",
	"clusters":        "pools",
	"services":        "pools",
	"frontends":       "listeners",
	"entrypoints":     "listeners",
	"logging":         "log",
	"listen":          "address",
	"bind":            "address",
	"certs":           "certificates",
	"sni":             "server_name",
	"insecure":        "skip_verify",
	"algorithm":       "policy",
	"lb_policy":       "policy",
	"p2c":             "power_of_two_choices",
	"rr":              "round_robin",
	"roundrobin":      "round_robin",
	"leastconn":       "least_connections",
	"least_conn":      "least_connections",
	"least_request":   "least_connections",
	"ring_hash":       "consistent_hash",
	"maglev":          "consistent_hash",
	"warning":         "warn",
	"text":            "console",
	"ws":              "websocket",
	"pass":            "preserve",
	"required":        "require",
	"must":            "require",
	"verify_if_given": "optional",
}

// suggest returns the valid word that was most likely meant by got, or "".
func suggest(got string, valid []string) string {
	const longest = 64 // no key or value is longer; keeps the cost of the search small
	if len(got) > longest {
		return ""
	}
	got = strings.ToLower(strings.ReplaceAll(got, "-", "_"))
	best, bestCost := "", 1+len(got)/3
	consider := func(word, means string) {
		if cost := editDistance(got, word); cost < bestCost {
			best, bestCost = means, cost
		}
	}
	for _, word := range valid {
		consider(word, word)
	}
	names := make([]string, 0, len(nicknames))
	for name, means := range nicknames {
		if slices.Contains(valid, means) {
			names = append(names, name)
		}
	}
	slices.Sort(names) // the same file always gets the same message
	for _, name := range names {
		consider(name, nicknames[name])
	}
	return best
}

// didYouMean is the end of a message about an unknown word: a suggestion, or else the
// choices if there are any.
func didYouMean(got string, valid, choices []string) string {
	if word := suggest(got, valid); word != "" {
		return ` (did you mean "` + word + `"?)`
	}
	if len(choices) > 0 {
		return " (" + oneOf(choices) + ")"
	}
	return ""
}

// oneOf lists choices in words.
func oneOf(choices []string) string {
	if len(choices) == 1 {
		return "only " + choices[0]
	}
	return "one of " + strings.Join(choices, ", ")
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment).
func editDistance(a, b string) int {
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
