package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

// pageSize is how many sessions are asked for at a time.
const pageSize = 500

func sessionsCommand() *cobra.Command {
	var c connection
	var q admin.SessionQuery
	var ip string
	var limit int
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the live sessions of a running edge",
		Long: "List the live sessions of a running edge. CLIENT is its address and port, or only the address\n" +
			"where a trusted proxy names it. UP is what the client sent, DOWN what it was sent.\n" +
			"With --json every page of the API's answer is one line.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ip != "" {
				addr, err := netip.ParseAddr(ip)
				if err != nil {
					return &UsageError{fmt.Errorf("--ip: %q is not an IP address", ip)}
				}
				q.IP = addr
			}
			if limit < 0 {
				return &UsageError{errors.New("--limit must not be negative")}
			}
			return c.sessions(cmd, q, limit)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Pool, "pool", "", "only those of this `pool`")
	f.StringVar(&q.Backend, "backend", "", "only those of the backend with this `id`")
	f.StringVar(&q.Route, "route", "", "only those of this `route`")
	f.StringVar(&ip, "ip", "", "only those of the client with this IP `address`")
	f.IntVar(&limit, "limit", 0, "list this `number` at most; 0: all")
	c.addFlags(cmd)
	return cmd
}

// sessions lists page after page, limit sessions at most unless it is 0.
func (c *connection) sessions(cmd *cobra.Command, q admin.SessionQuery, limit int) error {
	client, err := c.client(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	t := newTable(cmd.OutOrStdout(), "SESSION", "CLIENT", "ROUTE", "POOL", "BACKEND", "STATE", "AGE",
		"MSGS UP", "MSGS DOWN", "BYTES UP", "BYTES DOWN")
	for listed := 0; ; {
		q.Limit = pageSize
		if limit > 0 {
			q.Limit = min(pageSize, limit-listed)
		}
		var page admin.SessionPage
		if err := c.ask(cmd, client, http.MethodGet, admin.SessionsPath(q), nil, &page); err != nil {
			return err
		}
		for i := range page.Sessions {
			t.session(&page.Sessions[i])
		}
		listed += len(page.Sessions)
		if page.Next == "" || limit > 0 && listed >= limit {
			break
		}
		if page.Next == q.Cursor {
			return errors.New("the edge answers with the same page of sessions again and again")
		}
		q.Cursor = page.Next
	}
	if c.json {
		return nil
	}
	return t.flush()
}

// client is who has opened a session: the connection's other end, unless a trusted proxy
// names another.
func client(s *admin.Session) string {
	if end, err := netip.ParseAddrPort(s.Client); s.ClientIP == "" || err == nil && end.Addr().String() == s.ClientIP {
		return s.Client
	}
	return s.ClientIP
}

func (t table) session(s *admin.Session) {
	t.row(s.ID, client(s), s.Route, s.Pool, s.Backend, s.State, duration(s.DurationSeconds),
		number(s.Upstream.Messages), number(s.Downstream.Messages), size(s.Upstream.Bytes), size(s.Downstream.Bytes))
}
