package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

func closeCommand() *cobra.Command {
	var c connection
	var code int
	var reason string
	cmd := &cobra.Command{
		Use:   "close SESSION",
		Short: "Close one session of a running edge",
		Long:  "Close one session of a running edge. Its client gets the code and the reason, its backend 1001.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return &UsageError{errors.New("SESSION is empty")}
			}
			if err := admin.CheckClose(code, reason); err != nil {
				return &UsageError{err}
			}
			var done admin.Closing
			return c.call(cmd, http.MethodDelete, admin.ClosePath(args[0], code, reason), &done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "closing session %s with %d\n", oneLine(done.ID), done.Code)
				return err
			})
		},
	}
	cmd.Flags().IntVar(&code, "code", admin.DefaultCloseCode, "close `code` for the client")
	cmd.Flags().StringVar(&reason, "reason", "", "close reason for the client: a `text` of 123 bytes at most")
	c.addFlags(cmd)
	return cmd
}

func reloadCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make a running edge apply its configuration file",
		Long: "Make a running edge apply its configuration file. A file with mistakes changes nothing:\n" +
			"the mistakes are listed, one per line, and the exit code is 1.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done admin.Reloaded
			return c.call(cmd, http.MethodPost, admin.ReloadPath, &done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "reloaded: generation %d\n", done.Generation)
				return err
			})
		},
	}
	c.addFlags(cmd)
	return cmd
}
