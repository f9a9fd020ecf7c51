package deflate

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// offerTests say what becomes of the offers of a client: what is offered to a backend, and
// what the edge answers by itself.
var offerTests = []struct {
	name   string
	lines  string // separated by \n
	offers string
	answer string
}{
	// What clients send.
	{"Chrome, npm ws, aiohttp", "permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits", both},
	{"Firefox, Safari, OkHttp, coder with takeover", "permessage-deflate", "permessage-deflate", both},
	{"old Safari", "x-webkit-deflate-frame", "", ""},
	{"gorilla", "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover", both},
	{"coder", "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover", both},
	{"websockets for Python", "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
		"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12", both + "; server_max_window_bits=12"},
	{"npm ws with every option",
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=11",
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=11",
		both + "; server_max_window_bits=10"},
	{"Autobahn", "permessage-deflate; client_no_context_takeover; client_max_window_bits",
		"permessage-deflate; client_no_context_takeover; client_max_window_bits", both},
	{"none", "", "", ""},

	// RFC 7692 §5 and §7.1.
	{"§5.1: two offers of the same extension", "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits",
		"permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate; client_max_window_bits", both + "; server_max_window_bits=10"},
	{"§7.1.3: the simplest", "permessage-deflate", "permessage-deflate", both},
	{"§7.1.3: a window for the server", "permessage-deflate; server_max_window_bits=10",
		"permessage-deflate; server_max_window_bits=10", both + "; server_max_window_bits=10"},
	{"§7.1.3: a window, or else any", "permessage-deflate; server_max_window_bits=10, permessage-deflate",
		"permessage-deflate; server_max_window_bits=10, permessage-deflate", both + "; server_max_window_bits=10"},
	{"several extensions", "permessage-foo; use_y, permessage-deflate, permessage-foo", "permessage-deflate", both},
	{"the smallest window", "permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=8", both + "; server_max_window_bits=8"},
	{"the largest window", "permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15", both + "; server_max_window_bits=15"},
	{"the smallest window of the client", "permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8", both},
	{"the largest window of the client", "permessage-deflate; client_max_window_bits=15", "permessage-deflate; client_max_window_bits=15", both},

	// What is declined. The handshake goes on.
	{"a window of 7", "permessage-deflate; server_max_window_bits=7", "", ""},
	{"a window of 16", "permessage-deflate; server_max_window_bits=16", "", ""},
	{"a window of 0", "permessage-deflate; server_max_window_bits=0", "", ""},
	{"a window with a leading zero", "permessage-deflate; server_max_window_bits=08", "", ""},
	{"a window with a sign", "permessage-deflate; server_max_window_bits=+8", "", ""},
	{"a window below zero", "permessage-deflate; server_max_window_bits=-8", "", ""},
	{"a window that is no number", "permessage-deflate; server_max_window_bits=ten", "", ""},
	{"a window with a fraction", "permessage-deflate; server_max_window_bits=10.0", "", ""},
	{"a window in hexadecimal", "permessage-deflate; server_max_window_bits=0xa", "", ""},
	{"a window that wraps a byte around", "permessage-deflate; server_max_window_bits=266", "", ""},
	{"a window that wraps 64 bits around", "permessage-deflate; server_max_window_bits=18446744073709551626", "", ""},
	{"a window without a value", "permessage-deflate; server_max_window_bits", "", ""},
	{"client's window of 7", "permessage-deflate; client_max_window_bits=7", "", ""},
	{"client's window of 16", "permessage-deflate; client_max_window_bits=16", "", ""},
	{"client's window with a leading zero", "permessage-deflate; client_max_window_bits=09", "", ""},
	{"server_no_context_takeover with a value", "permessage-deflate; server_no_context_takeover=1", "", ""},
	{"client_no_context_takeover with a value", "permessage-deflate; client_no_context_takeover=true", "", ""},
	{"an unknown parameter", "permessage-deflate; fast", "", ""},
	{"an unknown parameter behind known ones", "permessage-deflate; client_max_window_bits; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; fast", "", ""},
	{"a parameter in capitals", "permessage-deflate; Server_No_Context_Takeover", "", ""},
	{"server_no_context_takeover twice", "permessage-deflate; server_no_context_takeover; server_no_context_takeover", "", ""},
	{"client_no_context_takeover twice", "permessage-deflate; client_no_context_takeover; client_no_context_takeover", "", ""},
	{"server_max_window_bits twice", "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10", "", ""},
	{"client_max_window_bits twice", "permessage-deflate; client_max_window_bits=10; client_max_window_bits=10", "", ""},
	{"client_max_window_bits twice without a value", "permessage-deflate; client_max_window_bits; client_max_window_bits", "", ""},
	{"client_max_window_bits with a value and without", "permessage-deflate; client_max_window_bits=10; client_max_window_bits", "", ""},
	{"client_max_window_bits without a value and with", "permessage-deflate; client_max_window_bits; client_max_window_bits=10", "", ""},
	{"a name in capitals", "Permessage-Deflate", "", ""},
	{"a name that begins alike", "permessage-deflate2", "", ""},
	{"declined, and the next one not", "permessage-deflate; server_max_window_bits=16, permessage-deflate; fast, permessage-deflate; client_no_context_takeover",
		"permessage-deflate; client_no_context_takeover", both},

	// Spelling.
	{"no spaces", "permessage-deflate;client_max_window_bits;server_max_window_bits=9,x", "permessage-deflate; server_max_window_bits=9; client_max_window_bits", both + "; server_max_window_bits=9"},
	{"spaces and tabs", " \tpermessage-deflate \t;\tserver_max_window_bits \t= 9\t ,\t", "permessage-deflate; server_max_window_bits=9", both + "; server_max_window_bits=9"},
	{"a quoted value", `permessage-deflate; server_max_window_bits="10"`, "permessage-deflate; server_max_window_bits=10", both + "; server_max_window_bits=10"},
	{"a quoted value with a quoted pair", `permessage-deflate; client_max_window_bits="1\0"`, "permessage-deflate; client_max_window_bits=10", both},
	{"empty elements", ",, permessage-deflate,,x,", "permessage-deflate", both},
	{"several lines", "x; y=z\npermessage-deflate; server_max_window_bits=10\n\npermessage-deflate", "permessage-deflate; server_max_window_bits=10, permessage-deflate", both + "; server_max_window_bits=10"},
	{"somebody else's parameters", `x; a; b=c; d="e"; f; g; h; i, permessage-deflate`, "permessage-deflate", both},
	{"every character of a token", "!#$%&'*+-.^_`|~09azAZ; !#$%&'*+-.^_`|~=!#$%&'*+-.^_`|~, permessage-deflate", "permessage-deflate", both},
	{"more offers than are kept", strings.Repeat("permessage-deflate; client_max_window_bits,", 100),
		strings.Repeat("permessage-deflate; client_max_window_bits, ", maxOffers-1) + "permessage-deflate; client_max_window_bits", both},
}

// both is what the edge answers at least.
const both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

func TestOffers(t *testing.T) {
	for _, tt := range offerTests {
		t.Run(tt.name, func(t *testing.T) {
			offers, err := ParseOffers(strings.Split(tt.lines, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got := offers.String(); got != tt.offers {
				t.Errorf("to the backend: %q, want %q", got, tt.offers)
			}
			answer, p, ok := offers.Accept()
			if answer != tt.answer || ok != (tt.answer != "") || ok && p.String() != answer {
				t.Errorf("answer: %q, %+v, %v; want %q", answer, p, ok, tt.answer)
			}
			if !ok {
				return
			}
			// A backend may answer as the edge does, in one line or another spelling.
			for _, line := range []string{answer, " " + strings.ReplaceAll(strings.ReplaceAll(answer, "; ", ";"), "=", " = ") + ","} {
				if got, q, err := offers.CheckAnswer([]string{"", line}); got != answer || q != p || err != nil {
					t.Errorf("%q from the backend: %q, %+v, %v", line, got, q, err)
				}
			}
		})
	}
}

func TestSyntax(t *testing.T) {
	for _, line := range []string{
		";", "=", `"`, "permessage-deflate;", "permessage-deflate; ,x", ";a", "=a", "a=b", "a b", "a; b c", "a; b=", "a; b=,c", "a; =b", "a; b==c", "a; b=c=d",
		"a/b", "a; b=c/d", "a; b=(c)", "a; b=c d", `a; b="`, `a; b="c`, `a; b=""`, `a; b="c d"`, `a; b="c,d"`, `a; b="\`, `a; b="\"`, `a; b="\""`, `a; b="c"d`, `a; b="c" "d"`,
		`a; "b"=c`, `"a"; b`, "a\x00", "a\x7f", "a; b=\x80", "ä", "a\r\nb", "a\n", "a\v",
		"permessage-deflate, a b", "a; b, c; d; e; f; g; h; i=",
	} {
		if offers, err := ParseOffers([]string{"permessage-deflate", line}); !errors.Is(err, ErrSyntax) || offers != nil {
			t.Errorf("offers %q: %v, %v", line, offers, err)
		}
		if answer, p, err := (Offers{{}}).CheckAnswer([]string{line}); !errors.Is(err, ErrSyntax) || answer != "" || p != (Params{}) {
			t.Errorf("answer %q: %q, %+v, %v", line, answer, p, err)
		}
	}
}

// answerTests hold answers of a backend against offers; bad is the reason of a refusal.
var answerTests = []struct {
	offers, answer string
	want, bad      string
}{
	{"permessage-deflate", "", "", ""},
	{"permessage-deflate", " , ", "", ""},
	{"", "", "", ""},
	{"permessage-deflate", "permessage-deflate", "permessage-deflate", ""},
	{"permessage-deflate", "permessage-deflate\n", "permessage-deflate", ""},

	// What servers answer: npm ws, gorilla, coder.
	{chrome, "permessage-deflate", "permessage-deflate", ""},
	{chrome, "permessage-deflate; server_no_context_takeover; client_no_context_takeover", both, ""},
	{chrome, "permessage-deflate; client_no_context_takeover; server_no_context_takeover", both, ""},

	// server_no_context_takeover: due when offered, allowed when not (§7.1.1.1).
	{"permessage-deflate; server_no_context_takeover", "permessage-deflate", "", "no offer allows"},
	{"permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover", ""},
	{"permessage-deflate", "permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover", ""},

	// client_no_context_takeover: a hint when offered, allowed when not (§7.1.1.2).
	{"permessage-deflate; client_no_context_takeover", "permessage-deflate", "permessage-deflate", ""},
	{"permessage-deflate", "permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover", ""},

	// server_max_window_bits: the same or less when offered, any when not (§7.1.2.1).
	{"permessage-deflate; server_max_window_bits=10", "permessage-deflate", "", "no offer allows"},
	{"permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=11", "", "no offer allows"},
	{"permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10", ""},
	{"permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=8", ""},
	{"permessage-deflate; server_max_window_bits=15", "permessage-deflate", "", "no offer allows"},
	{"permessage-deflate", "permessage-deflate; server_max_window_bits=12", "permessage-deflate; server_max_window_bits=12", ""},
	{"permessage-deflate", "permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15", ""},
	{"permessage-deflate; server_max_window_bits=10, permessage-deflate", "permessage-deflate", "permessage-deflate", ""},
	{"permessage-deflate; server_max_window_bits=10, permessage-deflate", "permessage-deflate; server_max_window_bits=11", "permessage-deflate; server_max_window_bits=11", ""},

	// client_max_window_bits: only when offered, where a value is a hint: the client keeps
	// to the smaller one (§7.1.2.2).
	{"permessage-deflate", "permessage-deflate; client_max_window_bits=15", "", "no offer allows"},
	{"permessage-deflate", "permessage-deflate; client_max_window_bits=10", "", "no offer allows"},
	{chrome, "permessage-deflate; client_max_window_bits=15", "permessage-deflate; client_max_window_bits=15", ""},
	{chrome, "permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8", ""},
	{chrome, "permessage-deflate; client_max_window_bits", "", "invalid parameter"},
	{"permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=11", "permessage-deflate; client_max_window_bits=11", ""},
	{"permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10", ""},
	{"permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=9", "permessage-deflate; client_max_window_bits=9", ""},
	{"permessage-deflate; client_max_window_bits=10", "permessage-deflate", "permessage-deflate", ""},

	// One offer has to allow all of it.
	{"permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate; server_no_context_takeover",
		"permessage-deflate; client_max_window_bits=10", "", "no offer allows"},
	{"permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate; server_no_context_takeover",
		"permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover", ""},
	{"permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate; server_no_context_takeover",
		"permessage-deflate; client_max_window_bits=9; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9", ""},

	// Wrong whatever was offered.
	{chrome, "permessage-deflate, permessage-deflate", "", "more than one extension"},
	{chrome, "permessage-deflate\npermessage-deflate", "", "more than one extension"},
	{chrome, "permessage-deflate, x", "", "more than one extension"},
	{chrome, "x, permessage-deflate", "", "more than one extension"},
	{chrome, "x", "", "not offered"},
	{chrome, "x-webkit-deflate-frame", "", "not offered"},
	{chrome, "Permessage-Deflate", "", "not offered"},
	{"", "permessage-deflate", "", "no offer allows"},
	{"", "x", "", "not offered"},
	{"permessage-deflate; server_max_window_bits=16", "permessage-deflate", "", "no offer allows"},
	{chrome, "permessage-deflate; fast", "", "invalid parameter"},
	{chrome, "permessage-deflate; server_max_window_bits", "", "invalid parameter"},
	{chrome, "permessage-deflate; server_max_window_bits=7", "", "invalid parameter"},
	{chrome, "permessage-deflate; server_max_window_bits=16", "", "invalid parameter"},
	{chrome, "permessage-deflate; server_max_window_bits=010", "", "invalid parameter"},
	{chrome, "permessage-deflate; client_max_window_bits=7", "", "invalid parameter"},
	{chrome, "permessage-deflate; client_max_window_bits=08", "", "invalid parameter"},
	{chrome, "permessage-deflate; server_no_context_takeover=1", "", "invalid parameter"},
	{chrome, "permessage-deflate; client_no_context_takeover=1", "", "invalid parameter"},
	{chrome, "permessage-deflate; server_no_context_takeover; server_no_context_takeover", "", "invalid parameter"},
	{chrome, "permessage-deflate; client_no_context_takeover; client_no_context_takeover", "", "invalid parameter"},
	{chrome, "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", "", "invalid parameter"},
	{chrome, "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9", "", "invalid parameter"},
}

const chrome = "permessage-deflate; client_max_window_bits"

func TestCheckAnswer(t *testing.T) {
	for _, tt := range answerTests {
		offers, err := ParseOffers([]string{tt.offers})
		if err != nil {
			t.Fatal(err)
		}
		got, p, err := offers.CheckAnswer(strings.Split(tt.answer, "\n"))
		switch {
		case tt.bad != "":
			if !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), tt.bad) || got != "" || p != (Params{}) {
				t.Errorf("%q to %q: %q, %+v, %v; want %q", tt.answer, tt.offers, got, p, err, tt.bad)
			}
		case err != nil || got != tt.want || got != "" && p.String() != got || got == "" && p != (Params{}):
			t.Errorf("%q to %q: %q, %+v, %v; want %q", tt.answer, tt.offers, got, p, err, tt.want)
		}
	}
}

// FuzzOffers parses what clients might send. What is passed on reads the same again, and
// the edge's own answer is one that the client must take.
func FuzzOffers(f *testing.F) {
	for _, tt := range offerTests {
		f.Add(tt.lines)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return
		}
		lines := strings.Split(text, "\n")
		offers, err := ParseOffers(lines)
		if err != nil {
			if !errors.Is(err, ErrSyntax) || offers != nil {
				t.Fatal(offers, err)
			}
			return
		}
		joined, err := ParseOffers([]string{strings.Join(lines, ",")})
		if err != nil || fmt.Sprint(joined) != fmt.Sprint(offers) {
			t.Fatalf("lines: %v; one line: %v, %v", offers, joined, err)
		}
		again, err := ParseOffers([]string{offers.String()})
		if err != nil || fmt.Sprint(again) != fmt.Sprint(offers) {
			t.Fatalf("%q is read as %q, %v", offers, again, err)
		}
		answer, p, ok := offers.Accept()
		if ok != (len(offers) > 0) {
			t.Fatal(answer, ok)
		}
		if !ok {
			return
		}
		NewCompressor(1, p.ServerMaxWindowBits)
		if got, q, err := offers.CheckAnswer([]string{answer}); got != answer || q != p || err != nil {
			t.Fatalf("%q to %q: %q, %v", answer, offers, got, err)
		}
	})
}

// FuzzAnswer holds arbitrary answers against arbitrary offers.
func FuzzAnswer(f *testing.F) {
	for _, tt := range answerTests {
		f.Add(tt.offers, tt.answer)
	}
	f.Fuzz(func(t *testing.T, offered, text string) {
		offers, err := ParseOffers([]string{offered})
		if err != nil {
			return
		}
		answer, p, err := offers.CheckAnswer(strings.Split(text, "\n"))
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrAnswer) || answer != "" || p != (Params{}) {
				t.Fatal(answer, p, err)
			}
			return
		}
		if answer == "" {
			if p != (Params{}) || strings.Trim(text, ", \t\n") != "" {
				t.Fatalf("%q is no answer, %+v", text, p)
			}
			return
		}
		if len(offers) == 0 {
			t.Fatalf("%q was not offered", answer)
		}
		for _, bits := range []uint8{p.ServerMaxWindowBits, p.ClientMaxWindowBits} {
			if bits != 0 && (bits < minWindowBits || bits > maxWindowBits) {
				t.Fatal(answer)
			}
		}
		if again, q, err := offers.CheckAnswer([]string{answer}); again != answer || q != p || err != nil {
			t.Fatalf("%q is read as %q, %v", answer, again, err)
		}
	})
}
