package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/internal/scalar"
)

// Diagnostic is one thing that is wrong with a file.
type Diagnostic struct {
	// File is the name that was given to [Load] or [Parse].
	File string
	// Line and Col count from 1; Col counts characters.
	Line, Col int
	// Path is where the value stands in the structure, such as
	// pools[0].balance.policy; empty for the file as a whole.
	Path string
	// Message is one line in lower case.
	Message string
}

// String returns FILE:LINE:COL: path: message.
func (d Diagnostic) String() string {
	where := fmt.Sprintf("%s:%d:%d: ", d.File, d.Line, d.Col)
	if d.Path != "" {
		where += d.Path + ": "
	}
	return where + d.Message
}

// Diagnostics is everything that is wrong with a file, in the order of positions. As
// the error of [Load] and [Parse] it has at least one element; find it with
// [errors.AsType] or [errors.As].
type Diagnostics []Diagnostic

// Error returns all diagnostics, one a line.
func (d Diagnostics) Error() string {
	lines := make([]string, len(d))
	for i, one := range d {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// sorted orders by position and drops what was said twice.
func (d Diagnostics) sorted() Diagnostics {
	slices.SortFunc(d, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Col, b.Col),
			strings.Compare(a.Path, b.Path),
			strings.Compare(a.Message, b.Message),
		)
	})
	return slices.Compact(d)
}

// mark is a position in the YAML, counted from 1.
type mark struct{ line, col int }

func (m mark) String() string { return fmt.Sprintf("%d:%d", m.line, m.col) }

// report collects the diagnostics of one file and knows where its values stand.
type report struct {
	file  string
	diags Diagnostics
	// marks holds the position of each value that the YAML has, by path. The root is
	// at the empty path.
	marks map[string]mark
	// broken holds the paths of values that could not be decoded, and of everything
	// around them.
	broken map[string]bool
}

func newReport(file string) *report {
	return &report{
		file:   file,
		marks:  map[string]mark{"": {1, 1}},
		broken: map[string]bool{},
	}
}

// addAt records a diagnostic about path at a position of its own.
func (r *report) addAt(at mark, path, format string, args ...any) {
	r.diags = append(r.diags, Diagnostic{
		File: r.file,
		Line: max(at.line, 1), Col: max(at.col, 1),
		Path:    path,
		Message: fmt.Sprintf(format, args...),
	})
}

// add records a diagnostic at the position of path, or of what is around it if the
// YAML does not have it.
func (r *report) add(path, format string, args ...any) {
	r.addAt(r.at(path), path, format, args...)
}

// fail is add for a value that has no usable content: checks skip it from now on.
func (r *report) fail(path, format string, args ...any) {
	r.failAt(r.at(path), path, format, args...)
}

func (r *report) failAt(at mark, path, format string, args ...any) {
	r.addAt(at, path, format, args...)
	for {
		r.broken[path] = true
		if path == "" {
			return
		}
		path = parent(path)
	}
}

// given reports whether the YAML has path.
func (r *report) given(path string) bool {
	_, ok := r.marks[path]
	return ok
}

// usable reports whether nothing at or below path failed to decode.
func (r *report) usable(path string) bool { return !r.broken[path] }

// at returns the position of path or of the nearest thing around it.
func (r *report) at(path string) mark {
	for {
		if m, ok := r.marks[path]; ok {
			return m
		}
		path = parent(path)
	}
}

// parent cuts the last key or index off a path. Keys that hold a dot or a bracket
// (which only header names can) are cut too far up or down; as such a path falls back
// to the same ancestors, no more than a position is less exact.
func parent(path string) string {
	if i := strings.LastIndexAny(path, ".["); i > 0 {
		return path[:i]
	}
	return ""
}

// join appends a key to a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// element appends an index to a path.
func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// quote shows text from the file in a message: on one line and not too long.
func quote(s string) string { return scalar.Quote(s) }

// compare orders positions as they follow in the file.
func (m mark) compare(other mark) int {
	return cmp.Or(cmp.Compare(m.line, other.line), cmp.Compare(m.col, other.col))
}
