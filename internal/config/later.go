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

// notYet is the message for a key or value that a later version will have.
func notYet(what, text string) string {
	return what + " " + quote(text) + " is not available in this version"
}

// isLaterKey reports whether a later version has key in t.
func isLaterKey(t reflect.Type, key string) bool {
	return slices.Contains(laterKeys[t], key)
}
