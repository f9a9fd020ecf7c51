package config

import "testing"

func TestSuggest(t *testing.T) {
	policies := []string{"least_connections", "round_robin", "consistent_hash", "power_of_two_choices", "random"}
	keys := []string{"name", "address", "tls", "trusted_proxies", "tcp", "limits"}
	for _, tc := range []struct {
		got   string
		valid []string
		want  string
	}{
		{"p2x", policies, "power_of_two_choices"},
		{"p2c", policies, "power_of_two_choices"},
		{"leastconn", policies, "least_connections"},
		{"round-robin", policies, "round_robin"},
		{"RoundRobin", policies, "round_robin"},
		{"radnom", policies, "random"},
		{"consistent", policies, ""},
		{"ip_hash", policies, ""},
		{"adress", keys, "address"},
		{"adrdess", keys, "address"},
		{"tsl", keys, "tls"},
		{"tcpp", keys, "tcp"},
		{"x", keys, ""},
		{"", keys, ""},
		{"completely different", keys, ""},
		{"p2c", keys, ""}, // a nickname of something that does not belong here
		{string(make([]byte, 1<<20)), keys, ""},
	} {
		if got := suggest(tc.got, tc.valid); got != tc.want {
			t.Errorf("%.40q: %q, want %q", tc.got, got, tc.want)
		}
	}
}

// TestNicknames shows that each nickname means something.
func TestNicknames(t *testing.T) {
	known := map[string]bool{}
	for key := range places() {
		known[key] = true
	}
	for _, value := range []string{
		"least_connections", "round_robin", "consistent_hash", "power_of_two_choices",
		"warn", "console", "websocket", "preserve", "require", "optional",
	} {
		known[value] = true
	}
	for name, means := range nicknames {
		if !known[means] {
			t.Errorf("%s means %s, which does not exist", name, means)
		}
		if known[name] {
			t.Errorf("%s is a word of its own", name)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abc", 0},
		{"abc", "abd", 1},
		{"abc", "acb", 1},
		{"abc", "bc", 1},
		{"kitten", "sitting", 3},
		{"ca", "abc", 3}, // optimal string alignment; unrestricted it would be 2
	} {
		if got := editDistance(tc.a, tc.b); got != tc.want {
			t.Errorf("%q, %q: %d, want %d", tc.a, tc.b, got, tc.want)
		}
		if got := editDistance(tc.b, tc.a); got != tc.want {
			t.Errorf("%q, %q: %d, want %d", tc.b, tc.a, got, tc.want)
		}
	}
}
