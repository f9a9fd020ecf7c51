#!/usr/bin/env bash
# The long runs, one after another, each for the given time (default 10m): the endurance
# tests of the whole binary, then every fuzz target.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
each=${1:-10m}
for test in TestReloads TestConsul TestDay TestConformance TestSlowConsumers TestFickleConsumers TestRollingDeploy TestScaleOut TestChaos TestEventSource; do
  echo "=== $test for $each"
  TIDEGATE_SOAK=$each go test -count=1 -v -timeout 0 -run "^$test\$" ./test
done
for package in $(go list ./...); do
  for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
    echo "=== $package $target for $each"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" -fuzzminimizetime 10x "$package"
  done
done
