package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/cli"
	"github.com/tidegate/tidegate/internal/config"
	"github.com/tidegate/tidegate/internal/demo"
	"github.com/tidegate/tidegate/tls"
)

func demoCommand() *cobra.Command {
	var backends int
	var listen, adminAddr string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a self-contained edge with demo app servers and a page to open",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if backends < 1 || backends > 100 {
				return &cli.UsageError{Err: errors.New("--backends is from 1 to 100")}
			}
			return runDemo(cmd.Context(), cmd.OutOrStdout(), backends, listen, adminAddr)
		},
	}
	cmd.Flags().IntVar(&backends, "backends", 3, "number of demo app servers")
	cmd.Flags().StringVar(&listen, "listen", "localhost:8443", "address of the edge")
	cmd.Flags().StringVar(&adminAddr, "admin", "127.0.0.1:9901", "address of the admin API")
	return cmd
}

// runDemo runs until a signal ends it.
func runDemo(ctx context.Context, out io.Writer, backends int, listen, adminAddr string) error {
	dir, err := os.MkdirTemp("", "tidegate-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(ctx)
	var apps sync.WaitGroup
	defer apps.Wait()
	defer stop()
	hub := &demo.Hub{}
	var addrs []string
	for i := range backends {
		app, err := demo.NewApp(fmt.Sprintf("app-%d", i+1), hub)
		if err != nil {
			return err
		}
		apps.Go(func() { app.Run(ctx) })
		addrs = append(addrs, fmt.Sprintf("{id: %s, address: %q}", app.Name, app.Addr()))
	}
	file, err := demoConfig(dir, listen, adminAddr, addrs)
	if err != nil {
		return err
	}
	log, level, err := newLogger(file.Log)
	if err != nil {
		return err
	}
	e := newEdge("", log, level)
	e.srv.Plain = demo.Page()
	e.runLoops(0)
	_, port, _ := net.SplitHostPort(listen)
	e.running = func() {
		fmt.Fprintf(out, "\n  Open  https://localhost:%s  (a development certificate: the browser asks once)\n"+
			"  Then  tidegate pools, tidegate sessions, tidegate status  --admin %s\n\n", port, adminAddr)
	}
	return runEdge(context.Background(), e, file)
}

// demoConfig writes a certificate into dir and returns the configuration of the demo,
// which goes through the same checks as anybody's.
func demoConfig(dir, listen, adminAddr string, backends []string) (*config.File, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, &cli.UsageError{Err: fmt.Errorf("--listen %s: want host:port", listen)}
	}
	certPEM, keyPEM, err := tls.NewDevelopmentCertificate(strings.Trim(host, "[]"))
	if err != nil {
		return nil, err
	}
	cert, key := filepath.Join(dir, "demo.crt"), filepath.Join(dir, "demo.key")
	if err := errors.Join(os.WriteFile(cert, certPEM, 0o600), os.WriteFile(key, keyPEM, 0o600)); err != nil {
		return nil, err
	}
	yaml := fmt.Sprintf(`
log: {format: console}
admin: {address: %q}
shutdown: {drain_window: 0s, deadline: 5s}
listeners:
  - {name: demo, address: %q, tls: {certificates: [{cert: %q, key: %q}]}}
routes:
  - {name: demo, match: {path: /ws}, pool: apps}
pools:
  - {name: apps, backends: [%s], balance: {policy: round_robin}}
`, adminAddr, listen, cert, key, strings.Join(backends, ", "))
	file, err := config.Parse("demo", []byte(yaml), nil)
	if err != nil {
		return nil, &cli.UsageError{Err: fmt.Errorf("these flags make no configuration: %w", err)}
	}
	return file, nil
}
