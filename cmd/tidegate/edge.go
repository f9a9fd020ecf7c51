package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/proxy"
)

// edge is a running edge: the proxy and the configuration file that it follows.
type edge struct {
	path    string // of the configuration; empty: there is none to follow
	log     *zap.Logger
	level   zap.AtomicLevel
	srv     *proxy.Server
	started time.Time
	running func()                      // called once connections are accepted, if set
	file    atomic.Pointer[config.File] // in force

	mu      sync.Mutex // one reload at a time; guards what follows
	tried   [sha256.Size]byte
	reloads map[string]uint64 // by result
	last    admin.Config
	first   *config.File // what the process started with
}

// Results of a reload, for the metric.
const (
	reloadOK      = "ok"
	reloadInvalid = "invalid" // the file has problems
	reloadFailed  = "failed"  // it cannot be read, or not be applied
)

func newEdge(path string, log *zap.Logger, level zap.AtomicLevel) *edge {
	return &edge{path: path, log: log, level: level, srv: proxy.NewServer(log), started: time.Now(),
		reloads: map[string]uint64{reloadOK: 0, reloadInvalid: 0, reloadFailed: 0}, last: admin.Config{Path: path}}
}

// apply brings the edge to a configuration, or leaves it as it is.
func (e *edge) apply(file *config.File) (uint64, error) {
	settings, err := settingsOf(file, e.log)
	if err != nil {
		return 0, err
	}
	next, err := e.srv.Prepare(settings)
	if err != nil {
		return 0, err
	}
	gen := next.Commit()
	e.file.Store(file)
	e.settle(file)
	return gen.Number, nil
}

// settle applies what is not the proxy's, and says what waits for the next start: the
// process has one log and one admin API, as its first configuration made them.
func (e *edge) settle(file *config.File) {
	if level, err := zap.ParseAtomicLevel(file.Log.Level); err == nil {
		e.level.SetLevel(level.Level())
	}
	if e.first == nil {
		e.first = file
	}
	if e.first.Log.Format != file.Log.Format {
		e.log.Warn("log.format changes at the next start")
	}
	if e.first.Admin != file.Admin {
		e.log.Warn("admin changes at the next start")
	}
}

// Reload reads, checks and applies the file.
func (e *edge) Reload(context.Context) (uint64, error) {
	if e.path == "" {
		return 0, admin.ErrNoFile
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reload()
}

func (e *edge) reload() (uint64, error) {
	// Read once: what was tried is what was read, whatever is written meanwhile.
	e.tried = [sha256.Size]byte{}
	var file *config.File
	var gen uint64
	data, err := config.Read(e.path)
	if err == nil {
		e.tried = sha256.Sum256(data)
		file, err = config.Parse(e.path, data, os.LookupEnv)
	}
	if err == nil {
		gen, err = e.apply(file)
	}
	e.last.LastReload, e.last.LastReloadOK, e.last.LastReloadError = time.Now(), err == nil, ""
	if err == nil {
		e.reloads[reloadOK]++
		return gen, nil
	}
	e.last.LastReloadError = err.Error()
	result := reloadFailed
	if errors.As(err, new(config.Diagnostics)) {
		result = reloadInvalid
	}
	e.reloads[result]++
	e.log.Error("configuration rejected; the running one stays in force", zap.String("file", e.path), zap.Error(err))
	if errors.Is(err, proxy.ErrStopping) {
		return 0, admin.ErrShuttingDown
	}
	return 0, &admin.Rejected{Diagnostics: diagnosticsOf(e.path, err)}
}

// contentPoll is how often the file is looked at. A change is taken when it has stood
// for one round, so that a file that is being written is not.
const contentPoll = time.Second

// follow reloads when the content of the file has changed, until ctx is done. A content
// that was rejected is not tried again.
func (e *edge) follow(ctx context.Context) {
	ticker := time.NewTicker(contentPoll)
	defer ticker.Stop()
	var seen [sha256.Size]byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			seen = e.look(seen)
		}
	}
}

// look reloads if the file's content is what the look before has seen, and has not been
// tried. It returns what it saw. Reloads wait meanwhile: what it saw before one is not
// what is there after it.
func (e *edge) look(before [sha256.Size]byte) [sha256.Size]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, err := digest(e.path)
	if err != nil {
		return before // being replaced, or gone: what is in force stays
	}
	if now == before && now != e.tried {
		e.log.Info("the configuration file has changed", zap.String("file", e.path))
		e.reload() // it has logged what went wrong
	}
	return now
}

// digest is that of a regular file: a pipe holds its content once, and would keep whoever
// asks again.
func digest(path string) (d [sha256.Size]byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return d, err
	}
	if !info.Mode().IsRegular() {
		return d, fmt.Errorf("%s is no regular file", path)
	}
	b, err := config.Read(path)
	if err != nil {
		return d, err
	}
	return sha256.Sum256(b), nil
}

// diagnosticsOf turns whatever is wrong with a configuration into a list.
func diagnosticsOf(path string, err error) []admin.Diagnostic {
	if err == nil {
		return nil
	}
	var list config.Diagnostics
	if !errors.As(err, &list) {
		var out []admin.Diagnostic
		for _, e := range flatten(err) {
			out = append(out, admin.Diagnostic{File: path, Message: e.Error()})
		}
		return out
	}
	out := make([]admin.Diagnostic, len(list))
	for i, d := range list {
		out[i] = admin.Diagnostic{File: d.File, Line: d.Line, Column: d.Col, Path: d.Path, Message: d.Message}
	}
	return out
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}
