package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// Mode is what the connections of a run do.
type Mode string

const (
	// Echo sends messages and waits for each to come back.
	Echo Mode = "echo"
	// Push asks the backend for messages and only receives.
	Push Mode = "push"
	// Idle holds connections open: silent, or with pings only.
	Idle Mode = "idle"
	// Connect opens a connection, closes it with 1000, and opens the next.
	Connect Mode = "connect"
)

// Modes are all modes.
func Modes() []Mode { return []Mode{Echo, Push, Idle, Connect} }

// Options is what a run does. URL, Connections and Duration are required.
type Options struct {
	// URL is where to connect: ws or wss. In push mode the parameters of the
	// subscription are added to its query.
	URL string

	// Mode is Echo unless it says otherwise.
	Mode Mode

	// Connections is the number of connections. All are opened before anything is sent;
	// in connect mode it is how many may be in progress at a time.
	Connections int

	// Size is the payload of a message in bytes. It has a minimum, see [MinSize]. In idle
	// mode 0 sends nothing; with another size each connection sends one message at the
	// start, has it echoed, and is silent from then on.
	Size int

	// Rate is messages per second over all connections (connections per second in
	// connect mode). 0 is as fast as answers come: one message in flight on each
	// connection in echo mode, as fast as the connection takes them in push mode.
	Rate float64

	// Warmup comes before Duration, with the same load; only what was due within
	// Duration is reported, except for faults, which count from the start.
	Warmup, Duration time.Duration

	// Text sends text messages instead of binary ones.
	Text bool

	// Subprotocols are offered in this order; a server that takes none is fine.
	Subprotocols []string

	// Header is added to each opening handshake.
	Header http.Header

	// SourceIPs are the local addresses of connections, one after another. Each has about
	// 28,000 ports toward one address. Empty: the system's choice.
	SourceIPs []netip.Addr

	// TLS is the client configuration of wss; nil is the system's authorities and
	// crypto/tls's defaults. It is cloned. A connection stands for another client, so it
	// resumes no TLS session unless TLS.ClientSessionCache is set.
	TLS *tls.Config

	// Ping makes each connection of idle mode send a Ping at this interval; their round
	// trips are the latency of the report. 0: none.
	Ping time.Duration

	// Timeout is for connecting, the TLS and the opening handshake together. 0: 10 s.
	Timeout time.Duration

	// Grace is how long answers and Closes are waited for at the end. 0: 5 s.
	Grace time.Duration

	// Workers is the number of goroutines that own connections. 0: one.
	Workers int

	// CPUOf is a process whose CPU time is reported too, such as the proxy that is
	// measured. 0: none. Linux only.
	CPUOf int

	// Progress, if not nil, is told how the run goes: at each change of phase and each
	// second. It is called on Run's goroutine, which waits for it.
	Progress func(Progress)

	// goroutines selects the engine for systems without epoll, for its tests.
	goroutines bool
}

// Phase is how far a run is.
type Phase string

// The phases, in order.
const (
	Connecting Phase = "connecting"
	Warming    Phase = "warming up"
	Measuring  Phase = "measuring"
	Finishing  Phase = "finishing"
)

// Progress is the state of a run while it goes on. Its totals are since the start.
type Progress struct {
	Phase     Phase
	Elapsed   time.Duration // in this phase
	Of        time.Duration // the length of this phase; 0: not known
	Connected int           // handshakes completed
	Open      int           // connections open now
	Failed    int           // handshakes and connections that failed
	Sent      uint64        // messages
	Received  uint64        // messages
}

// MinSize returns the smallest Size of a mode: what a message carries must fit.
func MinSize(mode Mode, text bool) int {
	n := 0
	switch mode {
	case Echo, Idle:
		n = stampSize
	case Push:
		n = pushStampSize
	}
	if text {
		n *= 2 // in hexadecimal
	}
	return n
}

// MaxSize is the largest message, in bytes.
const MaxSize = 64 << 20

// OptionError says which option of a run is wrong. Option is its name on the command
// line, without dashes; "URL" is the URL.
type OptionError struct {
	Option string
	Err    error
}

func (e *OptionError) Error() string {
	if e.Option == "URL" {
		return "URL: " + e.Err.Error()
	}
	return "--" + e.Option + ": " + e.Err.Error()
}

func (e *OptionError) Unwrap() error { return e.Err }

// normal returns o with its defaults, and the parsed URL, or an *OptionError.
func (o Options) normal() (Options, *url.URL, error) {
	if o.Mode == "" {
		o.Mode = Echo
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Grace == 0 {
		o.Grace = 5 * time.Second
	}
	if o.Workers == 0 {
		o.Workers = 1
	}
	o.Workers = min(o.Workers, max(o.Connections, 1))
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return o, nil, &OptionError{"URL", errors.Unwrap(err)}
	case u.Scheme != "ws" && u.Scheme != "wss":
		return o, nil, &OptionError{"URL", fmt.Errorf("scheme %q is neither ws nor wss", u.Scheme)}
	case u.Hostname() == "":
		return o, nil, &OptionError{"URL", errors.New("no host")}
	case u.Fragment != "":
		return o, nil, &OptionError{"URL", errors.New("a WebSocket URL has no fragment (RFC 6455 §3)")}
	}
	if err := o.check(); err != nil {
		return o, nil, err
	}
	return o, u, o.checkURL(u)
}

// checkURL refuses what would be dropped, or be in the way, without a word.
func (o *Options) checkURL(u *url.URL) error {
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return &OptionError{"URL", fmt.Errorf("port %s is not from 1 to 65535", port)}
		}
	}
	if u.User != nil {
		return &OptionError{"URL", errors.New("a user and a password in it are not sent: use --header 'Authorization: Basic ...'")}
	}
	if o.Mode != Push {
		return nil
	}
	query := u.Query()
	for _, name := range reserved {
		if query.Has(name) {
			return &OptionError{"URL", fmt.Errorf("leave %s out of its query: push mode writes that itself, from --size, --rate and --text", name)}
		}
	}
	return nil
}

func (o *Options) check() error {
	wrong := func(option, format string, args ...any) error {
		return &OptionError{option, fmt.Errorf(format, args...)}
	}
	known := false
	for _, m := range Modes() {
		known = known || m == o.Mode
	}
	least := MinSize(o.Mode, o.Text)
	switch {
	case !known:
		return wrong("mode", "unknown mode %q", o.Mode)
	case o.Connections < 1 || o.Connections > maxConnections:
		return wrong("connections", "%d is not from 1 to %d", o.Connections, maxConnections)
	case o.Size < 0 || o.Size > MaxSize:
		return wrong("size", "%d is not from 0 to %d", o.Size, MaxSize)
	case o.Mode != Connect && (o.Mode != Idle || o.Size != 0) && o.Size < least:
		return wrong("size", "a message of this mode and type has at least %d bytes", least)
	case math.IsNaN(o.Rate) || o.Rate < 0 || o.Rate > 1e9:
		return wrong("rate", "%v is not from 0 to 1e9", o.Rate)
	case o.Mode == Idle && o.Rate != 0:
		return wrong("rate", "idle connections have none")
	case o.Duration <= 0:
		return wrong("duration", "%s is not positive", o.Duration)
	case o.Warmup < 0:
		return wrong("warmup", "%s is negative", o.Warmup)
	case o.Ping < 0:
		return wrong("ping", "%s is negative", o.Ping)
	case o.Ping > 0 && o.Mode != Idle:
		return wrong("ping", "only idle connections ping")
	case o.Timeout < 0:
		return wrong("timeout", "%s is negative", o.Timeout)
	case o.Workers < 1:
		return wrong("workers", "%d is not positive", o.Workers)
	}
	for _, ip := range o.SourceIPs {
		if !ip.IsValid() {
			return wrong("source-ips", "an address is not valid")
		}
	}
	return nil
}
