#!/usr/bin/env bash
# Installs what `slipway bench peers` runs besides what it builds: bird and
# Mininet, with Linux bridges as its switches. Nothing else needs Mininet.
set -euo pipefail
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

# command:package
missing=""
for pair in bird:bird2 mnexec:mininet brctl:bridge-utils nft:nftables; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "deps-peers: install these yourself (this is not a Debian or Ubuntu machine):$missing" >&2
	exit 3
fi
echo "deps-peers: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# Nothing that a package starts by itself is wanted.
$sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
