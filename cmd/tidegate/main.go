// Command tidegate is a WebSocket-aware load balancer and wss termination proxy.
//
// This package is the wiring and knows every other one: main.go the commands, edge.go a
// running edge and its configuration, settings.go what the YAML means to package proxy,
// views.go and gauges.go what the admin API and the metrics show of it.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/cli"
)

func main() {
	root := &cobra.Command{
		Use:   "tidegate",
		Short: "An edge for realtime applications: terminates wss, balances and forwards WebSocket sessions",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetContext(context.Background())
	root.AddCommand(runCommand(), checkCommand(), demoCommand(), benchCommand(), versionCommand())
	root.AddCommand(cli.Commands()...)
	os.Exit(cli.Run(root, os.Args[1:], os.Stdout, os.Stderr))
}

// version is set by the build (-ldflags "-X main.version=..."); otherwise the module's.
var version string

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, _ := debug.ReadBuildInfo()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "tidegate %s %s\n", buildVersion(), info.GoVersion)
			return err
		},
	}
}
