package main

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/tidegate/tidegate/internal/cli"
	"github.com/tidegate/tidegate/internal/load"
)

// benchFlags are the flags of `bench URL` that are not options of a run as they stand.
type benchFlags struct {
	mode         string
	text, binary bool
	sources      []string
	headers      []string
	insecure     bool
	ca           string
	resume       bool
	json         bool
}

func benchCommand() *cobra.Command {
	var o load.Options
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench URL",
		Short: "Put load on a WebSocket server and report latency, losses and errors",
		Long: `Put load on a WebSocket server, through a proxy or not, and report what came of it.

Modes:
  echo      send messages; each must come back ('tidegate bench serve' does that)
  push      receive messages from 'tidegate bench serve', which the URL must lead to
  idle      hold connections open: silent, or with --ping; with --size each sends one
            message first, which must come back
  connect   open a connection, close it, open the next

With --rate the latency of a message counts from when it was due, so that a server that
stalls shows in the percentiles (no coordinated omission). Without it, each connection
has one message in flight, and the latency is the round trip. In push mode latency is
one way and the clocks of both machines must agree.

Messages are numbered and checked: lost, doubled, reordered, changed ones and those of
another connection are counted. The exit code is 1 if there is nothing to report.`,
		Example: `  tidegate bench ws://127.0.0.1:8080/ws --connections 1000 --rate 50000 --duration 30s
  tidegate bench wss://localhost:8443/ws --mode connect --connections 32 --insecure --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.URL = args[0]
			if err := f.needless(cmd, &o); err != nil {
				return err
			}
			if err := f.apply(cmd, &o); err != nil {
				return err
			}
			return runBench(cmd, &o, f.json)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.mode, "mode", "m", string(load.Echo), "echo, push, idle or connect")
	flags.IntVarP(&o.Connections, "connections", "n", 50, "connections (connect mode: in progress at a time)")
	flags.IntVarP(&o.Size, "size", "s", 64, "payload of a message in `bytes` (idle mode: none by default)")
	flags.Float64VarP(&o.Rate, "rate", "r", 0, "messages (connect mode: connections) per second over all connections; 0: as fast as answers come")
	flags.DurationVarP(&o.Duration, "duration", "d", 10*time.Second, "how long to measure")
	flags.DurationVar(&o.Warmup, "warmup", time.Second, "the same load before, not measured")
	flags.BoolVar(&f.binary, "binary", false, "send binary messages (the default)")
	flags.BoolVar(&f.text, "text", false, "send text messages")
	flags.StringSliceVar(&o.Subprotocols, "subprotocol", nil, "subprotocols to offer")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "a `header` (Name: value) for the opening handshakes; may be repeated")
	flags.StringSliceVar(&f.sources, "source-ips", nil, "local `addresses` to connect from in turn, such as 127.0.0.2,127.0.0.3: each has some 28,000 ports")
	flags.DurationVar(&o.Ping, "ping", 0, "idle mode: each connection pings this often")
	flags.DurationVar(&o.Timeout, "timeout", 10*time.Second, "for connecting and both handshakes")
	flags.BoolVar(&f.insecure, "insecure", false, "wss: accept any certificate")
	flags.StringVar(&f.ca, "ca", "", "wss: PEM `file` of the authorities to trust instead of the system's")
	flags.BoolVar(&f.resume, "resume", false, "wss: resume TLS sessions, as one browser does and different clients do not")
	flags.IntVar(&o.Workers, "workers", runtime.GOMAXPROCS(0), "goroutines that own the connections")
	flags.IntVar(&o.CPUOf, "cpu-of", 0, "report the CPU time of the process with this `PID` too")
	flags.BoolVar(&f.json, "json", false, "print the report as JSON")
	cmd.MarkFlagsMutuallyExclusive("text", "binary")
	cmd.MarkFlagsMutuallyExclusive("insecure", "ca")
	cmd.AddCommand(benchServeCommand())
	return cmd
}

// needless refuses flags that would do nothing. Those of TLS are taken for ws too: scripts set
// them for both.
func (f *benchFlags) needless(cmd *cobra.Command, o *load.Options) error {
	for _, flag := range []struct {
		name   string
		useful bool
		why    string
	}{
		{"text", f.mode != string(load.Connect), "is for messages, and connect mode sends none"},
		{"binary", f.mode != string(load.Connect), "is for messages, and connect mode sends none"},
		{"size", f.mode != string(load.Connect), "is for messages, and connect mode sends none"},
		{"timeout", o.Timeout > 0, "must be longer than 0s"},
		{"workers", o.Workers > 0, "must be 1 or more"},
	} {
		if cmd.Flags().Changed(flag.name) && !flag.useful {
			return &cli.UsageError{Err: fmt.Errorf("--%s %s", flag.name, flag.why)}
		}
	}
	return nil
}

// handshakes are the headers that an opening handshake sets itself.
var handshakes = []string{"Connection", "Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
	"Content-Length", "Transfer-Encoding"}

// apply turns flags into options.
func (f *benchFlags) apply(cmd *cobra.Command, o *load.Options) error {
	wrong := func(format string, args ...any) error { return &cli.UsageError{Err: fmt.Errorf(format, args...)} }
	o.Mode, o.Text = load.Mode(f.mode), f.text
	if o.Mode == load.Idle && !cmd.Flags().Changed("size") {
		o.Size = 0
	}
	for _, s := range f.sources {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return wrong("--source-ips: %q is not an IP address", s)
		}
		o.SourceIPs = append(o.SourceIPs, ip)
	}
	o.Header = http.Header{}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" || strings.ContainsAny(h, "\r\n") {
			return wrong("--header: %q is not of the form Name: value", h)
		}
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return wrong("--header: %q is not a header that HTTP allows", h)
		}
		if slices.Contains(handshakes, http.CanonicalHeaderKey(name)) {
			return wrong("--header: %s is the opening handshake's own (for subprotocols: --subprotocol)", name)
		}
		o.Header.Add(name, strings.TrimSpace(value))
	}
	o.TLS = &cryptotls.Config{InsecureSkipVerify: f.insecure}
	if f.resume {
		o.TLS.ClientSessionCache = cryptotls.NewLRUClientSessionCache(0)
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return fmt.Errorf("reading --ca: %w", err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("--ca %s holds no certificate in PEM", f.ca)
		}
	}
	return nil
}

// runBench prints the report on stdout. A run that a signal or a failure has ended early
// is reported too, as far as it came.
func runBench(cmd *cobra.Command, o *load.Options, asJSON bool) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // the second signal ends it at once
	roomForWorkers(o.Workers)
	progress := &progressLine{w: cmd.ErrOrStderr()}
	o.Progress = progress.show
	report, err := load.Run(ctx, *o)
	if _, wrong := errors.AsType[*load.OptionError](err); wrong {
		return &cli.UsageError{Err: err}
	}
	if report == nil {
		return err
	}
	var printed error
	if asJSON {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		printed = enc.Encode(report)
	} else {
		printed = report.WriteTable(cmd.OutOrStdout())
	}
	if report.Schedule.Share > 0.01 {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %.1f%% of the messages were sent late: the generator is short of CPU, "+
			"and the latencies are its own too\n", 100*report.Schedule.Share)
	}
	if o.CPUOf != 0 && report.CPU == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: process %d ended meanwhile: its CPU time is not known\n", o.CPUOf)
	}
	return errors.Join(err, printed)
}

// roomForWorkers leaves Go threads for handshakes while workers wait in system calls.
func roomForWorkers(workers int) {
	if workers > 0 && runtime.GOMAXPROCS(0) <= workers {
		runtime.GOMAXPROCS(min(workers, 1024) + 1)
	}
}

// progressLine writes a line a second.
type progressLine struct {
	w    io.Writer
	last load.Progress
	at   time.Time
}

func (l *progressLine) show(p load.Progress) {
	at := time.Now()
	line := string(p.Phase)
	if p.Of > 0 {
		line += fmt.Sprintf(" %.0fs/%s", p.Elapsed.Seconds(), p.Of)
	}
	line += fmt.Sprintf("  %d open, %d failed", p.Open, p.Failed)
	if p.Phase == load.Connecting || p.Open == 0 {
		line += fmt.Sprintf(", %d handshakes", p.Connected)
	}
	if wall := at.Sub(l.at).Seconds(); p.Sent+p.Received > 0 && wall > 0.1 && !l.at.IsZero() {
		line += fmt.Sprintf("  %.0f sent/s, %.0f received/s", float64(p.Sent-l.last.Sent)/wall, float64(p.Received-l.last.Received)/wall)
	}
	fmt.Fprintln(l.w, line)
	l.last, l.at = p, at
}

func benchServeCommand() *cobra.Command {
	var listen, cert, key string
	var workers int
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the backend of bench: it echoes, or pushes if the URL asks for it",
		Long: `Run the backend of bench on any path. The query of the URL says what a connection gets:

  (nothing), ?mode=echo          every message comes back
  ?mode=push&size=64&rate=500    binary messages of this size, so many per second; rate 0:
                                 without pause; text=1: text messages
  ?mode=idle                     no answers`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (cert == "") != (key == "") {
				return &cli.UsageError{Err: errors.New("--tls-cert and --tls-key go together")}
			}
			if workers < 1 {
				return &cli.UsageError{Err: errors.New("--workers is not positive")}
			}
			server := &load.Server{Workers: workers}
			if cert != "" {
				pair, err := cryptotls.LoadX509KeyPair(cert, key)
				if err != nil {
					return fmt.Errorf("loading the certificate: %w", err)
				}
				server.TLS = &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}}
			}
			return serveBench(cmd, server, listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9000", "address to listen on")
	cmd.Flags().StringVar(&cert, "tls-cert", "", "certificate chain in a PEM `file`: serve wss")
	cmd.Flags().StringVar(&key, "tls-key", "", "its key, a PEM `file`")
	cmd.Flags().IntVar(&workers, "workers", runtime.GOMAXPROCS(0), "goroutines that own the connections")
	return cmd
}

// serveBench serves until a signal. It prints the address first, since it may have been
// asked for any port.
func serveBench(cmd *cobra.Command, server *load.Server, listen string) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	scheme := "ws"
	if server.TLS != nil {
		scheme = "wss"
	}
	roomForWorkers(server.Workers)
	fmt.Fprintf(cmd.OutOrStdout(), "serving on %s://%s\n", scheme, ln.Addr())
	return server.Serve(ctx, ln)
}
