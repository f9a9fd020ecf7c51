package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestExitCodes(t *testing.T) {
	details := &DetailedError{errors.New("two things"), []string{"one", "t\x1b[2Jwo\nthree"}}
	for _, tt := range []struct {
		name   string
		err    error
		args   []string
		code   int
		stderr string
	}{
		{"done", nil, []string{"work"}, ExitDone, ""},
		{"failed", errors.New("it broke"), []string{"work"}, ExitFailed, "tidegate: it broke\n"},
		{"several lines", errors.New("it\n\tbroke\x1b[2J\n"), []string{"work"}, ExitFailed, "tidegate: it broke[2J\n"},
		{"details", fmt.Errorf("doing: %w", details), []string{"work"}, ExitFailed, "tidegate: doing: two things\none\nt[2Jwo three\n"},
		{"usage", &UsageError{errors.New("no")}, []string{"work"}, ExitUsage, "tidegate: no (see 'tidegate work --help')\n"},
		{"wrapped usage", fmt.Errorf("x: %w", &UsageError{errors.New("no")}), []string{"work"}, ExitUsage, "tidegate: no (see 'tidegate work --help')\n"},
		{"interrupted", fmt.Errorf("x: %w", context.Canceled), []string{"work"}, ExitFailed, "tidegate: interrupted\n"},
		{"nested", errors.New("deep"), []string{"group", "inner"}, ExitFailed, "tidegate: deep\n"},
		{"unknown flag", nil, []string{"work", "-x"}, ExitUsage, "tidegate: unknown shorthand flag: 'x' in -x (see 'tidegate work --help')\n"},
		{"argument too many", nil, []string{"work", "x"}, ExitUsage, "tidegate: unknown command \"x\" for \"tidegate work\" (see 'tidegate work --help')\n"},
		{"required flag", nil, []string{"needy"}, ExitUsage, "tidegate: required flag(s) \"config\" not set (see 'tidegate needy --help')\n"},
		{"unknown command", nil, []string{"xyz"}, ExitUsage, "tidegate: unknown command \"xyz\" for \"tidegate\" (see 'tidegate --help')\n"},
		{"Run without E", nil, []string{"plain"}, ExitDone, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fail := func(*cobra.Command, []string) error { return tt.err }
			group := &cobra.Command{Use: "group"}
			group.AddCommand(&cobra.Command{Use: "inner", RunE: fail})
			needy := &cobra.Command{Use: "needy", RunE: fail}
			needy.Flags().String("config", "", "")
			if err := needy.MarkFlagRequired("config"); err != nil {
				t.Fatal(err)
			}
			root := &cobra.Command{Use: "tidegate"}
			root.AddCommand(group, needy, &cobra.Command{Use: "work", Args: cobra.NoArgs, RunE: fail},
				&cobra.Command{Use: "plain", Run: func(*cobra.Command, []string) {}})
			var stdout, stderr bytes.Buffer
			code := Run(root, tt.args, &stdout, &stderr)
			if code != tt.code || stderr.String() != tt.stderr || stdout.Len() != 0 {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %d, %q", code, stdout.String(), stderr.String(), tt.code, tt.stderr)
			}
		})
	}
}

func TestHelpIsNoError(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help"}, {"help", "close"}, {"close", "--help"}, {}} {
		got := run(args...)
		if got.code != ExitDone || got.stderr != "" || !strings.Contains(got.stdout, "Usage:") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// A command sees the context of its root, which is how a signal reaches it.
func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	root := newRoot()
	root.SetContext(ctx)
	var stdout, stderr bytes.Buffer
	code := Run(root, []string{"status", "--admin", unused(t)}, &stdout, &stderr)
	if code != ExitFailed || stderr.String() != "tidegate: interrupted\n" {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}
