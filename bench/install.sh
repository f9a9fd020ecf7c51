#!/bin/sh
# Installs HAProxy and nginx from the system's packages, without starting their services.
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends "$@" ||
  { apt-get update && apt-get install -y --no-install-recommends "$@"; }
