package cli

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/admin"
)

func poolsCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "pools",
		Short: "List the pools of a running edge and their backends",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list admin.PoolList
			return c.call(cmd, http.MethodGet, admin.PoolsPath, &list, func(w io.Writer) error {
				return writePools(w, list.Pools)
			})
		},
	}
	c.addFlags(cmd)
	return cmd
}

func writePools(w io.Writer, pools []admin.Pool) error {
	t := newTable(w, "POOL", "POLICY", "BACKEND", "ADDRESS", "WEIGHT", "STATE", "SESSIONS", "IN FLIGHT", "PICKS", "FAILURES", "REASON")
	for _, p := range pools {
		for _, b := range p.Backends {
			t.row(p.Name, p.Policy, b.ID, b.Address, number(b.Weight), b.State,
				number(b.Sessions), number(b.InFlight), number(b.Picks), failures(b.Failures), b.Reason)
		}
		if len(p.Backends) == 0 {
			t.row(p.Name, p.Policy, "", "", "", "", "", "", "", "", "")
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	writeLeaving(w, pools)
	for _, p := range pools {
		if p.Panic {
			fmt.Fprintf(w, "\npool %s is in panic: too few backends are healthy, all of them are used\n", oneLine(p.Name))
		}
		if p.Stale {
			fmt.Fprintf(w, "\npool %s is stale: the set is not known to be current (discovery gets no answer, or doubts it)\n", oneLine(p.Name))
		}
	}
	return nil
}

// writeLeaving has a line for each backend that is drained, and each pool that is rebalanced.
func writeLeaving(w io.Writer, pools []admin.Pool) {
	between := "\n"
	for _, p := range pools {
		for i := range p.Backends {
			if b := &p.Backends[i]; b.Draining != nil {
				fmt.Fprintln(w, between+oneLine(standing(p.Name, b)))
				between = ""
			}
		}
		if p.Rebalancing != nil {
			fmt.Fprintln(w, between+oneLine(rebalancing(p.Name, p.Rebalancing)))
			between = ""
		}
	}
}

// failures lists counts by kind in a stable order.
func failures(by map[string]uint64) string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		if n := by[kind]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", kind, n))
		}
	}
	return strings.Join(list, ", ")
}
