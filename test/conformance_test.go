package test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// sections are tables of what RFC 6455 and RFC 7692 allow and forbid, after the case list
// of the Autobahn TestSuite, whose numbers they keep. listed is how many cases of that
// list a section has; rows without a number are ours.
var sections = []struct {
	number, name string
	rows         func() []exchange
	listed       int
}{
	{"1", "framing", framingCases, 16},
	{"2", "pings", pingCases, 11},
	{"3", "reserved bits", reservedBitCases, 7},
	{"4", "reserved opcodes", reservedOpcodeCases, 10},
	{"5", "fragmentation", fragmentCases, 20},
	{"6", "UTF-8", utf8Cases, 145},
	{"7", "closing", closingCases, 37},
	{"9", "sizes", sizeCases, 54},
	{"10", "automatic fragmentation", autoFragmentCases, 1},
}

// enough failures of a section are as good as all, which take long to wait for.
const enough = 10

// confEdge is the configuration of an edge in front of a lobby, with a route for each of
// the compressionModes.
func confEdge(backend string) string {
	var routes strings.Builder
	for _, mode := range compressionModes {
		fmt.Fprintf(&routes, "  - {name: %s, match: {path: /%s}, pool: apps, websocket: {compression: %s}}\n", mode, mode, mode)
	}
	return withBackends(`
ADMIN
listeners:
  - {name: ws, address: "127.0.0.1:0"}
  - {name: wss, address: "127.0.0.1:0", tls: {certificates: [{cert: CERT, key: KEY}]}}
routes:
  - {name: echo, match: {path: /}, pool: apps}
`+routes.String()+`
pools:
  - {name: apps, backends: [BACKENDS]}
`, backend)
}

// TestConformance runs every section on both engines, with and without TLS, once with a
// client that speaks to a backend and once with a backend that speaks to a client.
func TestConformance(t *testing.T) {
	for again := soaking(t); ; {
		for _, e := range []struct {
			name   string
			binary func(*testing.T) string
		}{{"loops", func(*testing.T) string { return binary }}, {"goroutines", goroutineBinary}} {
			t.Run(e.name, func(t *testing.T) { conform(t, e.binary(t)) })
		}
		if !again() {
			return
		}
	}
}

// conform runs every section on one edge.
func conform(t *testing.T, program string) {
	l := openLobby(t)
	e := startProgram(t, program, []string{"GOGC=100"}, confEdge(l.addr()))
	for _, scheme := range []string{"ws", "wss"} {
		to := entrance{l, e.addr(scheme), scheme == "wss"}
		for _, s := range sections {
			var cases []conformanceCase
			for _, x := range s.rows() {
				cases = append(cases,
					conformanceCase{"client/" + x.title(), func(t *testing.T) { c, b := to.connect(t); x.run(t, c, b) }},
					conformanceCase{"backend/" + x.title(), func(t *testing.T) { c, b := to.connect(t); x.run(t, b, c) }})
			}
			runSection(t, scheme+"/"+s.number+" "+s.name, cases)
		}
		for _, mode := range compressionModes {
			runSection(t, scheme+"/12 content, "+mode, to.compressed(mode, deflateContentCases()))
			runSection(t, scheme+"/13 parameters, "+mode, to.compressed(mode, deflateParameterCases()))
		}
	}
	e.eventually("no session is left", func() bool { return e.status().Sessions == 0 })
}

// conformanceCase is a row of a section, on one engine and one listener.
type conformanceCase struct {
	name string
	run  func(*testing.T)
}

// runSection runs the cases of a section and counts them, so that none vanishes.
func runSection(t *testing.T, title string, cases []conformanceCase) {
	var ran, failed atomic.Int64
	t.Run(title, func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				ran.Add(1)
				if failed.Load() >= enough {
					t.Fatal("not run: enough of this section have failed")
				}
				defer func() {
					if t.Failed() {
						failed.Add(1)
					}
				}()
				c.run(t)
			})
		}
	})
	if want := int64(len(cases)); ran.Load() != want && !filtered() {
		t.Errorf("%s: %d cases ran, want %d", title, ran.Load(), want)
	}
}

// TestConformanceTables: no case of the list is missing, and none is there twice.
func TestConformanceTables(t *testing.T) {
	for _, s := range sections {
		listed, titles := 0, map[string]bool{}
		for _, x := range s.rows() {
			if titles[x.title()] {
				t.Errorf("section %s has %q twice", s.number, x.title())
			}
			titles[x.title()] = true
			if x.id != "" {
				listed++
				if !strings.HasPrefix(x.id, s.number+".") {
					t.Errorf("%q is in section %s", x.title(), s.number)
				}
			}
		}
		if listed != s.listed {
			t.Errorf("section %s has %d cases of the list, want %d", s.number, listed, s.listed)
		}
	}
	if a, b := len(deflateContentCases()), len(deflateParameterCases()); a != 90 || b != 126 {
		t.Errorf("the sections 12 and 13 have %d and %d cases, want 90 and 126", a, b)
	}
}

// TestCompressedConversations has client and backend talk without an edge: what they do
// is right before an edge is asked to leave it so.
func TestCompressedConversations(t *testing.T) {
	l := openLobby(t)
	for _, x := range append(deflateContentCases(), deflateParameterCases()...) {
		x.run(t, entrance{l, l.addr(), false}, "passthrough")
	}
}

// filtered reports whether -run or -skip chose among the cases.
func filtered() bool {
	return strings.Contains(flag.Lookup("test.run").Value.String(), "/") || flag.Lookup("test.skip").Value.String() != ""
}

// goroutineBinary is a tidegate whose sessions run on goroutines, as they do on systems
// without event loops: the same program but for one assignment.
func goroutineBinary(t *testing.T) string {
	t.Helper()
	program, err := buildGoroutines()
	must(t, err)
	return program
}

// buildGoroutines builds goroutineBinary, once, beside binary.
var buildGoroutines = sync.OnceValues(func() (string, error) {
	const loops, none = "e.srv.Loops = n\n", "e.srv.Loops = 0\n"
	dir := filepath.Dir(binary)
	source, err := filepath.Abs("../cmd/tidegate/run.go")
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), loops); n != 1 {
		return "", fmt.Errorf("%s has %q %d times", source, loops, n)
	}
	changed, overlay := filepath.Join(dir, "run.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	if err := errors.Join(err, os.WriteFile(changed, []byte(strings.Replace(string(text), loops, none, 1)), 0o600),
		os.WriteFile(overlay, replace, 0o600)); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "tidegate-goroutines")
	args := []string{"build", "-overlay", overlay, "-o", program}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../cmd/tidegate")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building tidegate: %w\n%s", err, out)
	}
	return program, nil
})

// TestExchangesAreChecked: what the sections rely on, without an edge.
func TestExchangesAreChecked(t *testing.T) {
	legal := exchange{good: []fr{textFr("one").begun(), lastFr("two")}}
	refused := exchange{good: []fr{textFr("one")}, bad: []fr{textFr("two").opcode(3)}, code: 1002}
	garbled := exchange{bad: []fr{textFr("caf\xc3é")}, code: 1007, inPayload: true}
	away, bye := closeFr(1001, ""), closeFr(1000, "")
	part := func(s string) *fr { f := textFr(s); return &f }
	for _, tt := range []struct {
		name  string
		x     exchange
		got   account
		right bool
	}{
		{"all of it", legal, account{frames: []fr{legal.good[0], legal.good[1], bye}}, true},
		{"no Close", legal, account{frames: legal.good}, false},
		{"a frame is missing", legal, account{frames: []fr{legal.good[0], bye}}, false},
		{"a frame is there twice", legal, account{frames: []fr{legal.good[0], legal.good[1], legal.good[1], bye}}, false},
		{"one fragment", legal, account{frames: []fr{textFr("onetwo"), bye}}, false},
		{"another Close", legal, account{frames: []fr{legal.good[0], legal.good[1], away}}, false},
		{"reset", legal, account{frames: []fr{legal.good[0], legal.good[1], bye}, err: net.ErrClosed}, false},
		{"refused", refused, account{frames: []fr{refused.good[0], away}}, true},
		{"refused with the code of the other end", refused, account{frames: []fr{refused.good[0], closeFr(1011, "")}}, false},
		{"what is refused went on", refused, account{frames: []fr{refused.good[0], refused.bad[0], away}}, false},
		{"part of what is refused went on", refused, account{frames: []fr{refused.good[0]}, partial: part("tw")}, false},
		{"refused before its first octet", garbled, account{frames: []fr{away}}, true},
		{"refused inside", garbled, account{partial: part("caf\xc3")}, true},
		{"refused behind the wrong octet", garbled, account{partial: part("caf\xc3\xc3")}, false},
		{"refused inside, and a Close", garbled, account{frames: []fr{away}, partial: part("caf")}, false},
		{"refused as a whole", garbled, account{frames: []fr{garbled.bad[0], away}}, false},
	} {
		if err := tt.x.judge(tt.got, false); (err == nil) != tt.right {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
