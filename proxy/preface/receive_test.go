package preface

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait. Nothing waits that long unless it fails.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// v2 is a header of version 2 with this command and family.
func v2(command, family byte, body string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
}

const (
	body4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x67\x01\xbb" // 192.0.2.1:4711 to 198.51.100.2:443
	body6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x12\x67\x01\xbb"
	mapped6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x12\x67\x01\xbb"
)

// headers are beginnings of connections. Behind each comes something else.
var headers = []struct {
	name, header string
	want         string // source and destination; empty: nobody's
	bad          bool
}{
	{"none: a request", "", "", false},
	{"1, IPv4", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", "192.0.2.1:4711 198.51.100.2:443", false},
	{"1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", "[2001:db8::1]:4711 [2001:db8::2]:443", false},
	{"1, mapped", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 4711 443\r\n", "192.0.2.1:4711 [2001:db8::2]:443", false},
	{"1, ports 0 and 65535", "PROXY TCP4 192.0.2.1 198.51.100.2 0 65535\r\n", "192.0.2.1:0 198.51.100.2:65535", false},
	{"1, UNKNOWN", "PROXY UNKNOWN\r\n", "", false},
	{"1, UNKNOWN and more", "PROXY UNKNOWN ffff:f::1 ffff::2 65535 65535\r\n", "", false},
	{"1, as long as it may be", "PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", "", false},

	{"2, IPv4", v2(0x21, 0x11, body4), "192.0.2.1:4711 198.51.100.2:443", false},
	{"2, IPv6", v2(0x21, 0x21, body6), "[2001:db8::1]:4711 [2001:db8::2]:443", false},
	{"2, mapped", v2(0x21, 0x21, mapped6), "192.0.2.1:4711 [2001:db8::2]:443", false},
	{"2, with TLVs", v2(0x21, 0x11, body4+"\x04\x00\x03abc"), "192.0.2.1:4711 198.51.100.2:443", false},
	{"2, LOCAL", v2(0x20, 0x00, ""), "", false},
	{"2, LOCAL with addresses", v2(0x20, 0x11, body4), "", false},
	{"2, LOCAL with anything", v2(0x20, 0x11, "x"), "", false},
	{"2, for somebody unknown", v2(0x21, 0x00, ""), "", false},
	{"2, for somebody unknown, with TLVs", v2(0x21, 0x00, "\x04\x00\x01a"), "", false},
	{"2, from a Unix socket", v2(0x21, 0x31, strings.Repeat("\x00", 216)), "", false},
	{"2, from UDP", v2(0x21, 0x12, body4), "", false},
	{"2, as long as it may be", v2(0x20, 0x00, strings.Repeat("x", 4096)), "", false},

	{"1, no family", "PROXY\r\n", "", true},
	{"1, another word", "PROXYING TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", "", true},
	{"1, another family", "PROXY TCP5 192.0.2.1 198.51.100.2 4711 443\r\n", "", true},
	{"1, a name", "PROXY TCP4 example.com 198.51.100.2 4711 443\r\n", "", true},
	{"1, the other family", "PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n", "", true},
	{"1, two spaces", "PROXY TCP4  192.0.2.1 198.51.100.2 4711 443\r\n", "", true},
	{"1, a port too high", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", "", true},
	{"1, a port with a zero", "PROXY TCP4 192.0.2.1 198.51.100.2 04711 443\r\n", "", true},
	{"1, no port", "PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n", "", true},
	{"1, more", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443 x\r\n", "", true},
	{"1, no CR", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\n", "", true},
	{"1, too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "", true},
	{"1, no end", "PROXY " + strings.Repeat("x", 200), "", true},
	{"2, another version", v2(0x11, 0x11, body4), "", true},
	{"2, another command", v2(0x22, 0x11, body4), "", true},
	{"2, another family", v2(0x21, 0x41, body4), "", true},
	{"2, another transport", v2(0x21, 0x13, body4), "", true},
	{"2, too short for its family", v2(0x21, 0x11, body4[:11]), "", true},
	{"2, too long", v2(0x20, 0x00, strings.Repeat("x", 4097)), "", true},
}

func (e *Ends) String() string {
	if e == nil || *e == (Ends{}) {
		return ""
	}
	return e.Source.String() + " " + e.Destination.String()
}

// pair is a TCP connection.
func pair(t *testing.T) (far, near *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); n.Close() })
	for _, c := range []net.Conn{f, n} {
		c.SetDeadline(time.Now().Add(patience))
	}
	return f.(*net.TCPConn), n.(*net.TCPConn)
}

const behind = "GET / HTTP/1.1\r\n\r\n"

// TestReceive takes each header off a connection on which more follows in the same packet.
func TestReceive(t *testing.T) {
	for _, tt := range headers {
		t.Run(tt.name, func(t *testing.T) {
			far, near := pair(t)
			far.Write([]byte(tt.header + behind))
			got, err := Receive(near)
			if (err != nil) != tt.bad || got.String() != tt.want {
				t.Fatalf("got %q, %v", got, err)
			}
			if tt.bad {
				return
			}
			far.Close()
			if rest, err := io.ReadAll(near); err != nil || string(rest) != behind {
				t.Errorf("what follows is %q, %v", rest, err)
			}
		})
	}
}

// slowWire brings so many bytes, and then so many again.
type slowWire struct {
	left  string
	here  int
	steps int
	taken int
}

func (w *slowWire) peek(p []byte, atLeast int) (int, error) {
	for w.here < atLeast && w.here < len(w.left) {
		w.here = min(w.here+w.steps, len(w.left))
	}
	n := copy(p, w.left[:w.here])
	if n < atLeast {
		return n, io.EOF
	}
	return n, nil
}

func (w *slowWire) Read(p []byte) (int, error) {
	if _, err := w.peek(nil, 1); err != nil && w.here == 0 {
		return 0, err
	}
	n := copy(p, w.left[:w.here])
	w.left, w.here, w.taken = w.left[n:], w.here-n, w.taken+n
	return n, nil
}

// TestReceiveSplit cuts each header once at every byte, and at all.
func TestReceiveSplit(t *testing.T) {
	for _, tt := range headers {
		for cut := range len(tt.header) + 1 {
			w := &slowWire{left: tt.header + behind, here: cut, steps: max(1, (cut*7)%13)}
			got, err := receive(w)
			if (err != nil) != tt.bad || got.String() != tt.want {
				t.Fatalf("%s, cut at %d: got %q, %v", tt.name, cut, got, err)
			}
			if !tt.bad && w.left != behind {
				t.Fatalf("%s, cut at %d: %q follows", tt.name, cut, w.left)
			}
		}
	}
}

// TestReceiveSplitOnTheWire sends headers in two packets: what has been looked at is waited
// for again only when more has come.
func TestReceiveSplitOnTheWire(t *testing.T) {
	for _, header := range []string{headers[1].header, v2(0x21, 0x11, body4)} {
		for cut := 1; cut < len(header); cut++ {
			far, near := pair(t)
			far.Write([]byte(header[:cut]))
			looked := make([]byte, cut)
			if _, err := (socket{near}).peek(looked, cut); err != nil { // the first packet is there
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				got, err := Receive(near)
				if err == nil && got.String() != "192.0.2.1:4711 198.51.100.2:443" {
					err = errors.New(got.String())
				}
				done <- err
			}()
			far.Write([]byte(header[cut:] + behind))
			if err := <-done; err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			rest := make([]byte, len(behind))
			if _, err := io.ReadFull(near, rest); err != nil || string(rest) != behind {
				t.Fatalf("cut at %d: %q follows, %v", cut, rest, err)
			}
		}
	}
}

// TestReceiveNothing: silence, the end, and the beginning of something else are no header.
func TestReceiveNothing(t *testing.T) {
	for _, sent := range []string{"", "P", "PRO", "PROPFIND / HTTP/1.1\r\n", "\r\n", "\r\n\r\nGET / HTTP/1.1\r\n", "\x16\x03\x01"} {
		// A beginning of a signature that ends there is one that is not complete.
		begun := sent != "" && len(sent) < 4
		for _, ends := range []bool{false, true} {
			far, near := pair(t)
			far.Write([]byte(sent))
			if sent != "" {
				(socket{near}).peek(make([]byte, len(sent)), len(sent))
			}
			if ends {
				far.CloseWrite()
			}
			if begun && sent[0] != 0x16 || !ends && sent == "" {
				near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			}
			got, err := Receive(near)
			if want := begun && sent[0] != 0x16; got != nil || (err != nil) != want || want && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q, ends %v: got %v, %v", sent, ends, got, err)
			}
			near.SetReadDeadline(time.Now().Add(patience))
			far.Close()
			if rest, _ := io.ReadAll(near); string(rest) != sent {
				t.Errorf("%q, ends %v: %q is left", sent, ends, rest)
			}
		}
	}
}

// TestReceiveIncomplete: headers that end, or stop, too soon.
func TestReceiveIncomplete(t *testing.T) {
	for _, header := range []string{"PROXY", "PROXY TCP4 192.0.2.1 198", v2(0x21, 0x11, body4)[:12], v2(0x21, 0x11, body4)[:15], v2(0x21, 0x11, body4)[:27]} {
		far, near := pair(t)
		far.Write([]byte(header))
		far.CloseWrite()
		if got, err := Receive(near); got != nil || !errors.Is(err, errIncomplete) {
			t.Errorf("%q ends: got %v, %v", header, got, err)
		}
		far, near = pair(t)
		far.Write([]byte(header))
		(socket{near}).peek(make([]byte, len(header)), len(header))
		near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if got, err := Receive(near); got != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q stops: got %v, %v", header, got, err)
		}
	}
}

// TestHeader writes what Receive reads.
func TestHeader(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:4711"), netip.MustParseAddrPort("[2001:db8::1]:443")
	tests := []struct {
		ends Ends
		v1   string
		want string
	}{
		{Ends{}, "PROXY UNKNOWN\r\n", ""},
		{Ends{four, four}, "PROXY TCP4 192.0.2.1 192.0.2.1 4711 4711\r\n", "192.0.2.1:4711 192.0.2.1:4711"},
		{Ends{six, six}, "PROXY TCP6 2001:db8::1 2001:db8::1 443 443\r\n", "[2001:db8::1]:443 [2001:db8::1]:443"},
		{Ends{four, six}, "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 4711 443\r\n", "192.0.2.1:4711 [2001:db8::1]:443"},
		{Ends{six, four}, "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 443 4711\r\n", "[2001:db8::1]:443 192.0.2.1:4711"},
		{Ends{Source: four}, "PROXY TCP4 192.0.2.1 0.0.0.0 4711 0\r\n", "192.0.2.1:4711 0.0.0.0:0"},
		{Ends{Source: six}, "PROXY TCP6 2001:db8::1 :: 443 0\r\n", "[2001:db8::1]:443 [::]:0"},
		{Ends{netip.MustParseAddrPort("[fe80::1%eth0]:1"), six}, "PROXY TCP6 fe80::1 2001:db8::1 1 443\r\n", "[fe80::1]:1 [2001:db8::1]:443"},
	}
	for _, tt := range tests {
		if got := V1.Header(tt.ends); string(got) != tt.v1 {
			t.Errorf("%v: got %q, want %q", tt.ends, got, tt.v1)
		}
		for _, v := range []Version{V1, V2} {
			w := &slowWire{left: string(v.Header(tt.ends)), steps: 200}
			if got, err := receive(w); err != nil || got.String() != tt.want || w.left != "" {
				t.Errorf("%v in version %d: got %q, %v, and %q follows", tt.ends, v, got, err, w.left)
			}
		}
	}
	if got := V2.Header(Ends{}); !bytes.Equal(got, []byte(v2(0x20, 0, ""))) {
		t.Errorf("got %q", got)
	}
	if got := None.Header(Ends{four, four}); got != nil {
		t.Errorf("got %q", got)
	}
}

// TestReceiveNobody tells a sender that speaks for itself from one that speaks for somebody
// whom it does not name.
func TestReceiveNobody(t *testing.T) {
	for header, nobody := range map[string]bool{
		"PROXY UNKNOWN\r\n":      true,
		v2(0x21, 0x00, ""):       true,
		v2(0x20, 0x00, ""):       false,
		v2(0x20, 0x11, "x"):      false,
		"GET / HTTP/1.1\r\n\r\n": false,
	} {
		far, near := pair(t)
		far.Write([]byte(header))
		got, err := Receive(near)
		if err != nil || (got != nil) != nobody || nobody && *got != (Ends{}) {
			t.Errorf("%q: got %v, %v", header, got, err)
		}
	}
}
