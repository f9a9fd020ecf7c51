package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidegate/tidegate/internal/load"
)

// loadTestingTable returns the cells of the table below a heading of load-testing.md whose
// rows begin with code, by the first cell.
func loadTestingTable(t *testing.T, heading string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/load-testing.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n#")
	rows := map[string][]string{}
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if rows[cells[0]] != nil {
			t.Errorf("%s stands there twice", cells[0])
		}
		rows[cells[0]] = cells[1:]
	}
	return rows
}

// TestBenchPage holds load-testing.md against the commands: flags with what they take and
// their defaults, modes, and the keys of the report.
func TestBenchPage(t *testing.T) {
	bench := benchCommand()
	serve, _, err := bench.Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	for heading, cmd := range map[string]*cobra.Command{"## Flags": bench, "## The backend": serve} {
		rows := loadTestingTable(t, heading)
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			name := "`--" + f.Name + "`"
			if f.Shorthand != "" {
				name = "`-" + f.Shorthand + "`, " + name
			}
			value, _ := pflag.UnquoteUsage(f)
			if value == "" {
				value = "–"
			}
			preset := "`" + f.DefValue + "`"
			switch {
			case f.Name == "workers":
				preset = "one a CPU"
			case f.DefValue == "" || f.DefValue == "[]" || f.DefValue == "false":
				preset = "–"
			}
			if row := rows[name]; len(row) != 3 || row[0] != value || row[1] != preset {
				t.Errorf("%s: flag %s takes %s, default %s; the page has %q", heading, name, value, preset, row)
			}
			delete(rows, name)
		})
		for name := range rows {
			t.Errorf("%s: there is no flag %s", heading, name)
		}
	}

	modes := loadTestingTable(t, "## Modes")
	for _, m := range load.Modes() {
		if modes["`"+string(m)+"`"] == nil {
			t.Errorf("mode %s is not on the page", m)
		}
		delete(modes, "`"+string(m)+"`")
	}
	if len(modes) > 0 {
		t.Errorf("there are no modes %v", modes)
	}

	b, err := json.Marshal(&load.Report{CPU: &load.CPU{}})
	if err != nil {
		t.Fatal(err)
	}
	keys := loadTestingTable(t, "### JSON")
	for key := range keys {
		var report any
		if err := json.Unmarshal(b, &report); err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(strings.Trim(key, "`"), ".") {
			object, _ := report.(map[string]any)
			value, ok := object[part]
			if !ok {
				t.Errorf("the report has no key %s", key)
			}
			report = value
		}
	}
	if len(keys) < 5 {
		t.Errorf("found %d keys only", len(keys))
	}
}
