#!/bin/sh
# Prints the path of the Caddy that the benchmark compares with: TIDEGATE_CADDY if it is
# set, else one that is built here from the version that go.mod pins (some minutes, once)
# with the same Go as Tidegate, and kept in the cache.
#
#   bin/bench -caddy "$(bench/caddy/build.sh)"
set -eu

if [ -n "${TIDEGATE_CADDY:-}" ]; then
	echo "$TIDEGATE_CADDY"
	exit
fi

export GOTOOLCHAIN=local
package=github.com/caddyserver/caddy/v2
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
version=$(go list -C "$here" -m -f '{{.Version}}' "$package")
# Another Go makes another Caddy.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/caddy-$version-$(go env GOVERSION)"

mkdir -p "$cache"
# One build at a time. Where there is no flock two may run; the last one wins, whole.
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
if [ ! -x "$cache/caddy" ]; then
	echo "building caddy $version, this takes some minutes" >&2
	trap 'rm -f "$cache/caddy.$$"' EXIT
	go build -C "$here" -trimpath -o "$cache/caddy.$$" "$package/cmd/caddy" >&2
	mv "$cache/caddy.$$" "$cache/caddy"
fi
echo "$cache/caddy"
