#!/usr/bin/env bash
# Format, vet, static analysis, a tidy go.mod, the shell scripts' syntax, and a build for
# a system without epoll.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
  printf 'not gofmt clean:\n%s\n' "$unformatted" >&2
  exit 1
fi
go vet ./...
go tool staticcheck ./...
go mod tidy -diff
for script in $(git ls-files '*.sh' .ci/run); do bash -n "$script"; done
GOOS=darwin go build ./...
GOOS=darwin go vet ./...
