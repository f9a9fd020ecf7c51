package main

import (
	"context"
	"errors"
	"math"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/cli"
	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/internal/heap"
	"github.com/tidegate/tidegate/internal/metrics"
)

func runCommand() *cobra.Command {
	var path string
	var loops int
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the edge (SIGHUP reloads, SIGTERM drains and exits, a second SIGTERM exits now)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if loops < 0 || loops > 1024 {
				return &cli.UsageError{Err: errors.New("--loops is from 1 to 1024, or 0 for one a CPU")}
			}
			file, err := loadConfig(path)
			if err != nil {
				return err
			}
			log, level, err := newLogger(file.Log)
			if err != nil {
				return err
			}
			defer log.Sync()
			e := newEdge(path, log, level)
			e.runLoops(loops)
			return runEdge(cmd.Context(), e, file)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().IntVar(&loops, "loops", 0, "number of event loops; 0 is one a CPU")
	return cmd
}

// runLoops sets the number of event loops; 0 is one for each CPU that the process may use.
// A loop with something to do keeps its processor of Go's, see package loop; handshakes
// get as many of their own.
func (e *edge) runLoops(n int) {
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	e.srv.Loops = n
	runtime.GOMAXPROCS(2 * n)
}

// newLogger logs to stderr, where a supervisor expects it.
func newLogger(c config.Log) (*zap.Logger, zap.AtomicLevel, error) {
	level, err := zap.ParseAtomicLevel(c.Level)
	if err != nil {
		return nil, level, err
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	enc.EncodeDuration = zapcore.SecondsDurationEncoder
	enc.TimeKey = "time"
	encoder := zapcore.NewJSONEncoder(enc)
	if c.Format == "console" {
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		enc.EncodeDuration = zapcore.StringDurationEncoder
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), level)), level, nil
}

// runEdge runs an edge with its first configuration until a signal ends it.
func runEdge(ctx context.Context, e *edge, file *config.File) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	logOpenFiles(e.log)

	api := admin.New(admin.Options{Address: file.Admin.Address, TokenFile: file.Admin.TokenFile, Edge: view{e}, Log: e.log,
		Metrics: metrics.Handler(gauges{e}, func(err error) { e.log.Error("a metric cannot be shown", zap.Error(err)) })})
	if err := api.Listen(); err != nil {
		return err
	}
	if _, err := e.start(file); err != nil {
		api.Close()
		return err
	}
	background, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := api.Run(background); err != nil {
			e.log.Error("the admin API has ended", zap.Error(err))
		}
	})
	wg.Go(func() { heap.Keep(background, e.activity, e.logReturned) })
	if e.path != "" {
		wg.Go(func() { e.follow(background) })
	}
	if e.running != nil {
		e.running()
	}
	e.log.Info("running", zap.String("version", buildVersion()), zap.String("config", e.path), zap.String("admin", api.Addr()))
	e.serveSignals(ctx, signals)
	stop()
	wg.Wait()
	e.log.Info("stopped")
	return nil
}

// activity is what the edge does, as far as it concerns the heap.
func (e *edge) activity() heap.Activity {
	t := e.srv.Totals()
	return heap.Activity{Opened: t.Opened, Live: t.Live, Handshaking: t.Handshaking + t.Requests}
}

func (e *edge) logReturned(before heap.State, took time.Duration) {
	e.log.Debug("memory returned", zap.Uint64("objects", before.Objects), zap.Uint64("live", before.Live),
		zap.Uint64("free", before.Free), zap.Duration("took", took))
}

// start applies the first configuration.
func (e *edge) start(file *config.File) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gen, err := e.apply(file)
	e.tried = file.Digest
	e.last.LastReload, e.last.LastReloadOK = time.Now(), err == nil
	if err == nil {
		e.reloads[reloadOK]++
	}
	return gen, err
}

// serveSignals returns when the edge has shut down.
func (e *edge) serveSignals(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			e.shutdown(context.Background(), nil)
			return
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				e.log.Info("signal", zap.Stringer("signal", sig))
				e.shutdown(context.Background(), signals)
				return
			}
			if e.path != "" {
				e.Reload(ctx) // it has logged what went wrong
			}
		}
	}
}

// shutdown drains the edge; another signal than SIGHUP ends what is left at once.
func (e *edge) shutdown(ctx context.Context, signals <-chan os.Signal) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-signals:
				if sig != syscall.SIGHUP {
					e.log.Warn("second signal: ending now", zap.Stringer("signal", sig))
					cancel()
					return
				}
			}
		}
	}()
	pace := e.file.Load().Shutdown
	deadline := pace.Deadline
	if deadline == 0 {
		deadline = math.MaxInt64
	}
	e.srv.Shutdown(ctx, pace.DrainWindow, deadline)
}

// logOpenFiles raises the limit of open files as far as the process may and logs it:
// each session needs two.
func logOpenFiles(log *zap.Logger) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		log.Warn("the limit of open files cannot be raised", zap.Error(err))
	}
	log.Info("open files", zap.Uint64("limit", limit.Cur), zap.Uint64("sessions_at_most", limit.Cur/2))
}
