package frame

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

var texts = []string{
	"", "a", "plain text that is longer than a few words of eight bytes, and then some more of it",
	"κόσμε", "naïve café, 日本語のテキスト, 😀😀😀 and back", strings.Repeat("é", 100), "\u07ff\uffff\U0010ffff\ufffe",
	"\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xf0\x80\x80\xaf", "\xf0\x8f\xbf\xbf", // not the shortest form
	"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\x9f\xbf\xee\x80\x80", // surrogates, and their neighbours
	"\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff",
	"\x80", "\xbf", "a\x80b", "\xc3(", "\xe2\x82", "\xe2\x82(", "\xf0\x9f\x98", "long enough for a word \xff and more",
	"abcdefg\xe2\x82\xac", "abcdefgh\xe2\x82\xacabcdefgh\xf0\x9f\x98\x80",
}

// valid runs text through in pieces of n bytes, masked.
func valid(text string, n int, key [4]byte) bool {
	p := []byte(text)
	ws.Cipher(p, key, 0)
	var u UTF8
	for len(p) > 0 {
		k := min(n, len(p))
		if !u.Valid(p[:k], key) {
			return false
		}
		p, key = p[k:], RotateKey(key, k)
	}
	return u.Complete()
}

func TestUTF8(t *testing.T) {
	for _, text := range texts {
		for _, key := range [][4]byte{{}, {0x11, 0x22, 0x33, 0x44}, {0x80, 0xff, 0, 0x7f}} {
			for n := 1; n <= len(text)+1; n++ {
				if got, want := valid(text, n, key), utf8.ValidString(text); got != want {
					t.Fatalf("%q with key % x in pieces of %d: %v, want %v", text, key, n, got, want)
				}
			}
		}
	}
}

// TestUTF8FailsFast: the first byte that nothing can follow up is the one that is refused.
func TestUTF8FailsFast(t *testing.T) {
	for _, tt := range []struct {
		text string
		at   int
	}{{"\xf4\x90", 1}, {"\xed\xa0", 1}, {"\xe0\x80", 1}, {"\xf0\x8f", 1}, {"ab\xc0", 2}, {"\xe2\x82a", 2}, {"κόσ\xf8", 6}, {"\xff", 0}} {
		var u UTF8
		for i := range len(tt.text) {
			if got, want := u.Valid([]byte{tt.text[i]}, [4]byte{}), i < tt.at; got != want {
				t.Errorf("%q at byte %d: %v", tt.text, i, got)
			}
		}
	}
}

func TestRotateKey(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	p := []byte("seventeen bytes!!")
	whole := append([]byte(nil), p...)
	ws.Cipher(whole, key, 0)
	for n := range p {
		rest := append([]byte(nil), p[n:]...)
		ws.Cipher(rest, RotateKey(key, n), 0)
		if string(rest) != string(whole[n:]) {
			t.Fatalf("after %d bytes the key is wrong", n)
		}
	}
}

func FuzzUTF8(f *testing.F) {
	for _, text := range texts {
		f.Add(text, uint8(3), uint32(0x44332211))
	}
	f.Fuzz(func(t *testing.T, text string, n uint8, k uint32) {
		key := [4]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)}
		if got, want := valid(text, int(n)+1, key), utf8.ValidString(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	})
}

func BenchmarkUTF8(b *testing.B) {
	for name, text := range map[string]string{"ascii": strings.Repeat("{\"k\":1},", 2048), "cjk": strings.Repeat("日本語", 1820)} {
		b.Run(name, func(b *testing.B) {
			p, key := []byte(text), [4]byte{}
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				var u UTF8
				if !u.Valid(p, key) {
					b.Fatal("not valid")
				}
			}
		})
	}
}
