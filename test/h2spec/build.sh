#!/bin/sh
# Prints the path of h2spec, the conformance tests of HTTP/2, which is built from the version
# that go.mod pins and kept in the cache. TIDEGATE_H2SPEC overrides it.
set -eu

version=2.2.1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/h2spec-$version"

if [ -n "${TIDEGATE_H2SPEC:-}" ]; then
	echo "$TIDEGATE_H2SPEC"
	exit
fi
mkdir -p "$cache"
if [ ! -x "$cache/h2spec" ]; then
	trap 'rm -f "$cache/h2spec.$$"' EXIT
	GOTOOLCHAIN=local go build -C "$here" -o "$cache/h2spec.$$" github.com/summerwind/h2spec/cmd/h2spec >&2
	mv "$cache/h2spec.$$" "$cache/h2spec"
fi
echo "$cache/h2spec"
