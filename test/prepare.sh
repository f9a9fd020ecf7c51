#!/usr/bin/env bash
# Installs or builds what the tests need besides Go: a Consul agent, h2spec, the npm packages of
# test/npm, openssl, HAProxy and Chromium. In CI a thing that cannot be had is an error; elsewhere the
# tests that need it are skipped and say so.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=0

missing() {
  echo "test/prepare.sh: $1" >&2
  if [ -n "${CI:-}" ]; then failed=1; fi
}

test/consulagent/build.sh >/dev/null || missing "no Consul agent: its build failed"
test/h2spec/build.sh >/dev/null || missing "no h2spec: its build failed"

if command -v npm >/dev/null; then
  if ! cmp -s test/npm/package-lock.json test/npm/node_modules/.installed; then
    if npm ci --prefix test/npm --no-audit --no-fund --loglevel=error >&2; then
      cp test/npm/package-lock.json test/npm/node_modules/.installed
    else
      missing "the npm packages of test/npm could not be installed"
    fi
  fi
else
  missing "no npm: Node.js is needed for clients from npm"
fi

if ! command -v openssl >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends openssl; } >&2 || missing "openssl could not be installed"
  else
    missing "no openssl: install the package openssl"
  fi
fi

if ! command -v haproxy >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    sh bench/install.sh haproxy >&2 || missing "HAProxy could not be installed"
  else
    missing "no HAProxy: install the package haproxy"
  fi
fi

if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends chromium; } >&2 || missing "Chromium could not be installed"
  else
    missing "no Chromium: install the package chromium"
  fi
fi
exit "$failed"
