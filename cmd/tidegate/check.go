package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidegate/tidegate/internal/cli"
	"github.com/tidegate/tidegate/internal/config"
)

func checkCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration file and print every problem with its position",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := loadConfig(path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %d listeners, %d routes, %d pools\n", path,
				len(file.Listeners), len(file.Routes), len(file.Pools))
			return err
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "the YAML file (required)")
	cmd.MarkFlagRequired("config")
}

// loadConfig reads a file for a person: its problems come as a list.
func loadConfig(path string) (*config.File, error) {
	file, err := config.Load(path)
	if err == nil {
		_, err = settingsOf(file, nil)
	}
	diagnostics := diagnosticsOf(path, err)
	if len(diagnostics) == 0 {
		return file, err
	}
	detailed := &cli.DetailedError{Err: fmt.Errorf("%s is not valid: %s", path, problems(len(diagnostics)))}
	for _, d := range diagnostics {
		detailed.Details = append(detailed.Details, d.String())
	}
	return nil, detailed
}

func problems(n int) string {
	if n == 1 {
		return "1 problem"
	}
	return fmt.Sprintf("%d problems", n)
}
