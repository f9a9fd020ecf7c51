package deflate

import "encoding/binary"

const (
	windowBytes = 1 << maxWindowBits
	// freshBytes come out before the window is moved to the front of the buffer again.
	freshBytes = 16 << 10
	// maxMatchBytes is the longest match (RFC 1951 §3.2.5).
	maxMatchBytes = 258
	// maxBlocks are begun before a stream yields, however little they hold.
	maxBlocks = 64
)

// stream inflates one message. It stops wherever the caller wants, and never takes a byte
// for anything but what it is.
type stream struct {
	in  []byte
	pos int // the next byte to take
	// held are bits that were taken and not used, heldBits of them, the lowest first. Those
	// above are zero, or those of the bytes from pos on.
	held     uint64
	heldBits uint

	// out holds what has been inflated: up to read, what the caller has got; up to written,
	// what it has not. Matches reach back to start.
	out                  [windowBytes + freshBytes + maxMatchBytes]byte
	read, written, start int

	step      step
	final     bool
	left      int // bytes of a stored block
	literals  *literalTable
	distances *distanceTable

	ownLiterals  literalTable
	ownDistances distanceTable
	ownLengths   lengthTable
}

// step is what comes next in a message.
type step uint8

const (
	atBlock step = iota
	inStored
	inCodes
	atEnd
)

func (s *stream) begin(message []byte) {
	s.in, s.pos, s.held, s.heldBits = message, 0, 0, 0
	s.read, s.written, s.start = 0, 0, 0
	s.step = atBlock
}

// next is Inflater.Next.
func (s *stream) next(dst []byte) (n int, done bool, err error) {
	for blocks := 0; ; {
		if s.read < s.written {
			more := copy(dst[n:], s.out[s.read:s.written])
			s.read += more
			n += more
		}
		if s.read < s.written || s.step == atEnd {
			return n, s.read == s.written, nil
		}
		if n == len(dst) || blocks == maxBlocks {
			return n, false, nil
		}
		s.slide()
		limit := min(s.written+len(dst)-n, windowBytes+freshBytes)
		switch s.step {
		case atBlock:
			blocks++
			err = s.block()
		case inStored:
			s.stored(limit)
		case inCodes:
			err = s.codes(limit)
		}
		if err != nil {
			return n, false, err
		}
	}
}

// slide makes room behind what was written, all of which the caller has got.
func (s *stream) slide() {
	if s.written < windowBytes+freshBytes {
		return
	}
	by := s.written - windowBytes
	copy(s.out[:windowBytes], s.out[by:s.written])
	s.read, s.written, s.start = s.read-by, windowBytes, max(0, s.start-by)
}

// take takes n bits, at most 16.
func (s *stream) take(n uint) (v int, ok bool) {
	for s.heldBits < n {
		if s.pos == len(s.in) {
			return 0, false
		}
		s.held |= uint64(s.in[s.pos]) << s.heldBits
		s.heldBits += 8
		s.pos++
	}
	v = int(s.held & (1<<n - 1))
	s.held >>= n
	s.heldBits -= n
	return v, true
}

// align drops the rest of a byte and gives back the bytes behind it.
func (s *stream) align() {
	s.pos -= int(s.heldBits / 8)
	s.held, s.heldBits = 0, 0
}

// block reads the beginning of a block (RFC 1951 §3.2.3).
func (s *stream) block() error {
	head, ok := s.take(3)
	if !ok {
		return ErrTruncated
	}
	s.final = head&1 != 0
	switch head >> 1 {
	case 0:
		return s.storedLength()
	case 1:
		s.literals, s.distances = &fixedLiterals, &fixedDistances
	case 2:
		if err := s.tables(); err != nil {
			return err
		}
		s.literals, s.distances = &s.ownLiterals, &s.ownDistances
	default:
		return ErrCorrupt
	}
	s.step = inCodes
	return nil
}

// storedLength reads the length of a stored block (RFC 1951 §3.2.4). Where the message ends
// instead, the length is the tail, which its sender has left out: that of an empty block
// behind which nothing comes (RFC 7692 §7.2.2).
func (s *stream) storedLength() error {
	s.align()
	rest := s.in[s.pos:]
	switch {
	case len(rest) == 0:
		s.step = atEnd
		return nil
	case len(rest) < tailBytes:
		return ErrTruncated
	}
	length, complement := binary.LittleEndian.Uint16(rest), binary.LittleEndian.Uint16(rest[2:])
	if length != ^complement {
		return ErrCorrupt
	}
	s.pos += tailBytes
	if s.left = int(length); s.left > len(rest)-tailBytes {
		return ErrTruncated
	}
	s.step = inStored
	return nil
}

// stored takes the data of a stored block.
func (s *stream) stored(limit int) {
	n := copy(s.out[s.written:limit], s.in[s.pos:s.pos+s.left])
	s.pos += n
	s.written += n
	if s.left -= n; s.left == 0 {
		s.blockEnd()
	}
}

// blockEnd is the end of a block. Behind one with BFINAL set, another may begin at the next
// byte (RFC 7692 §7.2.1); it refers to nothing before it.
func (s *stream) blockEnd() {
	s.step = atBlock
	if !s.final {
		return
	}
	s.align()
	s.start = s.written
	if s.pos == len(s.in) {
		s.step = atEnd
	}
}

// lengthOrder is the order of the lengths of the code that code lengths are written in.
var lengthOrder = [maxLengths]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// tables reads the codes of a block (RFC 1951 §3.2.7).
func (s *stream) tables() error {
	head, ok := s.take(14)
	if !ok {
		return ErrTruncated
	}
	numLiterals, numDistances, numLengths := head&31+257, head>>5&31+1, head>>10+4
	if numLiterals > 286 || numDistances > 30 {
		return ErrCorrupt
	}
	var lengths [maxLiterals + maxDistances]uint8
	for _, i := range lengthOrder[:numLengths] {
		n, ok := s.take(3)
		if !ok {
			return ErrTruncated
		}
		lengths[i] = uint8(n)
	}
	if !build(s.ownLengths[:], lengthBits, lengths[:maxLengths], lengthEntries[:]) {
		return ErrCorrupt
	}
	if err := s.lengths(lengths[:numLiterals+numDistances]); err != nil {
		return err
	}
	if !build(s.ownLiterals[:], literalBits, lengths[:numLiterals], literalEntries[:]) ||
		!build(s.ownDistances[:], distanceBits, lengths[numLiterals:numLiterals+numDistances], distanceEntries[:]) {
		return ErrCorrupt
	}
	return nil
}

// lengths reads code lengths, which repeat.
func (s *stream) lengths(list []uint8) error {
	for i := 0; i < len(list); {
		s.fill()
		e := s.ownLengths[s.held&(1<<lengthBits-1)]
		if e == 0 || e.length() > s.heldBits {
			return s.noCode(lengthBits)
		}
		s.take(e.length())
		symbol, repeat, extra := e.value(), 1, uint(0)
		switch symbol {
		case 16:
			repeat, extra = 3, 2
		case 17:
			repeat, extra = 3, 3
		case 18:
			repeat, extra = 11, 7
		}
		more, ok := s.take(extra)
		if !ok {
			return ErrTruncated
		}
		if repeat += more; repeat > len(list)-i {
			return ErrCorrupt
		}
		value := uint8(0)
		switch {
		case symbol < 16:
			value = uint8(symbol)
		case symbol == 16 && i == 0:
			return ErrCorrupt
		case symbol == 16:
			value = list[i-1]
		}
		for range repeat {
			list[i] = value
			i++
		}
	}
	return nil
}

// noCode says why no code of up to n bits was found.
func (s *stream) noCode(n uint) error {
	if s.heldBits < n {
		return ErrTruncated
	}
	return ErrCorrupt
}

// fill takes bytes until 56 bits are held, if there are so many.
func (s *stream) fill() {
	if len(s.in)-s.pos >= 8 {
		s.held |= binary.LittleEndian.Uint64(s.in[s.pos:]) << s.heldBits
		s.pos += int(63-s.heldBits) >> 3
		s.heldBits |= 56
		return
	}
	for s.heldBits < 56 && s.pos < len(s.in) {
		s.held |= uint64(s.in[s.pos]) << s.heldBits
		s.heldBits += 8
		s.pos++
	}
}

// maxSymbolBits are the most that a length and its distance take.
const maxSymbolBits = maxCodeLength + 5 + maxCodeLength + 13

// codes reads literals and matches (RFC 1951 §3.2.5) until limit is reached or the block
// ends. A match may go beyond the limit.
func (s *stream) codes(limit int) error {
	held, heldBits, written := s.held, s.heldBits, s.written
	literals, distances, out := s.literals, s.distances, &s.out
	for written < limit {
		if heldBits < maxSymbolBits {
			s.held, s.heldBits = held, heldBits
			s.fill()
			held, heldBits = s.held, s.heldBits
		}
		e := literals[held&(1<<literalBits-1)]
		if e.kind() == link {
			e = literals[e.value()+int(held>>literalBits&(1<<e.extra()-1))]
		}
		if e == 0 || e.length() > heldBits {
			s.heldBits = heldBits
			return s.noCode(maxCodeLength)
		}
		held >>= e.length()
		heldBits -= e.length()
		if e.kind() == literal {
			out[written] = byte(e.value())
			written++
			continue
		}
		if e.kind() == end {
			s.held, s.heldBits, s.written = held, heldBits, written
			s.blockEnd()
			return nil
		}

		length := e.value() + int(held&(1<<e.extra()-1))
		used := e.extra()
		e = distances[held>>used&(1<<distanceBits-1)]
		if e.kind() == link {
			e = distances[e.value()+int(held>>(used+distanceBits)&(1<<e.extra()-1))]
		}
		if used += e.length() + e.extra(); e == 0 || used > heldBits {
			s.heldBits = heldBits - min(used, heldBits)
			return s.noCode(maxCodeLength)
		}
		distance := e.value() + int(held>>(used-e.extra())&(1<<e.extra()-1))
		held >>= used
		heldBits -= used
		if distance > written-s.start {
			return ErrCorrupt
		}
		// What a match copies may be what it has just written.
		from := written - distance
		for to := written + length; written < to; {
			written += copy(out[written:to], out[from:written])
		}
	}
	s.held, s.heldBits, s.written = held, heldBits, written
	return nil
}
