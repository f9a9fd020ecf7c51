#!/bin/sh
# Prints the path of a Consul agent for the tests: the one on PATH if it is 1.15 or
# newer, else one that is built from the version that go.mod pins (some five minutes,
# once) and kept in the cache. TIDEGATE_CONSUL overrides both.
#
#   TIDEGATE_CONSUL=$(test/consulagent/build.sh) go test ./...
set -eu

version=1.22.7
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/consul-$version"

# new_enough BINARY: its first line is "Consul v1.15.0" or newer.
new_enough() {
	"$1" version 2>/dev/null | awk 'NR == 1 {
		split(substr($2, 2), v, /[.+-]/)
		exit !(v[1] > 1 || v[1] == 1 && v[2] >= 15)
	}'
}

if [ -n "${TIDEGATE_CONSUL:-}" ]; then
	echo "$TIDEGATE_CONSUL"
	exit
fi
if found=$(command -v consul) && new_enough "$found"; then
	echo "$found"
	exit
fi

mkdir -p "$cache"
# One build at a time. Where there is no flock two may run; the last one wins, whole.
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
if [ ! -x "$cache/consul" ]; then
	echo "building consul $version, this takes some minutes" >&2
	trap 'rm -f "$cache/consul.$$"' EXIT
	GOTOOLCHAIN=local go build -C "$here" -o "$cache/consul.$$" github.com/hashicorp/consul >&2
	mv "$cache/consul.$$" "$cache/consul"
fi
echo "$cache/consul"
