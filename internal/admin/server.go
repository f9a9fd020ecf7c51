package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Bounds on a connection. A request has no body that matters and an answer is small,
// so these only end what hangs.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second // a reload included
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 16 << 10
	shutdownGrace     = 3 * time.Second // for requests in progress when Run ends
)

// Options are what a server is made of.
type Options struct {
	// Address is host:port or unix:/path; port 0 takes a free one.
	Address string
	// TokenFile holds the bearer token; empty: none is needed.
	TokenFile string
	// Edge is what the API shows and drives.
	Edge Edge
	// Metrics answers /metrics; nil: there is none.
	Metrics http.Handler
	// Log takes what happened; nil: nothing is logged.
	Log *zap.Logger
}

// Server serves the API. It is used once: New, Listen, Run.
type Server struct {
	opts     Options
	log      *zap.Logger
	token    *tokenFile // nil without one
	listener net.Listener
	http     http.Server
}

// New returns a server that is not listening yet.
func New(opts Options) *Server {
	s := &Server{opts: opts, log: opts.Log}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if opts.TokenFile != "" {
		s.token = &tokenFile{path: opts.TokenFile}
	}
	return s
}

// Listen checks the token file and binds the address, so that what can go wrong does
// so before Run. A unix socket that nobody answers is replaced.
func (s *Server) Listen() error {
	if s.token != nil {
		if _, err := s.token.read(); err != nil {
			return fmt.Errorf("reading the admin token: %w", err)
		}
	}
	l, err := listen(s.opts.Address)
	if err != nil {
		return fmt.Errorf("listening for the admin API on %s: %w", s.opts.Address, err)
	}
	s.serveOn(l)
	if s.token == nil && !local(l.Addr()) {
		s.log.Warn("the admin API can be reached from other machines and needs no token; set admin.token_file",
			zap.String("address", s.Addr()))
	}
	return nil
}

// serveOn sets up what Run serves.
func (s *Server) serveOn(l net.Listener) {
	s.listener = l
	errorLog, err := zap.NewStdLogAt(s.log, zap.WarnLevel)
	if err != nil {
		panic(err) // only for a level that does not exist
	}
	s.http = http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog,
	}
}

// Addr is where the server listens, in the form that NewClient takes; empty before
// Listen.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	if a := s.listener.Addr(); a.Network() != "unix" {
		return a.String()
	}
	return unixPrefix + s.listener.Addr().String()
}

// Run serves until ctx is done, gives requests in progress a moment to finish and
// returns nil; an error is one of the socket. It listens first if Listen was not
// called. The socket is closed when it returns.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }() // ended by Shutdown below
	select {
	case err := <-served:
		return fmt.Errorf("serving the admin API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		s.http.Close() // whatever is left has had its time
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the admin API: %w", err)
	}
	return nil
}

// Close releases the socket of a server that listens and will not Run.
func (s *Server) Close() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}
