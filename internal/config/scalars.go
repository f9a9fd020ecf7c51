package config

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// The functions of this file turn the text of one scalar into a value. Their errors
// are whole messages.

// parseBool accepts true and false. The other spellings of YAML 1.1 (yes, on, …) are
// plain text in YAML 1.2 and are refused.
func parseBool(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", quote(text))
}

// parseCount accepts a decimal number that is not negative.
func parseCount(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is out of range (0 to %d)", quote(text), math.MaxInt32)
	case err != nil:
		return 0, fmt.Errorf("%s is not a whole number", quote(text))
	case n < 0:
		return 0, fmt.Errorf("%s must not be negative", quote(text))
	}
	return int(n), nil
}

// parseNumber accepts a decimal number that is not negative.
func parseNumber(text string) (float64, error) {
	if strings.ContainsAny(text, "xXpP_iInN") { // hexadecimal, 1_000, infinity, NaN
		return 0, fmt.Errorf("%s is not a number", quote(text))
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s is out of range", quote(text))
	case err != nil:
		return 0, fmt.Errorf("%s is not a number", quote(text))
	case f < 0:
		return 0, fmt.Errorf("%s must not be negative", quote(text))
	}
	return math.Abs(f), nil // no negative zero
}

// sizeUnits are tried in this order: a unit stands before those that it ends with.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// parseBytes accepts a whole number of bytes or of a unit.
func parseBytes(text string) (int64, error) {
	digits, factor := text, int64(1)
	for _, unit := range sizeUnits {
		if number, ok := strings.CutSuffix(text, unit.name); ok {
			digits, factor = number, unit.bytes
			break
		}
	}
	if negative, ok := strings.CutPrefix(digits, "-"); ok && isDigits(negative) {
		return 0, fmt.Errorf("%s must not be negative", quote(text))
	}
	if !isDigits(digits) {
		return 0, notASize(text)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("%s is out of range", quote(text))
	}
	return n * factor, nil
}

func notASize(text string) error {
	digits := strings.TrimRight(text, "kKmMgGtTiIbB ")
	letters := strings.ToUpper(strings.TrimSpace(text[len(digits):]))
	if isDigits(digits) && letters != "" && strings.Contains("KMGT", letters[:1]) {
		return fmt.Errorf("%s has an unknown unit (did you mean %q?)", quote(text), shortest(digits)+letters[:1]+"iB")
	}
	return fmt.Errorf("%s is not a size such as 512, 64KiB or 16MiB", quote(text))
}

// parsePercent accepts 0% to 100% and a plain 0; the result is from 0 to 1.
func parsePercent(text string) (float64, error) {
	number, ok := strings.CutSuffix(text, "%")
	if !ok && text != "0" {
		if isDigits(text) {
			return 0, fmt.Errorf("%s has no unit (did you mean %q?)", quote(text), shortest(text)+"%")
		}
		return 0, fmt.Errorf("%s is not a share such as 50%%", quote(text))
	}
	f, err := parseNumber(number)
	if err != nil {
		return 0, fmt.Errorf("%s is not a share such as 50%%", quote(text))
	}
	if f > 100 {
		return 0, fmt.Errorf("%s is more than 100%%", text)
	}
	return f / 100, nil
}

// parseMemorySize accepts a size, or a share of the memory that there is.
func parseMemorySize(text string) (MemorySize, error) {
	if strings.HasSuffix(text, "%") {
		share, err := parsePercent(text)
		return MemorySize{Share: share}, err
	}
	bytes, err := parseBytes(text)
	if err != nil && !strings.Contains(err.Error(), "did you mean") {
		err = fmt.Errorf("%s is neither a share such as 25%% nor a size such as 1GiB", quote(text))
	}
	return MemorySize{Bytes: bytes}, err
}

func parseTLSVersion(text string) (uint16, error) {
	switch text {
	case "1.2":
		return cryptotls.VersionTLS12, nil
	case "1.3":
		return cryptotls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unknown TLS version %s (one of 1.2, 1.3)", quote(text))
}

// parsePrefix accepts a network in CIDR notation or one address.
func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%s is neither an IP address nor a network such as 10.0.0.0/8", quote(text))
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s is neither an IP address nor a network such as 10.0.0.0/8", quote(text))
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s must be written as an IPv4 network", quote(text))
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has bits set behind its prefix (did you mean %q?)", quote(text), prefix.Masked())
	}
	return prefix, nil
}

// parseAddr accepts one address without a zone.
func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s is not an IP address", quote(text))
	}
	return addr.Unmap(), nil
}

// hashSources say which sources have a name behind a colon.
var hashSources = map[string]bool{
	"ip": false, "path": false, "host": false,
	"header": true, "cookie": true, "query": true,
}

func parseHashSource(key, text string) (HashSource, error) {
	from, name, named := strings.Cut(text, ":")
	needsName, known := hashSources[from]
	switch {
	case from == "jwt":
		return HashSource{}, errors.New(notYet(key, text))
	case !known:
		return HashSource{}, fmt.Errorf("unknown %s %s%s", key, quote(text), didYouMean(from,
			[]string{"ip", "header", "cookie", "query", "path", "host"},
			[]string{"ip", "header:NAME", "cookie:NAME", "query:NAME", "path", "host"}))
	case needsName && name == "":
		return HashSource{}, fmt.Errorf("%s needs a name: %s:NAME", from, from)
	case !needsName && named:
		return HashSource{}, fmt.Errorf("%s takes no name", from)
	case (from == "header" || from == "cookie") && !isToken(name):
		return HashSource{}, fmt.Errorf("%s is not a valid %s name", quote(name), from)
	case from == "header" && http.CanonicalHeaderKey(name) == "Host":
		return HashSource{}, fmt.Errorf("the Host header is %s: host", key)
	case from == "header" && ofConnection(name):
		return HashSource{}, fmt.Errorf("%s belongs to the connection and is not the same for all requests of a client", http.CanonicalHeaderKey(name))
	case from == "header":
		name = http.CanonicalHeaderKey(name)
	}
	return HashSource{From: from, Name: name}, nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// shortest is a number from the file as a suggestion shows it.
func shortest(digits string) string {
	if n := strings.TrimLeft(digits, "0"); n != "" {
		return n
	}
	return "0"
}

// plainBytes is n in the largest binary unit that shows it exactly.
func plainBytes(n int64) string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		for _, u := range sizeUnits {
			if u.name == unit && n >= u.bytes && n%u.bytes == 0 {
				return strconv.FormatInt(n/u.bytes, 10) + unit
			}
		}
	}
	return strconv.FormatInt(n, 10)
}
