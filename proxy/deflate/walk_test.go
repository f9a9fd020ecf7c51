package deflate

// walk inflates a message bit by bit, slowly, by RFC 1951 and RFC 7692 §7.2.2, as an
// opinion that owes nothing to the flate packages. It returns the bytes, and the longest
// distance that a match reaches back. The error is ErrCorrupt or ErrTruncated.
func walk(message []byte) (out []byte, farthest int, err error) {
	w := &walker{in: append(message[:len(message):len(message)], tail...), size: len(message)}
	defer func() {
		switch r := recover(); {
		case r == nil:
		case r == error(ErrCorrupt), r == error(ErrTruncated):
			err = r.(error)
		default:
			panic(r)
		}
	}()
	for !w.done {
		w.block()
	}
	return w.out, w.farthest, nil
}

type walker struct {
	in       []byte // with the tail
	size     int    // without
	bit      int
	out      []byte
	start    int // where the DEFLATE stream begins in out
	farthest int
	done     bool
}

func (w *walker) bits(n int) (v int) {
	for i := range n {
		if w.bit/8 >= len(w.in) {
			panic(ErrTruncated)
		}
		v |= int(w.in[w.bit/8]>>(w.bit%8)&1) << i
		w.bit++
	}
	return v
}

func (w *walker) align() { w.bit = (w.bit + 7) / 8 * 8 }

func (w *walker) block() {
	final, kind := w.bits(1) == 1, w.bits(2)
	switch kind {
	case 0:
		w.align()
		at := w.bit / 8
		n, complement := w.bits(16), w.bits(16)
		if n != complement^0xffff {
			panic(ErrCorrupt)
		}
		if at == w.size {
			w.done = true
			return
		}
		for range n {
			w.out = append(w.out, byte(w.bits(8)))
		}
	case 1:
		w.codes(fixedLengths())
	case 2:
		w.codes(w.lengths())
	default:
		panic(ErrCorrupt)
	}
	if final {
		w.align()
		w.start = len(w.out)
		switch at := w.bit / 8; {
		case at == w.size:
			w.done = true
		case at > w.size:
			panic(ErrTruncated)
		}
	}
}

func fixedLengths() (literals, distances []int) {
	literals, distances = make([]int, 288), make([]int, 32)
	for i := range literals {
		switch {
		case i < 144:
			literals[i] = 8
		case i < 256:
			literals[i] = 9
		case i < 280:
			literals[i] = 7
		default:
			literals[i] = 8
		}
	}
	for i := range distances {
		distances[i] = 5
	}
	return literals, distances
}

// lengths reads the code lengths of a block with dynamic codes (RFC 1951 §3.2.7).
func (w *walker) lengths() (literals, distances []int) {
	numLiterals, numDistances, numLengths := w.bits(5)+257, w.bits(5)+1, w.bits(4)+4
	if numLiterals > 286 || numDistances > 30 {
		panic(ErrCorrupt)
	}
	var meta [19]int
	for _, i := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:numLengths] {
		meta[i] = w.bits(3)
	}
	code := newCode(meta[:])
	var list []int
	for len(list) < numLiterals+numDistances {
		repeat, v := 1, w.symbol(code)
		switch v {
		case 16:
			if len(list) == 0 {
				panic(ErrCorrupt)
			}
			repeat, v = 3+w.bits(2), list[len(list)-1]
		case 17:
			repeat, v = 3+w.bits(3), 0
		case 18:
			repeat, v = 11+w.bits(7), 0
		}
		for range repeat {
			list = append(list, v)
		}
	}
	if len(list) != numLiterals+numDistances {
		panic(ErrCorrupt)
	}
	return list[:numLiterals], list[numLiterals:]
}

// code is a canonical Huffman code (RFC 1951 §3.2.2): how many symbols each length has, and
// the symbols by length.
type code struct {
	count   [16]int
	symbols []int
}

func newCode(lengths []int) (c code) {
	for length := 1; length < len(c.count); length++ {
		for symbol, l := range lengths {
			if l == length {
				c.count[length]++
				c.symbols = append(c.symbols, symbol)
			}
		}
	}
	left := 1
	for _, n := range c.count[1:] {
		left = left<<1 - n
		if left < 0 {
			panic(ErrCorrupt)
		}
	}
	// A code that leaves room is an error, but for none at all and for a single one of one
	// bit, as in zlib.
	if left > 0 && len(c.symbols) > 0 && !(len(c.symbols) == 1 && c.count[1] == 1) {
		panic(ErrCorrupt)
	}
	return c
}

func (w *walker) symbol(c code) int {
	if len(c.symbols) == 0 {
		panic(ErrCorrupt)
	}
	v, first, index := 0, 0, 0
	for _, n := range c.count[1:] {
		v |= w.bits(1)
		if v-first < n {
			return c.symbols[index+v-first]
		}
		index, first, v = index+n, (first+n)<<1, v<<1
	}
	panic(ErrCorrupt)
}

func (w *walker) codes(literals, distances []int) {
	lengthCode, distanceCode := newCode(literals), newCode(distances)
	for {
		v := w.symbol(lengthCode)
		if v < 256 {
			w.out = append(w.out, byte(v))
			continue
		}
		if v == 256 {
			return
		}
		if v > 285 {
			panic(ErrCorrupt)
		}
		length, distance := w.length(v-257), w.distance(w.symbol(distanceCode))
		if distance > len(w.out)-w.start || distance > 1<<maxWindowBits {
			panic(ErrCorrupt)
		}
		w.farthest = max(w.farthest, distance)
		for range length {
			w.out = append(w.out, w.out[len(w.out)-distance])
		}
	}
}

// length and distance add the extra bits to what the symbols stand for (RFC 1951 §3.2.5).
func (w *walker) length(v int) int {
	switch {
	case v == 28:
		return 258
	case v < 8:
		return v + 3
	}
	extra := v/4 - 1
	return (4+v%4)<<extra + 3 + w.bits(extra)
}

func (w *walker) distance(v int) int {
	switch {
	case v < 4:
		return v + 1
	case v > 29:
		panic(ErrCorrupt)
	}
	extra := v/2 - 1
	return (2+v%2)<<extra + 1 + w.bits(extra)
}

// inflate is what an Inflater makes of a message, room bytes at a time.
func inflate(message []byte, room int) (out []byte, err error) {
	var i Inflater
	i.Start(message)
	for {
		at := len(out)
		out = append(out, make([]byte, room)...)
		n, done, err := i.Next(out[at:])
		out = out[:at+n]
		switch {
		case err != nil:
			return out, err
		case done:
			return out, nil
		}
	}
}
