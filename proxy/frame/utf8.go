package frame

import (
	"encoding/binary"
	"math/bits"
)

// UTF8 checks text that comes in pieces against UTF-8 as RFC 3629 §4 has it: shortest
// forms only, no surrogates, nothing above U+10FFFF. A byte that cannot be part of such
// text is found when it comes, not at the end of its character. The zero value is ready.
type UTF8 struct {
	need   uint8 // bytes that are still to come of a character
	lo, hi uint8 // what the next of them may be
}

// high are the bits that no ASCII byte has.
const high = 0x8080808080808080

// Complete reports whether the text so far ends with a whole character.
func (u *UTF8) Complete() bool { return u.need == 0 }

// Valid takes the next piece of the text and reports whether all of it is well-formed so
// far. p is masked with key, which begins at p's first byte; the zero key is no mask. p is
// not changed. After false the state means nothing.
func (u *UTF8) Valid(p []byte, key [4]byte) bool {
	half := uint64(binary.LittleEndian.Uint32(key[:]))
	k := half | half<<32
	for len(p) >= 8 {
		w := binary.LittleEndian.Uint64(p) ^ k
		if u.need == 0 {
			if w&high == 0 {
				p = skipASCII(p[8:], k)
				continue
			}
			if n := wellFormed(w); n > 0 {
				p, k = p[n:], bits.RotateLeft64(k, -8*n)
				continue
			}
		}
		if !u.next(byte(w)) {
			return false
		}
		p, k = p[1:], bits.RotateLeft64(k, -8)
	}
	binary.LittleEndian.PutUint32(key[:], uint32(k))
	for i, b := range p {
		if !u.next(b ^ key[i&3]) {
			return false
		}
	}
	return true
}

// skipASCII returns p from the first 32 bytes on that are not all ASCII.
func skipASCII(p []byte, k uint64) []byte {
	for ; len(p) >= 32; p = p[32:] {
		a, b := binary.LittleEndian.Uint64(p)^k, binary.LittleEndian.Uint64(p[8:])^k
		c, d := binary.LittleEndian.Uint64(p[16:])^k, binary.LittleEndian.Uint64(p[24:])^k
		if (a|b|c|d)&high != 0 {
			break
		}
	}
	return p
}

// wellFormed returns how many bytes at the beginning of w, little-endian, are whole
// characters of the common kinds: at least those of one, or 0 if the first one is of
// another kind, or none.
func wellFormed(w uint64) (n int) {
	for left := 8; ; {
		size := 0
		switch b := byte(w); {
		case b < 0x80:
			size = 1
		case b >= 0xc2 && b < 0xe0 && w&0xc000 == 0x8000:
			size = 2
		case b > 0xe0 && b < 0xf0 && b != 0xed && w&0xc0c000 == 0x808000:
			size = 3
		case b > 0xf0 && b < 0xf4 && w&0xc0c0c000 == 0x80808000:
			size = 4
		}
		if size == 0 || size > left {
			return n
		}
		n, left, w = n+size, left-size, w>>(8*size)
		if left == 0 {
			return n
		}
	}
}

// next takes one byte (RFC 3629 §4, the table of well-formed sequences).
func (u *UTF8) next(b byte) bool {
	switch {
	case u.need > 0:
		if b < u.lo || b > u.hi {
			return false
		}
		u.need, u.lo, u.hi = u.need-1, 0x80, 0xbf
		return true
	case b < 0x80:
		return true
	case b < 0xc2 || b > 0xf4:
		return false
	}
	*u = UTF8{need: uint8(bits.LeadingZeros8(^b)) - 1, lo: 0x80, hi: 0xbf}
	switch b {
	case 0xe0:
		u.lo = 0xa0 // shorter forms would do
	case 0xed:
		u.hi = 0x9f // surrogates
	case 0xf0:
		u.lo = 0x90
	case 0xf4:
		u.hi = 0x8f // above U+10FFFF
	}
	return true
}

// RotateKey returns the masking key as it stands n bytes further on in a payload
// (RFC 6455 §5.3).
func RotateKey(key [4]byte, n int) [4]byte {
	k := binary.LittleEndian.Uint32(key[:])
	binary.LittleEndian.PutUint32(key[:], bits.RotateLeft32(k, -8*(n&3)))
	return key
}
