package deflate

import "math/bits"

// entry is what a decoding table says of the bits that come next. From the lowest bit on:
// 4 bits of length of the code, 4 bits of how many extra bits follow it, 8 bits of kind, 16
// bits of value. The zero entry is no code at all.
type entry uint32

// The kinds of entries.
const (
	literal entry = (iota + 1) << 8 // value: the byte
	match                           // value: the shortest length or distance
	end                             // of the block
	link                            // value: where the longer codes begin; extra: the width of that table
)

func (e entry) length() uint { return uint(e & 15) }
func (e entry) extra() uint  { return uint(e >> 4 & 15) }
func (e entry) kind() entry  { return e & 0xff00 }
func (e entry) value() int   { return int(e >> 16) }

// newEntry is an entry without the length of its code.
func newEntry(kind entry, value, extra int) entry {
	return kind | entry(value)<<16 | entry(extra)<<4
}

const (
	maxCodeLength = 15
	maxLiterals   = 288 // 286 and 287 have fixed codes but no meaning (RFC 1951 §3.2.6)
	maxDistances  = 32  // so have 30 and 31
	maxLengths    = 19  // of the code that code lengths are written in
)

// The width of the first table of each code: that many bits are looked up at once.
const (
	literalBits  = 10
	distanceBits = 8
	lengthBits   = 7 // as long as these codes get
)

// A code that is longer goes on in a second table, as wide as the longest code with the
// same beginning. With n of its codes in it, such a table has at most 1<<(n-1) entries,
// because a Huffman code leaves no gaps: for literals 32 entries for at least 6 codes, for
// distances 128 for at least 8. That bounds the room for all of them.
type (
	literalTable  [1<<literalBits + maxLiterals*32/6]entry
	distanceTable [1<<distanceBits + maxDistances*128/8]entry
	lengthTable   [1 << lengthBits]entry
)

// What the symbols mean (RFC 1951 §3.2.5).
var (
	literalEntries  [maxLiterals]entry
	distanceEntries [maxDistances]entry
	lengthEntries   [maxLengths]entry
)

// The tables of the fixed codes (RFC 1951 §3.2.6).
var (
	fixedLiterals  literalTable
	fixedDistances distanceTable
)

func init() {
	for i := range 256 {
		literalEntries[i] = newEntry(literal, i, 0)
	}
	literalEntries[256] = newEntry(end, 0, 0)
	for i, base := 0, 3; i < 28; i++ {
		extra := max(0, i/4-1)
		literalEntries[257+i] = newEntry(match, base, extra)
		base += 1 << extra
	}
	literalEntries[285] = newEntry(match, 258, 0)
	for i, base := 0, 1; i < 30; i++ {
		extra := max(0, i/2-1)
		distanceEntries[i] = newEntry(match, base, extra)
		base += 1 << extra
	}
	for i := range lengthEntries {
		lengthEntries[i] = newEntry(literal, i, 0)
	}

	var lengths [maxLiterals]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	build(fixedLiterals[:], literalBits, lengths[:], literalEntries[:])
	for i := range maxDistances {
		lengths[i] = 5
	}
	build(fixedDistances[:], distanceBits, lengths[:maxDistances], distanceEntries[:])
}

// build makes the table of the Huffman code whose lengths are given (RFC 1951 §3.2.2), its
// first part width bits wide. Nothing of what the table held before is left in it where a
// code could find it. It reports false for lengths that are those of no code. Two
// incomplete codes are allowed, as everywhere: none at all, and a single one of one bit.
func build(table []entry, width uint, lengths []uint8, meanings []entry) bool {
	var count [maxCodeLength + 1]int
	used := 0
	for _, n := range lengths {
		count[n]++
		if n > 0 {
			used++
		}
	}
	count[0] = 0
	var next [maxCodeLength + 1]uint16
	code := 0
	for n := 1; n <= maxCodeLength; n++ {
		code = (code + count[n-1]) << 1
		next[n] = uint16(code)
		if code+count[n] > 1<<n {
			return false
		}
	}
	complete := code+count[maxCodeLength] == 1<<maxCodeLength
	if !complete && used > 0 && (used > 1 || count[1] != 1) {
		return false
	}

	clear(table[:1<<width])
	var codes [maxLiterals]uint16 // as they come, the first bit lowest
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		codes[symbol] = bits.Reverse16(next[n]) >> (16 - n)
		next[n]++
		if uint(n) > width {
			// The width of the second table, for now.
			first := &table[codes[symbol]&(1<<width-1)]
			*first = max(*first, entry(uint(n)-width))
		}
	}
	room := 1 << width
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		e := meanings[symbol]
		if e != 0 {
			e |= entry(n)
		}
		part, at, step := table[:1<<width], uint(codes[symbol]), uint(1)<<n
		if uint(n) > width {
			first := &table[at&(1<<width-1)]
			if first.kind() == 0 {
				more := int(*first)
				*first = newEntry(link, room, more) | entry(width)
				room += 1 << more
			}
			part = table[first.value() : first.value()+1<<first.extra()]
			at, step = at>>width, step>>width
		}
		for ; at < uint(len(part)); at += step {
			part[at] = e
		}
	}
	return true
}
