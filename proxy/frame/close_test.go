package frame

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

func TestParseClose(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   string
		code   ws.StatusCode
		reason string
		err    error
	}{
		{"empty", "", 1005, "", nil},
		{"one byte", "\x03", 0, "", ErrCloseLength},
		{"1000", "\x03\xe8", 1000, "", nil},
		{"reason", "\x03\xe9bye", 1001, "bye", nil},
		{"4999", "\x13\x87", 4999, "", nil},
		{"reason is not UTF-8", "\x03\xe8\xff", 1000, "", ErrCloseReason},
		{"reason ends inside a character", "\x03\xe8\xe2\x82", 1000, "", ErrCloseReason},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, reason, err := ParseClose([]byte(tt.body))
			if !errors.Is(err, tt.err) || code != tt.code || reason != tt.reason {
				t.Errorf("got %d %q %v; want %d %q %v", code, reason, err, tt.code, tt.reason, tt.err)
			}
		})
	}
}

func TestSendable(t *testing.T) {
	ranges := [][2]ws.StatusCode{{1000, 1003}, {1007, 1014}, {3000, 4999}}
	for code := ws.StatusCode(0); code < 6000; code++ {
		want := false
		for _, r := range ranges {
			want = want || code >= r[0] && code <= r[1]
		}
		if got := Sendable(code); got != want {
			t.Errorf("Sendable(%d) = %v", code, got)
		}
	}
}

// What AppendClose writes, gobwas/ws and ParseClose read.
func TestAppendClose(t *testing.T) {
	for _, masked := range []bool{false, true} {
		for _, reason := range []string{"", "service restart", strings.Repeat("é", 100), strings.Repeat("x", 200), "bad \xff byte"} {
			b := AppendClose(nil, 1012, reason, masked)
			r := bytes.NewReader(b)
			f := ws.Frame{}
			var err error
			if f.Header, err = ws.ReadHeader(r); err != nil || f.Header.Length != int64(r.Len()) {
				t.Fatalf("%+v with %d bytes behind it, %v", f.Header, r.Len(), err)
			}
			f.Payload = b[len(b)-r.Len():]
			if f.Header.Masked != masked || f.Header.OpCode != ws.OpClose || !f.Header.Fin || f.Header.Length > MaxControlBytes {
				t.Fatalf("header %+v", f.Header)
			}
			if masked {
				f = ws.UnmaskFrame(f)
			}
			code, got, err := ParseClose(f.Payload)
			if err != nil || code != 1012 {
				t.Fatalf("code %d, %v", code, err)
			}
			if !utf8.ValidString(got) || !strings.HasPrefix(strings.ToValidUTF8(reason, ""), got) || len(reason) < MaxReasonBytes && utf8.ValidString(reason) && got != reason {
				t.Errorf("reason %q came as %q", reason, got)
			}
		}
	}
}

func TestAppendCloseNeverSendsReservedCodes(t *testing.T) {
	for _, code := range []ws.StatusCode{0, 999, 1004, 1005, 1006, 1015, 2999, 5000} {
		if got := AppendClose(nil, code, "reason", false); !bytes.Equal(got, []byte{0x88, 0}) {
			t.Errorf("code %d: wrote % x", code, got)
		}
	}
}

func TestAppendUsesFreshMasks(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		seen[string(Append(nil, ws.OpPing, []byte("x"), true)[2:6])] = true
	}
	if len(seen) < 99 {
		t.Errorf("%d masks in 100 frames", len(seen))
	}
}
