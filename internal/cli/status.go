package cli

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

func statusCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a running edge at a glance",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st admin.Status
			return c.call(cmd, http.MethodGet, admin.StatusPath, &st, func(w io.Writer) error {
				return writeStatus(w, &st)
			})
		},
	}
	c.addFlags(cmd)
	return cmd
}

func writeStatus(w io.Writer, st *admin.Status) error {
	t := newTable(w)
	t.row("version", st.Version)
	t.row("up", fmt.Sprintf("%s, since %s", duration(st.UptimeSeconds), moment(st.Started)))
	t.row("state", stateOf(st))
	t.row("generation", number(st.Generation))
	t.row("sessions", fmt.Sprintf("%d live, %d in handshake, %d since the start",
		st.Sessions, st.HandshakesInFlight, st.SessionsTotal))
	t.row("requests", fmt.Sprintf("%d in flight", st.RequestsInFlight))
	t.row("config", configOf(&st.Config))
	if err := t.flush(); err != nil {
		return err
	}
	if len(st.Listeners) > 0 {
		fmt.Fprintln(w)
		t = newTable(w, "LISTENER", "ADDRESS", "TLS", "SESSIONS")
		for _, l := range st.Listeners {
			t.row(l.Name, l.Address, yesNo(l.TLS), number(l.Sessions))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if len(st.Routes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t = newTable(w, "ROUTE", "POOL", "SESSIONS")
	for _, r := range st.Routes {
		t.row(r.Name, r.Pool, number(r.Sessions))
	}
	return t.flush()
}

func stateOf(st *admin.Status) string {
	switch {
	case st.ShuttingDown:
		return "shutting down"
	case st.Ready:
		return "ready"
	}
	return "not ready"
}

func configOf(c *admin.Config) string {
	path := c.Path
	if path == "" && !c.LastReload.IsZero() {
		path = "built in"
	}
	switch {
	case c.LastReload.IsZero():
		return path
	case c.LastReloadOK:
		return fmt.Sprintf("%s, loaded %s", path, moment(c.LastReload))
	}
	return fmt.Sprintf("%s, rejected %s: %s", path, moment(c.LastReload), firstProblem(c.LastReloadError))
}

// firstProblem shortens a list of problems, one a line, to what fits into a table.
// `tidegate reload` and the API name all of them.
func firstProblem(list string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(list), "\n")
	if rest == "" {
		return first
	}
	return fmt.Sprintf("%s (and %d more)", strings.TrimSpace(first), strings.Count(rest, "\n")+1)
}
