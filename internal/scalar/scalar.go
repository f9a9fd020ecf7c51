// Package scalar reads the durations and rates that an operator writes, in the
// configuration, the admin API and on the command line, by the same rules. It imports
// nothing; its errors are whole messages.
package scalar

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration accepts what time.ParseDuration does and is not negative. Only 0 goes without a
// unit.
func Duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d >= 0 {
		return d, nil
	}
	if err == nil {
		return 0, fmt.Errorf("%s must not be negative", Quote(text))
	}
	if isDigits(text) {
		return 0, fmt.Errorf("%s has no unit (did you mean %q?)", Quote(text), shortest(text)+"s")
	}
	return 0, fmt.Errorf("%s is not a duration such as 500ms, 30s or 1m30s", Quote(text))
}

// MaxRate is the highest rate that is accepted, in events a second.
const MaxRate = 1e6

// rateUnits are how many seconds a rate may be given for.
var rateUnits = map[string]float64{"s": 1, "m": 60, "h": 3600}

// Rate accepts a number of events for a second, minute or hour, such as 10/s or 20/m, and
// returns how many that are a second. Only 0 goes without a unit.
func Rate(text string) (perSecond float64, err error) {
	number, unit, hasUnit := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(number, 64)
	seconds, known := rateUnits[unit]
	switch {
	case err != nil || math.IsNaN(n) || strings.ContainsAny(number, "xXpP_iI"):
		return 0, fmt.Errorf("%s is not a rate such as 10/s or 20/m", Quote(text))
	case n < 0:
		return 0, fmt.Errorf("%s must not be negative", Quote(text))
	case !hasUnit && n == 0:
		return 0, nil
	case !hasUnit:
		return 0, fmt.Errorf("%s has no unit (did you mean %q?)", Quote(text), number+"/s")
	case !known:
		return 0, fmt.Errorf("%s has an unknown unit (s, m and h are known)", Quote(text))
	}
	perSecond = n / seconds
	return perSecond, CheckRate(perSecond, text)
}

// CheckRate returns an error for a rate that is out of range; text is how it was written. A
// rate that is not 0 has at least one event in a thousand hours.
func CheckRate(perSecond float64, text string) error {
	if perSecond != 0 && !(perSecond >= 1/3600e3 && perSecond <= MaxRate) {
		return fmt.Errorf("%s is out of range (0, or 0.001/h to 1000000/s)", Quote(text))
	}
	return nil
}

// Quote quotes a text for a message, and cuts it if it is long.
func Quote(s string) string {
	const longest = 64
	runes := []rune(s)
	if len(runes) > longest {
		s = string(runes[:longest]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// shortest is a number as a suggestion shows it.
func shortest(digits string) string {
	if n := strings.TrimLeft(digits, "0"); n != "" {
		return n
	}
	return "0"
}
