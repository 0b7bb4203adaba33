#!/usr/bin/env bash
# Makes docs/img/trace-html.png: the page of a trace in headless Chromium. With
# a file from `slipway trace -o json`, of that trace; with a number, at that hop.
#   hack/trace-screenshot.sh [TRACE.json [HOP [light|dark [OUT.png]]]]
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
go=$("$top/hack/go-path.sh")
trace=${1:+$(realpath "$1")}
out=$(realpath -m "${4:-$top/docs/img/trace-html.png}")
cd "$top"
LAB_REQUIRE=chromium "$go" test ./lab/traceview -count=1 -run '^TestScreenshot$' \
	-trace "$trace" -hop "${2:-9}" -theme "${3:-light}" -screenshot "$out"
