package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
	"github.com/tidegate/tidegate/internal/scalar"
)

func drainCommand() *cobra.Command {
	var c connection
	var asked admin.DrainRequest
	cmd := &cobra.Command{
		Use:   "drain POOL/BACKEND",
		Short: "Drain a backend of a running edge: no new sessions, and those that it has leave at a pace",
		Long: "Drain a backend of a running edge: it takes no new sessions, and those that it has leave at a pace.\n" +
			"What no flag says is as in the configuration of the pool. Draining it again changes the pace.\n" +
			"It stays drained, also without sessions, until 'tidegate undrain'. The command does not wait.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pool, id, err := backendOf(args[0])
			if err == nil {
				err = checkPace(asked)
			}
			if err != nil {
				return &UsageError{err}
			}
			return c.act(cmd, admin.DrainPath(pool, id), asked, pool)
		},
	}
	f := cmd.Flags()
	f.StringVar(&asked.Rate, "rate", "", "let sessions leave at this `rate`, such as 10/s or 20/m; 0: by the window")
	f.StringVar(&asked.Window, "window", "", "spread those that there are over this `duration`, such as 30s")
	f.StringVar(&asked.Deadline, "deadline", "", "close all that are left so long after the start: a `duration`; 0: never")
	c.addFlags(cmd)
	return cmd
}

func undrainCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "undrain POOL/BACKEND",
		Short: "End the drain of a backend of a running edge: what is left of its sessions stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pool, id, err := backendOf(args[0])
			if err != nil {
				return &UsageError{err}
			}
			return c.act(cmd, admin.UndrainPath(pool, id), nil, pool)
		},
	}
	c.addFlags(cmd)
	return cmd
}

// act posts to a backend and prints what became of it.
func (c *connection) act(cmd *cobra.Command, target string, body any, pool string) error {
	var b admin.Backend
	return c.send(cmd, http.MethodPost, target, body, &b, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, oneLine(standing(pool, &b)))
		return err
	})
}

// backendOf takes POOL/BACKEND apart. A pool's name has no slash, a backend's id may.
func backendOf(arg string) (pool, id string, err error) {
	pool, id, ok := strings.Cut(arg, "/")
	if !ok || pool == "" || id == "" {
		return "", "", fmt.Errorf("%s is not POOL/BACKEND", scalar.Quote(arg))
	}
	return pool, id, nil
}

// checkPace finds what the edge would refuse before it is asked.
func checkPace(asked admin.DrainRequest) error {
	check := func(flag, text string, parse func(string) error) error {
		if text == "" {
			return nil
		}
		if err := parse(text); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		return nil
	}
	duration := func(text string) error { _, err := scalar.Duration(text); return err }
	return errors.Join(
		check("rate", asked.Rate, func(text string) error { _, err := scalar.Rate(text); return err }),
		check("window", asked.Window, duration),
		check("deadline", asked.Deadline, duration),
	)
}

// standing says in a line what a backend is and how its drain stands.
func standing(pool string, b *admin.Backend) string {
	name := pool + "/" + b.ID
	d := b.Draining
	if d == nil {
		return fmt.Sprintf("%s is %s with %s", name, b.State, count(b.Sessions, "session"))
	}
	line := fmt.Sprintf("%s is drained by %s: %s left", name, d.By, count(d.Remaining, "session"))
	if d.Remaining == 0 {
		return line
	}
	switch {
	case d.Waiting:
		line += ", waiting for another backend that takes sessions"
	case d.PerSecond == 0:
		line += ", all at once"
	default:
		line += ", " + pace(d.PerSecond)
	}
	if !d.Deadline.IsZero() {
		line += ", the rest at " + moment(d.Deadline)
	}
	return line
}

// pace is how often something happens that happens at all.
func pace(perSecond float64) string {
	if perSecond >= 1 {
		return fmt.Sprintf("%.3g a second", perSecond)
	}
	return "one in " + duration(1/perSecond)
}

// count is n with a noun that is made plural by an s.
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}
