package relay

// Buffers are bytes for one side, in order, as segments. Segments alias what was fed,
// or memory of the Buffers themselves; they hold until the fed bytes are overwritten or
// Reset is called. The zero value is ready to use.
type Buffers struct {
	segs [][]byte
	own  []byte
}

// Segments returns the bytes to write. The caller must not keep them over a Reset.
func (b *Buffers) Segments() [][]byte { return b.segs }

// Len returns the number of bytes in all segments.
func (b *Buffers) Len() int {
	n := 0
	for _, s := range b.segs {
		n += len(s)
	}
	return n
}

// Reset empties b and keeps its memory.
func (b *Buffers) Reset() {
	clear(b.segs)
	b.segs, b.own = b.segs[:0], b.own[:0]
}

// add appends p without copying it. A p that begins where the last segment ends, in the
// same array, extends that segment: what was fed in one piece stays one piece.
func (b *Buffers) add(p []byte) {
	if len(p) == 0 {
		return
	}
	if n := len(b.segs); n > 0 {
		last := b.segs[n-1]
		if cap(last) > len(last) && &last[:len(last)+1][len(last)] == &p[0] {
			b.segs[n-1] = last[:len(last)+len(p)]
			return
		}
	}
	b.segs = append(b.segs, p)
}

// addCopy appends a copy of p, for bytes that do not outlive the call.
func (b *Buffers) addCopy(p []byte) { b.add(b.copy(p)) }

// copy returns a copy of p in memory of b, to be added.
func (b *Buffers) copy(p []byte) []byte {
	start := len(b.own)
	b.own = append(b.own, p...)
	return b.own[start:len(b.own):len(b.own)]
}
