// Package extendedconnect switches on extended CONNECT (RFC 8441) in Go's HTTP/2, which is
// how a WebSocket is opened over it. Import it for its effect.
//
// Go reads the switch from GODEBUG when its HTTP/2 packages initialise, and accepts it from
// nowhere else: not from a //go:debug line. Packages initialise in the order of their paths
// as far as their imports let them. So this one, which imports nothing but os, and whose path
// sorts before golang.org/x/net/http2 and net/http, comes first; it must stay so.
//
// An operator's own http2xconnect in GODEBUG is left as it is.
package extendedconnect

import "os"

// name is that of the switch in GODEBUG.
const name = "http2xconnect="

func init() { os.Setenv("GODEBUG", with(os.Getenv("GODEBUG"))) }

// with returns the settings of GODEBUG with the switch on, unless they name it. It uses no
// package but os.
func with(settings string) string {
	for i := range settings {
		first := i == 0 || settings[i-1] == ','
		if first && len(settings)-i >= len(name) && settings[i:i+len(name)] == name {
			return settings
		}
	}
	if settings != "" {
		settings += ","
	}
	return settings + name + "1"
}
