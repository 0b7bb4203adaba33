#!/usr/bin/env bash
# Makes docs/img/trace-html.png: the page of a trace in headless Chromium, of a
# file that `slipway trace -o html` wrote or, without one, of the tests' own trace.
#   hack/trace-screenshot.sh [PAGE.html [HOP [light|dark [OUT.png]]]]
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
go=$("$top/hack/go-path.sh")
page=${1:+$(realpath "$1")}
out=$(realpath -m "${4:-$top/docs/img/trace-html.png}")
cd "$top"
LAB_REQUIRE=chromium "$go" test ./lab/traceview -count=1 -run '^TestScreenshot$' \
	-page "$page" -hop "${2:-9}" -theme "${3:-light}" -screenshot "$out"
