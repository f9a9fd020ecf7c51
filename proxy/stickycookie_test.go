package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// What a cookie says in this version is what it says in all that have its version number.
func TestTicketValue(t *testing.T) {
	c := stickyCookie("tg")
	want := ticket{key: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255}, backend: 0xfedcba9876543210, issued: 1700000000}
	const value = "1AAECAwQFBgcICQoLDA0O_-nyFoUni_InAGVT8QCSQzaAr39GbGOdrcvAeyUg"
	if got := c.value(want); got != value {
		t.Errorf("value: %s", got)
	}
	if got, ok := c.parse(value); !ok || got != want {
		t.Errorf("parsed: %+v, %v", got, ok)
	}
	for i := range value {
		for _, with := range []string{"A", "-", "=", "\n", ""} {
			changed := value[:i] + with + value[i+1:]
			if _, ok := c.parse(changed); ok && changed != value {
				t.Errorf("%q is taken for a cookie", changed)
			}
		}
	}
}

// Two cookies with the same key for the same backend do not tell that it is the same one.
func TestTicketHidesBackend(t *testing.T) {
	c := stickyCookie("tg")
	a := c.value(ticket{backend: 1, issued: 1})
	b := c.value(ticket{backend: 1, issued: 2})
	from, to := 1+backendAt/3*4, 1+issuedAt/3*4
	if len(a) != ticketLen || a[from+2:to] == b[from+2:to] {
		t.Errorf("%s and %s", a, b)
	}
}

// FuzzCookies holds that no line of cookies is misread: whatever surrounds a good cookie, it is
// found, and it alone is taken out.
func FuzzCookies(f *testing.F) {
	c := stickyCookie("tg")
	said := ticket{key: [16]byte{1}, backend: 2, issued: time.Now().Unix()}
	good := "tg=" + c.value(said)
	for _, s := range []string{"", "a=1; b=2", "tg=1", ";;", "tg", " tg = \"x\"", "tgx=tg", good, good[:30], "a=\xff"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		now := time.Unix(said.issued, 0)
		if got, _, ok := c.find([]string{before}, now); ok && got != said {
			t.Fatalf("%q says %+v", before, got)
		}
		c.parse(before)
		line := before + ";" + good + ";" + after
		if got, renew, ok := c.find([]string{line}, now); !ok || renew || got != said {
			t.Fatalf("%q: %+v, %v, %v", line, got, renew, ok)
		}
		header := http.Header{"Cookie": {line, "x=y"}}
		stripCookie(header, "tg")
		kept := strings.Join(header["Cookie"], ";")
		var want []string
		for pair := range strings.SplitSeq(line, ";") {
			if name, _, _ := strings.Cut(pair, "="); strings.TrimSpace(name) != "tg" {
				want = append(want, pair)
			}
		}
		rest := strings.TrimLeft(strings.Join(want, ";"), " \t")
		if rest != "" {
			rest += ";"
		}
		if kept != rest+"x=y" {
			t.Fatalf("%q became %q", line, kept)
		}
	})
}
