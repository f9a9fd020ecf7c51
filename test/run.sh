#!/usr/bin/env bash
# Runs go test with the given arguments, shows a line for each package and the whole of
# what failed, and lists what was skipped. In CI a skipped test is a failure.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
test/prepare.sh || exit 1
mkdir -p .cache
log=.cache/test.log
# The whole-binary tests take some minutes on two processors with the race detector. One
# package at a time: those hold sessions to clocks, and get both processors for it.
go test -v -p 1 -timeout 20m "$@" >"$log" 2>&1
status=$?
grep -E '^(ok|FAIL|panic:|[?] )[[:space:]]|no test files' "$log" | grep -v 'no test files'
if [ "$status" -ne 0 ]; then
  echo "--- what failed (all of it is in $log)"
  grep -nE -A60 '^[[:space:]]*--- FAIL|^panic:|WARNING: DATA RACE|^# |build failed|found unexpected goroutines' "$log" | head -400
fi
if grep -qE '^[[:space:]]*--- SKIP' "$log"; then
  echo "--- skipped"
  grep -E -A1 '^[[:space:]]*--- SKIP' "$log"
  if [ -n "${CI:-}" ]; then
    echo "test/run.sh: nothing may be skipped in CI" >&2
    status=1
  fi
fi
exit "$status"
