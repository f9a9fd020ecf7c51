package config

import (
	"reflect"
	"slices"
)

// laterKeys are keys that users may have read about and that this version does not
// have, by the type that will get them. A key moves from here into its struct in the
// commit that makes it work.
var laterKeys = map[reflect.Type][]string{
	reflect.TypeFor[ListenerTLS](): {"acme"},
	reflect.TypeFor[Limits](): {
		"handshakes_per_second", "handshake_burst", "handshakes_per_second_per_ip",
	},
	reflect.TypeFor[Route](): {"auth"},
}

// laterReasons say more about values that are refused for now.
var laterReasons = map[string]string{
	"h2": "WebSocket over HTTP/2 does not work yet",
}

// notYet is the message for a key or value that a later version will have.
func notYet(what, text string) string {
	msg := what + " " + quote(text) + " is not available in this version"
	if why := laterReasons[text]; why != "" {
		msg += ": " + why
	}
	return msg
}

// isLaterKey reports whether a later version has key in t.
func isLaterKey(t reflect.Type, key string) bool {
	return slices.Contains(laterKeys[t], key)
}
