package main

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestMerge: measures are replaced whole, others stay, and where each is from is known.
func TestMerge(t *testing.T) {
	dir := t.TempDir()
	write := func(name, command string, samples ...*sample) string {
		path := filepath.Join(dir, name)
		if err := (&results{heading: heading{Command: command}, Samples: samples}).write(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	into := write("all", "first", &sample{Measure: "a", Setting: "x"}, &sample{Measure: "b", Setting: "x"}, &sample{Measure: "b", Setting: "y"})
	second := write("second", "second", &sample{Measure: "b", Setting: "z"}, &sample{Measure: "c", Setting: "z"})
	third := write("third", "third", &sample{Measure: "b", Setting: "last"})
	for _, from := range []string{second, third, third} {
		if err := run(&options{merge: from, into: into}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readResults(into)
	if err != nil {
		t.Fatal(err)
	}
	var samples, origins []string
	for _, s := range got.Samples {
		samples = append(samples, s.Measure+" "+s.Setting)
	}
	for _, l := range got.Later {
		origins = append(origins, append([]string{l.Command}, l.Measures...)...)
	}
	if want := []string{"a x", "c z", "b last"}; !slices.Equal(samples, want) {
		t.Errorf("samples %q, want %q", samples, want)
	}
	if want := []string{"second", "c", "third", "b"}; got.Command != "first" || !slices.Equal(origins, want) {
		t.Errorf("%q, and of %q, want %q", got.Command, origins, want)
	}
	for name, from := range map[string]string{"merged ones": into, "none": write("none", "none"), "no file": filepath.Join(dir, "missing")} {
		if err := run(&options{merge: from, into: third}); err == nil {
			t.Errorf("%s were merged", name)
		}
	}
}
