package loop

import "math/bits"

// pool keeps buffers of a loop for reuse, by powers of two. What is kept is bounded; the
// rest is the collector's.
type pool struct {
	free [classes][][]byte
	lent int // bytes of buffers that are in use
}

const (
	minClass = 10 // 1 KiB
	classes  = 11 // up to 1 MiB
	largest  = 1 << (minClass + classes - 1)
	// keepBytes bounds what is kept in each class.
	keepBytes = 1 << 20
)

func class(n int) int { return max(bits.Len(uint(max(n, 1)-1)), minClass) - minClass }

// get returns an empty buffer with room for n bytes.
func (p *pool) get(n int) []byte {
	k := class(n)
	if k >= classes {
		p.lent += n
		return make([]byte, 0, n)
	}
	p.lent += 1 << (k + minClass)
	if f := p.free[k]; len(f) > 0 {
		b := f[len(f)-1]
		f[len(f)-1] = nil
		p.free[k] = f[:len(f)-1]
		return b
	}
	return make([]byte, 0, 1<<(k+minClass))
}

// put takes a buffer back; nil is nothing.
func (p *pool) put(b []byte) {
	if b == nil {
		return
	}
	p.lent -= cap(b)
	k := class(cap(b))
	if k >= classes || cap(b) != 1<<(k+minClass) || len(p.free[k])*cap(b) >= keepBytes {
		return
	}
	p.free[k] = append(p.free[k], b[:0])
}
