package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	quick, policies          bool
	before                   string // another Tidegate, for policies
	only, proxies            *regexp.Regexp
	rounds                   int
	out, results             string
	render, notes            string
	merge, into              string // files of samples
	proxyCore, loadCore      int
	idleRounds               int
	tidegate, haproxy, nginx string
	caddy                    string // empty: built when it is needed
	duration, warmup         time.Duration
	settle                   time.Duration
	sessions                 []int // of the memory measures
	command                  string
}

func main() {
	o, err := parse(os.Args[1:])
	if err == nil {
		err = run(o)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", strings.ReplaceAll(err.Error(), "\n", "; "))
		if _, wrong := errors.AsType[*usageError](err); wrong {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

type usageError struct{ error }

func parse(args []string) (*options, error) {
	o := &options{command: strings.Join(append([]string{"bin/bench"}, args...), " ")}
	var only, proxies, sessions string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "one short round without variants, idle sessions at 1,000 only: to see that it works")
	f.StringVar(&only, "only", "", "run only the measures whose name matches this expression (list: -only list)")
	f.StringVar(&proxies, "proxies", "", "run only the proxies whose name matches this expression")
	f.BoolVar(&o.policies, "policies", false, "measure Tidegate with its policies of sessions off, as they come, and on, instead of other proxies")
	f.StringVar(&o.before, "before", "", "with -policies: compare with this binary too")
	f.IntVar(&o.rounds, "rounds", 9, "rounds of the measures under load")
	f.IntVar(&o.idleRounds, "idle-rounds", 3, "rounds of the memory of idle sessions; their CPU time is counted in the first")
	f.StringVar(&o.out, "out", "", "write the page (Markdown) to this file; without it, to stdout")
	f.StringVar(&o.results, "results", "bench/results", "directory for the samples (JSON)")
	f.StringVar(&o.render, "render", "", "measure nothing, make the page of this file of samples")
	f.StringVar(&o.notes, "notes", "", "with -render: put this Markdown into the page, what the figures do not say")
	f.StringVar(&o.merge, "merge", "", "measure nothing, take the samples of this file over into those of -into")
	f.StringVar(&o.into, "into", "", "with -merge: the file that gets them, in the place of its own of the same measures")
	f.IntVar(&o.proxyCore, "proxy-core", 0, "core of the proxies")
	f.IntVar(&o.loadCore, "load-core", 1, "core of the load generator and the backend")
	f.StringVar(&o.tidegate, "tidegate", "", "measure this binary instead of building one")
	f.StringVar(&o.haproxy, "haproxy", "haproxy", "the HAProxy to measure")
	f.StringVar(&o.nginx, "nginx", "nginx", "the nginx to measure")
	f.StringVar(&o.caddy, "caddy", "", "the Caddy to measure plain requests with, instead of building one")
	f.DurationVar(&o.duration, "duration", time.Second, "measured time of each run under load")
	f.DurationVar(&o.warmup, "warmup", 300*time.Millisecond, "time before it under the same load")
	f.DurationVar(&o.settle, "settle", 8*time.Second, "silence before memory is read")
	f.StringVar(&sessions, "sessions", "1000,3000,9000", "idle sessions")
	f.SetOutput(io.Discard) // one line for what is wrong
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(os.Stdout)
			f.PrintDefaults()
			return nil, err
		}
		return nil, &usageError{err}
	}
	if f.NArg() > 0 {
		return nil, &usageError{fmt.Errorf("unexpected %q", f.Arg(0))}
	}
	if o.quick {
		var twice error
		f.Visit(func(set *flag.Flag) {
			switch set.Name {
			case "rounds", "idle-rounds", "duration", "warmup", "settle", "sessions":
				twice = &usageError{fmt.Errorf("-quick and -%s do not go together: it sets that itself", set.Name)}
			}
		})
		if twice != nil {
			return nil, twice
		}
		o.rounds, o.idleRounds, o.duration, o.warmup, o.settle, sessions = 1, 1, 800*time.Millisecond, 200*time.Millisecond, 3*time.Second, "1000"
	}
	return o, o.check(only, proxies, sessions)
}

func (o *options) check(only, proxies, sessions string) (err error) {
	if o.only, err = regexp.Compile(only); err != nil {
		return &usageError{fmt.Errorf("-only: %w", err)}
	}
	if o.proxies, err = regexp.Compile(proxies); err != nil {
		return &usageError{fmt.Errorf("-proxies: %w", err)}
	}
	last := 0
	for s := range strings.SplitSeq(sessions, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n <= last || n > 9500 {
			return &usageError{fmt.Errorf("-sessions: %q is not a growing list of numbers up to 9500", sessions)}
		}
		o.sessions, last = append(o.sessions, n), n
	}
	if o.before != "" && !o.policies {
		return &usageError{errors.New("-before goes with -policies")}
	}
	if o.notes != "" && o.render == "" {
		return &usageError{errors.New("-notes goes with -render")}
	}
	if (o.merge == "") != (o.into == "") || o.merge != "" && o.render != "" {
		return &usageError{errors.New("-merge and -into go together, and not with -render")}
	}
	if o.rounds < 1 || o.idleRounds < 1 || o.duration <= 0 || o.proxyCore == o.loadCore {
		return &usageError{errors.New("-rounds, -idle-rounds and -duration are positive, and the cores are two")}
	}
	if o.warmup < 0 || o.settle < 0 {
		return &usageError{errors.New("-warmup and -settle are not negative")}
	}
	return nil
}

func run(o *options) error {
	if o.merge != "" {
		return merge(o.merge, o.into)
	}
	if o.render != "" {
		r, err := readResults(o.render)
		if err != nil {
			return err
		}
		var notes []byte
		if o.notes != "" {
			if notes, err = os.ReadFile(o.notes); err != nil {
				return err
			}
		}
		return writePage(o.out, string(notes), r)
	}
	if o.only.String() == "list" {
		for _, m := range o.measures() {
			fmt.Printf("%-22s %s\n", m.name, m.title)
		}
		return nil
	}
	if runtime.GOOS != "linux" {
		return errors.New("the benchmark reads /proc and pins processes: it needs Linux")
	}
	if err := pin(o.loadCore); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	err = b.all(ctx)
	b.close()
	if len(b.results.Samples) == 0 && err == nil && ctx.Err() == nil {
		err = &usageError{fmt.Errorf("-proxies %s: no measure that is left has such a proxy", o.proxies)}
	}
	if len(b.results.Samples) == 0 {
		return err
	}
	path := filepath.Join(o.results, b.results.Started.Format("2006-01-02T150405Z")+".json")
	if err := b.results.write(path); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "samples:", path)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: no page is written, see -render")
	case err != nil:
		return err
	}
	if o.policies {
		b.results.policies(os.Stdout, o)
		return nil
	}
	return writePage(o.out, "", b.results)
}

// measures and settings are those of the run.
func (o *options) measures() []*measure {
	if o.policies {
		return policyMeasures()
	}
	return measures()
}

func (o *options) settings() []*setting {
	if o.policies {
		return policySettings(o.before)
	}
	return settings()
}

// pinned is set in the environment of the process that runs on its core.
const pinned = "TIDEGATE_BENCH_CORE"

// pin begins this program again on one core: the load generator is part of it, and Go
// counts the cores when it starts.
func pin(core int) error {
	if os.Getenv(pinned) == strconv.Itoa(core) {
		// The generator's workers wait in system calls; handshakes go on beside them.
		runtime.GOMAXPROCS(2)
		return nil
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return errors.New("taskset (package util-linux) is missing")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{"taskset", "-c", strconv.Itoa(core), self}, os.Args[1:]...)
	return syscall.Exec(taskset, args, append(os.Environ(), pinned+"="+strconv.Itoa(core)))
}
