package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newTestPCG() *rand.PCG { return rand.NewPCG(1, 2) }

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestReportShape: scripts depend on the JSON.
func TestReportShape(t *testing.T) {
	l := Latency{Count: 3, Mean: 0.0015, P50: 0.001, P90: 0.0021234, P99: 0.003, P999: 0.25, Max: 12.3456}
	r := &Report{
		URL: "wss://edge.example/ws", Mode: Echo, Type: "binary", Size: 64, Connections: 2, Rate: 1500,
		Started: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Warmup: 1, Duration: 10.0012, Interrupted: true,
		Handshakes: Handshakes{Due: 5, Unstarted: 2, Attempted: 3, Completed: 2, Failed: 1, PerSecond: 812.5, Latency: l},
		TLS:        &TLS{Version: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", Curve: "X25519", Resumed: 1},
		Messages:   Messages{Due: 15010, Unsent: 8, Sent: 15002, Received: 15001, PerSecond: 1500.1, Lost: 1, Doubled: 2, Reordered: 3, Misdelivered: 4, Unexpected: 5},
		Bytes:      Bytes{960128, 960064}, Pings: Pings{6, 7}, Latency: l,
		Schedule: Schedule{Late: 30, Share: 0.002, Worst: 0.0042, Held: 9},
		Closes:   map[int]uint64{1000: 1, 1006: 1}, Errors: []Fault{{"dial_refused", 1, "dial tcp: connection \x1b refused"}},
		CPU: &CPU{Seconds: 1.5, Wall: 10, Messages: 15000, PerMessage: 0.0001},
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", append(b, '\n'))
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", table.Bytes())
}

func TestOptionErrors(t *testing.T) {
	good := Options{URL: "ws://127.0.0.1:1", Connections: 1, Size: 64, Duration: time.Second}
	for option, change := range map[string]func(*Options){
		"URL":         func(o *Options) { o.URL = "http://x" },
		"mode":        func(o *Options) { o.Mode = "sing" },
		"connections": func(o *Options) { o.Connections = 0 },
		"size":        func(o *Options) { o.Size = 15 },
		"rate":        func(o *Options) { o.Rate = -1 },
		"duration":    func(o *Options) { o.Duration = 0 },
		"warmup":      func(o *Options) { o.Warmup = -1 },
		"ping":        func(o *Options) { o.Ping = time.Second },
		"timeout":     func(o *Options) { o.Timeout = -1 },
		"workers":     func(o *Options) { o.Workers = -1 },
		"cpu-of":      func(o *Options) { o.CPUOf = 1 << 30 },
		"source-ips":  func(o *Options) { o.SourceIPs = []netip.Addr{{}} },
	} {
		o := good
		change(&o)
		r, err := Run(t.Context(), o)
		wrong, ok := errors.AsType[*OptionError](err)
		if r != nil || !ok || wrong.Option != option {
			t.Errorf("%s: %v", option, err)
		}
	}
	for url, says := range map[string]string{"": "ws nor wss", "ws://": "no host", "x": "ws nor wss", "ws://h/#f": "fragment", "ws://[::1": "missing",
		"://": "scheme", "ws://h:0": "port 0", "ws://h:99999": "port 99999", "ws://me:secret@h": "--header"} {
		o := good
		o.URL = url
		_, err := Run(t.Context(), o)
		if wrong, ok := errors.AsType[*OptionError](err); !ok || wrong.Option != "URL" || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("URL %q: %v", url, err)
		}
	}
	for _, name := range reserved {
		o := good
		o.URL += "/?room=1&" + name + "=1"
		if _, err := Run(t.Context(), o); errors.As(err, new(*OptionError)) {
			t.Errorf("%s in echo mode: %v", o.URL, err)
		}
		o.Mode = Push
		if _, err := Run(t.Context(), o); !errors.As(err, new(*OptionError)) || !strings.Contains(err.Error(), "leave "+name+" out") {
			t.Errorf("%s in push mode: %v", o.URL, err)
		}
	}
	for url, source := range map[string]string{"ws://127.0.0.1:1": "::1", "ws://[::1]:1": "127.0.0.1"} {
		o := good
		o.URL, o.SourceIPs = url, []netip.Addr{netip.MustParseAddr(source)}
		_, err := Run(t.Context(), o)
		if wrong, ok := errors.AsType[*OptionError](err); !ok || wrong.Option != "source-ips" {
			t.Errorf("%s from %s: %v", url, source, err)
		}
	}
}

// TestInterrupted: what was measured until then is reported.
func TestInterrupted(t *testing.T) {
	addr := serve(t, &Server{})
	for _, mode := range []Mode{Echo, Connect} {
		ctx, cancel := context.WithCancel(t.Context())
		o := Options{URL: "ws://" + addr, Mode: mode, Connections: 2, Size: 64, Duration: time.Hour}
		o.Progress = func(p Progress) {
			if p.Phase == Measuring && p.Elapsed > time.Second/2 {
				cancel()
			}
		}
		begin := time.Now()
		r, err := Run(ctx, o)
		if !errors.Is(err, context.Canceled) || r == nil || !r.Interrupted {
			t.Fatalf("%s: %v", mode, err)
		}
		if r.Duration < 0.9 || r.Duration > 15 || r.Closes[1000] == 0 || mode == Echo && r.Messages.Received == 0 {
			t.Errorf("%s: %+v", mode, r)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: took %s", mode, took)
		}
		cancel()
	}
}

func TestConnectMode(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	addr := serve(t, &Server{TLS: serverTLS})
	r, err := Run(t.Context(), Options{URL: "wss://" + addr, Mode: Connect, Connections: 4, Rate: 100, TLS: clientTLS,
		Warmup: 50 * time.Millisecond, Duration: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	unharmed(t, r)
	if h := r.Handshakes; h.Completed != 30 || h.Latency.Count != 30 || r.Closes[1000] != 30 || r.TLS.Resumed != 0 {
		t.Errorf("%+v, closes %v", h, r.Closes)
	}
}

// TestProgress: phases in order, and counts.
func TestProgress(t *testing.T) {
	addr := serve(t, &Server{})
	var phases []Phase
	o := short(Options{URL: "ws://" + addr, Mode: Echo, Connections: 2, Size: 64, Rate: 100})
	o.Progress = func(p Progress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		if p.Phase == Finishing && (p.Connected != 2 || p.Received == 0 || p.Failed != 0) {
			t.Errorf("%+v", p)
		}
	}
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Phase{Connecting, Warming, Measuring, Finishing}, phases); diff != "" {
		t.Error(diff)
	}
}

// TestPortsRunOut: an address that cannot be had is an error with a name.
func TestPortsRunOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	o := short(Options{URL: "ws://" + ln.Addr().String(), Mode: Idle, SourceIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	_, err = Run(t.Context(), o)
	var f *failure
	if !errors.As(err, &f) || f.kind != "dial_no_port_left" {
		t.Error(err)
	}
}
