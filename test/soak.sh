#!/usr/bin/env bash
# The long runs: every fuzz target for the given time (default 10m), one after another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
each=${1:-10m}
for package in $(go list ./...); do
  for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
    echo "=== $package $target for $each"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" "$package"
  done
done
