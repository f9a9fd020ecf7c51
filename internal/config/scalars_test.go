package config

import (
	cryptotls "crypto/tls"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/scalar"
)

// scalarCase is a text, and either the value that it means or a part of the message.
type scalarCase[T any] struct {
	text string
	want T
	err  string
}

func testScalar[T comparable](t *testing.T, parse func(string) (T, error), cases []scalarCase[T]) {
	t.Helper()
	for _, tc := range cases {
		got, err := parse(tc.text)
		switch {
		case tc.err == "" && (err != nil || got != tc.want):
			t.Errorf("%q: %v, %v; want %v", tc.text, got, err, tc.want)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%q: %v, %v; want error %q", tc.text, got, err, tc.err)
		}
	}
}

func TestParseBool(t *testing.T) {
	testScalar(t, parseBool, []scalarCase[bool]{
		{text: "true", want: true},
		{text: "false"},
		{text: "True", err: "neither true nor false"},
		{text: "on", err: "neither true nor false"},
		{text: "", err: "neither true nor false"},
	})
}

func TestParseCount(t *testing.T) {
	testScalar(t, parseCount, []scalarCase[int]{
		{text: "0"},
		{text: "12", want: 12},
		{text: "007", want: 7},
		{text: "2147483647", want: math.MaxInt32},
		{text: "2147483648", err: "out of range"},
		{text: "-1", err: "must not be negative"},
		{text: "0x10", err: "not a whole number"},
		{text: "1e3", err: "not a whole number"},
		{text: "1_000", err: "not a whole number"},
		{text: "", err: "not a whole number"},
	})
}

func TestParseNumber(t *testing.T) {
	testScalar(t, parseNumber, []scalarCase[float64]{
		{text: "0"},
		{text: "1.25", want: 1.25},
		{text: "1e3", want: 1000},
		{text: "-0", want: 0},
		{text: "-1.5", err: "must not be negative"},
		{text: "1e999", err: "out of range"},
		{text: "NaN", err: "not a number"},
		{text: ".nan", err: "not a number"},
		{text: "inf", err: "not a number"},
		{text: "0x1p4", err: "not a number"},
	})
}

func TestParseDuration(t *testing.T) {
	testScalar(t, scalar.Duration, []scalarCase[time.Duration]{
		{text: "0"},
		{text: "0s"},
		{text: "30s", want: 30 * time.Second},
		{text: "1m30s", want: 90 * time.Second},
		{text: "1.5h", want: 90 * time.Minute},
		{text: "100ms", want: 100 * time.Millisecond},
		{text: "30", err: `did you mean "30s"?`},
		{text: "0030", err: `did you mean "30s"?`},
		{text: "-30s", err: "must not be negative"},
		{text: "1d", err: "not a duration"},
		{text: "300000000h", err: "not a duration"},
		{text: "", err: "not a duration"},
		{text: " 1s", err: "not a duration"},
	})
}

func TestParseBytes(t *testing.T) {
	testScalar(t, parseBytes, []scalarCase[int64]{
		{text: "0"},
		{text: "512", want: 512},
		{text: "512B", want: 512},
		{text: "64KiB", want: 65536},
		{text: "16MiB", want: 16 << 20},
		{text: "2GiB", want: 2 << 30},
		{text: "1TiB", want: 1 << 40},
		{text: "1kB", want: 1000},
		{text: "1KB", want: 1000},
		{text: "1MB", want: 1e6},
		{text: "1GB", want: 1e9},
		{text: "9223372036854775807", want: math.MaxInt64},
		{text: "9223372036854775808", err: "out of range"},
		{text: "9007199254740992KiB", err: "out of range"},
		{text: "64K", err: `did you mean "64KiB"?`},
		{text: "64m", err: `did you mean "64MiB"?`},
		{text: "64 MiB", err: `did you mean "64MiB"?`},
		{text: "64kib", err: `did you mean "64KiB"?`},
		{text: "-64KiB", err: "must not be negative"},
		{text: "1.5KiB", err: "not a size"},
		{text: "KiB", err: "not a size"},
		{text: "", err: "not a size"},
		{text: "unlimited", err: "not a size"},
	})
}

func TestParsePercent(t *testing.T) {
	testScalar(t, parsePercent, []scalarCase[float64]{
		{text: "0"},
		{text: "0%"},
		{text: "100%", want: 1},
		{text: "12.5%", want: 0.125},
		{text: "100.1%", err: "more than 100%"},
		{text: "-1%", err: "not a share"},
		{text: "50", err: `did you mean "50%"?`},
		{text: "0.5", err: "not a share"},
		{text: "%", err: "not a share"},
		{text: "NaN%", err: "not a share"},
	})
}

func TestParseTLSVersion(t *testing.T) {
	testScalar(t, parseTLSVersion, []scalarCase[uint16]{
		{text: "1.2", want: cryptotls.VersionTLS12},
		{text: "1.3", want: cryptotls.VersionTLS13},
		{text: "1.1", err: "unknown TLS version"},
		{text: "TLSv1.3", err: "unknown TLS version"},
	})
}

func TestParseMemorySize(t *testing.T) {
	testScalar(t, parseMemorySize, []scalarCase[MemorySize]{
		{text: "25%", want: MemorySize{Share: 0.25}},
		{text: "0%", want: MemorySize{}},
		{text: "0", want: MemorySize{}},
		{text: "64MiB", want: MemorySize{Bytes: 64 << 20}},
		{text: "1000", want: MemorySize{Bytes: 1000}},
		{text: "101%", err: "more than 100%"},
		{text: "64M", err: `did you mean "64MiB"?`},
		{text: "-1", err: "neither a share"},
		{text: "half", err: "neither a share such as 25% nor a size"},
		{text: "", err: "neither a share"},
	})
}

func TestParseHashSource(t *testing.T) {
	testScalar(t, func(text string) (HashSource, error) { return parseHashSource("hash_on", text) }, []scalarCase[HashSource]{
		{text: "ip", want: HashSource{From: "ip"}},
		{text: "path", want: HashSource{From: "path"}},
		{text: "host", want: HashSource{From: "host"}},
		{text: "header:x-user", want: HashSource{From: "header", Name: "X-User"}},
		{text: "cookie:Session", want: HashSource{From: "cookie", Name: "Session"}},
		{text: "query:user id:x", want: HashSource{From: "query", Name: "user id:x"}},
		{text: "jwt:sub", err: "not available in this version"},
		{text: "header", err: "needs a name"},
		{text: "header:a b", err: "not a valid header name"},
		{text: "path:/x", err: "takes no name"},
		{text: "cookies:a", err: `did you mean "cookie"?`},
		{text: "", err: "unknown hash_on"},
	})
}

func TestPlainBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1KiB", 1025: "1025", 1 << 20: "1MiB", 3 << 30: "3GiB", 1 << 40: "1TiB", 1536: "1536",
	} {
		if got := plainBytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestPlainDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Minute: "1m", time.Hour: "1h", 90 * time.Second: "1m30s", 10 * time.Minute: "10m",
		time.Hour + time.Minute: "1h1m", time.Hour + time.Second: "1h0m1s", 1500 * time.Millisecond: "1.5s",
	} {
		if got := plainDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
