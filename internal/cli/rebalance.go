package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

func rebalanceCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "rebalance POOL",
		Short: "Let sessions leave the backends of a pool that have more than their share, now",
		Long: "Let sessions leave the backends of a pool that have more than their share: to other backends where\n" +
			"the pool has migrate, else their clients are told to come again. It goes by the pool's rebalance\n" +
			"block, or the defaults of one, but for the interval. The command does not wait.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return &UsageError{errors.New("POOL is empty")}
			}
			var r admin.Rebalancing
			return c.call(cmd, http.MethodPost, admin.RebalancePath(args[0]), &r, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, oneLine(rebalancing(args[0], &r)))
				return err
			})
		},
	}
	c.addFlags(cmd)
	return cmd
}

// rebalancing says in a line how the rebalancing of a pool stands.
func rebalancing(pool string, r *admin.Rebalancing) string {
	if r.Remaining == 0 {
		return fmt.Sprintf("%s: no session is to leave its backend", pool)
	}
	line := fmt.Sprintf("%s is rebalanced: %s to go", pool, count(r.Remaining, "session"))
	if r.Waiting {
		return line + ", waiting for a backend that is new or unhealthy"
	}
	return line + ", " + pace(r.PerSecond)
}
