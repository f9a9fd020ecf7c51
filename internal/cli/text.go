package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// printable is s without what a terminal does not show: control characters, escapes
// and marks that turn the direction of text. Space of any kind becomes a blank; bytes
// that are not UTF-8 become U+FFFD.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, s)
}

// table writes rows in columns. Its cells may be anybody's text.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

// row adds a line; an empty cell shows as a dash, so that columns can be counted.
func (t table) row(cells ...string) {
	shown := make([]string, len(cells))
	for i, cell := range cells {
		if shown[i] = strings.TrimSpace(printable(cell)); shown[i] == "" {
			shown[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(shown, "\t")) // kept in memory: Flush has the error
}

// flush writes the table out.
func (t table) flush() error { return t.w.Flush() }

// number is n in decimal.
func number[T int | int64 | uint64](n T) string { return fmt.Sprint(n) }

// duration shows seconds with two units at most: 850ms, 12s, 3m20s, 2h03m, 3d04h.
func duration(seconds float64) string {
	switch s := int64(seconds); {
	case seconds <= 0:
		return "0s"
	case seconds < 1:
		return fmt.Sprintf("%dms", int64(seconds*1000))
	case seconds > 1e9: // decades; no conversion to integers below
		return "forever"
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*60*60:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}

// size shows bytes in binary units with three digits at most: 512B, 1.5KiB, 20MiB.
func size(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + "B"
	}
	v, unit := float64(n)/1024, 0
	for v >= 999.5 && unit < len("KMGTPE")-1 {
		v /= 1024
		unit++
	}
	digits := 0
	if v < 9.95 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + "KMGTPE"[unit:unit+1] + "iB"
}

// moment shows a time to the second.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// yesNo shows a truth.
func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
