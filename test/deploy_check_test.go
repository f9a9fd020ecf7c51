package test

import "testing"

// TestDeploysAreChecked: what the tests of deploys rely on, without an edge: a client notices
// what is doubled, out of order or altered, and notes what is missing.
func TestDeploysAreChecked(t *testing.T) {
	m := func(n uint64) string { return string(line("m", n)) }
	p := func(conn string, n uint64) string { return "p " + conn + " " + string(line("x", n))[2:] }
	for name, c := range map[string]struct {
		said    []string
		right   bool
		missing int
	}{
		"in order":              {[]string{m(1), p("a/1", 1), m(2), p("a/1", 2), p("b/1", 1), "done b/1 1"}, true, 0},
		"answer missing":        {[]string{m(1), m(3)}, true, 1},
		"answer twice":          {[]string{m(1), m(1)}, false, 0},
		"answer out of order":   {[]string{m(2), m(1)}, false, 1},
		"answer to nothing":     {[]string{m(10)}, false, 0},
		"altered":               {[]string{m(1)[:len(m(1))-1] + "?"}, false, 0},
		"push missing":          {[]string{p("a/1", 1), p("a/1", 3)}, false, 0},
		"first push missing":    {[]string{p("a/1", 1), p("b/1", 2)}, false, 0},
		"push twice":            {[]string{p("a/1", 1), p("a/1", 1)}, false, 0},
		"push of the last one":  {[]string{p("a/1", 1), p("b/1", 1), p("a/1", 2)}, false, 0},
		"push altered":          {[]string{p("a/1", 1) + "?"}, false, 0},
		"last push missing":     {[]string{p("a/1", 1), "done a/1 2"}, false, 0},
		"of another kind":       {[]string{"x" + m(1)}, false, 0},
		"nothing but the final": {[]string{"done a/1 0"}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			k := &deployClient{pushes: map[string]uint64{}, closed: true}
			k.sent.Store(9)
			for _, text := range c.said {
				k.take(text)
			}
			if (k.wrong == "") != c.right || len(k.missing) != c.missing {
				t.Errorf("noticed %q, misses %v", k.wrong, k.missing)
			}
		})
	}
}
