package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/scalar"
)

// scalarRule says how text becomes a value and which values are accepted. It is read
// from the struct tags of a field (see file.go).
type scalarRule struct {
	noun  string // the key, as messages call the value
	as    string
	oneof []string
	limit string
}

// expects names what a scalar of type t should be.
func (rule scalarRule) expects(t reflect.Type) string {
	switch {
	case rule.as == "bytes":
		return "a size such as 64KiB"
	case rule.as == "percent":
		return "a share such as 50%"
	case rule.as == "rate":
		return "a rate such as 10/s"
	case rule.as == "memory":
		return "a share such as 25% or a size such as 1GiB"
	case rule.as == "tls_version":
		return "a TLS version"
	case rule.as == "file":
		return "a file name"
	case t == typeDuration:
		return "a duration such as 30s"
	case t == typePrefix:
		return "an IP address or network"
	case t == typeAddr:
		return "an IP address"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Float64:
		return "a number"
	case len(rule.oneof) > 0:
		return oneOf(rule.oneof)
	}
	return "text"
}

// isBare reports whether values of t are written without quotes.
func (rule scalarRule) isBare(t reflect.Type) bool {
	if rule.as != "" {
		return false
	}
	return t.Kind() == reflect.Bool || t.Kind() == reflect.Int || t.Kind() == reflect.Float64
}

// convert turns text into a value of type t that the rule accepts.
func (rule scalarRule) convert(text string, t reflect.Type) (any, error) {
	switch {
	case rule.as == "bytes":
		return inRange(text, rule.limit, parseBytes)
	case rule.as == "percent":
		return parsePercent(text)
	case rule.as == "rate":
		return scalar.Rate(text)
	case rule.as == "memory":
		return parseMemorySize(text)
	case rule.as == "tls_version":
		return parseTLSVersion(text)
	case rule.as == "hash_source":
		return parseHashSource(rule.noun, text)
	case t == typeDuration:
		return inRange[time.Duration](text, rule.limit, scalar.Duration)
	case t == typePrefix:
		return parsePrefix(text)
	case t == typeAddr:
		return parseAddr(text)
	case t.Kind() == reflect.Bool:
		return parseBool(text)
	case t.Kind() == reflect.Int:
		return inRange(text, rule.limit, parseCount)
	case t.Kind() == reflect.Float64:
		return parseNumber(text)
	}
	return rule.convertText(text)
}

// convertText accepts any text, or one of the choices.
func (rule scalarRule) convertText(text string) (string, error) {
	if len(rule.oneof) == 0 || slices.Contains(rule.oneof, text) {
		return text, nil
	}
	return "", fmt.Errorf("unknown %s %s%s", rule.noun, quote(text),
		didYouMean(text, rule.oneof, rule.oneof))
}

// inRange converts text and compares the result with a limit such as "0|1s..10m",
// which is written like the values themselves.
func inRange[T cmp.Ordered](text, limit string, convert func(string) (T, error)) (T, error) {
	got, err := convert(text)
	if err != nil || limit == "" {
		return got, err
	}
	bounds, orZero := strings.CutPrefix(limit, "0|")
	low, high, _ := strings.Cut(bounds, "..")
	lowest, err1 := convert(low)
	highest, err2 := convert(high)
	if err := errors.Join(err1, err2); err != nil {
		panic(fmt.Sprintf("config: range %q of a struct tag: %v", limit, err))
	}
	var zero T
	if orZero && got == zero || lowest <= got && got <= highest {
		return got, nil
	}
	if orZero {
		low = "0, or " + low
	}
	return got, fmt.Errorf("%s is out of range (%s to %s)", quote(text), low, high)
}
