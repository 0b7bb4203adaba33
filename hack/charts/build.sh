#!/usr/bin/env bash
# Makes lab/bench/report/assets/echarts.js again, with its licences, from the
# pinned packages of package-lock.json. Needs node and npm; the build of the
# program does not, since the result is committed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
assets=$here/../../lab/bench/report/assets
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/package.json "$here"/package-lock.json "$here"/charts.js "$work"
cd "$work"
npm ci --ignore-scripts --no-audit --no-fund --silent
npx --no-install esbuild charts.js --bundle --minify --format=iife --global-name=echarts --legal-comments=none \
	--charset=utf8 --log-level=warning --outfile=out.js
{
	echo "/* Parts of Apache ECharts $(node -p 'require("echarts/package.json").version') and zrender" \
		"$(node -p 'require("zrender/package.json").version'); licences: echarts.LICENSE.txt. Made by hack/charts/build.sh. */"
	cat out.js
} >"$assets/echarts.js"
{
	echo "Apache ECharts"; echo; cat node_modules/echarts/NOTICE node_modules/echarts/LICENSE
	echo; echo "zrender"; echo; cat node_modules/zrender/LICENSE
	echo; echo "tslib"; echo; cat node_modules/tslib/LICENSE.txt
} >"$assets/echarts.LICENSE.txt"
