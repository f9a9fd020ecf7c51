//go:build !race

// With the race detector a sync.Pool forgets at random, and what it forgets is allocated.

package deflate

import "testing"

func TestCompressorAllocations(t *testing.T) {
	dst, data := make([]byte, 0, 4096), quotes(4096)
	kinds(func(name string, _ uint8, c Compressor) {
		if n := testing.AllocsPerRun(20, func() {
			c.Finish(c.Write(dst, data))
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	})
}

func TestInflaterAllocations(t *testing.T) {
	dst := make([]byte, 4096)
	for name, message := range messages(t) {
		var i Inflater
		if n := testing.AllocsPerRun(100, func() {
			for i.Start(message); ; {
				if _, done, err := i.Next(dst); done || err != nil {
					return
				}
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
