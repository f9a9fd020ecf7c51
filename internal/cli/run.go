package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes of every command.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// UsageError says that a command was called wrongly. A command returns it for what
// cobra cannot see, such as the value of an argument.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

func (e *UsageError) Unwrap() error { return e.Err }

// DetailedError is a failure with a list: Details follow the line of Err, one per line.
type DetailedError struct {
	Err     error
	Details []string
}

func (e *DetailedError) Error() string { return e.Err.Error() }

func (e *DetailedError) Unwrap() error { return e.Err }

// Run executes root with args, the program's name left out, and returns the exit code.
// An error goes to stderr as "tidegate: what happened", whatever its form was. A root
// is run once; its context, if it has one, reaches the commands.
//
// An error that a command returned is a failure unless it is a *UsageError. An error
// from before a command began (an unknown command, a bad flag, too many arguments) is
// wrong usage.
func Run(root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	began := false
	onBegin(root, func() { began = true })
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)

	cmd, err := root.ExecuteC()
	if err == nil {
		return ExitDone
	}
	line := oneLine(err.Error())
	if errors.Is(err, context.Canceled) {
		line = "interrupted"
	}
	usage, wrong := errors.AsType[*UsageError](err)
	if wrong || !began {
		if wrong {
			line = oneLine(usage.Error())
		}
		fmt.Fprintf(stderr, "%s: %s (see '%s --help')\n", root.Name(), line, cmd.CommandPath())
		return ExitUsage
	}
	fmt.Fprintf(stderr, "%s: %s\n", root.Name(), line)
	if detailed, ok := errors.AsType[*DetailedError](err); ok {
		for _, d := range detailed.Details {
			fmt.Fprintln(stderr, oneLine(d))
		}
	}
	return ExitFailed
}

// onBegin calls began before the work of any command under cmd.
func onBegin(cmd *cobra.Command, began func()) {
	switch run, runE := cmd.Run, cmd.RunE; {
	case runE != nil: // cobra prefers it too
		cmd.RunE = func(cmd *cobra.Command, args []string) error { began(); return runE(cmd, args) }
	case run != nil:
		cmd.Run = func(cmd *cobra.Command, args []string) { began(); run(cmd, args) }
	}
	for _, sub := range cmd.Commands() {
		onBegin(sub, began)
	}
}

// oneLine is s without what could break the line or command a terminal.
func oneLine(s string) string { return strings.Join(strings.Fields(printable(s)), " ") }
