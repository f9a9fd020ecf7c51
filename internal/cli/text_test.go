package cli

import (
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"dc1/node/é日本🙂", "dc1/node/é日本🙂"},
		{"\x1b[31mred\x1b[0m", "[31mred[0m"},
		{"\x1b]0;title\x07", "]0;title"},
		{"a\u009b31mb", "a31mb"}, // CSI in one character
		{"a\x7f\x00\x08b", "ab"},
		{"a\tb\nc\rd\u00a0e\u2028f", "a b c d e f"},
		{"a\u202eb\u200bc\ufeffd", "abcd"},
		{"a\xffb", "a\ufffdb"},
		{"\xc2\x9b", ""},
	} {
		if got := printable(tt.in); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add(hostile)
	f.Add("\xc2\x9b\xff\u2029")
	f.Fuzz(func(t *testing.T, in string) {
		out := printable(in)
		if !utf8.ValidString(out) {
			t.Fatalf("%q is not UTF-8", out)
		}
		for _, r := range out {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Fatalf("%q holds %U", out, r)
			}
		}
		if line := oneLine(in); strings.ContainsAny(line, "\n\r\t") {
			t.Fatalf("%q is not one line", line)
		}
	})
}

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		seconds float64
		want    string
	}{
		{0, "0s"}, {-5, "0s"}, {0.0004, "0ms"}, {0.25, "250ms"}, {0.9999, "999ms"}, {1, "1s"}, {59.9, "59s"}, {60, "1m00s"},
		{201.7, "3m21s"}, {3599, "59m59s"}, {3600, "1h00m"}, {7425, "2h03m"}, {86399, "23h59m"}, {86400, "1d00h"},
		{1e6, "11d13h"}, {1e9, "11574d01h"}, {1e300, "forever"}, {math.Inf(1), "forever"},
	} {
		if got := duration(tt.seconds); got != tt.want {
			t.Errorf("%v seconds show as %q, want %q", tt.seconds, got, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		n    uint64
		want string
	}{
		{0, "0B"}, {1023, "1023B"}, {1024, "1.0KiB"}, {1536, "1.5KiB"}, {10 << 10, "10KiB"}, {999 << 10, "999KiB"},
		{1023 << 10, "1.0MiB"}, {1 << 20, "1.0MiB"}, {1536 << 10, "1.5MiB"}, {20 << 30, "20GiB"}, {1 << 50, "1.0PiB"},
		{math.MaxUint64, "16EiB"},
	} {
		if got := size(tt.n); got != tt.want {
			t.Errorf("%d bytes show as %q, want %q", tt.n, got, tt.want)
		}
	}
}
