#!/usr/bin/env bash
# Runs Kubernetes' own network conformance tests against full labs.
#
#   hack/conformance.sh [quick|all] [MODE,MODE…]
#
# quick is three specs in flannel-vxlan; all is every "[sig-network] … [Conformance]"
# in four modes. Reports (JUnit, the log) go to CONFORMANCE_REPORT, else bin/conformance.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
go=$(hack/go-path.sh)
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
report=${CONFORMANCE_REPORT:-$top/bin/conformance}
mkdir -p "$report"
as_root() { $sudo env PATH="$(dirname "$go"):$PATH" HOME="$HOME" SLIPWAY_GO="$go" "$@"; }
as_root bin/slipway components build
as_root bin/slipway components build conformance
as_root SLIPWAY_CONFORMANCE="${1:-all}" SLIPWAY_CONFORMANCE_MODES="${2:-}" SLIPWAY_CONFORMANCE_REPORT="$report" \
	LAB_REQUIRE=root,conformance "$go" test -count=1 -timeout 5h -v ./e2e/conformance
