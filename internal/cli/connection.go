package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

const (
	defaultAdmin = "127.0.0.1:9901"
	adminEnv     = "TIDEGATE_ADMIN"
)

// Commands returns the commands that talk to a running edge, for a root to add. Each
// has --admin, --token-file and --json: the other commands of tidegate have no use for
// them and refuse them.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		statusCommand(), poolsCommand(), sessionsCommand(), closeCommand(), drainCommand(), undrainCommand(), rebalanceCommand(), reloadCommand(),
	}
}

// connection is how a command reaches the edge, as its flags say.
type connection struct {
	address   string
	tokenFile string
	json      bool
}

func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.address, "admin", defaultAdmin,
		"`address` of the edge's admin API: host:port, http://host:port or unix:/path (env "+adminEnv+")")
	f.StringVar(&c.tokenFile, "token-file", "", "`file` with the token of the admin API")
	f.BoolVar(&c.json, "json", false, "print the API's JSON instead of text")
}

// client connects nothing yet. The caller closes it.
func (c *connection) client(cmd *cobra.Command) (*admin.Client, error) {
	if env := os.Getenv(adminEnv); env != "" && !cmd.Flags().Changed("admin") {
		c.address = env
	}
	var token string
	if c.tokenFile != "" {
		var err error
		if token, err = admin.ReadToken(c.tokenFile); err != nil {
			return nil, fmt.Errorf("reading the token: %w", err)
		}
	}
	client, err := admin.NewClient(c.address, token)
	if err != nil {
		return nil, &UsageError{err}
	}
	return client, nil
}

// call asks once and prints the answer: its JSON, or what text makes of into.
func (c *connection) call(cmd *cobra.Command, method, target string, into any, text func(io.Writer) error) error {
	return c.send(cmd, method, target, nil, into, text)
}

// send is call with a body, unless that is nil.
func (c *connection) send(cmd *cobra.Command, method, target string, body, into any, text func(io.Writer) error) error {
	client, err := c.client(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.ask(cmd, client, method, target, body, into); err != nil || c.json {
		return err
	}
	return text(cmd.OutOrStdout())
}

// ask asks once and prints the answer if it is to be JSON, that of a refusal included.
func (c *connection) ask(cmd *cobra.Command, client *admin.Client, method, target string, body, into any) error {
	raw, err := client.Send(cmd.Context(), method, target, body, into)
	if refused, ok := errors.AsType[*admin.APIError](err); ok {
		raw = refused.Body
	}
	if c.json && raw != nil {
		if _, err := cmd.OutOrStdout().Write(raw); err != nil {
			return err
		}
	}
	return c.explain(err)
}

// explain turns an error of the client into what helps whoever typed the command.
func (c *connection) explain(err error) error {
	if gone, ok := errors.AsType[*admin.UnreachableError](err); ok {
		const hint = "is it running? --admin or " + adminEnv + " selects another"
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("no edge answers at %s (%s)", gone.Address, hint)
		}
		return fmt.Errorf("%w (%s)", gone, hint)
	}
	refused, ok := errors.AsType[*admin.APIError](err)
	if !ok {
		return err
	}
	if refused.Status == http.StatusUnauthorized {
		if c.tokenFile == "" {
			return fmt.Errorf("the edge at %s wants a token: name its file with --token-file", c.address)
		}
		return fmt.Errorf("the edge at %s refuses the token in %s", c.address, c.tokenFile)
	}
	if len(refused.Diagnostics) == 0 || c.json {
		return err
	}
	detailed := &DetailedError{Err: err}
	for _, d := range refused.Diagnostics {
		detailed.Details = append(detailed.Details, d.String())
	}
	return detailed
}
