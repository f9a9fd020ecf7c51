package load

// order follows the sequence numbers of one connection. It keeps only what is missing,
// so it costs nothing while all is well. The zero value expects 0 first.
type order struct {
	next      uint64
	missing   map[uint64]struct{}
	forgotten uint64 // missing beyond maxMissing: lost for good

	doubled, reordered uint64
}

// maxMissing bounds the memory of a connection; what comes in spite of being forgotten
// counts as doubled.
const maxMissing = 1 << 16

// see takes the number of a message that has come; first is whether it had not before.
func (o *order) see(n uint64) (first bool) {
	switch {
	case n == o.next:
		o.next++
		return true
	case n > o.next:
		o.skip(n)
		o.next = n + 1
		return true
	}
	if _, ok := o.missing[n]; ok {
		delete(o.missing, n)
		o.reordered++
		return true
	}
	o.doubled++
	return false
}

// skip marks everything before n as missing.
func (o *order) skip(n uint64) {
	if o.missing == nil {
		o.missing = map[uint64]struct{}{}
	}
	for ; o.next < n; o.next++ {
		if len(o.missing) == maxMissing {
			o.forgotten += n - o.next
			return
		}
		o.missing[o.next] = struct{}{}
	}
}

// lost is how many of the first sent messages have not come.
func (o *order) lost(sent uint64) uint64 {
	lost := uint64(len(o.missing)) + o.forgotten
	if sent > o.next {
		lost += sent - o.next
	}
	return lost
}
