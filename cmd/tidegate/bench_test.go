package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/cli"
	"github.com/tidegate/tidegate/internal/load"
	"github.com/tidegate/tidegate/tls"
)

// bench runs `tidegate bench` in this process.
func bench(ctx context.Context, stdout, stderr io.Writer, args ...string) int {
	root := &cobra.Command{Use: "tidegate"}
	root.SetContext(ctx)
	root.AddCommand(benchCommand())
	return cli.Run(root, append([]string{"bench"}, args...), stdout, stderr)
}

// benchServer runs `tidegate bench serve` for the test and returns its URL.
func benchServer(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		defer w.Close()
		code <- bench(ctx, w, &stderr, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	}()
	t.Cleanup(func() {
		cancel()
		if c := <-code; c != 0 {
			t.Errorf("bench serve: exit code %d: %s", c, &stderr)
		}
	})
	line, err := bufio.NewReader(r).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "serving on ")
	if err != nil || !ok {
		t.Fatalf("bench serve: %q %v", line, err)
	}
	return url
}

// certificate writes a certificate of localhost and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	certPEM, keyPEM, err := tls.NewDevelopmentCertificate()
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, b := range map[string][]byte{cert: certPEM, key: keyPEM} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestBenchExitCodes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	cert, _ := certificate(t)
	url, secure := "ws://"+ln.Addr().String(), "wss://"+ln.Addr().String()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "arg"},
		{[]string{url, url}, 2, "arg"},
		{[]string{"http://x"}, 2, "ws nor wss"},
		{[]string{url, "--mode", "sing"}, 2, "sing"},
		{[]string{url, "--text", "--binary"}, 2, "text"},
		{[]string{url, "--insecure", "--ca", cert}, 2, "insecure"},
		{[]string{url, "--size", "3"}, 2, "16 bytes"},
		{[]string{url, "--source-ips", "localhost"}, 2, "localhost"},
		{[]string{url, "--header", "nothing"}, 2, "Name: value"},
		{[]string{url, "--connections", "0"}, 2, "--connections"},
		{[]string{url, "--duration", "fast"}, 2, "duration"},
		{[]string{url, "--workers", "0"}, 2, "--workers"},
		{[]string{url, "--timeout", "0s"}, 2, "--timeout"},
		{[]string{url, "--mode", "connect", "--text"}, 2, "--text is for messages"},
		{[]string{url, "--mode", "connect", "--size", "20"}, 2, "--size is for messages"},
		{[]string{url, "--header", "Bad Name: x"}, 2, "HTTP allows"},
		{[]string{url, "--header", "connection: close"}, 2, "opening handshake's own"},
		{[]string{url + "/?mode=push", "--mode", "push"}, 2, "leave mode out"},
		{[]string{"ws://me:pw@localhost:1/"}, 2, "Authorization"},
		{[]string{url, "--source-ips", "::1"}, 2, "IPv4"},
		{[]string{url, "--nope"}, 2, "nope"},
		{[]string{"serve", "more"}, 2, "more"},
		{[]string{"serve", "--tls-cert", cert}, 2, "go together"},
		{[]string{"serve", "--workers", "0"}, 2, "workers"},
		{[]string{"serve", "--listen", "nowhere"}, 1, "nowhere"},
		{[]string{"serve", "--tls-cert", cert, "--tls-key", cert}, 1, "certificate"},
		{[]string{url}, 1, "refused"},
		{[]string{url, "--json"}, 1, "refused"},
		{[]string{secure, "--ca", "/nonexistent.pem"}, 1, "nonexistent"},
		{[]string{secure, "--ca", "main.go"}, 1, "no certificate"},
	} {
		var stdout, stderr bytes.Buffer
		code := bench(t.Context(), &stdout, &stderr, c.args...)
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		last := lines[len(lines)-1]
		if code != c.code || !strings.HasPrefix(last, "tidegate: ") || !strings.Contains(last, c.says) {
			t.Errorf("%q: exit code %d, %q; want %d, %q", c.args, code, last, c.code, c.says)
		}
		if stdout.Len() != 0 {
			t.Errorf("%q: stdout has %q", c.args, &stdout)
		}
	}
}

func TestBenchAgainstItsServer(t *testing.T) {
	cert, key := certificate(t)
	plain := benchServer(t)
	secure := benchServer(t, "--tls-cert", cert, "--tls-key", key)
	for _, args := range [][]string{
		{plain},
		{plain, "--text", "--size", "100", "--rate", "200", "--source-ips", "127.0.0.2,127.0.0.3"},
		{plain, "--mode", "push", "--rate", "200"},
		{plain, "--mode", "idle", "--ping", "20ms"},
		{plain, "--mode", "connect", "--subprotocol", "a,b", "-H", "X-One: two"},
		{secure, "--ca", cert},
		{secure, "--insecure", "--mode", "connect", "--resume"},
	} {
		args := append(args, "--connections", "3", "--warmup", "20ms", "--duration", "200ms")
		var stdout, stderr bytes.Buffer
		if code := bench(t.Context(), &stdout, &stderr, append(args, "--json")...); code != 0 {
			t.Errorf("%q: exit code %d: %s", args, code, &stderr)
			continue
		}
		var r load.Report
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if r.Latency.Count == 0 || r.Handshakes.Completed < 3 || len(r.Errors) != 0 || r.Closes[1000] != uint64(r.Handshakes.Completed) {
			t.Errorf("%q: %s", args, &stdout)
		}
		if resumes := len(args) > 4 && args[4] == "--resume"; r.TLS != nil && (r.TLS.Resumed > 0) != resumes {
			t.Errorf("%q: resumed %d", args, r.TLS.Resumed)
		}
		if !strings.Contains(stderr.String(), "measuring") {
			t.Errorf("%q: no progress: %q", args, &stderr)
		}
		stdout.Reset()
		if code := bench(t.Context(), &stdout, &stderr, args...); code != 0 || !strings.Contains(stdout.String(), "p99.9") {
			t.Errorf("%q: exit code %d, table %q", args, code, &stdout)
		}
	}
	var stderr bytes.Buffer
	if code := bench(t.Context(), io.Discard, &stderr, secure, "--duration", "10ms"); code != 1 || !strings.Contains(stderr.String(), "certificate") {
		t.Errorf("an unknown authority: exit code %d, %s", code, &stderr)
	}
}

// TestBenchInterrupted: a report comes, and the exit code says that it is not whole.
func TestBenchInterrupted(t *testing.T) {
	url := benchServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := bench(ctx, &stdout, &stderr, url, "--duration", "1h", "--warmup", "0s", "--json")
	var r load.Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || code != 1 || !r.Interrupted || r.Messages.Received == 0 {
		t.Errorf("exit code %d, %v, %s, %s", code, err, &stdout, &stderr)
	}
}
