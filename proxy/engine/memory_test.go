package engine

import "testing"

// TestMemoryTells: whoever makes the sum more than the limit says so, by bytes or by a
// limit.
func TestMemoryTells(t *testing.T) {
	var m Memory
	told := 0
	m.OnOver(func() { told++ })
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"bytes without a limit", func() { m.Add(100) }, 0},
		{"a limit that is not reached", func() { m.SetLimit(100) }, 0},
		{"bytes over the limit", func() { m.Add(1) }, 1},
		{"fewer bytes", func() { m.Add(-50) }, 1},
		{"a higher limit", func() { m.SetLimit(200) }, 1},
		{"a limit below the sum", func() { m.SetLimit(50) }, 2},
		{"no limit", func() { m.SetLimit(0) }, 2},
	} {
		if step.do(); told != step.want {
			t.Errorf("after %s: told %d times, want %d", step.what, told, step.want)
		}
	}
}
