package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// splitAddress splits host:port. The host may be empty, the port may be 0.
func splitAddress(text string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		if _, ipErr := netip.ParseAddr(text); ipErr == nil || isHostName(text) {
			return "", 0, fmt.Errorf("%s has no port: write %s", quote(text), net.JoinHostPort(text, "PORT"))
		}
		return "", 0, fmt.Errorf("%s is not an address: write HOST:PORT", quote(text))
	}
	if !isDigits(portText) {
		return "", 0, fmt.Errorf("%s has no number as port", quote(text))
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port > 65535 {
		return "", 0, fmt.Errorf("port %s is out of range (0 to 65535)", portText)
	}
	if _, ipErr := netip.ParseAddr(host); host != "" && ipErr != nil && !isHostName(host) {
		return "", 0, fmt.Errorf("%s is neither a host name nor an IP address", quote(host))
	}
	return host, port, nil
}

// checkDialAddress is splitAddress for something to connect to.
func checkDialAddress(text string) error {
	host, port, err := splitAddress(text)
	switch {
	case err != nil:
		return err
	case host == "":
		return fmt.Errorf("%s has no host", quote(text))
	case port == 0:
		return fmt.Errorf("%s: port 0 cannot be connected to", quote(text))
	}
	return nil
}

// isHostName reports whether s is a name of RFC 1123 §2.1 in ASCII, with underscores,
// which container networks use. A last label of digits alone is a mistyped IPv4
// address.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20 // lower case, as far as letters go
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' && label[i] != '_' {
				return false
			}
		}
	}
	return !isDigits(labels[len(labels)-1])
}

// bound is an address as far as two of them can be in each other's way.
type bound struct {
	host     string
	port     int
	wildcard bool
}

// newBound returns the bound of a valid host:port.
func newBound(address string) bound {
	host, port, _ := splitAddress(address)
	b := bound{host: strings.ToLower(host), port: port, wildcard: host == ""}
	if ip, err := netip.ParseAddr(host); err == nil {
		b.host = ip.Unmap().String()
		b.wildcard = ip.IsUnspecified()
	}
	return b
}

// clashes reports whether one of the two cannot be listened on while the other one
// is. An unspecified address of either family stands for all addresses of both
// (package net, Listen). Host names are not resolved.
func (b bound) clashes(other bound) bool {
	if b.port != other.port || b.port == 0 {
		return false
	}
	return b.wildcard || other.wildcard || b.host == other.host
}

func isUnixAddress(address string) bool { return strings.HasPrefix(address, "unix:") }

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// parseIPHost returns an IP address, with brackets or without, in its canonical form.
func parseIPHost(s string) (string, bool) {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return "", false
	}
	return ip.String(), true
}

// checkHostPort checks a host with a port or without, as it stands in a Host header.
func checkHostPort(text string) error {
	if isHostName(text) {
		return nil
	}
	if ip, ok := parseIPHost(text); ok && (strings.HasPrefix(text, "[") || !strings.Contains(ip, ":")) {
		return nil
	}
	if err := checkDialAddress(text); err != nil {
		return fmt.Errorf("%s is not a host", quote(text))
	}
	return nil
}
